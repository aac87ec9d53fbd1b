"""What a subscriber sees when packets come late, twice, never, or in two versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tests.reference import schedule
from tests.reference.bodies import Heartbeat
from tests.reference.frames import Frame
from tests.reference.wire import PacketType
from tests.vectors.cases.making import EPOCH, Maker, flip, patch, receiver_inputs, secrets
from tests.vectors.cases.writing import Group, VectorFile

Step = dict[str, Any]
MAKER = Maker(suite=1)


def whole(number: int) -> Frame:
    return Frame(message_id=number, data=f"message {number}".encode())


def packets(*contents: Sequence[Frame] | bytes, first: int = 0) -> list[bytes]:
    """A block; content that is bytes already goes in as it is."""
    plaintexts = [
        content if isinstance(content, bytes) else b"".join(frame.serialize() for frame in content)
        for content in contents
    ]
    return MAKER.sealed(plaintexts, first=first)


def feed(*datagrams: bytes, reason: str | None = None, side_channel: bool = False) -> list[Step]:
    return [
        {"do": "receive", "datagram": one, "sideChannel": side_channel, "reason": reason} for one in datagrams
    ]


def abandon(below: int) -> list[Step]:
    """The publisher says that it no longer holds what is missing below this sequence."""
    return [{"do": "abandon", "below": below}]


def seen(
    *messages: tuple[Frame, bytes, int],
    gaps: Sequence[tuple[int, int]] = (),
    missing: Sequence[tuple[int, int]] = (),
    lost: Sequence[int] = (),
    malformed: Sequence[int] = (),
    conflicts: Sequence[int] = (),
) -> dict[str, Any]:
    """The end of a story; a message is a frame with its topic, the data in full, and the sequence."""
    return {
        "messages": [
            {"messageId": frame.message_id, "topic": frame.topic, "data": data, "sequence": sequence}
            for frame, data, sequence in messages
        ],
        "gaps": [list(gap) for gap in gaps],
        "missing": [list(gap) for gap in missing],
        "lostMessages": list(lost),
        "malformedPackets": list(malformed),
        "conflicts": list(conflicts),
    }


def in_order(*numbers: int) -> list[tuple[Frame, bytes, int]]:
    """Messages that fill a packet each, with the number of its sequence."""
    return [(whole(number), whole(number).data, number) for number in numbers]


def delivery() -> VectorFile:
    inputs = receiver_inputs(1, MAKER.sealer.public_key)
    comment = (
        "the stream starts at 0 and is delivered in `reliable` order; `missing` is what repair would ask for"
    )
    group = Group(comment, inputs)
    five = packets(*([whole(n)] for n in range(5)))
    group.valid("in order", steps=feed(*five), **seen(*in_order(0, 1, 2, 3, 4)))
    group.valid("from the last to the first", steps=feed(*five[::-1]), **seen(*in_order(0, 1, 2, 3, 4)))
    group.valid("the first is missing", steps=feed(*five[1:]), **seen(missing=[(0, 0)]))
    group.valid(
        "two holes",
        steps=feed(five[0], five[2], five[4]),
        **seen(*in_order(0), missing=[(1, 1), (3, 3)]),
    )
    group.valid(
        "a hole mended over the side channel",
        steps=feed(five[0], *five[2:]) + feed(patch(five[1], -8, bytes(8)), side_channel=True),
        **seen(*in_order(0, 1, 2, 3, 4)),
    )
    group.valid(
        "a hole that stays",
        steps=feed(five[0], *five[3:]) + abandon(3),
        **seen(*in_order(0, 3, 4), gaps=[(1, 2)]),
    )
    group.valid(
        "a packet that comes after it was given up",
        flags=("Once",),
        steps=feed(five[0], *five[3:]) + abandon(3) + feed(five[1], reason="window"),
        **seen(*in_order(0, 3, 4), gaps=[(1, 2)]),
    )
    group.valid(
        "twice",
        flags=("Once",),
        steps=feed(*five) + feed(*five, reason="duplicate"),
        **seen(*in_order(0, 1, 2, 3, 4)),
    )
    group.valid(
        "twice while it waits",
        flags=("Once",),
        steps=feed(five[2]) + feed(five[2], reason="duplicate") + feed(five[0], five[1]),
        **seen(*in_order(0, 1, 2)),
    )
    group.valid(
        "broken, then whole",
        flags=("NoTrace",),
        steps=feed(flip(five[0], 70), reason="gate")
        + feed(MAKER.gate(flip(five[0], 70)), reason="signature")
        + feed(five[0]),
        **seen(*in_order(0)),
    )
    far = MAKER.header(first_sequence=10**6)
    forged = Maker(suite=1, seed=bytes(32)).publish(far, MAKER.encrypt(far))
    group.valid(
        "a forgery far ahead moves nothing",
        flags=("NoTrace",),
        steps=feed(five[0]) + feed(forged, reason="signature") + feed(five[1]),
        **seen(*in_order(0, 1)),
    )
    _conflicts(group, five)
    _parts(group)
    _heartbeats(group, five)
    _keys(group)
    notes = {
        "Once": ("FUNCTIONALITY", "a message is delivered at most once (DP-33)"),
        "NoTrace": ("FUNCTIONALITY", "what does not verify leaves no trace but a counter (DP-18)"),
        "Conflict": ("FUNCTIONALITY", "two signed packets for one sequence: the first stands (DP-19)"),
        "Parts": ("FUNCTIONALITY", "messages are delivered in the order in which they complete (DP-25)"),
        "Frames": ("FUNCTIONALITY", "a malformed frame ends its packet, which is reported (DP-24)"),
        "Unopened": ("FUNCTIONALITY", "a packet that verifies and does not open is lost, and reported"),
        "Heartbeat": ("FUNCTIONALITY", "a heartbeat shows losses at the tail, and never moves the head back"),
        "End": (
            "FUNCTIONALITY",
            "a signed end is final: what is signed beyond it is a conflict (DP-19, DP-27)",
        ),
        "LaterKey": ("FUNCTIONALITY", "what verifies is kept sealed until its key is there (KM-14)"),
    }
    spec = ["DP-18", "DP-19", "DP-24", "DP-25", "DP-27", "DP-33", "KM-14"]
    return VectorFile("delivery", spec, notes, [group])


def _conflicts(group: Group, five: list[bytes]) -> None:
    other = packets([Frame(message_id=0, data=b"another")])
    flags = ("Conflict",)
    group.valid(
        "two versions of the first packet",
        flags=flags,
        steps=feed(*five) + feed(*other, reason="conflict"),
        **seen(*in_order(0, 1, 2, 3, 4), conflicts=[0]),
    )
    group.valid(
        "two versions while it waits",
        flags=flags,
        steps=feed(five[1], packets([Frame(message_id=1, data=b"another")], first=1)[0], five[0])[:1]
        + feed(packets([Frame(message_id=1, data=b"another")], first=1)[0], reason="conflict")
        + feed(five[0]),
        **seen(*in_order(0, 1), conflicts=[1]),
    )
    group.valid(
        "a version that does not verify is no conflict",
        flags=flags,
        steps=feed(*five) + feed(MAKER.gate(flip(other[0], -72)), reason="signature"),
        **seen(*in_order(0, 1, 2, 3, 4)),
    )


def _parts(group: Group) -> None:
    flags = ("Parts",)
    parts = [
        Frame(message_id=0, data=b"abcd", offset=0, total=10, topic="image"),
        Frame(message_id=0, data=b"efgh", offset=4, total=10),
        Frame(message_id=0, data=b"ij", offset=8, total=10),
    ]
    small = Frame(message_id=1, data=b"small")
    complete = (parts[0], b"abcdefghij", 2)
    block = packets([parts[0]], [parts[1], small], [parts[2]])
    group.valid(
        "a small message overtakes a large one",
        flags=flags,
        steps=feed(*block),
        **seen((small, b"small", 1), complete),
    )
    group.valid(
        "the same, from the last to the first",
        flags=flags,
        steps=feed(*block[::-1]),
        **seen((small, b"small", 1), complete),
    )
    group.valid(
        "a part is lost",
        flags=flags,
        steps=feed(block[0], block[2]) + abandon(2),
        **seen(gaps=[(1, 1)], lost=[0]),
    )
    group.valid(
        "the first part is lost",
        flags=flags,
        steps=feed(*block[1:]) + abandon(1),
        **seen((small, b"small", 1), gaps=[(0, 0)], lost=[0]),
    )
    group.valid(
        "all parts in one packet",
        flags=flags,
        steps=feed(*packets([*parts, small])),
        **seen((parts[0], b"abcdefghij", 0), (small, b"small", 0)),
    )
    broken = packets(whole(0).serialize() + b"\x01" + whole(1).serialize(), [whole(2)])
    group.valid(
        "a malformed frame between two messages",
        flags=("Frames",),
        steps=feed(*broken),
        **seen((whole(0), b"message 0", 0), (whole(2), b"message 2", 1), malformed=[0]),
    )
    header = MAKER.header(first_sequence=0)
    shut = MAKER.publish(header, flip(MAKER.encrypt(header), 0))
    group.valid(
        "a packet that does not open",
        flags=("Unopened",),
        steps=feed(shut, reason="open") + feed(*packets([whole(1)], first=1)),
        **seen(*in_order(1), gaps=[(0, 0)]),
    )


def _heartbeats(group: Group, five: list[bytes]) -> None:
    flags = ("Heartbeat",)

    def beat(counter: int, next_sequence: int, *, ended: bool = False) -> bytes:
        return MAKER.heartbeat(Heartbeat(counter=counter, next_sequence=next_sequence, ended=ended))

    group.valid(
        "the tail is missing",
        flags=flags,
        steps=feed(*five[:3], beat(0, 5)),
        **seen(*in_order(0, 1, 2), missing=[(3, 4)]),
    )
    group.valid(
        "all of it is missing",
        flags=flags,
        steps=feed(beat(7, 3)),
        **seen(missing=[(0, 2)]),
    )
    group.valid(
        "an older heartbeat comes later",
        flags=flags,
        steps=feed(*five[:3], beat(2, 5)) + feed(beat(1, 3), reason="counter"),
        **seen(*in_order(0, 1, 2), missing=[(3, 4)]),
    )
    group.valid(
        "the same heartbeat twice",
        flags=flags,
        steps=feed(beat(2, 1)) + feed(beat(2, 1), reason="counter"),
        **seen(missing=[(0, 0)]),
    )
    group.valid(
        "a later heartbeat with a lower sequence",
        flags=flags,
        steps=feed(beat(1, 5), beat(2, 3)),
        **seen(missing=[(0, 4)]),
    )
    group.valid(
        "the end is signed, and what it says is missing",
        flags=flags,
        steps=feed(*five[:4], beat(9, 5, ended=True), five[4]),
        **seen(*in_order(0, 1, 2, 3, 4)),
    )
    flags = ("End",)
    group.valid(
        "a heartbeat after the end",
        flags=flags,
        steps=feed(*five[:3], beat(1, 3, ended=True))
        + feed(beat(2, 5), reason="counter")
        + feed(beat(3, 5, ended=True), reason="counter"),
        **seen(*in_order(0, 1, 2)),
    )
    group.valid(
        "a packet after the end",
        flags=flags,
        steps=feed(*five[:2], beat(1, 3, ended=True)) + feed(five[3], reason="conflict") + feed(five[2]),
        **seen(*in_order(0, 1, 2), conflicts=[3]),
    )
    group.valid(
        "an end before a packet that is here",
        flags=flags,
        steps=feed(*five[:4]) + feed(beat(1, 2, ended=True), reason="conflict") + feed(beat(1, 5), five[4]),
        **seen(*in_order(0, 1, 2, 3, 4), conflicts=[3]),
    )


def _keys(group: Group) -> None:
    flags = ("LaterKey",)
    later = replace(EPOCH, slot=4713)
    ahead = MAKER.data(1, first=0, epoch=later)[0]
    told = [{"do": "addSlot", "slot": 4713, "secret": secrets(later).slot_secret}]
    group.valid(
        "a slot whose key comes later",
        flags=flags,
        steps=feed(ahead) + told,
        **seen(*in_order(0)),
    )
    group.valid("a slot whose key never comes", flags=flags, steps=feed(ahead), **seen())
    removed = replace(EPOCH, generation=4, step=0)
    ahead = MAKER.data(1, first=0, epoch=removed)[0]
    secret = secrets(removed).step_secret
    told = [{"do": "addGeneration", "generation": 4, "step": 0, "secret": secret}]
    group.valid(
        "a generation whose key comes later",
        flags=flags,
        steps=feed(ahead) + told,
        **seen(*in_order(0)),
    )
    wrong = patch(ahead, -8, bytes(8))
    group.valid(
        "a copy with another gate tag displaces nothing: the signature vouches for it",
        flags=flags,
        steps=feed(wrong, ahead) + told,
        **seen(*in_order(0)),
    )
    if schedule.stream_id(MAKER.sealer.public_key) != ahead[6:22] or ahead[5] != PacketType.DATA:
        raise ValueError("not the stream of the group")
