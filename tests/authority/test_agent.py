"""The device agent at a real authority: renewal, trust, reports, recovery; where only an operator helps."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from shutil import copytree

import pytest
from sqlalchemy import delete, select

from sealcast.authority.issuance import certificate_row
from sealcast.authority.models import CertificateRow, DeviceRow, ReportRow
from sealcast.authority.renewal import set_renewal_window
from sealcast.authority.site import Site as SiteFolder
from sealcast.ca import KeySigner
from sealcast.device import DeviceIdentity, renew_async
from sealcast.device.agent import AgentStatus, DeviceAgent
from sealcast.device.folder import RENEWAL_KEY
from sealcast.device.identity import CERTIFICATE_FILE
from sealcast.errors import CertificateError, EnrolmentError, StorageError, UnreachableError
from sealcast.est import EstClient, RenewalWindow
from sealcast.est.settings import RECOVERY_GRACE
from sealcast.pki.certificates import certificates_pem
from sealcast.pki.renewal_proof import RenewalProof
from sealcast.pki.times import system_time
from tests.authority.conftest import DAY, HOUR, SECOND, Site, make_site, serving

OLD = 130 * DAY
"""How long ago the site was made: its certificates of that day have expired, its CA has not."""


@pytest.fixture
async def old_site(tmp_path: Path) -> AsyncIterator[Site]:
    """An authority that was switched off for months and is on again."""
    folder = make_site(tmp_path / "authority", now=system_time() - OLD)
    async with serving(folder, tmp_path / "devices") as site:
        yield site


async def expire(site: Site, identity: DeviceIdentity, ago: int) -> DeviceIdentity:
    """Give a device a certificate of its key that ended `ago` microseconds ago, and the register too.

    The one that it was enrolled with counts as an earlier one.
    """
    issuer = site.authority.site.issuer
    issued = issuer.issue_device(
        identity.signer.make_csr(identity.name), identity.name, system_time() - ago - 90 * DAY
    )
    with site.authority.site.storage.transaction() as session:
        row = certificate_row(issued)
        session.get_one(CertificateRow, f"{identity.serial:x}").not_before = row.not_before - SECOND
        session.add(row)
    path = identity.credentials / CERTIFICATE_FILE
    path.write_bytes(certificates_pem([issued.der, *identity.chain[1:]]))
    return DeviceIdentity.open(identity.path)


async def look(site: Site, identity: DeviceIdentity) -> AgentStatus:
    async with DeviceAgent(identity.path, clock=site.clock) as agent:
        return await agent.look()


async def test_it_follows_the_trust_bundle_and_reports_once(site: Site) -> None:
    identity = await site.enrol("monitor-1")
    async with DeviceAgent(identity.path) as agent:
        status = await agent.look()
        assert status.bundle_changed
        assert not status.renewed
        assert status.identity.bundle == site.authority.bundle
        with site.authority.site.storage.snapshot() as session:
            report = session.scalars(select(ReportRow)).one()
            assert (report.device, report.bundle_version) == ("monitor-1", 1)
            assert report.serial == f"{identity.serial:x}"
        again = await agent.look()
        assert not again.bundle_changed


async def test_it_reports_again_after_an_hour_to_an_authority_that_has_lost_it(site: Site) -> None:
    """SC-21: as after a restore; a rotation counts who has reported."""
    identity = await site.enrol("monitor-1")

    def reports() -> int:
        with site.authority.site.storage.snapshot() as session:
            return len(session.scalars(select(ReportRow)).all())

    async with DeviceAgent(identity.path, clock=site.clock) as agent:
        await agent.look()
        await site.operate(lambda session, _: session.execute(delete(ReportRow)))
        await agent.look()
        assert reports() == 0
        site.clock.ahead = HOUR
        await agent.look()
        assert reports() == 1


async def test_it_renews_at_two_thirds_with_a_new_key_each_time(site: Site) -> None:
    identity = await site.enrol("monitor-1")
    life = identity.not_after - identity.not_before
    assert identity.not_before + life // 2 < identity.renewal_time() <= identity.not_before + life * 2 // 3
    now = identity.renewal_time() - SECOND
    async with DeviceAgent(identity.path, clock=lambda: now) as agent:
        assert not (await agent.look()).renewed
        now = identity.renewal_time() + SECOND
        first = await agent.look()
        assert first.renewed
        assert first.identity.signer.public_key != identity.signer.public_key
        # The new one is of the authority's clock, which stands before its time.
        assert first.identity.not_before < now


async def test_it_renews_within_the_window_that_the_authority_asks_for(site: Site) -> None:
    """SC-30: how a rotation has every device take a certificate of another issuer."""
    identity = await site.enrol("monitor-1")

    async def ask_for(start: int) -> None:
        window = RenewalWindow(start=start, end=start + SECOND)
        before = identity.not_before + 1
        await site.operate(
            lambda session, now: set_renewal_window(session, issued_before=before, window=window, now=now)
        )

    async with DeviceAgent(identity.path, clock=site.clock) as agent:
        await ask_for(system_time() + HOUR)
        assert not (await agent.look()).renewed
        await ask_for(system_time() - 2 * SECOND)
        status = await agent.look()
    assert status.renewed
    assert status.identity.serial != identity.serial


async def test_an_authority_without_hints_changes_nothing(site: Site) -> None:
    identity = await site.enrol("monitor-1")
    with site.authority.site.storage.transaction() as session:
        session.get_one(CertificateRow, f"{identity.serial:x}").revoked = 1
    async with DeviceAgent(identity.path, clock=site.clock) as agent:
        assert not (await agent.look()).renewed


async def test_it_goes_on_until_it_is_told_that_the_device_is_revoked(site: Site) -> None:
    identity = await site.enrol("monitor-1")
    looked: asyncio.Queue[AgentStatus] = asyncio.Queue()
    async with asyncio.timeout(20), DeviceAgent(identity.path, on_status=looked.put_nowait) as agent:
        work = asyncio.create_task(agent.run())
        await looked.get()
        agent.wake()
        await looked.get()
        await site.authority.revoke_device("monitor-1")
        agent.wake()
        with pytest.raises(CertificateError) as caught:
            await work
    assert caught.value.reason == "revoked"
    assert "token" in caught.value.cure


async def test_a_device_that_is_locked_out_is_told_of_a_token_and_not_of_a_renewal(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NextLookError(Exception):
        """Ends the agent where it would rest."""

    async def rest(_: int) -> None:
        raise NextLookError

    identity = await site.enrol("monitor-1")
    site.authority.validator = SiteFolder.open(make_site(site.folder.parent / "foreign")).validator()
    async with DeviceAgent(identity.path, clock=site.clock) as agent:
        monkeypatch.setattr(agent, "_rest", rest)
        with pytest.raises(NextLookError):
            await agent.run()
    assert "with a new token into the same folder: sealcast device enroll" in caplog.text


async def test_one_agent_a_folder_and_others_beside_it(site: Site) -> None:
    identity = await site.enrol("monitor-1")
    async with DeviceAgent(identity.path) as agent:
        with pytest.raises(StorageError, match="another agent looks after this folder"):
            async with DeviceAgent(identity.path):
                pass
        # A renewal by hand beside it is noticed, and is safe.
        renewed = await renew_async(identity.path)
        assert (await agent.look()).identity.serial == renewed.serial
    async with DeviceAgent(identity.path):
        pass


async def test_a_device_that_slept_past_its_certificate_recovers(old_site: Site) -> None:
    """SC-22."""
    identity = await expire(old_site, await old_site.enrol("monitor-1"), 10 * DAY)
    with pytest.raises(CertificateError, match="has expired"):
        await renew_async(identity.path)
    status = await look(old_site, identity)
    assert status.renewed
    assert status.identity.not_after > system_time() + 80 * DAY
    assert status.identity.signer.public_key != identity.signer.public_key


async def test_a_copy_of_a_device_does_not_recover_after_the_device_has(
    old_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that was thrown away, or a backup: a proof counts by the latest certificate alone."""
    identity = await expire(old_site, await old_site.enrol("monitor-1"), 10 * DAY)
    folder = await asyncio.to_thread(copytree, identity.path, identity.path.with_name("copy"))
    copy = DeviceIdentity.open(folder)
    assert (await look(old_site, identity)).renewed
    for _ in range(2):
        with pytest.raises(CertificateError, match="has had a later certificate than this one") as caught:
            await look(old_site, copy)
        assert (caught.value.reason, "token" in caught.value.cure) == ("expired", True)
    assert "a copy of the device asks for it" in caplog.text
    assert DeviceIdentity.open(copy.path).serial == copy.serial
    # The device itself goes on.
    assert (await renew_async(identity.path)).not_after > system_time()


@pytest.mark.parametrize("lost", ["recover", "renew"])
async def test_a_device_whose_answer_was_lost_recovers(
    old_site: Site, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """Of a recovery, or of the last renewal before it slept: it asks again with the key that is certified."""
    identity = await old_site.enrol("monitor-1")
    if lost == "recover":
        identity = await expire(old_site, identity, 10 * DAY)
    real = getattr(EstClient, lost)

    async def lose(client: EstClient, *arguments: object) -> bytes:
        await real(client, *arguments)
        raise UnreachableError("https://authority", "no answer in time")

    with monkeypatch.context() as patch:
        patch.setattr(EstClient, lost, lose)
        with pytest.raises(UnreachableError):
            await (renew_async(identity.path) if lost == "renew" else look(old_site, identity))
    assert DeviceIdentity.open(identity.path).serial == identity.serial
    if lost == "renew":
        identity = await expire(old_site, identity, 10 * DAY)
    with old_site.authority.site.storage.snapshot() as session:
        known = set(session.scalars(select(CertificateRow.serial)))
    status = await look(old_site, identity)
    assert f"{status.identity.serial:x}" in known, "the certificate whose answer was lost is given again"
    assert not (identity.path / RENEWAL_KEY).exists()


async def test_past_the_grace_only_a_token_helps(old_site: Site) -> None:
    identity = await expire(old_site, await old_site.enrol("monitor-1"), RECOVERY_GRACE + DAY)
    with pytest.raises(CertificateError, match="past this site's grace") as caught:
        await look(old_site, identity)
    assert caught.value.reason == "expired"
    assert "token" in caught.value.cure
    assert DeviceIdentity.open(identity.path).serial == identity.serial
    again = await old_site.enrol("monitor-1")
    assert again.not_after > system_time()


async def test_the_grace_is_the_sites(old_site: Site) -> None:
    identity = await expire(old_site, await old_site.enrol("monitor-1"), 10 * DAY)
    await old_site.set_enrolment(recovery_grace_us=9 * DAY)
    with pytest.raises(CertificateError, match="more than 9d ago, past this site's grace"):
        await look(old_site, identity)
    await old_site.set_enrolment(recovery_grace_us=0)
    with pytest.raises(CertificateError, match="this site grants no grace") as caught:
        await look(old_site, identity)
    assert (caught.value.reason, "token" in caught.value.cure) == ("expired", True)
    await old_site.set_enrolment(recovery_grace_us=11 * DAY)
    assert (await look(old_site, identity)).renewed


async def test_who_may_not_recover(old_site: Site) -> None:
    site = old_site
    identity = await expire(site, await site.enrol("monitor-1"), 10 * DAY)
    client = EstClient(site.listening.authority, identity.roots)
    csr = KeySigner.generate().make_csr("monitor-1")

    async def refusal(certificate: bytes, signer: KeySigner, *, csr: bytes = csr, late: int = 0) -> str:
        proof = RenewalProof(certificate=certificate, csr=csr, time=system_time() - late)
        with pytest.raises((EnrolmentError, CertificateError)) as caught:
            await client.recover(proof.sign(signer))
        return str(caught.value)

    signer = identity.signer
    assert isinstance(signer, KeySigner)
    # Another key's signature; a recording; another name; a certificate that is good; one of a stranger's CA.
    assert "signature" in await refusal(identity.certificate, KeySigner.generate())
    assert "another time" in await refusal(identity.certificate, signer, late=DAY)
    assert "monitor-2" in await refusal(
        identity.certificate, signer, csr=KeySigner.generate().make_csr("monitor-2")
    )
    alive = await site.enrol("monitor-3")
    assert isinstance(alive.signer, KeySigner)
    assert "has not expired" in await refusal(alive.certificate, alive.signer)
    forged = KeySigner.generate()
    foreign = make_site(site.folder.parent / "foreign", now=system_time() - OLD)
    stranger = SiteFolder.open(foreign).issuer.issue_device(
        forged.make_csr("monitor-1"), "monitor-1", system_time() - 100 * DAY
    )
    assert "not" in await refusal(stranger.der, forged)
    # Revoked stays revoked, expired or not.
    await site.authority.revoke_device("monitor-1")
    assert "revoked" in await refusal(identity.certificate, signer)
    with site.authority.site.storage.snapshot() as session:
        assert session.get_one(DeviceRow, "monitor-1").revoked is not None
