"""Datagrams, and every way to be none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tests.reference import ed25519, frames, schedule, seal, tree
from tests.reference.bodies import Heartbeat
from tests.reference.edwards import L, Point, challenge, secret_scalar
from tests.reference.wire import (
    HEADER_BYTES,
    MAX_DATAGRAM_BYTES,
    NODE_BYTES,
    SEQUENCE_END,
    TRAILER_BYTES,
    Datagram,
    PacketType,
    depth,
    payload_limit,
)
from tests.vectors.cases.frames import described
from tests.vectors.cases.making import (
    CONTROL_SEED,
    EPOCH,
    KNOWN,
    OTHER_CHANNEL_ID,
    OTHER_SEED,
    TIME,
    Maker,
    flip,
    patch,
    receiver_inputs,
    secrets,
    usual_beacon,
)
from tests.vectors.cases.signature import forge, little, small_order_keys
from tests.vectors.cases.trust import CHANNEL_ID, make_bundle, monitor, site_ca, usual_credential
from tests.vectors.cases.writing import Group, VectorFile, fixed

NOTES = {
    "Count": ("EDGE_CASE", "trees of all shapes"),
    "Size": ("EDGE_CASE", "the smallest and the largest"),
    "HighSequence": ("EDGE_CASE", "the end of the sequences; sums that do not fit 64 bits"),
    "SideChannel": ("EDGE_CASE", "over the side channel the gate tag is not checked (DP-16)"),
    "UnknownFlags": ("EDGE_CASE", "flags of a heartbeat that are not known are ignored (DP-26)"),
    "ControlGate": ("EDGE_CASE", "a beacon needs the slot secret alone, so that a member that lags reads it"),
    "Truncated": ("MISSING_CHECK", "cut at a boundary of a field"),
    "Header": ("MISSING_CHECK", "a header that DP-4 refuses; signature and gate tag hold"),
    "BlockOfType": (
        "MISSING_CHECK",
        "a size of block, or length of clear body, that the type does not have; signature and gate tag hold",
    ),
    "UnknownType": ("MISSING_CHECK", "types that are not known, or reserved, are counted and ignored"),
    "UnknownStream": ("MISSING_CHECK", "a stream id that nobody vouched for"),
    "WrongRole": ("MISSING_CHECK", "beacons come from a control stream, and nothing but them"),
    "UnknownEpoch": ("MISSING_CHECK", "an epoch that is neither held nor ahead of ours (KM-14)"),
    "Outsider": ("MISSING_CHECK", "changed by somebody without the gate key"),
    "Insider": ("MISSING_CHECK", "changed by a member: the gate tag holds, the signature does not"),
    "OtherUse": ("MISSING_CHECK", "signed by the stream's key, but for another use"),
    "PathLength": ("MISSING_CHECK", "a path longer or shorter than index and count say"),
    "TwinLeaf": ("KNOWN_BUG", "the last leaf once more in the empty place beside it (CVE-2012-2459)"),
    "InnerNode": ("KNOWN_BUG", "an inner node of the tree passed off as a packet"),
    "Malleable": ("SIGNATURE_MALLEABILITY", "S is not below the group order (DP-11)"),
    "SmallOrder": ("KNOWN_BUG", "R of small order (DP-11)"),
    "SmallOrderKey": ("KNOWN_BUG", "a forgery under a key of small order, which has no private half (DP-11)"),
    "Sender": ("MISSING_CHECK", "the sender itself sealed it wrongly: signature and gate tag hold"),
    "CredentialOrder": ("MISSING_CHECK", "a credential is opened before its signature is checked (DP-30)"),
}  # fmt: skip


def _other(suite: int) -> int:
    return 2 if suite != 2 else 1


def datagram() -> VectorFile:
    groups = []
    for suite in (1, 2, 3):
        maker = Maker(suite=suite)
        inputs = receiver_inputs(suite, maker.sealer.public_key)
        group = Group(f"a publisher's stream, suite {suite}; each test by itself", inputs)
        _valid(group, maker)
        _insider(group, maker)
        if suite < 3:
            # It shares these with suite 1, hashes and gate aside.
            _outsider(group, maker)
            _malformed(group, maker)
            _unknown(group, maker)
            _wrongly_sealed(group, maker)
        groups.append(group)
    control = Maker(suite=1, seed=CONTROL_SEED)
    inputs = receiver_inputs(1, control.sealer.public_key, control=True)
    group = Group("the control stream of the key server", inputs)
    _control(group, control)
    groups.append(group)
    groups += _small_order_keys()
    spec = ["DP-4", "DP-5", "DP-7", "DP-9", "DP-10", "DP-11", "DP-15", "DP-16", "DP-18", "DP-26", "DP-29"]
    return VectorFile("datagram", [*spec, "DP-30", "KM-14", "KM-15"], NOTES, groups)


def _valid(group: Group, maker: Maker) -> None:
    def data(comment: str, made: bytes, flag: str, plaintext: bytes, side_channel: bool = False) -> None:
        packet = Datagram.parse(made)
        header = packet.header
        leaf = tree.leaf(maker.suite, header.block_id, header.index, header.serialize(), packet.body)
        found, _ = frames.parse(plaintext)
        group.valid(
            comment,
            flags=(flag,),
            datagram=made,
            sideChannel=side_channel,
            type=header.type,
            sequence=header.sequence,
            time=header.time,
            leaf=leaf,
            root=tree.root_of(maker.suite, header.block_id, header.index, header.count, leaf, packet.path),
            plaintext=plaintext,
            frames=[described(frame) for frame in found],
        )

    def block(comment: str, flag: str, plaintexts: Sequence[bytes], first: int = 100) -> None:
        made = maker.sealed(plaintexts, first=first)
        for index, (one, plaintext) in enumerate(zip(made, plaintexts, strict=True)):
            data(f"{comment}, {index} of {len(made)}", one, flag, plaintext)

    for count in (1, 2, 3, 5, 16, 64):
        numbers = range(100, 100 + count)
        messages = [frames.Frame(message_id=n, data=f"message {n}".encode()).serialize() for n in numbers]
        block("data", "Count", messages)
    block("no frames", "Size", [b""])
    block("the largest by default", "Size", [bytes(payload_limit())])
    block("the highest sequences", "HighSequence", [b"\x40\x07\x01x"] * 2, first=SEQUENCE_END - 2)
    header = maker.header()
    largest = MAX_DATAGRAM_BYTES - HEADER_BYTES - TRAILER_BYTES - 16
    if maker.suite != 2:
        made = maker.publish(header, maker.encrypt(header, bytes(largest)))
        data("the largest of all", made, "Size", bytes(largest))
    (single,) = maker.data(1)
    plaintext = frames.Frame(message_id=100, data=b"message 100").serialize()
    data("no gate tag", single[:-8] + bytes(8), "SideChannel", plaintext, True)
    data("a gate tag", single, "SideChannel", plaintext, True)

    for comment, body, flag in (
        ("heartbeat", Heartbeat(counter=1, next_sequence=164), "Count"),
        ("heartbeat of an empty stream", Heartbeat(counter=0, next_sequence=0), "Count"),
        ("heartbeat at the end", Heartbeat(counter=2, next_sequence=164, ended=True), "Count"),
        (
            "heartbeat with a successor",
            Heartbeat(counter=3, next_sequence=164, ended=True, successor=fixed("stream id", 16)),
            "Count",
        ),
        ("heartbeat at the end of the sequences", Heartbeat(counter=4, next_sequence=2**62), "HighSequence"),
    ):
        _clear(group, comment, maker.heartbeat(body), flag)
    raw = Heartbeat(counter=1, next_sequence=164).serialize()
    odd = maker.publish(maker.header(PacketType.HEARTBEAT), patch(raw, 16, b"\xfc"))
    _clear(group, "heartbeat with unknown flags", odd, "UnknownFlags")
    for comment, part_bytes in (("credential", None), ("credential in small parts", 300)):
        packets = maker.credential(part_bytes)
        bundle = make_bundle(
            usual_credential(suite=maker.suite, spki=schedule.spki(maker.sealer.public_key)),
            monitor(),
            site_ca(),
        )
        size = part_bytes or payload_limit()
        for index, made in enumerate(packets):
            group.valid(
                f"{comment}, {index} of {len(packets)}",
                flags=("Count",),
                datagram=made,
                sideChannel=False,
                type=int(PacketType.CREDENTIAL),
                time=TIME,
                plaintext=bundle[size * index : size * (index + 1)],
            )


def _clear(group: Group, comment: str, made: bytes, flag: str) -> None:
    packet = Datagram.parse(made)
    group.valid(
        comment,
        flags=(flag,),
        datagram=made,
        sideChannel=False,
        type=packet.header.type,
        time=packet.header.time,
        body=packet.body,
    )


def _refuse(
    group: Group, comment: str, reason: str, flag: str, made: bytes, *, side_channel: bool = False
) -> None:
    group.invalid(comment, reason, flags=(flag,), datagram=made, sideChannel=side_channel)


def _malformed(group: Group, maker: Maker) -> None:
    def refuse(comment: str, flag: str, made: bytes) -> None:
        _refuse(group, comment, "malformed", flag, made)

    def header(comment: str, **changed: Any) -> None:
        stated = maker.header(**changed)
        index, count = stated.index, stated.count
        length = NODE_BYTES * depth(index, count) if index < count <= 255 else 0
        refuse(comment, "Header", maker.publish(stated, maker.encrypt(maker.header()), path=bytes(length)))

    packets = maker.data(3)
    single, made = maker.data(1)[0], packets[1]
    for length in (0, 1, 3, 4, 5, 6, 22, 25, 26, 30, 46, 54, 55, 56, 63, 64):
        refuse(f"{length} bytes", "Truncated", made[:length])
    refuse("header and signature, no gate tag", "Truncated", single[:64] + single[-72:-8])
    refuse("a byte less than header and trailer", "Truncated", single[:64] + single[-71:])
    refuse("a byte less than header, path and trailer", "Truncated", made[:64] + made[-103:])
    refuse("header and body, no more", "Truncated", single[:-72])
    for at in range(4):
        refuse(f"byte {at} of the connection id", "Header", maker.gate(flip(single, at)))
    for version in (0, 2, 255):
        refuse(f"version {version}", "Header", maker.gate(patch(single, 4, bytes((version,)))))
    header("count 0", count=0)
    header("count 65", count=65, index=0)
    header("count 65, the last index", count=65, index=64)
    header("count 128", count=128)
    header("count 255", count=255, index=254)
    header("index 1 of 1", index=1)
    header("index 3 of 3", index=3, count=3)
    header("index 255 of 64", index=255, count=64)
    header("a sequence at the end", first_sequence=SEQUENCE_END)
    header("a block beyond the end", first_sequence=SEQUENCE_END - 63, count=64)
    header("a sum beyond 63 bits", first_sequence=2**63 - 1)
    header("a sum beyond 64 bits", first_sequence=2**64 - 1)
    for kind in (PacketType.HEARTBEAT, PacketType.CREDENTIAL):
        stated = maker.header(kind, first_sequence=1)
        body = Heartbeat(counter=1, next_sequence=164).serialize()
        if kind == PacketType.CREDENTIAL:
            body = maker.encrypt(stated, b"part", as_credential=True)
        refuse(f"a first sequence in a {kind.name.lower()}", "Header", maker.publish(stated, body))
    if maker.suite != 2:
        stated = maker.header()
        length = MAX_DATAGRAM_BYTES - HEADER_BYTES - TRAILER_BYTES - 16 + 1
        refuse("a byte too long", "Header", maker.publish(stated, maker.encrypt(stated, bytes(length))))
    body = Heartbeat(counter=1, next_sequence=164).serialize()
    for comment, wrong in (
        ("a heartbeat without a body", b""),
        ("a heartbeat of 32 bytes", body[:-1]),
        ("a heartbeat of 34 bytes", body + b"\0"),
    ):
        refuse(comment, "BlockOfType", maker.publish(maker.header(PacketType.HEARTBEAT), wrong))
    pair = maker.header(PacketType.HEARTBEAT, count=2)
    refuse("a heartbeat in a block of 2", "BlockOfType", maker.publish(pair, body, path=bytes(16)))
    nine = maker.header(PacketType.CREDENTIAL, count=9, index=8)
    part = maker.encrypt(nine, b"part", as_credential=True)
    refuse("a credential of 9 packets", "BlockOfType", maker.publish(nine, part, path=bytes(16)))
    for comment, description in (
        ("parity with a stride of 0", (0, 8, 2, 0)),
        ("parity with a stride of 17", (17, 8, 2, 0)),
        ("parity of 0 packets", (5, 0, 2, 0)),
        ("parity of 65 packets", (5, 65, 2, 0)),
        ("parity number 0 of 0", (5, 8, 0, 0)),
        ("parity number 0 of 17", (5, 8, 17, 0)),
        ("parity number 2 of 2", (5, 8, 2, 2)),
    ):
        body = bytes(8) + bytes(description) + bytes(2) + bytes(100)
        refuse(comment, "BlockOfType", maker.publish(maker.header(PacketType.PARITY), body))
    short = bytes(8) + bytes((5, 8, 2, 0)) + bytes(2) + bytes(44)
    refuse(
        "parity of less than a header", "BlockOfType", maker.publish(maker.header(PacketType.PARITY), short)
    )
    seventeen = maker.header(PacketType.PARITY, count=17, index=16)
    sound = bytes(8) + bytes((5, 8, 2, 0)) + bytes(2) + bytes(100)
    refuse("parity in a block of 17", "BlockOfType", maker.publish(seventeen, sound, path=bytes(16)))


def _unknown(group: Group, maker: Maker) -> None:
    for kind in (0, 8, 127, 255):
        made = maker.publish(maker.header(kind, first_sequence=0), b"body of another kind")
        _refuse(group, f"type {kind}", "unknown-type", "UnknownType", made)
    for reserved in (PacketType.REKEY, PacketType.ROOT):
        made = maker.publish(maker.header(reserved), b"a body that is not defined")
        _refuse(group, f"reserved: {reserved.name.lower()}", "unknown-type", "UnknownType", made)
    other = Maker(suite=maker.suite, seed=OTHER_SEED)
    (single,) = maker.data(1)
    for comment, made in (
        ("data of another stream", other.data(1)[0]),
        ("heartbeat of another stream", other.heartbeat(Heartbeat(counter=1, next_sequence=1))),
        ("a bit of the stream id", maker.gate(flip(single, 6))),
        ("the last bit of the stream id", maker.gate(flip(single, 21))),
    ):
        _refuse(group, comment, "unknown-stream", "UnknownStream", made)
    beacon = maker.publish(maker.header(PacketType.BEACON), usual_beacon().serialize())
    _refuse(group, "a beacon on a publisher's stream", "unknown-stream", "WrongRole", beacon)
    for comment, epoch in (
        ("an older slot", replace(EPOCH, slot=4710)),
        ("an older generation", replace(EPOCH, generation=2)),
        ("an older generation at a higher step", replace(EPOCH, generation=2, step=9)),
        ("an older step", replace(EPOCH, step=1)),
    ):
        made = maker.data(1, epoch=epoch)[0]
        _refuse(group, comment, "unknown-epoch", "UnknownEpoch", made)
    for comment, epoch in (
        ("a later slot", replace(EPOCH, slot=4713)),
        ("a later generation", replace(EPOCH, generation=4)),
    ):
        made = flip(maker.data(1, epoch=epoch)[0], -72)
        _refuse(group, f"{comment}, not signed", "signature", "UnknownEpoch", made)


def _changes(maker: Maker) -> list[tuple[str, bytes]]:
    """One thing changed in a packet that is whole otherwise, its lengths as before."""
    made, sibling = maker.data(4)[1], maker.data(4)[0]
    body_end = len(made) - TRAILER_BYTES - 32
    earlier = maker.data(4, first=50)[1]
    return [
        ("another known slot", patch(made, 22, KNOWN[1].serialize())),
        ("a bit of the block id", flip(made, 30)),
        ("the last bit of the block id", flip(made, 45)),
        ("the next first sequence", flip(made, 53)),
        ("the index of its neighbour", patch(made, 54, b"\x00")),
        ("the index of another", patch(made, 54, b"\x03")),
        ("count 3", patch(made, 55, b"\x03")),
        ("another time", flip(made, 63)),
        ("the first bit of the body", flip(made, 64, 0x80)),
        ("the last bit of the body", flip(made, body_end - 1)),
        ("the first bit of the path", flip(made, body_end, 0x80)),
        ("the last bit of the path", flip(made, -73)),
        (
            "the path from the top down",
            patch(made, body_end, made[body_end + 16 : body_end + 32] + made[body_end : body_end + 16]),
        ),
        ("the body of its neighbour", patch(made, 64, sibling[64:body_end])),
        ("the path of its neighbour", patch(made, body_end, sibling[body_end:-72])),
        ("the first bit of R", flip(made, -72)),
        ("the last bit of R", flip(made, -41, 0x80)),
        ("the first bit of S", flip(made, -40)),
        ("the last bit of S", flip(made, -9, 0x80)),
        ("a signature of zeros", patch(made, -72, bytes(64))),
        ("the signature of another block", patch(made, -72, earlier[-72:-8])),
        ("a byte behind the body", made[:body_end] + b"\0" + made[body_end:]),
        ("the last byte of the body missing", made[: body_end - 1] + made[body_end:]),
        ("the body missing", made[:64] + made[body_end:]),
        ("another body", patch(made, 64, bytes(body_end - 64))),
    ]


def _outsider(group: Group, maker: Maker) -> None:
    def refuse(comment: str, made: bytes, flag: str = "Outsider") -> None:
        _refuse(group, comment, "gate", flag, made)

    (single,), packets = maker.data(1), maker.data(4)
    made = packets[1]
    for comment, changed in _changes(maker):
        refuse(comment, changed)
    refuse("the first bit of the gate tag", flip(made, -8, 0x80))
    refuse("the last bit of the gate tag", flip(made, -1))
    refuse("a gate tag of zeros", patch(made, -8, bytes(8)))
    refuse("the gate tag of its neighbour", patch(made, -8, packets[0][-8:]))
    refuse("a byte behind it all", made + b"\0", "Truncated")
    refuse("the last byte missing", made[:-1], "Truncated")
    largest = maker.sealed([bytes(payload_limit())])[0]
    refuse("the gate tag missing", largest[:-8], "Truncated")
    refuse("signature and gate tag missing", largest[:-72], "Truncated")
    refuse("the body cut in the middle, and all behind it", largest[:700], "Truncated")
    refuse("count 2, which has a shorter path", patch(made, 55, b"\x02"), "PathLength")
    for comment, key in (
        ("gated under another slot", maker.gate_key(PacketType.DATA, KNOWN[1])),
        ("gated as control", maker.gate_key(PacketType.BEACON, EPOCH)),
        ("gated under the epoch secret", secrets().epoch_secret(maker.suite, CHANNEL_ID)),
        ("gated with zeros for a key", bytes(32)),
        ("gated for the other suite", Maker(suite=_other(maker.suite)).gate_key(PacketType.DATA, EPOCH)),
    ):
        refuse(comment, maker.gate(made, key=key))
    refuse("sealed for another channel", Maker(suite=maker.suite, channel_id=OTHER_CHANNEL_ID).data(1)[0])
    refuse("sealed under the other suite", Maker(suite=_other(maker.suite)).data(1)[0])
    beat = maker.heartbeat(Heartbeat(counter=1, next_sequence=164))
    refuse("a heartbeat with another counter", flip(beat, 71))
    refuse("a heartbeat with the flag of the end", flip(beat, 80))
    refuse("data with the type of a heartbeat", _retype(maker, single))
    part = maker.credential()[0]
    refuse("a credential with a bit of its body", flip(part, 64))
    refuse("a credential said to be data", patch(part, 5, b"\x01"))


def _retype(maker: Maker, single: bytes) -> bytes:
    """A heartbeat's type over a data packet of its length."""
    beat = maker.heartbeat(Heartbeat(counter=1, next_sequence=164))
    return patch(beat, -72, single[-72:-8])


def _insider(group: Group, maker: Maker) -> None:
    def refuse(comment: str, made: bytes, flag: str = "Insider") -> None:
        _refuse(group, comment, "signature", flag, made)

    for comment, changed in _changes(maker):
        refuse(comment, maker.gate(changed))
    packets, other = maker.data(4), Maker(suite=maker.suite, seed=OTHER_SEED)
    made = packets[1]
    (single,) = maker.data(1)
    refuse("a byte behind it all", maker.gate(made + b"\0"))
    _refuse(
        group,
        "a bit of the body, over the side channel",
        "signature",
        "SideChannel",
        flip(made, 64),
        side_channel=True,
    )
    _refuse(
        group,
        "a bit of the signature, over the side channel",
        "signature",
        "SideChannel",
        flip(made, -72),
        side_channel=True,
    )
    forged = other.publish(maker.header(), maker.encrypt(maker.header()))
    refuse("signed by another stream's key", forged)
    refuse("a heartbeat at the end, forged", maker.gate(flip(_beat(maker), 80)))

    roomy = maker.sealed([bytes(40)] * 4)[1]  # what lacks a path must not be too short for one
    refuse("a path one node short", maker.gate(roomy[:-88] + roomy[-72:]), "PathLength")
    refuse("a path one node long", maker.gate(roomy[:-72] + bytes(16) + roomy[-72:]), "PathLength")
    refuse("the path missing", maker.gate(roomy[:-104] + roomy[-72:]), "PathLength")
    refuse("a block of 1 with a path", maker.gate(single[:-72] + bytes(16) + single[-72:]), "PathLength")

    third = maker.data(3)[2]
    packet = Datagram.parse(third)
    leaf = tree.leaf(maker.suite, packet.header.block_id, 2, third[:HEADER_BYTES], packet.body)
    for index in (2, 3):
        header = replace(packet.header, index=index, count=4)
        twin = replace(packet, header=header, path=(leaf[:16], *packet.path)).serialize()
        refuse(f"the last of 3 as {index} of 4", maker.gate(twin), "TwinLeaf")
    doubled = replace(packet, header=replace(packet.header, index=3, count=4), path=packet.path)
    refuse("the last of 3 as 3 of 4, its own path", maker.gate(doubled.serialize()), "TwinLeaf")

    for comment, inner in _inner_nodes(maker, packets):
        refuse(comment, maker.gate(inner), "InnerNode")

    s = int.from_bytes(made[-40:-8], "little")
    for times in (1, 8):
        raised = patch(made, -40, little(s + times * L))
        refuse(f"S + {times} L", maker.gate(raised), "Malleable")
    refuse("S with its highest bit set", maker.gate(patch(made, -40, little(s | 1 << 255))), "Malleable")
    refuse("negated S", maker.gate(patch(made, -40, little(L - s))), "Malleable")
    said = _said(maker, single)
    scalar, _ = secret_scalar(maker.seed)
    for name, encoded, _point in small_order_keys():
        k = challenge(encoded, maker.sealer.public_key, said)
        odd = patch(single, -72, encoded + little(k * scalar % L))
        refuse(f"R {name}", maker.gate(odd), "SmallOrder")

    header = maker.header()
    sealed = maker.encrypt(header)
    for kind in PacketType:
        if kind != PacketType.DATA:
            published = maker.publish(header, sealed, context=kind)
            refuse(f"data signed as {kind.name.lower()}", published, "OtherUse")
    beat = maker.header(PacketType.HEARTBEAT)
    body = Heartbeat(counter=1, next_sequence=164).serialize()
    refuse("a heartbeat signed as data", maker.publish(beat, body, context=PacketType.DATA), "OtherUse")
    abroad = Maker(suite=maker.suite, channel_id=OTHER_CHANNEL_ID)
    refuse("signed for another channel", maker.gate(abroad.publish(header, sealed)), "OtherUse")
    suited = Maker(suite=_other(maker.suite)).publish(header, sealed)
    refuse("signed under the other suite", maker.gate(suited), "OtherUse")
    bare = ed25519.sign(maker.seed, said[len(seal.CONTEXTS[PacketType.DATA]) + 1 :])
    refuse("signed without a context", maker.gate(patch(single, -72, bare)), "OtherUse")


def _beat(maker: Maker) -> bytes:
    return maker.heartbeat(Heartbeat(counter=1, next_sequence=164))


def _said(maker: Maker, single: bytes) -> bytes:
    """What the signature of a block of 1 is over."""
    packet = Datagram.parse(single)
    leaf = tree.leaf(maker.suite, packet.header.block_id, 0, single[:HEADER_BYTES], packet.body)
    return seal.block_sign_input(maker.suite, maker.channel_id, packet.header, leaf)


def _inner_nodes(maker: Maker, packets: Sequence[bytes]) -> list[tuple[str, bytes]]:
    """Two children's hashes as a body, in a block of 4 as signed and in the block of 2 above it."""
    first = Datagram.parse(packets[0])
    leaves = [
        tree.leaf(maker.suite, first.header.block_id, index, made[:HEADER_BYTES], Datagram.parse(made).body)
        for index, made in enumerate(packets)
    ]
    levels = tree.levels(maker.suite, first.header.block_id, leaves)
    children = leaves[0][:16] + leaves[1][:16]
    above = (levels[1][1][:16],)
    prefix = bytes((1, maker.suite)) + first.header.block_id + bytes((1, 0))
    top = levels[1][0][:16] + levels[1][1][:16]
    of_two, of_one = replace(first.header, count=2), replace(first.header, count=1)
    four = replace(first, body=children, path=(leaves[1][:16], *above))
    return [
        ("two leaves as a packet of 2", replace(first, header=of_two, body=children, path=above).serialize()),
        ("two leaves as a packet of 4", four.serialize()),
        (
            "the input of a node as a packet of 2",
            replace(first, header=of_two, body=prefix + children, path=above).serialize(),
        ),
        (
            "the children of the root as the only packet",
            replace(first, header=of_one, body=top, path=()).serialize(),
        ),
    ]


def _wrongly_sealed(group: Group, maker: Maker) -> None:
    def refuse(comment: str, body: bytes, flag: str = "Sender") -> None:
        _refuse(group, comment, "open", flag, maker.publish(header, body))

    header = maker.header()
    good = maker.encrypt(header)
    refuse("a bit of the ciphertext", flip(good, 0))
    refuse("a bit of the AEAD tag", flip(good, -1))
    refuse("no body", b"")
    refuse("a body a byte shorter than the AEAD tag", good[-15:])
    refuse("an AEAD tag alone", good[-16:])
    refuse("not sealed at all", b"\x40\x07\x01x")
    refuse("sealed under another known slot", maker.encrypt(header, epoch=KNOWN[1]))
    refuse("sealed with the nonce of index 1", maker.encrypt(header, nonce=1))
    refuse("sealed for another channel", maker.encrypt(header, channel=OTHER_CHANNEL_ID))
    refuse("sealed with another header", maker.encrypt(header, bound_to=replace(header, time=TIME + 1)))
    refuse("sealed with the key of another stream", maker.encrypt(header, stream=fixed("stream id", 16)))
    refuse("sealed with the key of another block", maker.encrypt(header, block=fixed("block 2", 16)))
    refuse("sealed with the AEAD of the other suite", maker.encrypt(header, suite=_other(maker.suite)))
    refuse("sealed as a credential", maker.encrypt(header, as_credential=True))
    part = maker.credential()[0]
    header = maker.header(PacketType.CREDENTIAL)
    refuse("a credential sealed as data", maker.encrypt(header))
    changed = maker.gate(flip(part, 64))
    _refuse(group, "a credential with a bit of its body, by a member", "open", "CredentialOrder", changed)
    for comment, made in (
        ("a bit of the signature, by a member", maker.gate(flip(part, -72))),
        (
            "signed as data",
            maker.publish(header, maker.encrypt(header, as_credential=True), context=PacketType.DATA),
        ),
    ):
        _refuse(group, f"a credential: {comment}", "signature", "CredentialOrder", made)


def _control(group: Group, maker: Maker) -> None:
    _clear(group, "beacon", maker.beacon(usual_beacon()), "Count")
    many = usual_beacon(slot_commitments=tuple(fixed(f"commitment {n}") for n in range(32)))
    _clear(group, "beacon with 32 slots", maker.beacon(many), "Size")
    ahead = replace(EPOCH, generation=4, step=0)
    _clear(
        group, "beacon of a generation that is not held", maker.beacon(usual_beacon(), ahead), "ControlGate"
    )

    made, body = maker.beacon(usual_beacon()), usual_beacon().serialize()

    def refuse(comment: str, reason: str, flag: str, changed: bytes) -> None:
        _refuse(group, comment, reason, flag, changed)

    for comment, wrong in (
        ("no body", b""),
        ("cut in the fixed part", body[:163]),
        ("no slot", patch(body[:164], 163, b"\x00")),
        ("33 slots", patch(body[:164], 163, b"\x21") + bytes(33 * 32)),
        ("a slot commitment cut short", body[:-1]),
        ("a byte behind the commitments", body + b"\0"),
        ("a commitment more than it says", body + bytes(32)),
        ("a commitment less than it says", body[:-32]),
    ):
        published = maker.publish(maker.header(PacketType.BEACON), wrong)
        refuse(f"beacon: {comment}", "malformed", "BlockOfType", published)
    pair = maker.header(PacketType.BEACON, count=2)
    refuse("a beacon in a block of 2", "malformed", "BlockOfType", maker.publish(pair, body, path=bytes(16)))
    numbered = maker.header(PacketType.BEACON, first_sequence=1)
    refuse("a first sequence in a beacon", "malformed", "Header", maker.publish(numbered, body))
    refuse("data on the control stream", "unknown-stream", "WrongRole", maker.data(1)[0])
    epoch_gate = maker.gate_key(PacketType.DATA, EPOCH)
    refuse("gated as data", "gate", "Outsider", maker.gate(made, key=epoch_gate))
    refuse("gated under another slot", "gate", "Outsider", maker.gate(made, key=maker.gate_key(5, KNOWN[1])))
    refuse("another counter", "gate", "Outsider", flip(made, 71))
    refuse("another commitment", "gate", "Outsider", flip(made, 64 + 164))
    refuse("another counter, by a member", "signature", "Insider", maker.gate(flip(made, 71)))
    refuse(
        "another slot, by a member", "signature", "Insider", maker.gate(patch(made, 22, KNOWN[1].serialize()))
    )
    later = replace(EPOCH, generation=4, step=0).serialize()
    refuse("another generation, by a member", "signature", "Insider", maker.gate(patch(made, 22, later)))
    refuse("another commitment, by a member", "signature", "Insider", maker.gate(flip(made, 64 + 164)))
    publisher = Maker(suite=1)
    forged = publisher.publish(maker.header(PacketType.BEACON), body)
    refuse("signed by a publisher's key", "signature", "Insider", forged)
    header = maker.header(PacketType.BEACON)
    for kind in (PacketType.DATA, PacketType.HEARTBEAT, PacketType.REKEY):
        published = maker.publish(header, body, context=kind)
        refuse(f"a beacon signed as {kind.name.lower()}", "signature", "OtherUse", published)
    older = replace(EPOCH, slot=4710)
    refuse("a beacon of an older slot", "unknown-epoch", "UnknownEpoch", maker.beacon(usual_beacon(), older))


def _small_order_keys() -> list[Group]:
    """A credential names a key that needs no private half: whoever believes the equation believes anybody."""
    groups = []
    for name, key, point in small_order_keys():
        group = Group(f"a stream whose key is of small order: {name}", receiver_inputs(1, key))
        made = _forged(key, point)
        _refuse(group, "a forgery", "signature", "SmallOrderKey", made)
        groups.append(group)
    return groups


def _forged(key: bytes, point: Point) -> bytes:
    maker = Maker(suite=1)
    header = maker.header(stream_id=schedule.stream_id(key))
    body = maker.encrypt(header)
    packet = Datagram(header=header, body=body, path=(), signature=bytes(64), gate_tag=bytes(8))
    signature = forge(key, point, _said(maker, packet.serialize()))
    return maker.gate(replace(packet, signature=signature).serialize())
