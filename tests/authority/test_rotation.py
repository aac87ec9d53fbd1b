"""Rotations at a running authority, step by step: the order, the counts, what is refused, what EST tells.

TR-24.
"""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sealcast import _core
from sealcast.authority import rotation, rotation_bundle
from sealcast.authority.admins import AdminRole
from sealcast.authority.issuance import CA_FILE, CA_KEY_FILE
from sealcast.authority.models import RotationRow
from sealcast.authority.rotation_state import Result, rotation_row
from sealcast.authority.rotation_steps import Kind, Step
from sealcast.authority.service import Changes
from sealcast.authority.site import ROOT_FILE
from sealcast.ca import FileSigner, KeySigner, PassphraseSource, Root, cross_certify
from sealcast.ca.signer import public_key_of
from sealcast.ca.site_request import SiteRequest, make_site_request
from sealcast.cli import main
from sealcast.device import DeviceIdentity, renew_async
from sealcast.device.agent import DeviceAgent
from sealcast.endpoint.session import Session
from sealcast.endpoint.site import ChannelSite
from sealcast.errors import CertificateError, ConflictError, EnrolmentError, SealcastError
from sealcast.est import EstClient
from sealcast.pki.bundle import SignedBundle
from sealcast.pki.certificates import (
    certificate_der,
    certificates_pem,
    issuer_key,
    key_identifier,
    parse_certificate,
    parse_pem_certificates,
)
from sealcast.pki.crl import split_crls
from sealcast.pki.names import Role
from tests.authority.bundles import add_version, held, new_root, own_root
from tests.authority.conftest import HOUR, SECOND, Site

Make = Callable[..., Result]
NONE = PassphraseSource(environment={}, prompt=None)


async def step(site: Site, make: Make, *arguments: Any, **named: Any) -> RotationRow:
    """Do what a request of the management API does."""
    now = site.clock()

    def job(session: Any) -> tuple[RotationRow, Changes]:
        result = make(session, site.authority.site, *arguments, **named, now=now)
        session.flush()
        return result.row, result.changes

    return await site.authority.apply(job)


async def on(site: Site, make: Make, number: int, *arguments: Any, **named: Any) -> str:
    """Take a rotation one step on; returns what it waits for then."""
    now = site.clock()

    def job(session: Any) -> tuple[str, Changes]:
        row = rotation_row(session, number)
        result = make(session, site.authority.site, row, *arguments, **named, now=now)
        session.flush()
        return result.row.step, result.changes

    return await site.authority.apply(job)


async def advance(site: Site, number: int, *, force: bool = False) -> str:
    def make(session: Any, present: Any, row: RotationRow, *, now: int) -> Result:
        is_switch = (row.kind, row.step) == (Kind.SITE, Step.REPORTS)
        within = SECOND if is_switch else None
        return rotation.advance(session, present, row, force=force, within=within, now=now)

    return await on(site, make, number)


async def certify(site: Site, number: int, certificate: bytes, crosses: bytes = b"") -> str:
    pem = certificates_pem([certificate])
    return await on(site, rotation.take_certificate, number, pem, crosses, NONE)


async def sign(site: Site, number: int, *roots: Root) -> int:
    """Sign and import the bundle that a rotation waits for."""

    def job(session: Any) -> bytes:
        row = rotation_row(session, number)
        return rotation_bundle.draft(session, site.authority.site, row, site.clock()).unsigned

    signed = SignedBundle.parse(await site.authority.read(job))
    for root in roots:
        signed = signed.sign(certificate_der(root.certificate), root.signer)
    return await site.authority.import_bundle(signed.serialize())


async def start_site(site: Site) -> tuple[int, bytes]:
    """A rotation of the site CA that waits for its bundle, and the new CA's certificate."""
    row = await step(site, rotation.start_site, NONE)
    assert row.request is not None
    certificate = SiteRequest.parse(row.request).certify(own_root(site), site.clock())
    assert await certify(site, row.id, certificate) == Step.PUBLISH
    return row.id, certificate


async def look(identity: DeviceIdentity, site: Site) -> DeviceIdentity:
    async with DeviceAgent(identity.path, clock=site.clock) as agent:
        return (await agent.look()).identity


def issuer_of(der: bytes) -> bytes | None:
    return issuer_key(parse_certificate(der))


async def test_a_site_ca_is_rotated_in_the_safe_order(site: Site) -> None:
    await site.add_channel()
    identity = await site.enrol("monitor-1")
    sleeper = await site.enrol("monitor-2")
    await site.admin("olga", AdminRole.VIEWER)
    old = site.authority.site.issuer.certificate
    number, new = await start_site(site)
    # What issues is as it was; the new CA's list is in the document already (TR-9).
    assert site.authority.site.issuers == (old, new)
    assert len(split_crls(site.authority.crl.der)) == 2
    assert await sign(site, number, own_root(site)) == 2
    with pytest.raises(ConflictError, match="2 of 2 devices have not reported the trust bundle: monitor-1, "):
        await advance(site, number)
    await look(identity, site)
    with pytest.raises(ConflictError, match="1 of 2 devices have not reported the trust bundle: monitor-2"):
        await advance(site, number)
    own = held(site).bundle.sites[0]
    with pytest.raises(CertificateError, match="takes away what rotation"):
        await add_version(site, sites=(replace(own, authorities=(old,)),))

    policy = site.authority.all_channels()[0].policy.version.version
    crl = site.authority.crl.number
    # Forced: the one that sleeps is left to find its way by itself.
    assert await advance(site, number, force=True) == Step.REISSUE
    assert site.authority.site.issuer.certificate == new
    assert site.authority.all_channels()[0].policy.version.version > policy
    assert site.authority.crl.number > crl
    assert parse_pem_certificates((site.folder / CA_FILE).read_bytes()) == [new, old]
    assert issuer_of(site.authority.identity.chain[0]) == key_identifier(new)
    with pytest.raises(ConflictError, match="2 of 2 devices have no certificate of the new site CA in use"):
        await advance(site, number)
    with pytest.raises(CertificateError, match="the trust bundle drops the old site CA"):
        await add_version(site, sites=(replace(own, authorities=(new,)),))
    # It has slept through the switch, and knows the new CA by what the server shows (TR-25).
    site.clock.ahead = 2 * SECOND
    for device in (identity, sleeper):
        renewed = await look(device, site)
        assert issuer_of(renewed.certificate) == key_identifier(new)
        assert renewed.bundle == site.authority.bundle
    with pytest.raises(ConflictError, match="1 admins have none: olga"):
        await advance(site, number)
    await renew_async(site.devices / "admin-olga", role=Role.ADMIN)
    assert await advance(site, number) == Step.RETIRE
    await sign(site, number, own_root(site))
    with site.authority.site.storage.snapshot() as session:
        row = rotation_row(session, number)
        assert (row.step, row.forced) == (Step.DONE, ["reports"])
    assert len(split_crls(site.authority.crl.der)) == 1
    assert parse_pem_certificates((site.folder / CA_FILE).read_bytes()) == [new]
    assert FileSigner.open(site.folder / CA_KEY_FILE).public_key == public_key_of(new)
    assert not list(site.folder.glob("ca-*.key"))
    # A second one takes the next name (TR-23).
    again, third = await start_site(site)
    names = [parse_certificate(der).subject.rfc4514_string() for der in (old, new, third)]
    assert names == ["CN=Ward CA,O=Ward", "CN=Ward CA 2,O=Ward", "CN=Ward CA 3,O=Ward"]
    assert await on(site, rotation.abandon, again) == Step.ABANDONED
    assert parse_pem_certificates((site.folder / CA_FILE).read_bytes()) == [new]
    assert not list(site.folder.glob("ca-*.key"))


async def test_a_device_that_a_forced_retirement_left_behind_is_told_of_a_new_token(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    identity = await site.enrol("monitor-1")
    number, _ = await start_site(site)
    assert await sign(site, number, own_root(site)) == 2
    assert await advance(site, number, force=True) == Step.REISSUE
    assert await advance(site, number, force=True) == Step.RETIRE
    assert await sign(site, number, own_root(site)) == 3
    # By its own moment in the window of the hint it renews first, or syncs first: it is told the same.
    with pytest.raises((EnrolmentError, CertificateError)) as left:
        await look(identity, site)
    assert "with a new token into the same folder: sealcast device enroll" in left.value.cure
    assert await asyncio.to_thread(main, ["device", "renew", str(identity.path)]) == 4
    assert "with a new token" in capsys.readouterr().err
    # And that is what helps.
    await look(await site.enrol("monitor-1"), site)


async def test_a_poll_that_began_under_the_old_site_ca_ends_without_a_false_refusal(site: Site) -> None:
    """It is answered when the old one is retired, and its certificate with it: that is no news."""
    await site.add_channel()
    identity = await site.enrol("monitor-1")
    engine = _core.ReceiveEngine(
        site_id=identity.site_id,
        channel="ward/ecg",
        device_site_id=identity.site_id,
        device=identity.name,
        anchors=identity.anchors,
        issuers=identity.issuers,
        now=_core.steady_time(),
        jitter_seed=1,
    )
    own = ChannelSite.own(identity)
    session = Session(engine, identity, own, "ward/ecg", engine.handle_deadline, "subscribe")
    session.start()
    told: list[str] = []

    async def hear(event: str) -> None:
        while event not in told:
            await session.wait()
            told.extend(each[0] for each in session.take_events() if isinstance(each, tuple))

    try:
        async with asyncio.timeout(30):
            await session.joined()
            await hear("joined")
            number, _ = await start_site(site)
            await sign(site, number, own_root(site))
            await look(identity, site)
            told.clear()
            assert await advance(site, number) == Step.REISSUE
            # Another site CA speaks for the site: it is judged with a join.
            await hear("joined")
            site.clock.ahead = 2 * SECOND
            renewed = await look(identity, site)
            assert await advance(site, number) == Step.RETIRE
            await sign(site, number, own_root(site))
            told.clear()
            await site.authority.set_members("ward/ecg", ("nobody",), None)
            await hear("policy-changed")
        assert session.identity.serial == renewed.serial
        assert "refused" not in told
    finally:
        await session.close()


async def test_a_site_that_may_change_its_list_signs_the_bundles_itself(site: Site) -> None:
    """TR-20: only the new site CA's certificate needs a root."""
    own = held(site).bundle.sites[0]
    await add_version(site, sites=(replace(own, delegated=True),))
    old = site.authority.site.issuer.certificate
    row = await step(site, rotation.start_site, NONE)
    assert row.request is not None
    new = SiteRequest.parse(row.request).certify(own_root(site), site.clock())
    assert await certify(site, row.id, new) == Step.REPORTS
    assert held(site).bundle.sites[0].authorities == (old, new)
    # Nobody is there to wait for. What has its turn right after the switch is signed by the new site CA,
    # though the event loop has not heard of it.
    seen: list[bytes] = []
    has_run = threading.Event()

    def next_job(_: Any) -> tuple[None, Changes]:
        seen.append(site.authority.site.issuer.certificate)
        has_run.set()
        return None, Changes()

    switched = asyncio.ensure_future(advance(site, row.id))
    after = asyncio.ensure_future(site.authority.apply(next_job))
    await asyncio.sleep(0)
    assert has_run.wait(20)
    assert seen == [new]
    await after
    assert await switched == Step.REISSUE
    assert await advance(site, row.id) == Step.DONE
    assert held(site).bundle.sites[0].authorities == (new,)
    assert site.authority.site.issuers == (new,)


async def test_a_root_is_rotated_and_est_clients_follow(site: Site) -> None:
    """EST-7: who knows only one of the two roots is served throughout."""
    identity = await site.enrol("monitor-1")
    sleeper = await site.enrol("monitor-2")
    old, new = own_root(site), new_root()
    new_pem = certificates_pem([certificate_der(new.certificate)])
    row = await step(site, rotation.start_root, new_pem)
    present = site.authority.site.issuer.certificate
    certificate = SiteRequest.of_certificate(present).certify(new, site.clock())
    crosses = cross_certify(old, new, site.clock())
    pem = certificates_pem([crosses.new_with_old, crosses.old_with_new])
    assert await certify(site, row.id, certificate, pem) == Step.PUBLISH
    assert await sign(site, row.id, old) == 2
    roots = [certificate_der(root.certificate) for root in (old, new)]
    told = await EstClient(site.listening.authority, roots[:1]).cacerts()
    assert set(told) == {*roots, crosses.new_with_old, crosses.old_with_new, present, certificate}
    await look(identity, site)
    with pytest.raises(ConflictError, match="1 of 2 devices have not reported"):
        await advance(site, row.id)
    assert await advance(site, row.id, force=True) == Step.RETIRE
    assert site.roots == [roots[1], roots[0]]
    for root in roots:
        assert await EstClient(site.listening.authority, [root]).cacerts()
    with pytest.raises(CertificateError, match="not signed by the roots that it keeps"):
        await sign(site, row.id, old)
    assert await sign(site, row.id, new) == 3
    assert site.roots == roots[1:]
    for root in roots:
        assert roots[1] in await EstClient(site.listening.authority, [root]).cacerts()
    # The sleeper knows the old root alone; a newcomer is given the new one alone.
    for device in (sleeper, identity, await site.enrol("monitor-3")):
        seen = await look(device, site)
        assert seen.bundle == site.authority.bundle
        assert seen.roots == (roots[1],)


async def test_a_root_is_rotated_without_certificates_of_each_other(site: Site) -> None:
    sleeper = await site.enrol("monitor-1")
    old, new = own_root(site), new_root()
    row = await step(site, rotation.start_root, certificates_pem([certificate_der(new.certificate)]))
    present = site.authority.site.issuer.certificate
    await certify(site, row.id, SiteRequest.of_certificate(present).certify(new, site.clock()))
    await sign(site, row.id, old)
    await advance(site, row.id, force=True)
    # Until the old root goes it is the one that every EST client knows.
    old_der = certificate_der(old.certificate)
    assert await EstClient(site.listening.authority, [old_der]).cacerts()
    await sign(site, row.id, new)
    assert await EstClient(site.listening.authority, [certificate_der(new.certificate)]).cacerts()
    assert (await look(sleeper, site)).bundle == site.authority.bundle


async def test_a_servers_certificate_is_replaced_at_once(site: Site) -> None:
    client = await site.client(await site.enrol("monitor-1"))
    await client.time()
    before = site.authority.identity.chain[0]
    row = await step(site, rotation.rotate_server)
    assert (row.step, row.old, row.new) == (Step.DONE, before, site.authority.identity.chain[0])
    assert row.new != before
    # The connection that was open goes on, and a new one shows the new certificate.
    await client.time()
    again = await site.client(DeviceIdentity.open(site.devices / "monitor-1"))
    await again.time()


async def test_what_does_not_fit_is_refused(site: Site) -> None:
    now = site.clock()
    row = await step(site, rotation.start_site, NONE)
    assert row.request is not None
    asked = SiteRequest.parse(row.request)
    for begin in (rotation.start_site, rotation.start_root):
        with pytest.raises(
            ConflictError, match="rotation 1 of the site is under way, at the step certificate"
        ):
            await step(site, begin, NONE if begin is rotation.start_site else b"")
    with pytest.raises(ConflictError, match="waits for the certificate"):
        await advance(site, row.id, force=True)
    own, stranger = own_root(site), new_root()
    other = KeySigner.generate()
    namesake = make_site_request(asked_signer(site), "Ward", asked.site_id)
    for certificate, reason in (
        (asked.certify(stranger, now), "unknown-issuer"),
        (replace(asked, public_key=other.public_key).certify(own, now), "key"),
        (replace(asked, site_id=bytes(16)).certify(own, now), "wrong-site"),
        (replace(asked, site_name="Lab").certify(own, now), "name"),
        (SiteRequest.parse(namesake).certify(own, now), "name"),
        (asked.certify(own, now + HOUR), "not-yet-valid"),
        (site.authority.site.issuer.certificate, "key"),
    ):
        with pytest.raises(CertificateError) as caught:
            await certify(site, row.id, certificate)
        assert caught.value.reason == reason, caught.value
    assert await certify(site, row.id, asked.certify(own, now)) == Step.PUBLISH
    with pytest.raises(ConflictError, match="waits for no certificate, at the step publish"):
        await certify(site, row.id, asked.certify(own, now))
    with pytest.raises(CertificateError, match="lacks signatures"):
        await sign(site, row.id, stranger)
    await sign(site, row.id, own)
    with pytest.raises(ConflictError, match="cannot be given up at the step reports"):
        await on(site, rotation.abandon, row.id)
    with pytest.raises(SealcastError, match="no rotation 7"):
        await advance(site, 7)


def asked_signer(site: Site) -> FileSigner:
    (path,) = site.folder.glob("ca-*.key")
    return FileSigner.open(path)


async def test_a_root_that_does_not_fit_is_refused(site: Site) -> None:
    old, new = own_root(site), new_root()
    old_pem, new_pem = (certificates_pem([certificate_der(root.certificate)]) for root in (old, new))
    with pytest.raises(ConflictError, match="lists that root, or its key, already"):
        await step(site, rotation.start_root, old_pem)
    for wrong in (b"", certificates_pem([site.authority.site.issuer.certificate]), old_pem + new_pem):
        with pytest.raises(CertificateError):
            await step(site, rotation.start_root, wrong)
    row = await step(site, rotation.start_root, new_pem)
    asked = SiteRequest.of_certificate(site.authority.site.issuer.certificate)
    for certificate, crosses, reason in (
        (asked.certify(old, site.clock()), b"", "unknown-issuer"),
        (replace(asked, number=2).certify(new, site.clock()), b"", "name"),
        (asked.certify(new, site.clock()), new_pem, "unknown-issuer"),
    ):
        with pytest.raises(CertificateError) as caught:
            await certify(site, row.id, certificate, crosses)
        assert caught.value.reason == reason
    assert await on(site, rotation.abandon, row.id) == Step.ABANDONED
    assert (site.folder / ROOT_FILE).read_bytes() == old_pem


async def test_a_root_that_would_make_chains_too_long_is_refused_with_the_way_out(site: Site) -> None:
    """Each certificate of the site CA's key stays in the chain, for whoever knows only an old root."""
    root = certificates_pem([certificate_der(new_root().certificate)])
    present = site.authority.site
    many = replace(present, issuers=present.issuers * 2)
    with pytest.raises(ConflictError, match="a root was replaced already") as refused:
        await site.authority.read(lambda session: rotation.start_root(session, many, root, site.clock()))
    assert "rotate site" in refused.value.cure
