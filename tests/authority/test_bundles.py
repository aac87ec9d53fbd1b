"""The trust bundle in service: versions are stored, told by beacons, walked by devices, and reported.

Spec: side-channel.md SC-19 to SC-21, trust.md TR-21.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from sealcast.authority import lost_bundles
from sealcast.authority.admins import AdminRole
from sealcast.authority.bundles import bundle_progress, draft_bundle
from sealcast.ca import KeySigner
from sealcast.device.folder import current_bundle
from sealcast.device.identity import DeviceIdentity
from sealcast.device.trust import follow_trust_async, report_of, sync_trust
from sealcast.errors import CertificateError, NotAllowedError, StorageError
from sealcast.keys import MemberRole
from sealcast.pki.bundle import SignedBundle
from sealcast.pki.certificates import certificate_der
from sealcast.pki.names import Role
from sealcast.sidechannel.client import UnknownVersionError
from sealcast.sidechannel.messages import BundleAnswer, Report
from tests.authority.bundles import add_version, held, new_root, own_root, owner
from tests.authority.conftest import Site, beacon_counter
from tests.management import manage

ECG = "ward/ecg"


async def test_a_device_walks_every_version_and_reports(site: Site) -> None:
    identity = await site.enrol("monitor-1")
    assert identity.bundle is None
    client = await site.client(identity)
    identity = await sync_trust(identity.path, client)
    assert identity.bundle is not None
    assert (identity.bundle.version, identity.roots) == (1, identity.given_roots)
    await client.report(report_of(identity))
    assert progress(site, 1) == (1, 1, ())
    # It sleeps through two versions.
    await add_version(site)
    await add_version(site)
    await site.enrol("monitor-2")
    assert progress(site, 3) == (2, 0, ("monitor-1", "monitor-2"))
    identity = await sync_trust(identity.path, client)
    assert identity.bundle == held(site)
    assert len(identity.roots) == 3
    await client.report(report_of(identity))
    assert progress(site, 3) == (2, 1, ("monitor-2",))
    # What is held is held after a restart, and is nothing new for the next look.
    assert DeviceIdentity.open(identity.path).bundle == held(site)
    assert (await sync_trust(identity.path, client)).bundle == held(site)


async def test_members_are_told_of_a_version_at_once(site: Site) -> None:
    await site.add_channel(ECG)
    member = await site.member("monitor-1", ECG, MemberRole.PUBLISH)
    before = await member.poll(ECG, 0)
    await add_version(site)
    after = await member.poll(ECG, beacon_counter(before))
    # KM-15: number and hash of the bundle stand behind those of policy and CRL.
    assert after[64 + 88 : 64 + 96] == (2).to_bytes(8, "big")
    assert after[64 + 96 : 64 + 128] == held(site).hash


async def test_what_does_not_follow_changes_nothing(site: Site) -> None:
    stranger = new_root()
    bundle = draft_bundle(held(site), site.clock(), anchors=(*held(site).bundle.anchors, owner(stranger)))
    unsigned = SignedBundle.unsigned(bundle)
    for data in (
        unsigned.serialize(),
        unsigned.sign(certificate_der(stranger.certificate), stranger.signer).serialize(),
        held(site).signed,
        b"junk",
    ):
        with pytest.raises(CertificateError):
            await site.authority.import_bundle(data)
    assert held(site).version == 1


async def test_a_version_that_would_cut_the_site_off_is_refused(site: Site) -> None:
    root = own_root(site)
    other = KeySigner.generate()
    another = root.issue_site_ca(
        site_name="Ward", site_id=site.authority.site.site_id, public_key=other.public_key, now=site.clock()
    )
    [ward] = held(site).bundle.sites
    with pytest.raises(CertificateError, match="cut this site off"):
        await add_version(site, sites=(replace(ward, authorities=(certificate_der(another),)),))
    assert held(site).version == 1


async def test_a_bundle_that_is_not_there_and_a_report_of_another(site: Site) -> None:
    client = await site.client(await site.enrol("monitor-1"))
    with pytest.raises(UnknownVersionError, match="no such version"):
        await client.bundle(2)
    with pytest.raises(UnknownVersionError, match="no version 1"):
        await client.report(Report(bundle_version=1, bundle_hash=bytes(32), serial="1"))
    with pytest.raises(UnknownVersionError, match="no version 9"):
        await client.report(Report(bundle_version=9, bundle_hash=held(site).hash, serial="1"))
    await client.report(Report(bundle_version=0, bundle_hash=bytes(32), serial="1"))


async def test_a_device_that_lies_stops_new_versions_once(site: Site) -> None:
    """A report proves nothing: what the operator does not believe is not believed again."""
    now, storage = site.clock(), site.authority.site.storage
    with storage.transaction() as session:
        for version in (9, 9, 10):
            lost_bundles.note_unknown(session, "monitor-1", version, bytes(32), now)
        assert "'monitor-1' holds version 9" in (lost_bundles.why_not(session, now) or "")
        assert lost_bundles.why_not(session, now - 1) is None
        lost_bundles.settle(session, "Ward", now)
        assert lost_bundles.why_not(session, now) is None
        for version in (9, 10):
            lost_bundles.note_unknown(session, "monitor-1", version, bytes(32), now)
        assert lost_bundles.why_not(session, now) is None
        lost_bundles.note_unknown(session, "monitor-2", 9, bytes(32), now)
        assert "'monitor-2' holds version 9" in (lost_bundles.why_not(session, now) or "")


async def test_b7_a_device_takes_no_other_history(site: Site) -> None:
    """Versions never go back and never branch, across restarts, whoever serves them."""

    class Liar:
        def __init__(self, answer: Callable[[int], bytes]) -> None:
            self._answer = answer

        async def bundle(self, version: int) -> BundleAnswer:
            return BundleAnswer(bundle=self._answer(version), latest=version)

    identity = await site.enrol("monitor-1")
    first = held(site).signed
    second = await add_version(site)
    client = await site.client(identity)
    identity = await sync_trust(identity.path, client)
    for served in (first, second, b"junk"):
        with pytest.raises(CertificateError):
            await sync_trust(identity.path, Liar(lambda _, served=served: served))  # type: ignore[misc]
        assert current_bundle(identity.path) == held(site)
    # A first version that the roots that were given have not signed.
    fresh = await site.enrol("monitor-2")
    stranger = new_root()
    first_bundle = SignedBundle.parse(first).read()
    changed = replace(first_bundle, anchors=(*first_bundle.anchors, owner(stranger)))
    forged = SignedBundle.unsigned(changed).sign(certificate_der(stranger.certificate), stranger.signer)
    with pytest.raises(CertificateError, match="roots that were given"):
        await sync_trust(fresh.path, Liar(lambda _: forged.serialize()))
    assert current_bundle(fresh.path) is None


async def test_a_damaged_bundle_file_is_said(site: Site) -> None:
    identity = await site.enrol("monitor-1")
    await sync_trust(identity.path, await site.client(identity))
    (identity.path / "bundle").write_bytes(b"\x80")
    with pytest.raises(StorageError, match=r"bundle: damaged"):
        DeviceIdentity.open(identity.path)


async def test_a_stranger_gets_no_bundle_and_reports_nothing(site: Site) -> None:
    identity = await site.enrol("monitor-1")
    client = await site.client(identity)
    await site.authority.revoke_device("monitor-1")
    with pytest.raises((CertificateError, NotAllowedError)):
        await client.bundle(1)
    with pytest.raises((CertificateError, NotAllowedError)):
        await client.report(report_of(identity))


def progress(site: Site, version: int) -> tuple[int, int, tuple[str, ...]]:
    with site.authority.site.storage.snapshot() as session:
        found = bundle_progress(session, version, site.clock())
    return found.devices, found.reported, found.missing


async def test_an_admin_follows_the_bundle_and_may_ask_the_key_server_for_nothing_else(site: Site) -> None:
    """SC-19. An admin's folder has no agent: without this its root would end unnoticed after a rotation."""
    admin = await site.admin("olga", AdminRole.VIEWER)
    assert admin.bundle is None
    await add_version(site)
    followed = await follow_trust_async(admin.path, Role.ADMIN)
    assert followed.bundle == held(site)
    assert len(followed.roots) == 2
    client = await site.client(followed)
    assert (await client.bundle(1)).latest == 2
    with pytest.raises(CertificateError) as refused:
        await client.crl()
    assert refused.value.reason == "not-authenticated"
    await manage(site.authority, "PUT", "/v1/admins/olga/revocation")
    with pytest.raises((CertificateError, NotAllowedError)):
        await client.bundle(1)
