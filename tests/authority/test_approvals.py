"""SC-24: requests that wait for an operator (RFC 7030 section 4.2.3)."""

import asyncio
import base64
import hashlib
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from sealcast import cli
from sealcast.authority.approvals import MAX_OPEN, PENDING_LIFE, RETRY_SECONDS
from sealcast.device import DeviceIdentity, PendingRequest, cancel, enroll_async
from sealcast.errors import ConflictError, EnrolmentError, TokenError, UsageError
from sealcast.est.messages import decode_certificates
from sealcast.pki.certificates import parse_certificate, spki
from tests.authority.conftest import HOUR, SECOND, Site, serving
from tests.est.wire import CHALLENGE_PASSWORD, Reply, Wire, body, csr, request, tls


@pytest.fixture
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
async def ward(site: Site) -> Site:
    """A site where a token alone is not enough, and where anyone may ask."""
    await switch(site, approve_tokens=True, open_requests=True)
    return site


async def switch(site: Site, **switches: bool) -> None:
    await site.set_enrolment(**switches)


def wire(site: Site) -> Wire:
    return Wire(int(site.listening.authority.rpartition(":")[2]), tls(site.roots))


async def ask(
    site: Site, token: str, key: ec.EllipticCurvePrivateKey, name: str = "monitor-1", operation: str = ""
) -> Reply:
    return await wire(site).post(
        operation or "simpleenroll", body(csr(name, key=key)), credentials=f"{name}:{token}"
    )


async def test_est_25_a_request_waits_and_is_then_answered(
    ward: Site, key: ec.EllipticCurvePrivateKey
) -> None:
    token = await ward.token("monitor-1")
    for _ in range(3):
        reply = await ask(ward, token, key)
        assert reply.status == 202
        assert reply.headers["Retry-After"] == str(RETRY_SECONDS)
    [row] = ward.approvals()
    assert (row["device"], row["state"], row["credential"], row["known"]) == (
        "monitor-1", "pending", "token", "new",
    )  # fmt: skip
    await ward.approve(row["id"])
    reply = await ask(ward, token, key)
    assert reply.status == 200
    [certificate] = decode_certificates(reply.body)
    assert parse_certificate(certificate).public_key() == key.public_key()
    # SC-12: the token is used up now, not before.
    assert (await ask(ward, token, key)).status == 401


async def test_est_25_the_state_survives_a_restart(folder: Path, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    token, number = "", 0
    for step in ("ask", "approve", "fetch"):
        async with serving(folder, tmp_path) as site:
            match step:
                case "ask":
                    await switch(site, approve_tokens=True)
                    token = await site.token("monitor-1")
                    assert (await ask(site, token, key)).status == 202
                case "approve":
                    assert (await ask(site, token, key)).status == 202
                    [row] = site.approvals()
                    number = int(str(row["id"]))
                    await site.approve(number)
                case _:
                    assert (await ask(site, token, key)).status == 200
                    assert [row["state"] for row in site.approvals()] == ["issued"]


async def test_est_26_the_key_tells_not_the_session(ward: Site, key: ec.EllipticCurvePrivateKey) -> None:
    """The same key with the tls-unique of another session is the same request."""
    token = await ward.token("monitor-1")
    connection = wire(ward)
    connection.context.maximum_version = ssl.TLSVersion.TLSv1_2
    seen = set()

    def make(unique: bytes) -> bytes:
        seen.add(unique)
        der = csr("monitor-1", key=key, attributes={CHALLENGE_PASSWORD: base64.b64encode(unique)})
        return request("simpleenroll", body(der), credentials=f"monitor-1:{token}")

    for _ in range(3):
        assert (await connection.send_linked(make)).status == 202
    [row] = ward.approvals()
    await ward.approve(row["id"])
    assert (await connection.send_linked(make)).status == 200
    assert len(seen) == 4


async def test_est_27_a_denial_is_told_with_its_reason(ward: Site, key: ec.EllipticCurvePrivateKey) -> None:
    token = await ward.token("monitor-1")
    await ask(ward, token, key)
    [row] = ward.approvals()
    await ward.deny(row["id"], "not in this ward")
    for _ in range(2):
        reply = await ask(ward, token, key)
        assert reply.status == 403
        assert b"not in this ward" in reply.body
    # Who has the token may ask by another key; the operator sees it as another request.
    assert (await ask(ward, token, ec.generate_private_key(ec.SECP256R1()))).status == 202


async def test_an_approval_is_for_one_key(ward: Site, key: ec.EllipticCurvePrivateKey) -> None:
    """Whoever steals the token meanwhile gets nothing by the yes to somebody else's key."""
    token = await ward.token("monitor-1")
    await ask(ward, token, key)
    [row] = ward.approvals()
    await ward.approve(row["id"])
    assert (await ask(ward, token, ec.generate_private_key(ec.SECP256R1()))).status == 202
    assert (await ask(ward, token, key)).status == 200


async def test_a_token_that_ends_while_its_request_waits_still_counts(
    ward: Site, key: ec.EllipticCurvePrivateKey
) -> None:
    token = await ward.token("monitor-1", ttl=5 * SECOND)
    await ask(ward, token, key)
    ward.clock.ahead = HOUR
    await ward.token("monitor-2")
    [row] = ward.approvals()
    await ward.approve(row["id"])
    other = ec.generate_private_key(ec.SECP256R1())
    assert (await ask(ward, token, other)).status == 401
    assert (await ask(ward, token, key)).status == 200


async def test_a_removal_takes_back_a_yes(ward: Site, key: ec.EllipticCurvePrivateKey) -> None:
    await switch(ward, approve_tokens=False)
    await ward.enrol("monitor-1")
    await switch(ward, approve_tokens=True)
    assert (await ask(ward, "", key)).status == 202
    [row] = ward.approvals()
    assert row["known"] == "enrolled"
    await ward.approve(row["id"])
    await ward.authority.revoke_device("monitor-1")
    assert (await ask(ward, "", key)).status == 202
    [row] = ward.approvals()
    assert row["known"] == "revoked"
    # A yes after the removal is as good as a token that was made after it.
    await ward.approve(row["id"])
    assert (await ask(ward, "", key)).status == 200
    assert "monitor-1" not in ward.authority.site.issuer.removed_names()


class TestWithoutCredential:
    async def test_off_it_is_401(self, site: Site, key: ec.EllipticCurvePrivateKey) -> None:
        assert (await ask(site, "", key)).status == 401
        assert not site.approvals()

    async def test_on_the_operator_decides(self, ward: Site, key: ec.EllipticCurvePrivateKey) -> None:
        assert (await ask(ward, "", key)).status == 202
        [row] = ward.approvals()
        assert row["credential"] == "none"
        await ward.approve(row["id"])
        first = await ask(ward, "", key)
        assert first.status == 200
        # An answer that was lost is given again; it is the same certificate.
        again = await ask(ward, "", key)
        assert decode_certificates(again.body) == decode_certificates(first.body)

    async def test_two_who_claim_a_name_are_two_requests(self, ward: Site) -> None:
        keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
        for each in keys:
            assert (await ask(ward, "", each)).status == 202
        rows = ward.approvals()
        assert len({row["key_sha256"] for row in rows}) == 2
        await ward.approve(rows[1]["id"])
        assert [(await ask(ward, "", each)).status for each in keys] == [202, 200]

    async def test_a_flood_is_bounded(self, ward: Site, key: ec.EllipticCurvePrivateKey) -> None:
        with ward.authority.site.storage.transaction() as session:
            from sealcast.authority.approvals import Credential
            from sealcast.authority.approvals import ask as ask_row

            for number in range(MAX_OPEN):
                ask_row(
                    session, device="monitor-1", key_hash=number.to_bytes(32, "big"), generated=False,
                    credential=Credential.NONE, credential_id=b"", detail="", now=ward.clock(),
                )  # fmt: skip
        reply = await ask(ward, "", key)
        assert reply.status == 503
        assert reply.headers["Retry-After"].isdigit()
        # Those with a token are not concerned, and what nobody repeats goes in time.
        assert (await ask(ward, await ward.token("monitor-1"), key)).status == 202
        ward.clock.ahead = PENDING_LIFE + HOUR
        assert (await ask(ward, "", key)).status == 202
        assert len(ward.approvals()) == 1


async def test_a_key_made_here_waits_too(ward: Site, key: ec.EllipticCurvePrivateKey) -> None:
    await switch(ward, server_keygen=True)
    token = await ward.token("monitor-1")
    assert (await ask(ward, token, key, operation="serverkeygen")).status == 202
    [row] = ward.approvals()
    assert row["generated"] is True
    await ward.approve(row["id"])
    # The yes was to a key that is made here, not to this one.
    assert (await ask(ward, token, key)).status == 202
    assert (await ask(ward, token, key, operation="serverkeygen")).status == 200


async def test_our_device_waits_with_the_same_key(ward: Site, tmp_path: Path) -> None:
    """`device enroll --wait`: the operator says yes while it sleeps."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        [row] = ward.approvals()
        await ward.approve(row["id"])

    arguments = {
        "authority_url": ward.listening.authority,
        "roots": ward.roots,
        "name": "monitor-1",
        "token": await ward.token("monitor-1"),
    }
    with pytest.raises(EnrolmentError) as caught:
        await enroll_async(tmp_path / "impatient", **arguments)  # type: ignore[arg-type]
    assert caught.value.retry_after == RETRY_SECONDS
    identity = await enroll_async(tmp_path / "patient", patience=3600, sleep=sleep, **arguments)  # type: ignore[arg-type]
    assert identity.name == "monitor-1"
    assert slept == [RETRY_SECONDS]


async def test_our_device_goes_on_with_its_request_after_restarts(folder: Path, tmp_path: Path) -> None:
    """Its own and the authority's; also where each TLS session needs a request of its own."""
    device, token = tmp_path / "device", ""
    identity = None
    for step in ("ask", "ask linked", "approve"):
        async with serving(folder, tmp_path) as site:
            match step:
                case "ask":
                    await switch(site, approve_tokens=True)
                    token = await site.token("monitor-1")
                case "ask linked":
                    await switch(site, linking_required=True)
                case _:
                    await site.approve(site.approvals()[0]["id"])
            enrolling = enroll_async(
                device,
                authority_url=site.listening.authority,
                roots=site.roots,
                name="monitor-1",
                token=token,
            )
            if step == "approve":
                identity = await enrolling
            else:
                with pytest.raises(EnrolmentError, match="not decided yet"):
                    await enrolling
            [row] = site.approvals()
            waiting = PendingRequest.read(device)
            signer = waiting.signer if waiting else DeviceIdentity.open(device).signer
            assert row["key_sha256"] == hashlib.sha256(spki(signer.public_key)).hexdigest()
            assert row["state"] == ("issued" if step == "approve" else "pending")
    assert identity is not None
    assert PendingRequest.read(device) is None


async def test_est_27_a_denied_device_is_told_until_it_drops_its_request(
    ward: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = tmp_path / "device"

    async def enrol() -> None:
        await enroll_async(
            device, authority_url=ward.listening.authority, roots=ward.roots, name="monitor-1", token=token
        )

    token = await ward.token("monitor-1")
    with pytest.raises(EnrolmentError, match="not decided yet"):
        await enrol()
    await ward.deny(ward.approvals()[0]["id"], "not in this ward")
    for _ in range(2):
        with pytest.raises(EnrolmentError, match="not in this ward") as caught:
            await enrol()
        assert "drop the request: sealcast device enroll DIR --cancel" in caught.value.cure
    assert cli.main(["device", "show", str(device)]) == 0
    shown = capsys.readouterr().out
    assert "not in this ward" in shown
    assert "waits since" not in shown
    cancel(device)
    with pytest.raises(EnrolmentError, match="not decided yet"):
        await enrol()
    assert [row["state"] for row in ward.approvals()] == ["denied", "pending"]


async def test_what_is_decided_is_decided(ward: Site, key: ec.EllipticCurvePrivateKey) -> None:
    await ask(ward, await ward.token("monitor-1"), key)
    [row] = ward.approvals()
    with pytest.raises(UsageError, match="99"):
        await ward.approve(99)
    with pytest.raises(UsageError, match="reason"):
        await ward.deny(row["id"], "two\nlines")
    await ward.deny(row["id"], "")
    for again in (ward.approve(row["id"]), ward.deny(row["id"])):
        with pytest.raises(ConflictError, match="denied"):
            await again


async def test_f15_a_hundred_parallel_fetches_give_one_certificate(
    ward: Site, key: ec.EllipticCurvePrivateKey
) -> None:
    token = await ward.token("monitor-1")
    await ask(ward, token, key)
    [row] = ward.approvals()
    await ward.approve(row["id"])
    replies = await asyncio.gather(*(ask(ward, token, key) for _ in range(100)))
    assert sorted(reply.status for reply in replies) == [200] + [401] * 99


async def test_a_refused_request_never_waits(ward: Site, key: ec.EllipticCurvePrivateKey) -> None:
    token = await ward.token("monitor-1")
    reply = await wire(ward).post(
        "simpleenroll", body(csr("monitor-2", key=key)), credentials=f"monitor-1:{token}"
    )
    assert reply.status == 403
    assert not ward.approvals()
    with pytest.raises(TokenError):
        await ward.enrol("monitor-1", "wrong")
    assert not ward.approvals()
