"""Join, keys, polls and the directory over real HTTPS: spec/side-channel.md section 1, spec/keys.md."""

import asyncio
import gc
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from sealcast import _core
from sealcast.authority.live import JOIN_BURST, MAX_POLLS_PER_DEVICE
from sealcast.ca import IssuedCertificate
from sealcast.device import DeviceIdentity
from sealcast.errors import (
    CertificateError,
    ChannelError,
    NetworkError,
    NotAllowedError,
    UnknownChannelError,
    UnreachableError,
)
from sealcast.keys import MemberRole
from sealcast.pki.credential import StreamCredential, make_bundle
from sealcast.pki.crl import Revocation
from sealcast.pki.policy import Policy
from sealcast.sidechannel import KeysAnswer, KeyServerClient, RefusalError, StreamUpdate
from sealcast.sidechannel.messages import PollRequest
from tests.authority.conftest import HOUR, SECOND, Site, beacon_counter
from tests.est.site import Site as OtherSite

PUBLISH, SUBSCRIBE = MemberRole.PUBLISH, MemberRole.SUBSCRIBE
ECG = "ward/ecg"


def sockets_to(port: int | None) -> list[socket.socket]:
    """Open ones of this process that have called a port."""
    made = [found for found in gc.get_objects() if isinstance(found, socket.socket) and found.fileno() >= 0]
    return [found for found in made if found.type == socket.SOCK_STREAM and port == _called(found)]


@contextmanager
def hanging(port: int | None) -> Iterator[None]:
    """The server that listens on a port reads nothing meanwhile."""
    sockets = [
        found
        for found in gc.get_objects()
        if type(found).__name__ == "_SelectorSocketTransport" and found.get_extra_info("sockname")[1] == port
    ]
    for each in sockets:
        each.pause_reading()
    yield
    for each in sockets:
        each.resume_reading()


def _called(connected: socket.socket) -> int | None:
    try:
        return int(connected.getpeername()[1])
    except (OSError, IndexError):
        return None


def check_commitments(site: Site, keys: KeysAnswer) -> None:
    """KM-17: the beacon commits to every secret in the reply. Offsets as KM-15 has them."""
    channel_id = site.authority.all_channels()[0].channel_id
    body = keys.beacon[64:-72]
    commitment = body[8 + 3 * 40 : 8 + 3 * 40 + 32]
    assert commitment == _core.commit_generation(keys.secret.reveal(), channel_id, keys.generation, keys.step)
    rest = body[8 + 3 * 40 + 32 :]
    first, count = int.from_bytes(rest[:3], "big"), rest[3]
    committed = {first + index: rest[4 + 32 * index : 36 + 32 * index] for index in range(count)}
    assert keys.slots
    for number, secret in keys.slots:
        assert committed[number] == _core.commit_slot(secret.reveal(), channel_id, number)


def credential_bundle(
    site: Site, identity: DeviceIdentity, *, spki: bytes | None = None, name: str | None = None
) -> tuple[bytes, bytes]:
    """A stream of `identity` on the first channel: its id and its bundle."""
    channel = site.authority.all_channels()[0]
    stream = _core.ControlStream(os.urandom(32), os.urandom(16), channel.channel_id, channel.suite)
    now = site.clock()
    credential = StreamCredential(
        spki=spki or stream.spki,
        channel_id=channel.channel_id,
        suite=channel.suite,
        site_id=identity.site_id,
        device=name or identity.name,
        certificate_hash=hashlib.sha256(identity.certificate).digest(),
        not_before=now - SECOND,
        not_after=now + HOUR,
        start_nonce=os.urandom(16),
        instance="",
        succeeds=None,
    )
    return credential.stream_id, make_bundle(credential, identity.signer, identity.chain)


class TestJoin:
    async def test_the_reply_holds_all_that_a_start_needs(self, site: Site) -> None:
        """SC-4."""
        await site.add_channel()
        client = await site.client(await site.enrol("monitor-1"))
        answer = await client.join(ECG, PUBLISH)
        check_commitments(site, answer.keys)
        assert (answer.keys.generation, answer.keys.step) == (1, 1)
        policy = Policy.parse(answer.policy, site.authority.site.issuer.public_key)
        assert policy.publishers == ("monitor-1",)
        assert hashlib.sha256(answer.policy).digest() in answer.keys.beacon
        assert hashlib.sha256(answer.crl).digest() in answer.keys.beacon
        channel = site.authority.all_channels()[0]
        site.authority.credentials.verify_credential(
            answer.key_server,
            role="key-server",
            channel_id=channel.channel_id,
            suite=3,
            now=site.clock(),
            crl=answer.crl,
        )

    async def test_joins_of_one_moment_share_a_step(self, site: Site) -> None:
        """SC-6."""
        await site.add_channel()
        clients = [await site.client(await site.enrol(f"display-{number}")) for number in range(5)]
        await asyncio.gather(*(client.time() for client in clients))
        answers = await asyncio.gather(*(client.join(ECG, SUBSCRIBE) for client in clients))
        assert {(answer.keys.generation, answer.keys.step) for answer in answers} == {(1, 1)}

    async def test_the_others_are_told_and_derive_the_step(self, site: Site) -> None:
        await site.add_channel()
        first = await site.client(await site.enrol("monitor-1"))
        before = (await first.join(ECG, PUBLISH)).keys
        second = await site.client(await site.enrol("display-1"))
        counter = beacon_counter((await first.keys(ECG)).beacon)
        waiting = asyncio.ensure_future(first.poll(ECG, counter))
        await asyncio.sleep(0.05)
        after = (await second.join(ECG, SUBSCRIBE)).keys
        beacon = await asyncio.wait_for(waiting, 2)
        assert beacon_counter(beacon) > counter
        # KM-15: slot (3), step (1), generation (4) in the header.
        assert beacon[25] == after.step == before.step + 1
        channel_id = site.authority.all_channels()[0].channel_id
        derived = _core.step_secret(before.secret.reveal(), channel_id, after.generation, after.step)
        assert derived == after.secret.reveal()

    async def test_who_is_not_in_the_policy_is_refused(self, site: Site) -> None:
        await site.add_channel()
        display = await site.client(await site.enrol("display-1"))
        stranger = await site.client(await site.enrol("pump-1"))
        with pytest.raises(NotAllowedError, match="may not publish"):
            await display.join(ECG, PUBLISH)
        with pytest.raises(NotAllowedError, match="may not subscribe"):
            await stranger.join(ECG, SUBSCRIBE)
        with pytest.raises(UnknownChannelError):
            await display.join("ward/none", SUBSCRIBE)
        assert site.authority.all_channels()[0].keys.generation.position == (1, 0)

    async def test_a_device_that_joins_without_end_is_slowed_down(self, site: Site) -> None:
        await site.add_channel()
        client = await site.client(await site.enrol("display-1"))
        results = await asyncio.gather(
            *(client.join(ECG, SUBSCRIBE) for _ in range(JOIN_BURST + 5)), return_exceptions=True
        )
        refused = [result for result in results if isinstance(result, RefusalError)]
        assert refused
        assert {error.code for error in refused} == {"too-many-requests"}
        assert len(results) - len(refused) >= JOIN_BURST


class TestKeys:
    async def test_they_are_for_members_only(self, site: Site) -> None:
        """SC-16."""
        await site.add_channel()
        client = await site.client(await site.enrol("display-1"))
        for request in (client.keys(ECG), client.poll(ECG, 0)):
            with pytest.raises(NotAllowedError):
                await request
        await client.join(ECG, SUBSCRIBE)
        check_commitments(site, await client.keys(ECG))
        await client.leave(ECG)
        with pytest.raises(NotAllowedError):
            await client.keys(ECG)

    async def test_slots_are_prefetched_and_turn_with_time(self, site: Site) -> None:
        await site.add_channel(slot=60 * SECOND, slots_ahead=3)
        client = await site.member("display-1", ECG)
        before = dict((await client.keys(ECG)).slots)
        assert sorted(before) == [1, 2, 3, 4]
        site.clock.ahead = 60 * SECOND
        await site.authority.turn_slots()
        after = dict((await client.keys(ECG)).slots)
        assert sorted(after) == [1, 2, 3, 4, 5]
        assert all(after[number] == secret for number, secret in before.items())
        site.clock.ahead = 180 * SECOND
        await site.authority.turn_slots()
        assert sorted(number for number, _ in (await client.keys(ECG)).slots) == [3, 4, 5, 6, 7]

    async def test_a_short_slot_turns_by_itself(self, site: Site) -> None:
        await site.add_channel(slot=SECOND // 5, slots_ahead=2)
        client = await site.member("display-1", ECG)
        numbers = set()
        for _ in range(8):
            numbers.add((await client.keys(ECG)).slots[0][0])
            await asyncio.sleep(0.15)
        assert len(numbers) >= 4

    async def test_a_poll_waits_for_news(self, site: Site) -> None:
        await site.add_channel()
        client = await site.member("display-1", ECG)
        counter = beacon_counter((await client.keys(ECG)).beacon)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.poll(ECG, counter), 0.3)
        assert beacon_counter(await client.poll(ECG, 0)) > 0

    async def test_who_waits_when_its_client_is_closed_does_not_ask_again(self, site: Site) -> None:
        await site.add_channel()
        client = await site.member("display-1", ECG)
        counter = beacon_counter(await client.poll(ECG, 0))
        waiting = asyncio.ensure_future(client.poll(ECG, counter))
        # Answered behind it, so it has been sent.
        await client.keys(ECG)
        await client.close()
        for asked in (waiting, client.keys(ECG)):
            with pytest.raises(UnreachableError):
                await asked

    async def test_a_client_that_is_closed_has_no_socket_open(self, site: Site) -> None:
        """Nor what a cancelled request had: TLS would wait there for the last word of a server that hangs."""
        await site.add_channel()
        client = await site.member("display-1", ECG)
        counter = beacon_counter(await client.poll(ECG, 0))
        waiting = asyncio.ensure_future(client.poll(ECG, counter))
        await client.keys(ECG)
        port = urlsplit(site.listening.keys).port
        assert len(sockets_to(port)) == 2
        with hanging(port):
            waiting.cancel()
            await asyncio.wait([waiting])
            await client.close()
            assert sockets_to(port) == []

    async def test_polls_at_once_are_bounded(self, site: Site) -> None:
        await site.add_channel()
        client = await site.member("display-1", ECG)
        counter = beacon_counter((await client.keys(ECG)).beacon)
        polls = [asyncio.ensure_future(client.poll(ECG, counter)) for _ in range(MAX_POLLS_PER_DEVICE)]
        other = await site.client(await site.enrol("display-1"))
        await asyncio.sleep(0.3)
        with pytest.raises(NetworkError, match="polls wait"):
            await asyncio.wait_for(other.poll(ECG, counter), 2)
        for poll in polls:
            poll.cancel()

    async def test_a_new_policy_is_news(self, site: Site) -> None:
        await site.add_channel()
        client = await site.member("display-1", ECG)
        counter = beacon_counter((await client.keys(ECG)).beacon)
        waiting = asyncio.ensure_future(client.poll(ECG, counter))
        await asyncio.sleep(0.05)
        await site.enrol("display-2")
        await asyncio.wait_for(waiting, 2)
        policy = Policy.parse((await client.policy(ECG)).policy, None)
        assert policy.subscribers == ("display-1", "display-2")


class TestDirectory:
    """SC-5, SC-7."""

    async def test_a_stream_is_listed_with_its_endpoint(self, site: Site) -> None:
        await site.add_channel()
        identity = await site.enrol("monitor-1")
        client = await site.client(identity)
        stream, bundle = credential_bundle(site, identity)
        await client.put_stream(ECG, stream, StreamUpdate(credential=bundle, endpoint=("127.0.0.1", 4711)))
        (entry,) = await client.streams(ECG)
        assert (entry.stream, entry.device, entry.credential) == (stream, "monitor-1", bundle)
        assert entry.endpoint == ("127.0.0.1", 4711)
        assert (await client.join(ECG, SUBSCRIBE)).streams == (entry,)

    async def test_another_directory_is_news_to_whoever_follows_it(self, site: Site) -> None:
        """SC-45; and to nobody else, nor is the same directory."""
        await site.add_channel()
        identity = await site.enrol("monitor-1")
        publisher = await site.client(identity)
        follower, other = await site.member("display-1", ECG), await site.member("display-2", ECG)
        counter = beacon_counter((await follower.keys(ECG)).beacon)
        told = await follower.await_news(ECG, PollRequest(counter=counter, directory=bytes(32)))
        assert told.directory not in (None, bytes(32))
        known = PollRequest(counter=counter, directory=told.directory)
        waiting = asyncio.ensure_future(follower.await_news(ECG, known))
        waits_for_beacons = asyncio.ensure_future(other.poll(ECG, counter))
        await asyncio.sleep(0.05)
        stream, bundle = credential_bundle(site, identity)
        update = StreamUpdate(credential=bundle, endpoint=("127.0.0.1", 4711))
        await publisher.put_stream(ECG, stream, update)
        directories = {told.directory, (await asyncio.wait_for(waiting, 5)).directory}
        known = PollRequest(counter=counter, directory=(directories - {told.directory}).pop())
        waiting = asyncio.ensure_future(follower.await_news(ECG, known))
        await asyncio.sleep(0.05)
        await publisher.put_stream(ECG, stream, update)
        moved = StreamUpdate(credential=bundle, endpoint=("127.0.0.1", 4712))
        assert not waiting.done()
        await publisher.put_stream(ECG, stream, moved)
        directories.add((await asyncio.wait_for(waiting, 5)).directory)
        assert len(directories) == 3
        assert not waits_for_beacons.done()
        waits_for_beacons.cancel()

    async def test_only_ones_own_stream_is_accepted(self, site: Site) -> None:
        await site.add_channel()
        mine = await site.enrol("monitor-1")
        other = await site.enrol("monitor-2")
        client = await site.client(mine)
        stream, bundle = credential_bundle(site, mine)
        other_stream, other_bundle = credential_bundle(site, other)
        _, lying_bundle = credential_bundle(site, mine, name="monitor-2")
        for name, body in (
            (other_stream, other_bundle),
            (other_stream, bundle),
            (stream, lying_bundle),
            (stream, b"garbage"),
        ):
            with pytest.raises(NotAllowedError):
                await client.put_stream(ECG, name, StreamUpdate(credential=body))
        with pytest.raises(RefusalError, match="head"):
            await client.put_stream(ECG, stream, StreamUpdate(credential=bundle, head=b"not a heartbeat"))
        assert await client.streams(ECG) == ()

    async def test_a_subscriber_has_no_stream(self, site: Site) -> None:
        await site.add_channel()
        identity = await site.enrol("display-1")
        stream, bundle = credential_bundle(site, identity)
        with pytest.raises(NotAllowedError):
            await (await site.client(identity)).put_stream(ECG, stream, StreamUpdate(credential=bundle))

    async def test_a_removed_publisher_is_no_longer_listed(self, site: Site) -> None:
        await site.add_channel()
        identity = await site.enrol("monitor-1")
        stream, bundle = credential_bundle(site, identity)
        await (await site.client(identity)).put_stream(ECG, stream, StreamUpdate(credential=bundle))
        reader = await site.client(await site.enrol("display-1"))
        assert len(await reader.streams(ECG)) == 1
        await site.authority.revoke_device("monitor-1")
        assert await reader.streams(ECG) == ()


class TestMembers:
    async def test_those_that_joined_and_have_not_left(self, site: Site) -> None:
        await site.add_channel()
        first = await site.member("display-1", ECG)
        second = await site.member("display-2", ECG)
        assert [member.device for member in await first.members(ECG)] == ["display-1", "display-2"]
        await second.leave(ECG)
        assert [member.device for member in await first.members(ECG)] == ["display-1"]

    async def test_leaving_turns_nothing(self, site: Site) -> None:
        await site.add_channel()
        client = await site.member("display-1", ECG)
        await client.leave(ECG)
        assert site.authority.all_channels()[0].keys.generation.position == (1, 1)


async def test_the_crl_and_the_time(site: Site) -> None:
    client = await site.client(await site.enrol("display-1"))
    assert abs(await client.time() - site.clock()) < SECOND
    answer = await client.crl()
    assert answer.crl == site.authority.crl.der
    assert answer.issuers == site.authority.site.issuers


async def test_the_key_server_is_judged_by_role_and_site(site: Site) -> None:
    """TR-8: a device of the same site cannot pass for the key server."""
    identity = await site.enrol("display-1")
    context = identity.ssl_context_server()
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]

    class Elsewhere:
        def __getattr__(self, name: str) -> object:
            return f"https://127.0.0.1:{port}" if name == "keys_url" else getattr(identity, name)

    async with server, KeyServerClient(Elsewhere()) as client:  # type: ignore[arg-type]
        with pytest.raises(CertificateError, match="role"):
            await client.time()


async def test_a_channel_is_added_once(site: Site) -> None:
    await site.add_channel()
    with pytest.raises(ChannelError, match="exists"):
        await site.add_channel()


async def test_a_key_server_whose_list_is_missing_is_asked_for_it(site: Site, tmp_path: Path) -> None:
    """TR-9: as before the first join; one that is on a list is not talked to."""
    identity = await site.enrol("monitor-1")
    own = IssuedCertificate.of(site.authority.identity.chain[0])
    revoked = [Revocation(serial=own.serial, time=site.clock())]
    of_another = OtherSite(tmp_path).issuer.issue_crl(number=1, revocations=[], now=site.clock())
    listing = site.authority.site.issuer.issue_crl(number=1, revocations=revoked, now=site.clock())
    async with KeyServerClient(identity, crl=lambda: of_another) as client:
        assert (await client.crl()).crl == site.authority.crl.der
    async with KeyServerClient(identity, crl=lambda: listing) as client:
        with pytest.raises(CertificateError) as caught:
            await client.crl()
    assert caught.value.reason == "peer-revoked"
