"""What the authority does by itself in time: design 7."""

import asyncio
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from sealcast.authority.app import running
from sealcast.authority.maintenance import Outage
from sealcast.authority.site import exclusive
from sealcast.errors import StorageError
from sealcast.keys import MemberRole
from sealcast.pki.certificates import certificates_pem
from sealcast.pki.crl import CrlFacts
from sealcast.pki.policy import Policy
from sealcast.pki.profiles import CLOCK_ALLOWANCE
from sealcast.pki.times import microseconds
from sealcast.sidechannel import KeyServerClient
from tests.authority.conftest import DAY, HOUR, LOOPBACK, Clock, Site, make_site, settings

ECG = "ward/ecg"


async def test_policy_and_crl_are_renewed_before_they_end(site: Site) -> None:
    await site.add_channel()
    channel = site.authority.all_channels()[0]
    policy, crl = Policy.parse(channel.policy.signed, None), CrlFacts.parse(site.authority.crl.der)
    site.clock.ahead = 23 * HOUR
    await site.authority.renew_objects()
    assert (channel.policy.version.version, site.authority.crl.number) == (policy.version, crl.number)
    site.clock.ahead = 25 * HOUR
    await site.authority.renew_objects()
    renewed, new_crl = Policy.parse(channel.policy.signed, None), CrlFacts.parse(site.authority.crl.der)
    assert (renewed.version, new_crl.number) == (policy.version + 1, crl.number + 1)
    assert renewed.next_update > policy.next_update > site.clock() + 48 * HOUR
    assert new_crl.next_update > crl.next_update > site.clock() + 48 * HOUR


async def test_what_was_signed_while_the_clock_was_ahead_is_signed_anew(site: Site) -> None:
    """Else nothing would be fresh for as long as the clock was ahead."""
    await site.add_channel()
    channel = site.authority.all_channels()[0]
    serial = (await site.enrol("monitor-1")).serial
    site.clock.ahead = 10 * DAY
    await site.authority.revoke_device("monitor-1")
    await site.authority.renew_objects()
    policy, crl = channel.policy.version.version, site.authority.crl.number
    site.clock.ahead = 0
    await site.authority.renew_objects()
    assert Policy.parse(channel.policy.signed, None).issued <= site.clock()
    assert site.authority.crl.issued <= site.clock()
    assert channel.policy.version.version == policy + 1
    listed = x509.load_der_x509_crl(site.authority.crl.own)
    assert CrlFacts.parse(site.authority.crl.der).number == site.authority.crl.number == crl + 1
    entry = listed.get_revoked_certificate_by_serial_number(serial)
    assert entry is not None
    await site.authority.renew_objects()
    assert (channel.policy.version.version, site.authority.crl.number) == (policy + 1, crl + 1)


async def test_a_clock_that_was_a_moment_ahead_costs_no_new_objects(site: Site) -> None:
    await site.add_channel()
    channel = site.authority.all_channels()[0]
    before = channel.policy.version.version, site.authority.crl.number
    site.clock.ahead = -microseconds(CLOCK_ALLOWANCE) // 2
    await site.authority.renew_objects()
    assert (channel.policy.version.version, site.authority.crl.number) == before


async def test_an_authority_that_was_off_past_its_certificate_starts_with_its_channels(
    tmp_path: Path,
) -> None:
    folder = make_site(tmp_path / "authority", now=Clock()() - 100 * DAY)
    with exclusive(folder):
        async with running(folder, listen=LOOPBACK, clock=Clock(ahead=-100 * DAY)) as (authority, _):
            await authority.add_channel(settings())
            old = authority.identity
        clock = Clock()
        assert old.not_after < clock()
        async with running(folder, listen=LOOPBACK, clock=clock) as (authority, listening):
            channel = authority.all_channels()[0]
            authority.credentials.verify_credential(
                channel.bundle,
                role="key-server",
                channel_id=channel.channel_id,
                suite=3,
                now=clock(),
                crl=authority.crl.der,
            )
            shown = await shown_certificate(listening.authority, authority.site.roots[0])
            assert shown == authority.identity.chain[0] != old.chain[0]


async def shown_certificate(url: str, root: bytes) -> bytes:
    context = ssl.create_default_context(cadata=certificates_pem([root]).decode())
    host, _, port = url.removeprefix("https://").rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    connection: ssl.SSLObject = writer.get_extra_info("ssl_object")
    certificate = connection.getpeercert(binary_form=True)
    writer.close()
    assert certificate
    return certificate


async def test_the_key_server_renews_its_certificate_without_a_break(site: Site) -> None:
    await site.add_channel()
    identity = await site.enrol("display-1")
    url, root = site.listening.authority, site.roots[0]
    async with KeyServerClient(identity) as client:
        before = await client.join(ECG, MemberRole.SUBSCRIBE)
        old = await shown_certificate(url, root)
        await site.authority.renew_certificate()
        assert await shown_certificate(url, root) != old
        after = await client.join(ECG, MemberRole.SUBSCRIBE)
    assert after.key_server != before.key_server
    channel = site.authority.all_channels()[0]
    verified = [
        site.authority.credentials.verify_credential(
            bundle, role="key-server", channel_id=channel.channel_id, suite=3, now=site.clock(), crl=after.crl
        ).stream_id
        for bundle in (before.key_server, after.key_server)
    ]
    assert verified[0] == verified[1], "the control stream goes on under the new certificate"


async def test_its_certificate_is_due_at_two_thirds_of_its_life(site: Site) -> None:
    due = site.authority.identity.renewal_time - site.clock()
    assert 59 * DAY < due < 61 * DAY


def test_a_failure_that_lasts_is_told_at_growing_distance(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage()
    day = 24 * 3600
    times = []
    for second in range(day):
        before = len(caplog.records)
        outage.failed(StorageError("authority.db", "disk is full"), float(second))
        if len(caplog.records) > before:
            times.append(second)
    assert times[:5] == [0, 10, 70, 670, 4270]
    assert len(times) == 4 + (day - 670) // 3600
    assert "(4271 times by now): authority.db: disk is full" in caplog.text
    outage.worked()
    outage.worked()
    assert caplog.messages[-1] == f"upkeep works again, after {day} failures"
    # Another outage is told at once again.
    outage.failed(ValueError("a fault"), float(day))
    assert caplog.records[-1].exc_info
    assert caplog.records[-1].message == "upkeep failed, it will be tried again"


async def test_a_full_disk_stops_neither_the_service_nor_its_upkeep(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that are there are served on; the turn comes when there is room again."""
    await site.add_channel(slot=200_000, slots_ahead=5)
    client = await site.member("display-1", ECG)
    real = site.authority.turn_slots
    failures = 0

    async def full() -> None:
        nonlocal failures
        failures += 1
        raise StorageError("authority.db", "database or disk is full")

    monkeypatch.setattr(site.authority, "turn_slots", full)
    await asyncio.sleep(0.5)
    assert failures
    assert (await client.keys(ECG)).slots
    monkeypatch.setattr(site.authority, "turn_slots", real)
    await asyncio.sleep(1.5)
    present = site.authority.all_channels()[0].keys.slots.present
    assert present >= 5
