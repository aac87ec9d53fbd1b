"""A member that asks the key server without end: others get their keys as before. D6."""

import resource

from sealcast.keys import MemberRole
from sealcast.sidechannel.messages import EmptyBody
from tests.authority.conftest import Site
from tests.sidechannel.flood import flooding, note, waits

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
