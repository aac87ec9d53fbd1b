"""What the authority does by itself in time: design 7."""

import asyncio
import ssl

import pytest

from sealcast.authority.maintenance import renewal_time
from sealcast.errors import StorageError
from sealcast.keys import MemberRole
from sealcast.pki.certificates import certificates_pem
from sealcast.pki.crl import CrlFacts
from sealcast.pki.policy import Policy
from sealcast.sidechannel import KeyServerClient
from tests.authority.conftest import DAY, HOUR, Site

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
            bundle, role="key-server", channel_id=channel.channel_id, suite=1, now=site.clock(), crl=after.crl
        ).stream_id
        for bundle in (before.key_server, after.key_server)
    ]
    assert verified[0] == verified[1], "the control stream goes on under the new certificate"


async def test_its_certificate_is_due_at_two_thirds_of_its_life(site: Site) -> None:
    due = renewal_time(site.authority) - site.clock()
    assert 59 * DAY < due < 61 * DAY


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
