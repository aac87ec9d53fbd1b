"""D9: a newcomer asks for what was before it, and a removed member for what it once had.

Keys are those of the present: a request names no epoch. Packets from before can be had, as members mend their
losses by them, and stay sealed.
"""

import asyncio
import logging

import pytest

from sealcast.endpoint import Device
from sealcast.errors import CertificateError, NotAllowedError
from sealcast.keys import MemberRole
from sealcast.pki.names import channel_id
from sealcast.sidechannel import KeyServerClient, PeerClient
from sealcast.sidechannel.messages import KeysAnswer
from tests.authority.conftest import Site
from tests.reference.receiver import Receiver
from tests.reference.wire import Datagram

ECG = "ward/ecg"
SUBSCRIBE = MemberRole.SUBSCRIBE


def opens(site: Site, answer: KeysAnswer, packet: bytes) -> bool:
    """Whether the reference implementation gets at a packet's plaintext with all that a member was told."""
    receiver = Receiver(3, channel_id(site.authority.site.site_id, ECG))
    for number, secret in answer.slots:
        receiver.add_slot(number, secret.reveal())
    receiver.add_generation(answer.generation, answer.step, answer.secret.reveal())
    for generation, secret, _ in answer.earlier:
        receiver.add_generation(generation, 0, secret.reveal())
    return receiver.open(Datagram.parse(packet)) is not None


class Publisher:
    """A publisher of the site, and what its repair listener answers."""

    def __init__(self, site: Site, stream: bytes, port: int) -> None:
        self.channel = channel_id(site.authority.site.site_id, ECG)
        self.stream, self.port = stream, port

    async def repair(self, identity: object, first: int, last: int) -> tuple[bytes, ...]:
        client = PeerClient(identity, host="127.0.0.1", port=self.port, device="monitor-1")  # type: ignore[arg-type]
        async with client:
            return (await client.repair(self.channel, self.stream, ((first, last),))).packets

    async def refuses(self, identity: object) -> bool:
        """By its CRL or by its policy, whichever it has first."""
        try:
            await self.repair(identity, 0, 0)
        except (CertificateError, NotAllowedError):
            return True
        return False


async def found(site: Site, member: KeyServerClient, stream: bytes) -> Publisher:
    [endpoint] = [entry.endpoint for entry in await member.streams(ECG) if entry.stream == stream]
    assert endpoint is not None
    return Publisher(site, stream, endpoint[1])


async def test_d9_a_newcomer_opens_nothing_from_before_it(site: Site) -> None:
    await site.add_channel()
    early = await site.member("display-1", ECG)
    async with Device(await site.enrol("monitor-1")).publisher(ECG, linger=0) as publisher:
        await publisher.send(b"a beat")
        await publisher.drained()
        before = await early.keys(ECG)
        there = await found(site, early, publisher.stream_id)
        identity = await site.enrol("display-2")
        late = await site.client(identity)
        joined = (await late.join(ECG, SUBSCRIBE)).keys
        packets = await there.repair(identity, 0, 0)
        assert packets, "a member mends its losses, and may ask"
        for answer in (joined, await late.keys(ECG)):
            assert not answer.earlier
            assert (answer.generation, answer.step) > (before.generation, before.step)
            assert not any(opens(site, answer, packet) for packet in packets)
        assert all(opens(site, before, packet) for packet in packets)
        # A join that is not its first brings no more.
        again = (await late.join(ECG, SUBSCRIBE)).keys
        assert not any(opens(site, again, packet) for packet in packets)


@pytest.mark.parametrize("way", ["revoked", "not listed"])
async def test_d9_a_removed_member_gets_nothing_that_it_once_had(
    site: Site, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither keys nor packets, from the key server or the publisher; each refusal is told in the log."""
    caplog.set_level(logging.INFO, "sealcast.sidechannel")
    await site.add_channel()
    member = await site.member("display-1", ECG)
    identity = Device.open(site.devices / "display-1").identity
    async with Device(await site.enrol("monitor-1")).publisher(ECG, linger=0) as publisher:
        await publisher.send(b"a beat")
        await publisher.drained()
        there = await found(site, member, publisher.stream_id)
        assert await there.repair(identity, 0, 0)
        if way == "revoked":
            await site.authority.revoke_device("display-1")
        else:
            await site.authority.set_members(ECG, ("monitor-*",), ("display-2",))
        refused = CertificateError if way == "revoked" else NotAllowedError
        for ask in (member.keys(ECG), member.poll(ECG, 0), member.join(ECG, SUBSCRIBE), member.streams(ECG)):
            with pytest.raises(refused):
                await ask
        # The publisher follows within a poll.
        async with asyncio.timeout(20):
            while not await there.refuses(identity):
                pass
    told = [record.getMessage() for record in caplog.records if record.name == "sealcast.sidechannel"]
    assert sum("ward%2Fecg" in line or "ward/ecg" in line for line in told) == 4
    assert any("/v1/repair" in line for line in told)
    assert all("display-1" in line or "revoked" in line for line in told)
