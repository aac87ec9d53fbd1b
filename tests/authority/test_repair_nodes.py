"""Repair nodes as the key server sees them: who is one, what it is given, where it is listed.

Spec: spec/side-channel.md SC-39, SC-40.
"""

import pytest

from sealcast.errors import NotAllowedError
from sealcast.keys import MemberRole
from sealcast.sidechannel import KeyServerClient
from sealcast.sidechannel.messages import RepairNodeEntry
from sealcast.sidechannel.node_messages import GatesAnswer, RepairNodeUpdate
from tests.authority.conftest import SECOND, Site

ECG = "ward/ecg"
NODE = "display-9"
ENDPOINT = ("192.0.2.9", 4711)


async def node(site: Site) -> KeyServerClient:
    """A device with the role of a repair node, which has joined as one."""
    client = await site.client(await site.enrol(NODE))
    await site.authority.set_roles(NODE, ["repair-node"])
    await client.join_as_repair_node(ECG)
    return client


async def keys_of(client: KeyServerClient) -> GatesAnswer:
    status, body = await client.exchange("POST", "/v1/channels/ward%2Fecg/keys", b"\xa0", answer_seconds=10)
    assert status == 200
    return GatesAnswer.parse(body)


def position(site: Site) -> tuple[int, int]:
    live = site.authority.channel(ECG)
    assert live is not None
    return live.keys.generation.position


async def test_only_a_repair_node_joins_as_one_and_as_nothing_else(site: Site) -> None:
    await site.add_channel()
    await site.add_channel("ward/closed", subscribe=("monitor-*",))
    client = await node(site)
    for role in (MemberRole.SUBSCRIBE, MemberRole.PUBLISH):
        with pytest.raises(NotAllowedError):
            await client.join(ECG, role)
    with pytest.raises(NotAllowedError):
        await client.join_as_repair_node("ward/closed")
    other = await site.member("display-1", ECG)
    with pytest.raises(NotAllowedError):
        await other.join_as_repair_node(ECG)


async def test_it_is_given_gates_and_no_secret_that_they_follow_from(site: Site) -> None:
    await site.add_channel()
    client = await node(site)
    given = await keys_of(client)
    live = site.authority.channel(ECG)
    assert live is not None
    generation, slots = live.keys.generation, live.keys.slots.secrets
    assert given.generation == generation.number
    steps = range(generation.step, generation.step + 5)
    assert {(grant.slot, grant.step) for grant in given.gates} == {
        (slot, step) for slot in slots for step in steps
    }
    secrets = {generation.secret.reveal(), *(secret.reveal() for secret in slots.values())}
    told = [key.reveal() for grant in given.gates for key in (grant.gate, grant.credential)]
    assert len(set(told)) == 2 * len(given.gates), "each key once"
    assert secrets.isdisjoint(told)


async def test_who_becomes_one_loses_what_it_could_open_with(site: Site) -> None:
    """And who is one no more is a member as any other after its next join."""
    await site.add_channel()
    client = await site.member(NODE, ECG)
    assert position(site)[0] == 1
    await site.authority.set_roles(NODE, ["repair-node"])
    assert position(site)[0] == 2
    with pytest.raises(NotAllowedError):
        await client.keys(ECG)
    await client.join_as_repair_node(ECG)
    assert position(site)[0] == 2
    await site.authority.set_roles(NODE, [])
    with pytest.raises(NotAllowedError):
        await client.keys(ECG)
    answer = await client.join(ECG, MemberRole.SUBSCRIBE)
    assert answer.keys.generation == 2


async def test_a_removed_repair_node_takes_its_gates_with_it(site: Site) -> None:
    await site.add_channel()
    await node(site)
    await site.authority.revoke_device(NODE)
    assert position(site) == (2, 0)


async def test_the_directory_lists_those_that_are_there(site: Site) -> None:
    await site.add_channel()
    client, member = await node(site), await site.member("display-1", ECG)
    with pytest.raises(NotAllowedError):
        await member.put_repair_node(ECG, RepairNodeUpdate(endpoint=ENDPOINT))
    assert (await member.join(ECG, MemberRole.SUBSCRIBE)).repair_nodes == ()
    await client.put_repair_node(ECG, RepairNodeUpdate(endpoint=ENDPOINT))
    listed = (RepairNodeEntry(device=NODE, endpoint=ENDPOINT),)
    assert (await member.join(ECG, MemberRole.SUBSCRIBE)).repair_nodes == listed
    assert (await client.join_as_repair_node(ECG)).repair_nodes == listed
    site.clock.ahead = 61 * SECOND
    assert (await member.join(ECG, MemberRole.SUBSCRIBE)).repair_nodes == ()
    await client.put_repair_node(ECG, RepairNodeUpdate(endpoint=ENDPOINT))
    assert (await member.join(ECG, MemberRole.SUBSCRIBE)).repair_nodes == listed
    await client.put_repair_node(ECG, RepairNodeUpdate(endpoint=None))
    assert (await member.join(ECG, MemberRole.SUBSCRIBE)).repair_nodes == ()


async def test_it_is_told_since_when_a_device_is_a_member(site: Site) -> None:
    """SC-42."""
    await site.add_channel()
    client = await node(site)
    await site.member("display-1", ECG)
    admission = await client.admission(ECG, "display-1")
    assert (admission.generation, admission.step) == position(site)
    assert abs(admission.joined - site.clock()) < 10 * SECOND
    with pytest.raises(NotAllowedError):
        await client.admission(ECG, "display-2")
