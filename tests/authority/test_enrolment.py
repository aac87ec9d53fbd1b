"""Tokens and certificates: SC-10 to SC-12, abuse cases F1 and F15."""

import asyncio

import pytest
from sqlalchemy import func, select

from sealcast.authority.models import CertificateRow, TokenRow
from sealcast.ca import KeySigner
from sealcast.device import renew_async
from sealcast.errors import CertificateError, EnrolmentError, TokenError, UsageError
from sealcast.est import EnrolmentRequest, EstClient
from sealcast.pki.certificates import parse_certificate
from sealcast.pki.csr import CertificateRequest
from tests.authority.conftest import DAY, HOUR, SECOND, Site


def count_certificates(site: Site, name: str) -> int:
    with site.authority.site.storage.snapshot() as session:
        return (
            session.scalar(
                select(func.count()).select_from(CertificateRow).where(CertificateRow.name == name)
            )
            or 0
        )


def renewal(certificate: bytes, signer: KeySigner) -> EnrolmentRequest:
    """What the listener makes of a request for the successor of a certificate."""
    csr = signer.make_csr("", current=parse_certificate(certificate))
    return EnrolmentRequest(csr=CertificateRequest.parse(csr), certificate=certificate)


async def test_a_token_admits_its_device_once(site: Site) -> None:
    token = await site.token("monitor-1")
    identity = await site.enrol("monitor-1", token)
    assert identity.site_id == site.authority.site.site_id
    with pytest.raises(TokenError):
        await site.enrol("monitor-1", token)
    assert count_certificates(site, "monitor-1") == 1


async def test_a_token_is_bound_to_its_device(site: Site) -> None:
    token = await site.token("monitor-1")
    with pytest.raises(TokenError):
        await site.enrol("monitor-2", token)
    await site.enrol("monitor-1", token)


async def test_a_token_ends(site: Site) -> None:
    token = await site.token("monitor-1", ttl=5 * SECOND)
    site.clock.ahead = 5 * SECOND
    with pytest.raises(TokenError):
        await site.enrol("monitor-1", token)


async def test_only_the_hash_of_a_token_is_stored(site: Site) -> None:
    token = await site.token("monitor-1")
    with site.authority.site.storage.snapshot() as session:
        row = session.scalars(select(TokenRow)).one()
        assert token.encode() not in row.hash
        assert row.used is None


async def test_a_request_that_is_refused_leaves_the_token_good(site: Site) -> None:
    """F1 and SC-12: the CSR names someone else."""
    token = await site.token("monitor-1")
    client = EstClient(site.listening.authority, site.roots)
    with pytest.raises(EnrolmentError):
        await client.simpleenroll("monitor-1", token, KeySigner.generate().make_csr("monitor-2"))
    await site.enrol("monitor-1", token)


async def test_f15_a_hundred_parallel_uses_of_a_token_give_one_certificate(site: Site) -> None:
    token = await site.token("monitor-1")
    client = EstClient(site.listening.authority, site.roots)
    signers = [KeySigner.generate() for _ in range(100)]
    results = await asyncio.gather(
        *(client.simpleenroll("monitor-1", token, signer.make_csr("monitor-1")) for signer in signers),
        return_exceptions=True,
    )
    certificates = [result for result in results if isinstance(result, bytes)]
    refusals = [result for result in results if isinstance(result, TokenError)]
    assert (len(certificates), len(refusals)) == (1, 99)
    assert count_certificates(site, "monitor-1") == 1


async def test_no_name_of_a_device_is_taken_for_a_token(site: Site) -> None:
    with pytest.raises(UsageError):
        await site.token("../monitor")


async def test_a_device_renews_itself(site: Site) -> None:
    before = await site.enrol("monitor-1")
    after = await renew_async(before.path)
    assert (after.name, after.serial) != (before.name, before.serial)
    assert count_certificates(site, "monitor-1") == 2


async def test_est_23_a_removed_device_cannot_renew(site: Site) -> None:
    """The register decides, even where the CRL at hand did not."""
    identity = await site.enrol("monitor-1")
    await site.authority.revoke_device("monitor-1")
    with pytest.raises((CertificateError, EnrolmentError), match="revoked"):
        await renew_async(identity.path)
    assert count_certificates(site, "monitor-1") == 1


async def test_removal_takes_back_tokens_that_are_out(site: Site) -> None:
    await site.enrol("monitor-1")
    token = await site.token("monitor-1")
    await site.authority.revoke_device("monitor-1")
    with pytest.raises(TokenError):
        await site.enrol("monitor-1", token)


async def test_a_removed_device_comes_back_by_a_new_token(site: Site) -> None:
    await site.add_channel()
    await site.enrol("monitor-1")
    await site.authority.revoke_device("monitor-1")
    identity = await site.enrol("monitor-1")
    client = await site.client(identity)
    assert await client.time() > 0
    policy = site.authority.all_channels()[0].policy
    assert "monitor-1" in policy.publishers


async def test_a_certificate_that_the_register_does_not_know_is_not_renewed(site: Site) -> None:
    """For example one of a key that was taken from a backup of the site CA."""
    issuer = site.authority.site.issuer
    signer = KeySigner.generate()
    forged = issuer.issue_device(signer.make_csr("monitor-9"), "monitor-9", site.clock())
    with pytest.raises(CertificateError, match="register"):
        await site.authority.est.reenroll(renewal(forged.der, signer))


async def test_invariant_5_the_expired_is_not_renewed(site: Site) -> None:
    identity = await site.enrol("monitor-1")
    signer = KeySigner.generate()
    site.clock.ahead = 91 * DAY
    with pytest.raises(CertificateError) as caught:
        await site.authority.est.reenroll(renewal(identity.certificate, signer))
    assert caught.value.reason in ("expired", "revocation-unknown")


async def test_tokens_that_ended_are_forgotten(site: Site) -> None:
    await site.token("monitor-1", ttl=SECOND)
    site.clock.ahead = HOUR
    await site.token("monitor-2")
    with site.authority.site.storage.snapshot() as session:
        assert [row.device for row in session.scalars(select(TokenRow))] == ["monitor-2"]
