"""Devices of two sites on one channel (TR-26, SC-31): two authorities, each in the bundle of the other.

Both site CAs have one name, and so have devices of both sites: what tells them apart is never the name alone.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography import x509
from sqlalchemy import select

from sealcast.authority import other_sites, settlement
from sealcast.authority.crl_fetch import CrlFetcher
from sealcast.authority.ends import site_ends
from sealcast.authority.models import CertificateRow, ChannelRow, GuestRow
from sealcast.ca import KeySigner
from sealcast.cli.data import channel_site
from sealcast.device import DeviceIdentity, renew_async
from sealcast.device.agent import DeviceAgent
from sealcast.device.trust import sync_trust
from sealcast.endpoint import ChannelSite, Device, Publisher
from sealcast.endpoint.events import Event, StreamClosed
from sealcast.endpoint.transfer import ReceivedFile
from sealcast.errors import (
    CertificateError,
    NetworkError,
    NotAllowedError,
    PeerError,
    SealcastError,
    UnreachableError,
    UsageError,
)
from sealcast.est.client import EstClient
from sealcast.keys import LISTED_ROLES, MemberRole
from sealcast.pki.bundle import Anchor, BundleSite, Purpose
from sealcast.pki.crl import Revocation, crl_builder
from sealcast.pki.ends import warnings
from sealcast.pki.names import channel_id
from sealcast.pki.profiles import CertificateIssuer
from sealcast.sidechannel import KeyServerClient
from sealcast.sidechannel.client import PeerClient
from tests.authority.bundles import add_version, held
from tests.authority.conftest import DAY, Site, make_site, serving

ECG = "ward/ecg"
DEADLINE_SECONDS = 30.0


@dataclass
class Two:
    """The channel's site, and another one whose devices its policy lists."""

    ward: Site
    lab: Site

    @property
    def guest(self) -> str:
        """How the ward's policy writes the lab's `monitor-1`."""
        return f"{self.lab.authority.site.site_id.hex()}:monitor-1"

    async def import_crl(self) -> int:
        return await self.ward.authority.import_crl(self.lab.authority.crl.own)

    def at_ward(self) -> ChannelSite:
        return ChannelSite(site_id=self.ward.authority.site.site_id, keys_url=self.ward.listening.keys)

    async def device(self, site: Site, name: str) -> DeviceIdentity:
        """One that has the trust bundle of its own site."""
        identity = await site.enrol(name)
        return await sync_trust(identity.path, await site.client(identity))

    async def client(self, identity: DeviceIdentity) -> KeyServerClient:
        """Asks the ward's key server, whatever site the device is of."""
        at = self.at_ward()
        client = KeyServerClient(identity, url=at.keys_url, site_id=at.site_id, clock=self.ward.clock)
        return await self.ward.stack.enter_async_context(client)

    async def add_channel(self, *, publish: tuple[str, ...] = (), subscribe: tuple[str, ...] = ()) -> None:
        await self.ward.add_channel(ECG, publish=publish, subscribe=subscribe)


async def list_other(site: Site, other: Site) -> None:
    """List another owner's site in a site's trust bundle."""
    authority = other.authority.site
    bundle = held(site).bundle
    root = Anchor(certificate=other.roots[0], purpose=Purpose.SITE, since=0, sites=(authority.site_id,))
    entry = BundleSite(
        site_id=authority.site_id, name="Lab", delegated=False, authorities=(authority.issuer.certificate,)
    )
    await add_version(site, anchors=(*bundle.anchors, root), sites=(*bundle.sites, entry))


@pytest.fixture
async def two(site: Site, tmp_path: Path) -> AsyncIterator[Two]:
    async with serving(make_site(tmp_path / "lab"), tmp_path / "lab-devices") as lab:
        await list_other(site, lab)
        await list_other(lab, site)
        yield Two(site, lab)


async def until(holds: Callable[[], bool], what: str) -> float:
    """Wait for something; returns the seconds that it took."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < DEADLINE_SECONDS, f"not in time: {what}"
        await asyncio.sleep(0.01)
    return time.monotonic() - begun


async def refused(work: object) -> str:
    """Why something is refused."""
    with pytest.raises(SealcastError) as caught:
        await work  # type: ignore[misc]
    return getattr(caught.value, "reason", None) or type(caught.value).__name__


def crl_of(site: Site, number: int, *serials: int, now: int = 0, signer: KeySigner | None = None) -> bytes:
    """A CRL by a site's CA, or in its name by somebody else."""
    ca = site.authority.site.issuer._ca  # type: ignore[attr-defined]
    certificate = x509.load_der_x509_certificate(ca.certificate)
    as_issuer = CertificateIssuer.of(certificate, certificate.public_key())  # type: ignore[arg-type]
    revoked = [Revocation(serial=serial, time=site.clock()) for serial in serials]
    builder = crl_builder(issuer=as_issuer, number=number, revocations=revoked, now=now or site.clock())
    return (signer or ca.signer).sign_crl(builder)


async def test_a_channel_has_publishers_and_subscribers_of_two_sites(two: Two) -> None:
    await two.add_channel(
        publish=("monitor-1", two.guest), subscribe=("display-1", two.guest.replace("monitor", "display"))
    )
    await two.import_crl()
    at = two.at_ward()
    here = [await two.device(two.ward, name) for name in ("monitor-1", "display-1")]
    there = [await two.device(two.lab, name) for name in ("monitor-1", "display-1")]
    names = {"monitor-1", two.guest}
    async with AsyncExitStack() as stack, asyncio.timeout(DEADLINE_SECONDS):
        enter = stack.enter_async_context
        subscribers = [
            await enter(Device(here[1]).subscriber(ECG)),
            await enter(Device(there[1]).subscriber(ECG, site=at)),
        ]
        publishers = [
            await enter(Device(here[0]).publisher(ECG, linger=0.0)),
            await enter(removed_later(Device(there[0]).publisher(ECG, site=at, linger=0.0))),
        ]
        for publisher in publishers:
            assert set(await publisher.members()) == {"display-1", two.guest.replace("monitor", "display")}
            await publisher.send_many([b"%d" % number for number in range(100)])
        for subscriber in subscribers:
            got: dict[str, list[int]] = {name: [] for name in names}
            while sum(map(len, got.values())) < 200:
                message = await subscriber.recv()
                got[message.publisher].append(int(message.data))
                of_lab = message.site_id == two.lab.authority.site.site_id
                assert of_lab == (message.publisher == two.guest)
            assert all(numbers == list(range(100)) for numbers in got.values())
            assert {device for _, device, _, _ in subscriber.streams()} == names
        await repairs_cross_sites(two, here[1], there[1])
        # Removed by the policy, it loses its keys and its say.
        generation = publishers[1].epoch[1] if publishers[1].epoch else 0
        await two.ward.authority.set_members(ECG, ("monitor-1",), None)
        await until(lambda: (publishers[0].epoch or (0, 0, 0))[1] > generation, "a fresh generation")
        await until(lambda: len(subscribers[0].streams()) == 1, "its stream is refused")
        assert await refused(sending(publishers[1])) == "NotAllowedError"


@asynccontextmanager
async def removed_later(publisher: Publisher) -> AsyncIterator[Publisher]:
    """One that will not be let end its stream."""
    with suppress(NotAllowedError, CertificateError):
        async with publisher:
            yield publisher


async def sending(publisher: Publisher) -> None:
    while True:
        await publisher.send(b"x")
        await asyncio.sleep(0.01)


async def repairs_cross_sites(two: Two, here: DeviceIdentity, there: DeviceIdentity) -> None:
    """Each display mends from the monitor of the other site; a namesake is not taken for it (F6)."""
    crl = two.ward.authority.crl.der
    channel = channel_id(two.ward.authority.site.site_id, ECG)
    entries = {entry.device: entry for entry in await (await two.client(there)).streams(ECG)}
    assert entries.keys() == {"monitor-1", two.guest}
    sites = {"monitor-1": two.ward.authority.site.site_id, two.guest: two.lab.authority.site.site_id}
    for display, name in ((here, two.guest), (there, "monitor-1")):
        entry = entries[name]
        assert entry.endpoint is not None
        host, port = entry.endpoint
        for site_id in sites.values():
            async with PeerClient(
                display, host=host, port=port, device="monitor-1", site_id=site_id, crl=lambda: crl
            ) as peer:
                repair = peer.repair(channel, entry.stream, ((0, 0),))
                if site_id == sites[name]:
                    assert len((await repair).packets) == 1
                else:
                    assert await refused(repair) == "wrong-identity"


async def test_a_file_is_acknowledged_by_namesakes_of_two_sites_each_for_itself(
    two: Two, tmp_path: Path
) -> None:
    readers = ("display-1", two.guest.replace("monitor", "display"))
    await two.add_channel(publish=("monitor-1",), subscribe=readers)
    await two.import_crl()
    at, sent = two.at_ward(), tmp_path / "image.bin"
    sent.write_bytes(b"image" * 100_000)

    async def receive(site: Site, folder: Path, joined: asyncio.Event) -> ReceivedFile:
        device = Device(await two.device(site, "display-1"))
        async with (
            device.subscriber(ECG, site=at) as subscriber,
            aclosing(subscriber.receive_files(folder)) as whole,
        ):
            joined.set()
            return await anext(whole)

    monitor = await two.device(two.ward, "monitor-1")
    async with (
        asyncio.timeout(DEADLINE_SECONDS),
        asyncio.TaskGroup() as group,
        Device(monitor).publisher(ECG, linger=0.0) as publisher,
    ):
        tasks = []
        for folder, site in ((tmp_path / "here", two.ward), (tmp_path / "there", two.lab)):
            folder.mkdir()
            joined = asyncio.Event()
            tasks.append(group.create_task(receive(site, folder, joined)))
            await joined.wait()
        [file] = await publisher.send_files([sent], linger=DEADLINE_SECONDS)
    assert file.receivers == tuple(sorted(readers))
    assert [task.result().sha256 for task in tasks] == [hashlib.sha256(b"image" * 100_000).digest()] * 2


async def test_f6_est_certifies_no_device_of_another_site(two: Two) -> None:
    stranger = await two.device(two.lab, "monitor-1")
    await two.import_crl()
    client = EstClient(
        two.ward.listening.authority,
        [*two.ward.roots, *two.lab.roots],
        own=(stranger.certificate_file, stranger.key_file),
    )
    # What it looks like is asked of an authority that speaks to anybody.
    plan = await EstClient(two.ward.listening.authority, two.ward.roots).plan("monitor-1")
    signer = KeySigner.generate()
    before = serials(two.ward)
    for work in (
        client.enroll("monitor-1", None, signer, plan),
        client.renew(stranger.certificate, signer, plan),
    ):
        assert await refused(work)
    assert serials(two.ward) == before


def serials(site: Site) -> set[str]:
    with site.authority.site.storage.snapshot() as session:
        return set(session.scalars(select(CertificateRow.serial)))


async def test_f6_no_namesake_of_another_site_gets_keys_or_repairs(two: Two) -> None:
    """Whichever of two devices of one name the policy lists, the other one is refused."""
    await two.import_crl()
    own, guest = await two.device(two.ward, "monitor-1"), await two.device(two.lab, "monitor-1")
    for listed, other, rule in ((own, guest, "monitor-1"), (guest, own, two.guest)):
        name = f"ward/{rule[:3]}"
        await two.ward.add_channel(name, publish=(rule,), subscribe=(rule,))
        good, bad = await two.client(listed), await two.client(other)
        for role in LISTED_ROLES:
            await good.join(name, role)
            with pytest.raises(NotAllowedError):
                await bad.join(name, role)
        for ask in (bad.keys, bad.policy, bad.streams, bad.members, bad.leave):
            with pytest.raises(NotAllowedError):
                await ask(name)
        assert {entry.device for entry in await good.members(name)} == {rule}
        await repair_is_refused(two, name, listed, other)


async def repair_is_refused(two: Two, name: str, listed: DeviceIdentity, other: DeviceIdentity) -> None:
    """A publisher serves who is listed, and no namesake."""
    at, crl = two.at_ward(), two.ward.authority.crl.der
    channel = channel_id(at.site_id, name)
    async with Device(listed).publisher(name, site=at, linger=0.0) as publisher:
        await publisher.send(b"x")
        (entry,) = await (await two.client(listed)).streams(name)
        assert entry.endpoint is not None
        host, port = entry.endpoint
        for device, is_served in ((listed, True), (other, False)):
            async with PeerClient(
                device, host=host, port=port, device="monitor-1", site_id=listed.site_id, crl=lambda: crl
            ) as peer:
                repair = peer.repair(channel, publisher.stream_id, ((0, 0),))
                if is_served:
                    await repair
                else:
                    assert await refused(repair) == "NotAllowedError"


async def test_the_other_site_is_named_by_id_or_by_the_bundles_name(two: Two) -> None:
    identity = await two.device(two.lab, "monitor-1")
    at, url = two.at_ward(), two.ward.listening.keys
    assert ChannelSite.find(identity, at.site_id.hex(), url) == at
    # In the lab's bundle both are called as `list_other` calls them, and as they call themselves.
    assert ChannelSite.find(identity, "Lab", url) == at
    assert ChannelSite.find(identity, "Ward", url).site_id == identity.site_id
    with pytest.raises(UsageError, match="no site 'Nowhere'") as unknown:
        ChannelSite.find(identity, "Nowhere", url)
    assert "Lab, Ward" in unknown.value.cure
    with pytest.raises(UsageError, match="no key server"):
        ChannelSite.find(identity, "Lab", "http://127.0.0.1:1")
    twice = replace(held(two.lab).bundle.sites[1], name="Ward")
    await add_version(two.lab, sites=(held(two.lab).bundle.sites[0], twice))
    identity = await sync_trust(identity.path, await two.lab.client(identity))
    with pytest.raises(UsageError, match="several sites") as several:
        ChannelSite.find(identity, "Ward", url)
    assert at.site_id.hex() in str(several.value)
    for site, keys in (("Lab", None), (None, url)):
        with pytest.raises(UsageError, match="belong together"):
            channel_site(Device(identity), site, keys)
    assert channel_site(Device(identity), None, None) is None


async def test_without_a_list_of_its_site_no_device_of_another_site_is_let_in(two: Two) -> None:
    await two.add_channel(publish=(two.guest,))
    client = await two.client(await two.device(two.lab, "monitor-1"))
    assert await refused(client.join(ECG, MemberRole.PUBLISH)) == "not-authenticated"
    await two.import_crl()
    await client.join(ECG, MemberRole.PUBLISH)
    # Nobody brings a new one: that is told before it ends.
    site = two.ward.authority.site
    two.ward.clock.ahead = 3 * DAY + DAY // 2
    await two.ward.authority.renew_objects()
    with site.storage.snapshot() as session:
        late = warnings(site_ends(session, site, two.ward.clock()), two.ward.clock())
    assert [line.partition(" ends")[0] for line in late] == [
        f"CRL 1 of site {two.lab.authority.site.site_id.hex()}"
    ]
    # Past its nextUpdate the list counts no more, and nobody of that site gets keys (design 7).
    two.ward.clock.ahead = 5 * DAY
    await two.ward.authority.renew_objects()
    assert await refused(client.keys(ECG)) == "not-authenticated"
    two.lab.clock.ahead = 5 * DAY
    await two.lab.authority.renew_objects()
    await two.import_crl()
    await client.join(ECG, MemberRole.PUBLISH)


async def test_what_another_site_revokes_is_out_within_two_seconds_of_the_import(two: Two) -> None:
    await two.add_channel(publish=("monitor-1", two.guest), subscribe=("display-1",))
    await two.import_crl()
    own, guest, display = (
        await two.device(two.ward, "monitor-1"),
        await two.device(two.lab, "monitor-1"),
        await two.device(two.ward, "display-1"),
    )
    closed: list[StreamClosed] = []

    def note(event: Event) -> None:
        if isinstance(event, StreamClosed):
            closed.append(event)

    async with (
        asyncio.timeout(DEADLINE_SECONDS),
        Device(display).subscriber(ECG, on_event=note) as subscriber,
        Device(own).publisher(ECG, linger=0.0) as kept,
        removed_later(Device(guest).publisher(ECG, site=two.at_ward(), linger=0.0)) as removed,
    ):
        for publisher in (kept, removed):
            await publisher.send(b"x")
            await subscriber.recv()
        before = kept.epoch
        assert before is not None
        await two.lab.authority.revoke_device("monitor-1")
        # The lab has spoken, and here nothing has come in yet: the list is what counts.
        assert len(subscriber.streams()) == 2
        reading = asyncio.create_task(subscriber.recv())
        await two.import_crl()
        seconds = await until(lambda: bool(closed), "its stream is closed")
        assert seconds < 2.0
        assert (closed[0].publisher, closed[0].reason) == (two.guest, "revoked")
        await until(lambda: (kept.epoch or before)[1] > before[1], "a fresh generation")
        client = await two.client(guest)
        for work in (client.join(ECG, MemberRole.PUBLISH), client.keys(ECG), client.crl(), client.time()):
            assert await refused(work) == "revoked"
        await kept.send(b"y")
        assert (await reading).data == b"y"
        reading.cancel()


async def test_only_the_member_whose_certificate_is_named_loses_its_keys(two: Two) -> None:
    """A renewed certificate stands for the member, an older serial number does not; nor one of our own."""
    await two.add_channel(publish=("monitor-1", two.guest))
    await two.import_crl()
    own, guest = await two.device(two.ward, "monitor-1"), await two.device(two.lab, "monitor-1")
    client, other = await two.client(guest), await two.client(own)
    await client.join(ECG, MemberRole.PUBLISH)
    await other.join(ECG, MemberRole.PUBLISH)
    renewed = await renew_async(guest.path)
    client = await two.client(renewed)
    await client.keys(ECG)
    before = two.ward.authority.channel(ECG)
    assert before is not None
    generation = before.keys.generation.number
    number = two.lab.authority.crl.number
    # F10: the serial number of our own monitor, and the one that was renewed, on the lab's list.
    await two.ward.authority.import_crl(crl_of(two.lab, number + 1, own.serial, guest.serial))
    assert before.keys.generation.number == generation
    await client.keys(ECG)
    await other.keys(ECG)
    await two.ward.authority.import_crl(crl_of(two.lab, number + 2, renewed.serial))
    assert before.keys.generation.number > generation
    assert {member.device for member in before.keys.membership.present()} == {"monitor-1"}


async def test_members_of_other_sites_are_kept_over_a_restart_and_go_when_they_expire(two: Two) -> None:
    await two.add_channel(publish=(two.guest,))
    await two.import_crl()
    await (await two.client(await two.device(two.lab, "monitor-1"))).join(ECG, MemberRole.PUBLISH)
    site = two.ward.authority.site
    now = two.ward.clock()
    for moment, is_kept in ((now, True), (now + 91 * DAY, False)):
        with site.storage.transaction() as session:
            row = session.get_one(ChannelRow, ECG)
            settled = settlement.settle(session, site, row, moment).channel
            assert bool(settled.keys.membership.present()) == is_kept
            session.rollback()
    with site.storage.transaction() as session:
        assert session.get_one(GuestRow, two.guest).revoked is None


async def test_f10_lists_that_are_refused_at_the_import(two: Two) -> None:
    take = two.ward.authority.import_crl
    number = two.lab.authority.crl.number
    now = two.lab.clock()
    stranger = KeySigner.generate()
    cases = {
        "malformed": [b"", b"junk", two.lab.authority.crl.own[:-1], two.lab.authority.crl.own + b"junk"],
        "unknown-issuer": [crl_of(two.lab, 9, signer=stranger), two.ward.authority.crl.own],
        "stale": [crl_of(two.lab, 9, now=now - 5 * DAY)],
        "not-yet-valid": [crl_of(two.lab, 9, now=now + DAY)],
    }
    for reason, lists in cases.items():
        for der in lists:
            assert await refused(take(der)) == reason, reason
    assert two.ward.authority.crl.others == b""
    assert await take(crl_of(two.lab, number + 5)) == number + 5
    before = two.ward.authority.crl
    for der in (two.lab.authority.crl.own, crl_of(two.lab, number + 5, 77)):
        assert await refused(take(der)) == "backwards"
    assert two.ward.authority.crl == before


async def test_f10_other_sites_cannot_make_the_lists_longer_than_members_take(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, size = two.lab.authority.crl.number, len(two.lab.authority.crl.own)
    monkeypatch.setattr(other_sites, "MAX_OTHER_BYTES", size + 100)
    await two.import_crl()
    long = crl_of(two.lab, number + 1, *range(1, 20))
    assert await refused(two.ward.authority.import_crl(long)) == "too-many"
    # One takes the place of the one before, and does not come to it.
    assert await two.ward.authority.import_crl(crl_of(two.lab, number + 2, 1)) == number + 2
    monkeypatch.setattr(other_sites, "MAX_OTHER_CRLS", 0)
    assert await refused(two.ward.authority.import_crl(crl_of(two.lab, number + 3))) == "too-many"


async def test_a_list_goes_with_the_site_that_the_bundle_drops(two: Two) -> None:
    await two.import_crl()
    assert two.ward.authority.crl.others == two.lab.authority.crl.own
    bundle = held(two.ward).bundle
    await add_version(two.ward, anchors=bundle.anchors[:1], sites=bundle.sites[:1])
    await two.ward.authority.renew_objects()
    assert two.ward.authority.crl.others == b""
    assert await refused(two.import_crl()) == "unknown-issuer"


async def test_a_list_is_fetched_from_the_other_authority(two: Two) -> None:
    fetcher = CrlFetcher(two.ward.authority)
    lab, ward = two.lab.authority.site.site_id, two.ward.authority.site.site_id
    assert await fetcher.fetch(lab, two.lab.listening.authority)
    assert two.ward.authority.crl.others == two.lab.authority.crl.own
    assert not await fetcher.fetch(lab, two.lab.listening.authority), "nothing is new"
    await two.lab.enrol("monitor-1")
    await two.lab.authority.revoke_device("monitor-1")
    assert await fetcher.fetch(lab, two.lab.listening.authority)
    assert two.ward.authority.crl.others == two.lab.authority.crl.own
    # Whoever answers has to be an authority of that site.
    assert await refused(CrlFetcher(two.ward.authority).fetch(ward, two.lab.listening.authority)) == (
        "wrong-identity"
    )
    with pytest.raises(UnreachableError):
        await fetcher.fetch(lab, "https://127.0.0.1:1")
    with pytest.raises(NetworkError, match="404"):
        await fetcher.fetch(lab, two.lab.listening.authority + "/nothing")


async def test_a_site_ca_outside_its_scope_is_not_believed(two: Two) -> None:
    """F6: a root of another owner vouches for the sites of its scope, which cannot be everything."""
    bundle = held(two.ward).bundle
    assert [anchor.purpose for anchor in bundle.anchors] == [Purpose.OWNER, Purpose.SITE]
    assert len(bundle.owners()) == 1, "it does not sign our bundle"
    root, ward = two.lab.roots[0], two.ward.authority.site.site_id
    for sites, problem in (((), "every site"), ((ward,), "no owner's root")):
        anchor = Anchor(certificate=root, purpose=Purpose.SITE, since=0, sites=sites)
        with pytest.raises(SealcastError, match=problem):
            await add_version(two.ward, anchors=(bundle.anchors[0], anchor))


async def test_devices_of_two_sites_exchange_messages_by_the_policies_of_one(two: Two) -> None:
    """TR-30, SC-34: both have one name; the guest goes by the other site's policies, CRLs and directory,
    which its own site's agent leaves alone.
    """
    await two.add_channel(publish=("monitor-1",), subscribe=(two.guest,))
    await two.lab.add_channel("lab/own", publish=("monitor-1",), subscribe=("monitor-1",))
    await two.import_crl()
    here, there = [await two.device(site, "monitor-1") for site in (two.ward, two.lab)]
    at = two.at_ward()
    ward, lab = Device(here), Device(there)
    async with (
        ward.inbox() as at_host,
        lab.inbox(site=at) as at_guest,
        ward.peer(two.guest) as guest,
        lab.peer("monitor-1", site=at) as host,
        asyncio.timeout(DEADLINE_SECONDS),
    ):
        await guest.send(b"to the guest")
        await host.send(b"to the host")
        to_guest, to_host = await at_guest.recv(), await at_host.recv()
        assert (to_guest.sender, to_guest.data) == ("monitor-1", b"to the guest")
        assert (to_host.sender, to_host.data) == (two.guest, b"to the host")
        async with DeviceAgent(there.path) as agent:
            held_there = (await agent.look()).documents
        assert [policy.channel for policy in held_there.policies] == ["lab/own"]
        await host.send(b"after its agent's look")
        assert (await at_host.recv()).data == b"after its agent's look"
        # Its own site's policies do not name the other one, so they pair it with nobody there.
        with pytest.raises(PeerError):
            async with lab.peer(f"{at.site_id.hex()}:monitor-1", linger=0) as stranger:
                await stranger.send(b"x")
        # Removed by its own site: as soon as the channel's site has that list.
        await two.lab.authority.revoke_device("monitor-1")
        await two.import_crl()

        async def send_until_the_host_has_heard_of_it() -> None:
            while True:
                await host.send(b"x")
                await host.delivered()

        with pytest.raises(CertificateError) as caught:
            await send_until_the_host_has_heard_of_it()
        assert caught.value.reason in ("revoked", "not-authenticated")
        host.linger = 0
