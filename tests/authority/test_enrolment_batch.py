"""Requests that share a transaction: each has its own outcome, and is answered when all is durable."""

import asyncio

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from sqlalchemy import func, select, text

from sealcast.authority import audit
from sealcast.authority.enrolment_batch import MAX_BATCH
from sealcast.authority.models import CertificateRow, PolicyRow, TokenRow
from sealcast.errors import CsrError, SealcastError, TokenError
from sealcast.est import EnrolmentRequest
from sealcast.keys import MemberRole
from sealcast.pki.certificates import parse_certificate
from sealcast.pki.crl import CrlFacts
from sealcast.pki.csr import CertificateRequest, make_csr
from tests.authority.conftest import HOUR, Site

ECG = "ward/ecg"


def request(name: str, token: str, asked: str | None = None) -> EnrolmentRequest:
    csr = CertificateRequest.parse(make_csr(generate_private_key(SECP256R1()), asked or name))
    return EnrolmentRequest(csr=csr, name=name, token=token)


def serials(site: Site) -> set[int]:
    with site.authority.site.storage.snapshot() as session:
        found = session.scalars(select(CertificateRow.serial).where(CertificateRow.role == "device"))
        return {int(serial, 16) for serial in found}


def versions(site: Site) -> int:
    with site.authority.site.storage.snapshot() as session:
        return session.scalar(select(func.max(PolicyRow.version))) or 0


async def test_a_ward_that_is_switched_on_costs_few_transactions(site: Site) -> None:
    await site.add_channel()
    names = [f"monitor-{number}" for number in range(MAX_BATCH + 8)]
    tokens = [await site.authority.create_token(name, HOUR) for name in names]
    enrol = site.authority.est.enroll
    before = versions(site)
    got = await asyncio.gather(*(enrol(request(*each)) for each in zip(names, tokens, strict=True)))
    assert {parse_certificate(der).serial_number for der in got} == serials(site)
    # As many as may, then the rest.
    assert versions(site) - before == 2
    live = site.authority.channel(ECG)
    assert live is not None
    assert all(live.policy.allows(name, MemberRole.PUBLISH) for name in names)
    with site.authority.site.storage.snapshot() as session:
        assert audit.verify(session).first_bad is None
    entries = site.authority.site.issuer.issued_after(0, 1000)
    assert all(entry.certificate is not None for entry in entries)


async def test_who_is_refused_is_refused_alone(site: Site) -> None:
    good, other = await site.token("good"), await site.token("other")
    used = await site.token("used")
    enrol = site.authority.est.enroll
    await enrol(request("used", used))
    asked = [
        request("first", await site.token("first")),
        request("good", good),
        request("bad", "nonsense"),
        request("used", used),
        # Whoever has a token for one name gets none for another, and the token stays good.
        request("other", other, asked="good"),
        request("good", good),
    ]
    got = await asyncio.gather(*map(enrol, asked), return_exceptions=True)
    assert [type(each) for each in got] == [bytes, bytes, TokenError, TokenError, CsrError, TokenError]
    assert len(serials(site)) == 3
    await enrol(request("other", other))


async def test_renewals_and_first_certificates_go_together(site: Site) -> None:
    token = await site.token("new")
    await site.enrol("first")
    old = await site.enrol("old")
    key = generate_private_key(SECP256R1())
    renewal = EnrolmentRequest(
        csr=CertificateRequest.parse(make_csr(key, "", current=parse_certificate(old.chain[0]))),
        certificate=old.chain[0],
    )
    est = site.authority.est
    again = EnrolmentRequest(csr=renewal.csr, certificate=old.chain[0])
    got = await asyncio.gather(est.reenroll(renewal), est.enroll(request("new", token)), est.reenroll(again))
    assert len({parse_certificate(der).serial_number for der in got}) == 3
    assert len(serials(site)) == 5


async def test_a_fault_of_the_database_is_everyones_and_leaves_no_trace(site: Site) -> None:
    """Every certificate of the transaction is revoked by the next upkeep, and the tokens stay good."""
    storage = site.authority.site.storage
    tokens = [await site.token(name) for name in "abc"]
    with storage.transaction() as session:
        session.execute(
            text("CREATE TRIGGER full BEFORE INSERT ON certificates BEGIN SELECT RAISE(ABORT, 'full'); END")
        )
    enrol = site.authority.est.enroll
    asked = [request(name, token) for name, token in zip("abc", tokens, strict=True)]
    got = await asyncio.gather(*map(enrol, asked), return_exceptions=True)
    assert not any(isinstance(each, bytes | SealcastError) for each in got)
    with storage.transaction() as session:
        session.execute(text("DROP TRIGGER full"))
        assert session.scalars(select(TokenRow.used)).all() == [None] * 3
    signed = [entry.serial for entry in site.authority.site.issuer.issued_after(1, 10)]
    assert len(signed) == 3
    await site.authority.renew_objects()
    assert set(signed) <= CrlFacts.parse(site.authority.crl.der).serials
    assert all([await enrol(each) for each in asked])


@pytest.mark.parametrize("waits", [1, 2])
async def test_a_client_that_hangs_up_stops_nobody(site: Site, waits: int) -> None:
    names = [f"monitor-{number}" for number in range(3)]
    asked = [request(name, await site.token(name)) for name in names]
    tasks = [asyncio.create_task(site.authority.est.enroll(each)) for each in asked]
    await asyncio.sleep(0)
    tasks[waits].cancel()
    got = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(each, bytes) for each in got] == [place != waits for place in range(3)]
