"""Floods of an authority: of requests, and of connections. Others get their keys as before. D6, D7."""

import asyncio
import resource

import pytest

from sealcast.keys import MemberRole
from sealcast.sidechannel.messages import EmptyBody
from tests.authority.conftest import Site
from tests.sidechannel.flood import flooding, note, waits
from tests.sidechannel.test_half_open import ELSEWHERE, HALF_OPEN, WAITING, Attacker, bound

CHANNEL = "ward/ecg"


async def test_d6_a_flood_of_key_requests_is_refused_and_others_get_theirs(site: Site) -> None:
    await site.add_channel(CHANNEL)
    greedy = await site.enrol("display-1")
    await (await site.client(greedy)).join(CHANNEL, MemberRole.SUBSCRIBE)
    modest = await site.member("display-2", CHANNEL)

    async def ask() -> None:
        await modest.keys(CHANNEL)

    alone = await waits(ask)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    authorities = (*greedy.roots, *greedy.issuers)
    port = int(site.listening.keys.rpartition(":")[2])
    path = f"/v1/channels/{CHANNEL.replace('/', '%2F')}/keys"
    async with flooding(greedy, authorities, port, path, EmptyBody().serialize()) as answers:
        beside = await waits(ask)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 16 * 1024
    note("key requests of a modest member beside a flood", alone, beside, answers, grown * 1024)


async def test_d7_connections_that_say_nothing_leave_members_and_newcomers_alone(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of EST and of the key server, each of which ends what is too much of one address."""
    bound(monkeypatch)
    await site.add_channel(CHANNEL)
    member = await site.member("display-1", CHANNEL)
    urls = (site.listening.authority, site.listening.keys)
    attackers = [Attacker(int(url.rpartition(":")[2]), ELSEWHERE) for url in urls]
    try:
        for attacker in attackers:
            await attacker.open(30)
        async with asyncio.timeout(20):
            await member.keys(CHANNEL)
            newcomer = await site.member("display-2", CHANNEL)
            await newcomer.keys(CHANNEL)
        for attacker in attackers:
            await attacker.ended(30 - HALF_OPEN - WAITING)
    finally:
        for attacker in attackers:
            attacker.close()
