"""The scenarios of sdk/scenarios: each language as publisher and as subscriber, against Python."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from sealcast.device import DeviceIdentity
from sealcast.keys import MemberRole
from sealcast.sidechannel import KeyServerClient
from sealcast.testing import Faults, Switch
from tests.e2e.attacker import join
from tests.e2e.datagrams import DATA, Recording
from tests.e2e.processes import Process, wait_until
from tests.e2e.site import Channel, certificate_in_use, command, free_group, free_port, send_to
from tests.reference.frames import Frame
from tests.reference.wire import Datagram
from tests.sdk.conftest import Stage
from tests.sdk.languages import EVERYTHING, LANGUAGES, PYTHON


def pairs(*names: str) -> list[tuple[str, str]]:
    """Each of these languages at either end, Python at the other."""
    return [*((name, PYTHON) for name in names), *((PYTHON, name) for name in names)]


def against_python(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("publisher", "subscriber"), pairs(*names))


everyone = against_python(*LANGUAGES)
in_c = [name for name, language in LANGUAGES.items() if language.folder.name == "c"]
some = everyone if EVERYTHING else against_python(*in_c)
"""What a binding has little part in: in C alone, and in the others with SEALCAST_SCENARIOS=all."""


def send(process: Process, *texts: str, topic: str = "-") -> None:
    process.write("".join(f"send {topic} {text}\n" for text in texts).encode())


def texts(process: Process) -> list[str]:
    """What messages said, so far."""
    return [line.split(" ", 3)[3].rstrip("\n") for line in process.out if line.startswith("message ")]


def hears(process: Process, *expected: str) -> None:
    """Wait until the messages are these, in order."""
    process.wait_line(f"^message .* {expected[-1]}$")
    assert texts(process) == list(expected)


def numbers(count: int, word: str = "number") -> list[str]:
    return [f"{word} {number} {'x' * 200}" for number in range(count)]


@everyone
def test_publish_and_subscribe(stage: Stage, publisher: str, subscriber: str) -> None:
    """Whole, once, in order, with topic and publisher."""
    channel, sender, receiver = stage.channel(), stage.device(), stage.device()
    hearing = stage.peer(subscriber, "subscribe", receiver, channel)
    speaking = stage.peer(publisher, "publish", sender, channel)
    send(speaking, "one", "two words")
    send(speaking, "three", topic="alarms")
    hears(hearing, "one", "two words", "three")
    assert f"message {sender.name} - one\n" in hearing.out
    assert f"message {sender.name} alarms three\n" in hearing.out
    hearing.wait_line(f"^event stream-started 0 0 {sender.name}")


@pytest.mark.parametrize("subscriber", LANGUAGES)
def test_a_message_is_longer_than_its_buffer(stage: Stage, subscriber: str) -> None:
    """The SDKs begin with a MiB."""
    channel, text = stage.channel("--rate", "200Mbit/s"), "x" * (3 << 20)
    hearing = stage.peer(subscriber, "subscribe", stage.device(), channel)
    speaking = stage.peer(PYTHON, "publish", stage.device(), channel)
    send(speaking, "short", text, "short again")
    hearing.wait_line("^message .* short again$")
    hearing.wait_line("^message .* x")
    assert sorted(texts(hearing), key=len) == ["short", "short again", text]


@everyone
def test_a_gap_is_mended(stage: Stage, publisher: str, subscriber: str) -> None:
    """What a switch loses comes by repair: from the publisher, or from a node where it does not listen."""
    channel, sender, receiver = stage.channel("--rate", "20Mbit/s"), stage.device(), stage.device()
    group, port, direct = free_group(), free_port(), free_port()
    with Switch(
        (group, port), {"lossy": ("127.0.0.1", direct), "all": (channel.group, channel.port)}, seed=7
    ) as switch:
        switch.exits["lossy"].impairment.faults = Faults(delay=0, loss=0.1)
        stage.repair_node(channel)
        hearing = stage.peer(subscriber, "subscribe", receiver, channel, "--listen", f"127.0.0.1:{direct}")
        speaking = stage.peer(publisher, "publish", sender, channel, "--send-to", f"{group}:{port}")
        expected = numbers(1500)
        send(speaking, *expected)
        hearing.wait_line(f"^message .* {expected[-1]}$")
        assert texts(hearing) == expected
        assert switch.exits["lossy"].counters.lost > 5


@some
def test_a_slot_turns(stage: Stage, publisher: str, subscriber: str) -> None:
    channel, sender, receiver = stage.channel("--slot", "1s"), stage.device(), stage.device()
    with Recording(channel) as seen:
        hearing = stage.peer(subscriber, "subscribe", receiver, channel)
        speaking = stage.peer(publisher, "publish", sender, channel)
        count = 0

        def has_turned() -> bool:
            nonlocal count
            send(speaking, f"beat {count}")
            speaking.wait_line(f"^sent {count + 1}$")
            count += 1
            slots = {datagram.slot for datagram in list(seen.datagrams) if datagram.type == DATA}
            return len(slots) >= 3

        wait_until(has_turned, "two turns of the slot")
        hears(hearing, *(f"beat {number}" for number in range(count)))
    assert not [line for line in hearing.out if line.startswith(("event gap", "event message-lost"))]


@everyone
def test_a_subscriber_is_removed(stage: Stage, publisher: str, subscriber: str) -> None:
    channel, sender, receiver, other = stage.channel(), stage.device(), stage.device(), stage.device()
    hearing = stage.peer(subscriber, "subscribe", receiver, channel)
    staying = stage.peer(PYTHON, "subscribe", other, channel)
    speaking = stage.peer(publisher, "publish", sender, channel)
    send(speaking, "before")
    hears(hearing, "before")
    stage.site.revoke(receiver.name)
    assert "revoked" in hearing.wait_line("^error ")
    assert hearing.wait().code in {5, 6}
    send(speaking, "after")
    hears(staying, "before", "after")
    assert texts(hearing) == ["before"]


@some
def test_a_publisher_is_revoked(stage: Stage, publisher: str, subscriber: str) -> None:
    channel, sender, receiver = stage.channel(), stage.device(), stage.device()
    hearing = stage.peer(subscriber, "subscribe", receiver, channel)
    speaking = stage.peer(publisher, "publish", sender, channel)
    send(speaking, "before")
    hears(hearing, "before")
    stage.site.revoke(sender.name)
    speaking.wait_line("^event refused")
    send(speaking, "after")
    assert "revoked" in speaking.wait_line("^error ")
    hearing.wait_line(f"^event stream-closed 0 0 {sender.name}")
    assert texts(hearing) == ["before"]


@some
def test_a_sender_restarts(stage: Stage, publisher: str, subscriber: str) -> None:
    """One source, a new stream each time."""
    channel, sender, receiver = stage.channel(), stage.device(), stage.device()
    hearing = stage.peer(subscriber, "subscribe", receiver, channel)
    for life in ("first", "second"):
        speaking = stage.peer(publisher, "publish", sender, channel)
        send(speaking, f"{life} life")
        speaking.write(b"finish\n")
        speaking.wait_line("^finished")
        speaking.close_input()
        assert speaking.wait().code == 0
    hears(hearing, "first life", "second life")
    started = [line for line in hearing.out if line.startswith("event stream-started")]
    assert len(started) == 2
    assert not [line for line in hearing.out if line.startswith("event gap")]


@some
def test_a_packet_is_forged(stage: Stage, publisher: str, subscriber: str) -> None:
    """By a fellow member, who can seal and open the gate, and cannot sign."""
    channel, sender, receiver = stage.channel(), stage.device(), stage.device()
    insider = join(DeviceIdentity.open(stage.device()), channel.name)
    with Recording(channel) as seen:
        hearing = stage.peer(subscriber, "subscribe", receiver, channel)
        speaking = stage.peer(publisher, "publish", sender, channel)
        send(speaking, "genuine")
        hears(hearing, "genuine")
        wait_until(lambda: any(datagram.type == DATA for datagram in list(seen.datagrams)), "the packet")
        content = next(datagram.content for datagram in seen.datagrams if datagram.type == DATA)
    packet = Datagram.parse(content)
    impostor = insider.impostor(packet.header.stream_id)
    false = Frame(message_id=1, data=b"false").serialize()
    sealed = insider.block(impostor, packet.header, [false], packet.header.first_sequence + 1)
    # Each byte of body and signature, with the gate tag that it then needs; and the genuine one again.
    changed = [
        *(replace(packet, body=flipped(packet.body, place)) for place in range(len(packet.body))),
        *(replace(packet, signature=flipped(packet.signature, place)) for place in range(64)),
    ]
    send_to(channel, [content, *map(insider.gated_anew, changed), *sealed])
    send(speaking, "genuine too")
    hears(hearing, "genuine", "genuine too")
    hearing.write(b"leave\n")
    # Not by a cheaper check before it: the forger had all the keys.
    assert int(hearing.wait_line("^rejected").split()[1]) > 0


def flipped(octets: bytes, place: int) -> bytes:
    return octets[:place] + bytes([octets[place] ^ 1]) + octets[place + 1 :]


@some
def test_certificates_are_renewed(stage: Stage, publisher: str, subscriber: str) -> None:
    """Invariant 6: a stream goes on, vouched for by the new certificate; what happens later reaches both."""
    channel, sender, receiver, other = stage.channel(), stage.device(), stage.device(), stage.device()
    hearing = stage.peer(subscriber, "subscribe", receiver, channel)
    speaking = stage.peer(publisher, "publish", sender, channel)
    send(speaking, "before")
    hears(hearing, "before")
    for device in (sender, receiver):
        command("device", "renew", device)
    renewed = DeviceIdentity.open(sender).certificate
    wait_until(lambda: certificate_in_use(other, channel) == renewed, "the new certificate's word")
    send(speaking, "after")
    hears(hearing, "before", "after")
    stage.site.revoke(receiver.name)
    assert "revoked" in hearing.wait_line("^error ")
    assert not [line for line in hearing.out if line.startswith(("event gap", "event message-lost"))]


@some
def test_somebody_joins_late(stage: Stage, publisher: str, subscriber: str) -> None:
    channel, sender, receiver = stage.channel(), stage.device(), stage.device()
    stage.repair_node(channel)
    first = stage.peer(PYTHON, "subscribe", stage.device(), channel)
    speaking = stage.peer(publisher, "publish", sender, channel)
    send(speaking, "early")
    hears(first, "early")
    late = stage.peer(subscriber, "subscribe", receiver, channel)
    sent = 0

    def is_heard() -> bool:
        """What was sealed before its publisher heard of the admission is not for who came late."""
        nonlocal sent
        send(speaking, f"late {sent}")
        sent += 1
        return bool(texts(late))

    wait_until(is_heard, "a message for who came late")
    hears(first, "early", *(f"late {number}" for number in range(sent)))
    late.wait_line(f"^message .* late {sent - 1}$")
    heard = texts(late)
    assert heard == [f"late {number}" for number in range(sent - len(heard), sent)]


@some
def test_somebody_comes_back_from_the_start(stage: Stage, publisher: str, subscriber: str) -> None:
    """Killed, it has not left: what was sent while it was away is there for whoever asks for it."""
    channel, sender, receiver = stage.channel(), stage.device(), stage.device()
    stage.repair_node(channel)
    staying = stage.peer(PYTHON, "subscribe", stage.device(), channel)
    hearing = stage.peer(subscriber, "subscribe", receiver, channel)
    speaking = stage.peer(publisher, "publish", sender, channel)
    send(speaking, "before")
    hears(hearing, "before")
    hearing.end()
    send(speaking, "away")
    hears(staying, "before", "away")
    back = stage.peer(subscriber, "subscribe", receiver, channel, "--start", "start")
    send(speaking, "after")
    hears(back, "before", "away", "after")


@everyone
def test_it_shuts_down(stage: Stage, publisher: str, subscriber: str) -> None:
    channel, sender, receiver = stage.channel(), stage.device(), stage.device()
    hearing = stage.peer(subscriber, "subscribe", receiver, channel)
    speaking = stage.peer(publisher, "publish", sender, channel)
    send(speaking, "last words")
    speaking.write(b"finish\n")
    speaking.wait_line("^finished")
    hearing.wait_line(f"^event stream-ended .* {sender.name}")
    hears(hearing, "last words")
    hearing.write(b"leave\n")
    hearing.wait_line("^left")
    assert hearing.wait().code == 0
    speaking.close_input()
    assert speaking.wait().code == 0


def subscribers(channel: Channel, device: Path) -> set[str]:
    """Names, as the key server has them for a member."""

    async def ask() -> set[str]:
        async with KeyServerClient(DeviceIdentity.open(device)) as client:
            members = await client.members(channel.name)
        return {member.device for member in members if member.role is MemberRole.SUBSCRIBE}

    return asyncio.run(ask())


# Each system sees its own locks alone: Wine's are not Linux's.
@pytest.mark.parametrize(
    ("leaver", "stayer"),
    [
        (PYTHON, PYTHON),
        *pairs(*(name for name in (LANGUAGES if EVERYTHING else in_c) if name != "c-windows")),
        *((name, name) for name in in_c if name == "c-windows"),
    ],
)
def test_a_device_has_two_subscribers(stage: Stage, leaver: str, stayer: str) -> None:
    """It leaves with the last of them: until then it is given every new key."""
    channel, sender, receiver, other = stage.channel(), stage.device(), stage.device(), stage.device()
    leaving = stage.peer(leaver, "subscribe", receiver, channel)
    staying = stage.peer(stayer, "subscribe", receiver, channel)
    removed = stage.peer(PYTHON, "subscribe", other, channel)
    speaking = stage.peer(PYTHON, "publish", sender, channel)
    send(speaking, "to both")
    hears(leaving, "to both")
    leaving.write(b"leave\n")
    leaving.wait_line("^left")
    stage.site.revoke(other.name)
    assert "revoked" in removed.wait_line("^error ")
    send(speaking, "to one")
    hears(staying, "to both", "to one")
    assert receiver.name in subscribers(channel, sender)
    staying.write(b"leave\n")
    staying.wait_line("^left")
    assert receiver.name not in subscribers(channel, sender)


@pytest.mark.parametrize("role", ["publish", "subscribe"])
@pytest.mark.parametrize("language", [*LANGUAGES, PYTHON])
def test_a_stranger_is_told_so(stage: Stage, language: str, role: str) -> None:
    """A folder without a device, a channel that is not there, a right that it has not."""
    device = stage.device()
    empty: Path = stage.site.devices / "empty"
    empty.mkdir(parents=True, exist_ok=True)
    closed = stage.channel(publish="nobody", subscribe="nobody")
    lost = stage.start(language, role, empty, closed)
    barred = stage.start(language, role, device, closed)
    astray = stage.start(language, role, device, replace(closed, name="no/such/channel"))
    assert lost.wait().code in {4, 8}
    assert "not-allowed" in barred.wait_line("^error ")
    assert "unknown-channel" in astray.wait_line("^error ")
    assert (barred.wait().code, astray.wait().code) == (6, 6)
