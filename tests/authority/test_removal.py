"""Removal of a device while everything runs: design 5, abuse case E8."""

import asyncio

import pytest

from sealcast.errors import CertificateError, NotAllowedError, UsageError
from sealcast.keys import MemberRole
from sealcast.pki.crl import CrlFacts
from sealcast.sidechannel import KeyServerClient
from tests.authority.conftest import DAY, Site, beacon_counter

ECG = "ward/ecg"
SUBSCRIBE = MemberRole.SUBSCRIBE


def position(site: Site, channel: str = ECG) -> tuple[int, int]:
    live = site.authority.channel(channel)
    assert live is not None
    return live.keys.generation.position


async def test_a_removal_is_whole(site: Site) -> None:
    """CRL, policy and generation of every channel where it was a member; not of others."""
    await site.add_channel()
    await site.add_channel("ward/files")
    await site.add_channel("ward/other")
    removed = await site.member("display-1", ECG)
    await removed.join("ward/files", SUBSCRIBE)
    other = await site.member("display-2", "ward/other")
    before = CrlFacts.parse(site.authority.crl.der)
    assert await site.authority.revoke_device("display-1")
    after = CrlFacts.parse(site.authority.crl.der)
    assert after.number == before.number + 1
    assert len(after.serials) == len(before.serials) + 1
    assert position(site) == position(site, "ward/files") == (2, 0)
    assert position(site, "ward/other") == (1, 1)
    for live in site.authority.all_channels():
        assert not live.policy.mentions("display-1")
    assert (await other.keys("ward/other")).generation == 1


async def test_invariant_5_the_removed_asks_in_vain(site: Site) -> None:
    await site.add_channel()
    client = await site.member("display-1", ECG)
    await site.authority.revoke_device("display-1")
    for request in (
        client.keys(ECG),
        client.join(ECG, SUBSCRIBE),
        client.poll(ECG, 0),
        client.time(),
        client.crl(),
    ):
        with pytest.raises(CertificateError) as caught:
            await request
        assert caught.value.reason == "revoked"


async def test_who_waits_is_told_at_once(site: Site) -> None:
    """The removed one that it is removed, the others by the beacon of the new generation."""
    await site.add_channel()
    removed = await site.member("display-1", ECG)
    other = await site.member("display-2", ECG)
    counter = beacon_counter((await other.keys(ECG)).beacon)
    polls = [asyncio.ensure_future(client.poll(ECG, counter)) for client in (removed, other)]
    await asyncio.sleep(0.05)
    await site.authority.revoke_device("display-1")
    told = await asyncio.wait_for(asyncio.gather(*polls, return_exceptions=True), 1)
    assert isinstance(told[0], CertificateError)
    assert isinstance(told[1], bytes)
    # Generation (4 bytes) in the header: wire.md section 2.
    assert int.from_bytes(told[1][26:30], "big") == 2


async def test_revoking_twice_changes_nothing(site: Site) -> None:
    await site.add_channel()
    await site.member("display-1", ECG)
    assert await site.authority.revoke_device("display-1")
    number = site.authority.crl.number
    assert not await site.authority.revoke_device("display-1")
    assert site.authority.crl.number == number
    assert position(site) == (2, 0)


async def test_one_that_nobody_knows_is_named(site: Site) -> None:
    with pytest.raises(UsageError, match="display-9"):
        await site.authority.revoke_device("display-9")


async def test_one_that_left_still_holds_keys(site: Site) -> None:
    await site.add_channel()
    client = await site.member("display-1", ECG)
    await client.leave(ECG)
    await site.authority.revoke_device("display-1")
    assert position(site) == (2, 0)


async def test_one_taken_from_the_policy_is_removed_too(site: Site) -> None:
    await site.add_channel()
    gone = await site.member("display-1", ECG)
    stays = await site.member("monitor-1", ECG)
    await site.authority.set_members(ECG, None, ("monitor-*",))
    assert position(site) == (2, 0)
    with pytest.raises(NotAllowedError):
        await gone.keys(ECG)
    assert (await stays.keys(ECG)).generation == 2
    assert await gone.time() > 0


async def test_one_whose_certificate_has_ended_is_removed(site: Site) -> None:
    """What is expired must not go on reading with the keys that it holds."""
    await site.add_channel()
    await site.member("display-1", ECG)
    site.clock.ahead = 91 * DAY
    await site.authority.renew_objects()
    assert position(site) == (2, 0)


async def test_no_later_key_is_handed_out_once_the_removal_has_returned(site: Site) -> None:
    """E8: requests of the device in flight all the while, on many connections."""
    await site.add_channel()
    for round_ in range(5):
        name = f"display-{round_}"
        identity = await site.enrol(name)
        clients = [await site.client(identity) for _ in range(4)]
        await clients[0].join(ECG, SUBSCRIBE)
        before = position(site)[0]
        returned = asyncio.Event()
        given: list[tuple[bool, int]] = []

        async def ask(client: KeyServerClient, which: int) -> None:
            while True:
                asked_after = returned.is_set()  # noqa: B023  # of this round
                try:
                    if which % 2:
                        generation = (await client.keys(ECG)).generation
                    else:
                        generation = (await client.join(ECG, SUBSCRIBE)).keys.generation
                except CertificateError:
                    if asked_after:
                        return
                    continue
                given.append((asked_after, generation))  # noqa: B023  # of this round

        asking = [asyncio.ensure_future(ask(client, index)) for index, client in enumerate(clients)]
        await asyncio.sleep(0.15)
        await site.authority.revoke_device(name)
        returned.set()
        await asyncio.wait_for(asyncio.gather(*asking), 10)
        assert given
        assert not any(asked_after for asked_after, _ in given)
        assert {generation for _, generation in given} == {before}
        assert position(site)[0] == before + 1
