"""The bodies of the side channel: join, keys, poll, repair, reports, messages of peers.

Signed objects in them stand for themselves: whoever reads a body does not judge them yet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cbor2

from tests.reference.bodies import Heartbeat
from tests.reference.credential import encode as cbor
from tests.reference.seal import Sealer
from tests.vectors.cases.making import (
    CONTROL_SEED,
    DATA_SEED,
    EPOCH,
    TIME,
    secrets,
    usual_beacon,
)
from tests.vectors.cases.trust import CHANNEL_ID
from tests.vectors.cases.writing import Group, VectorFile, fixed

HIGHEST = 2**64 - 1


@dataclass
class Body:
    """One kind of body: a usual one, and the fields that make it wrong."""

    kind: str
    usual: dict[str, Any]
    others: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What else is valid, by comment: the fields that differ from the usual ones."""
    wrong: dict[str, tuple[str, Any]] = field(default_factory=dict)
    """What is not, by comment: the name of a field, and its value."""


def side_channel() -> VectorFile:
    groups = []
    for body in (
        Body(
            "join request",
            {"role": "publish"},
            {"to subscribe": {"role": "subscribe"}},
            {
                "another role": ("role", "relay"),
                "a role in capitals": ("role", "Publish"),
                "a role as bytes": ("role", b"publish"),
                "no role": ("role", None),
            },
        ),
        keys_reply(),
        join_reply(),
        Body(
            "poll request",
            {"counter": 41},
            {"the first": {"counter": 0}, "the highest counter": {"counter": HIGHEST}},
            {
                "a negative counter": ("counter", -1),
                "a counter beyond 64 bits": ("counter", HIGHEST + 1),
                "a counter as a float": ("counter", 41.0),
                "a counter true": ("counter", True),
                "a counter null": ("counter", None),
            },
        ),
        Body(
            "poll reply",
            {"beacon": beacon()},
            {},
            {
                "a beacon as text": ("beacon", "beacon"),
                "a beacon null": ("beacon", None),
            },
        ),
        repair_request(),
        follow_request(),
        repair_reply(),
        wanted_request(),
        wanted_reply(),
        file_report(),
        loss_report(),
        loss_reply(),
        channels_request(),
        endpoint(),
        inbox_request(),
        inbox_reply(),
    ):
        groups.append(group_of(body))
    notes = {
        "Later": ("EDGE_CASE", "a field of a later version is ignored (SC-17)"),
        "Structure": ("MISSING_CHECK", "a field that is missing, or of another type, length or size"),
        "Encoding": ("MISSING_CHECK", "not the one deterministic encoding of one map with text keys"),
    }
    spec = [
        "SC-3", "SC-4", "SC-5", "SC-8", "SC-17", "SC-33", "SC-34", "SC-35", "SC-36", "SC-44", "SC-48",
        "SC-49", "SC-50", "KM-18",
    ]  # fmt: skip
    return VectorFile("side_channel", spec, notes, groups)


def file_report() -> Body:
    file, other = fixed("file", 16), fixed("other file", 16)
    return Body(
        "file report",
        {
            "channel": CHANNEL_ID,
            "stream": stream().stream_id,
            "round": 3,
            "busy": False,
            "whole": [file],
            "refused": [[fixed("refused", 16), "a folder has its name"]],
            "missing": [[other, [[0, 0], [7, 16_383]]]],
        },
        {
            "busy, with nothing": {"busy": True, "whole": [], "refused": [], "missing": []},
            "a reason of 80 characters": {"refused": [[file, "µ" * 80]]},
            "the last piece that has a number": {"missing": [[file, [[2**64 - 1, 2**64 - 1]]]]},
        },
        {
            "a channel id of 31 bytes": ("channel", CHANNEL_ID[:-1]),
            "a stream id of 15 bytes": ("stream", fixed("s", 15)),
            "a round below zero": ("round", -1),
            "busy as a number": ("busy", 1),
            "a file id of 15 bytes": ("whole", [fixed("file", 15)]),
            "a file id as text": ("whole", ["x" * 16]),
            "1,025 files": ("whole", [file] * 1025),
            "a reason of 81 characters": ("refused", [[file, "x" * 81]]),
            "a refusal without a reason": ("refused", [[file]]),
            "no range": ("missing", [[file, []]]),
            "a range that ends before it begins": ("missing", [[file, [[2, 1]]]]),
            "1,025 ranges": ("missing", [[file, [[0, 0]] * 1025]]),
            "one number for a range": ("missing", [[file, [4]]]),
        },
    )


def wanted_request() -> Body:
    usual = {"channel": CHANNEL_ID, "stream": stream().stream_id, "number": 2, **repair_reply().usual}
    return Body(
        "wanted request",
        usual,
        {
            "the first": {"number": 0, "packets": [], "oldest": 0, "head": None},
            "the highest number": {"number": 2**63 - 1},
            "the end of a stream": {"oldest": 2**62},
            "reports that were taken": {"taken": [0, 7, 2**63 - 1]},
        },
        {
            "a number beyond 63 bits": ("number", 2**63),
            "a negative number": ("number", -1),
            "a number as text": ("number", "2"),
            "65 reports taken": ("taken", list(range(65))),
            "a mark beyond 63 bits": ("taken", [2**63]),
            "a mark as bytes": ("taken", [b"7"]),
            "1,025 packets": ("packets", [b""] * 1025),
            "a packet null": ("packets", [None]),
            "an oldest beyond all sequences": ("oldest", 2**62 + 1),
            "a head as text": ("head", "head"),
            "a channel id of 31 bytes": ("channel", CHANNEL_ID[:31]),
            "a stream id of 17 bytes": ("stream", fixed("s", 17)),
        },
    )


def wanted_reply() -> Body:
    report = cbor(file_report().usual)
    return Body(
        "wanted reply",
        {"number": 3, "ranges": [[3, 5], [9, 9]]},
        {
            "nothing": {"number": 0, "ranges": []},
            "the highest number": {"number": 2**63 - 1},
            "64 ranges": {"ranges": [[4 * number, 4 * number + 1] for number in range(64)]},
            "reports on files, and nothing wanted": {
                "number": 0,
                "ranges": [],
                "reports": [[7, "display", report], [2**63 - 1, f"{'0a' * 16}:bed", b""]],
            },
        },
        {
            "a number beyond 63 bits": ("number", 2**63),
            "a negative number": ("number", -1),
            "65 reports": ("reports", [[number, "display", b""] for number in range(65)]),
            "a report without a mark": ("reports", [["display", report]]),
            "a report of nobody": ("reports", [[7, None, report]]),
            "a report with a mark beyond 63 bits": ("reports", [[2**63, "display", report]]),
            "a report that is a map": ("reports", [[7, "display", {}]]),
            "first above last": ("ranges", [[5, 3]]),
            "65 ranges": ("ranges", [[4 * number, 4 * number + 1] for number in range(65)]),
            "a sequence beyond 62 bits": ("ranges", [[0, 2**62]]),
            "numbers instead of ranges": ("ranges", [3, 4]),
        },
    )


def loss_report() -> Body:
    return Body(
        "loss report",
        {"channel": CHANNEL_ID, "stream": stream().stream_id, "lost": 3, "sent": 250},
        {
            "nothing lost": {"lost": 0},
            "everything lost": {"lost": 250},
            "as many as there are sequences": {"sent": 2**62},
        },
        {
            "more lost than sent": ("lost", 251),
            "fewer than none lost": ("lost", -1),
            "more sent than there are sequences": ("sent", 2**62 + 1),
            "a share instead of numbers": ("lost", 0.012),
            "a channel id of 33 bytes": ("channel", CHANNEL_ID + b"\0"),
            "a stream id of 15 bytes": ("stream", fixed("s", 15)),
        },
    )


def loss_reply() -> Body:
    return Body(
        "loss reply",
        {"interval": 4_000},
        {"at once": {"interval": 0}, "a day": {"interval": 86_400_000}},
        {
            "more than a day": ("interval", 86_400_001),
            "before now": ("interval", -1),
            "seconds as a float": ("interval", 4.0),
            "never": ("interval", None),
        },
    )


def channels_request() -> Body:
    known = fixed("the answer before")
    return Body(
        "channels request",
        {"known": known},
        {"nothing known": {"known": bytes(32)}},
        {
            "a hash of 31 bytes": ("known", known[:-1]),
            "a hash in hexadecimal": ("known", known.hex()),
            "nothing known, as null": ("known", None),
        },
    )


def endpoint() -> Body:
    return Body(
        "endpoint",
        {"endpoint": ["192.0.2.7", 4711]},
        {
            "a device that does not listen": {"endpoint": None},
            "an address of IPv6": {"endpoint": ["2001:db8::7", 65535]},
        },
        {
            "a port beyond 16 bits": ("endpoint", ["192.0.2.7", 65536]),
            "no port": ("endpoint", ["192.0.2.7"]),
            "a third item": ("endpoint", ["192.0.2.7", 4711, 0]),
            "as text": ("endpoint", "192.0.2.7:4711"),
            "a host as bytes": ("endpoint", [b"192.0.2.7", 4711]),
        },
    )


def inbox_request() -> Body:
    def message(name: str, topic: Any = None, time: Any = TIME, data: Any = b"") -> list[Any]:
        return [fixed(name, 16), topic, time, data]

    return Body(
        "inbox request",
        {"messages": [message("first", "alarm", data=b"91 %"), message("second", data=b"90 %")]},
        {
            "an empty message": {"messages": [message("empty")]},
            "a topic of 255 bytes": {"messages": [message("topic", "µ" * 127 + "x")]},
            "the latest time": {"messages": [message("time", time=2**63 - 1)]},
            "an id twice": {"messages": [message("again"), message("again")]},
        },
        {
            "no message": ("messages", []),
            "1,025 messages": ("messages", [message("of many")] * 1025),
            "an id of 15 bytes": ("messages", [[fixed("id", 15), None, TIME, b""]]),
            "a topic of 256 bytes": ("messages", [message("topic", "µ" * 128)]),
            "a topic as bytes": ("messages", [message("topic", b"alarm")]),
            "a time below zero": ("messages", [message("time", time=-1)]),
            "a time beyond 63 bits": ("messages", [message("time", time=2**63)]),
            "a time as a float": ("messages", [message("time", time=1.5)]),
            "data as text": ("messages", [message("data", data="91 %")]),
            "a message without data": ("messages", [message("data")[:3]]),
            "a message as a map": ("messages", [{"id": fixed("id", 16)}]),
            "one message for all": ("messages", message("one")),
        },
    )


def inbox_reply() -> Body:
    return Body(
        "inbox reply",
        {"stored": 2},
        {"the first": {"stored": 1}, "1,024": {"stored": 1024}},
        {
            "none": ("stored", 0),
            "1,025": ("stored", 1025),
            "fewer than none": ("stored", -1),
            "ids instead of a number": ("stored", [fixed("id", 16)]),
        },
    )


def group_of(body: Body) -> Group:
    group = Group(f"{body.kind}", {"kind": body.kind})
    usual = cbor(body.usual)
    group.valid("usual", body=usual, fields=body.usual)
    for comment, changed in body.others.items():
        fields = body.usual | changed
        group.valid(comment, body=cbor(fields), fields=fields)
    for comment, later in (
        ("one more field", {"zz": [1, b"", None]}),
        ("a field before all", {"a": {"b": 1}}),
    ):
        group.valid(comment, flags=("Later",), body=cbor(body.usual | later), fields=body.usual)

    def refuse(comment: str, flag: str, wrong: bytes) -> None:
        group.invalid(comment, "malformed", flags=(flag,), body=wrong)

    for name in body.usual:
        if name != "earlier":
            fields = {other: value for other, value in body.usual.items() if other != name}
            refuse(f"without {name}", "Structure", cbor(fields))
    for comment, (name, value) in body.wrong.items():
        refuse(comment, "Structure", cbor(body.usual | {name: value}))
    for comment, wrong in not_one_map(body.usual, usual):
        refuse(comment, "Encoding", wrong)
    return group


def not_one_map(fields: dict[str, Any], usual: bytes) -> list[tuple[str, bytes]]:
    count = len(fields)
    first = cbor2.dumps(min(fields, key=lambda name: (len(name), name)))
    return [
        ("nothing", b""),
        ("an array", cbor(list(fields.values()))),
        ("a number", cbor(7)),
        ("an array of pairs", cbor([[name, value] for name, value in fields.items()])),
        ("a byte behind it", usual + b"\x00"),
        ("twice", usual + usual),
        ("cut by a byte", usual[:-1]),
        ("cut in the middle", usual[: len(usual) // 2]),
        ("of indefinite length", b"\xbf" + usual[1:] + b"\xff"),
        ("its size in another byte", bytes((0xB8, count)) + usual[1:]),
        ("its size one too many", bytes((0xA0 + count + 1,)) + usual[1:]),
        ("a tag around it", b"\xd9\xd9\xf7" + usual),
        ("a field twice", bytes((0xA0 + count + 1,)) + usual[1:] + first + cbor(None)),
        ("the first name's length in another byte", patch_first_name(usual)),
        ("the fields the other way round", backwards(fields)),
        ("a key that is a number", bytes((0xA0 + count + 1,)) + b"\x00\x00" + usual[1:]),
    ]


def patch_first_name(usual: bytes) -> bytes:
    """The name of the first field under a head of two bytes."""
    return usual[:1] + bytes((0x78, usual[1] & 0x1F)) + usual[2:]


def backwards(fields: dict[str, Any]) -> bytes:
    """The names in falling order; of a single field, that field and another before it in the wrong place."""
    names = sorted(fields, key=lambda name: (len(name), name), reverse=True)
    if len(names) == 1:
        return b"\xa2" + cbor(names[0]) + cbor(fields[names[0]]) + cbor("a") + cbor(0)
    return bytes((0xA0 + len(names),)) + b"".join(cbor(name) + cbor(fields[name]) for name in names)


def stream() -> Sealer:
    return Sealer(suite=1, channel_id=CHANNEL_ID, seed=DATA_SEED)


def beacon() -> bytes:
    sealer = Sealer(suite=1, channel_id=CHANNEL_ID, seed=CONTROL_SEED)
    return sealer.beacon(secrets(), usual_beacon(), randomness=fixed("beacon", 16), time=TIME)


def head() -> bytes:
    beat = Heartbeat(counter=7, next_sequence=164)
    return stream().heartbeat(secrets(), beat, randomness=fixed("heartbeat", 16), time=TIME)


def keys_fields() -> dict[str, Any]:
    return {
        "beacon": beacon(),
        "slots": [[EPOCH.slot + ahead, fixed(f"slot {EPOCH.slot + ahead}")] for ahead in (-1, 0, 1)],
        "generation": [EPOCH.generation, EPOCH.step, secrets().step_secret],
        "time": TIME,
    }


def keys_wrong() -> dict[str, tuple[str, Any]]:
    secret = fixed("a secret")
    return {
        "a slot beyond 24 bits": ("slots", [[2**24, secret]]),
        "a negative slot": ("slots", [[-1, secret]]),
        "a slot secret of 31 bytes": ("slots", [[1, secret[:-1]]]),
        "a slot without a secret": ("slots", [[1]]),
        "a slot with a third item": ("slots", [[1, secret, 0]]),
        "slots as a map": ("slots", {"1": secret}),
        "slots null": ("slots", None),
        "a generation beyond 32 bits": ("generation", [2**32, 0, secret]),
        "a step beyond 8 bits": ("generation", [1, 256, secret]),
        "a generation without a step": ("generation", [1, secret]),
        "a generation secret of 33 bytes": ("generation", [1, 0, secret + b"\0"]),
        "a generation secret as text": ("generation", [1, 0, "x" * 32]),
        "a negative time": ("time", -1),
        "a time as a float": ("time", 1.5),
        "nine earlier generations": ("earlier", [[number, secret, beacon()] for number in range(9)]),
        "an earlier generation without a beacon": ("earlier", [[1, secret]]),
        "an earlier generation with a step": ("earlier", [[1, 0, secret, beacon()]]),
        "an earlier secret of 16 bytes": ("earlier", [[1, secret[:16], beacon()]]),
        "a beacon as text": ("beacon", "beacon"),
    }


def keys_reply() -> Body:
    return Body(
        "keys reply",
        keys_fields(),
        {
            "no slot": {"slots": []},
            "32 slots": {"slots": [[number, fixed(f"slot {number}")] for number in range(32)]},
            "the highest numbers": {
                "slots": [[2**24 - 1, fixed("slot")]],
                "generation": [2**32 - 1, 255, fixed("generation")],
                "time": HIGHEST,
            },
            "an earlier generation": {"earlier": [[2, fixed("generation 2"), beacon()]]},
            "eight earlier generations": {
                "earlier": [[number, fixed(f"generation {number}"), beacon()] for number in range(8)]
            },
            "no earlier generation": {"earlier": []},
        },
        keys_wrong(),
    )


def entry(**changed: Any) -> dict[str, Any]:
    return {
        "stream": stream().stream_id,
        "device": "monitor-1",
        "instance": "",
        "credential": fixed("bundle", 100),
        "head": head(),
        "endpoint": ["192.0.2.7", 4711],
        **changed,
    }


def join_reply() -> Body:
    usual = {
        **keys_fields(),
        "policy": fixed("policy", 100),
        "crl": fixed("crl", 100),
        "issuers": [fixed("site CA", 80), fixed("its successor", 80)],
        "key-server": fixed("bundle of the key server", 100),
        "streams": [entry()],
    }
    without = {name: value for name, value in entry().items() if name != "head"}
    return Body(
        "join reply",
        usual,
        {
            "no stream": {"streams": []},
            "two streams": {"streams": [entry(), entry(stream=fixed("s", 16), instance="left")]},
            "a stream that nobody has heard of yet": {"streams": [entry(head=None, endpoint=None)]},
            "an address of IPv6": {"streams": [entry(endpoint=["2001:db8::7", 65535])]},
            "a name": {"streams": [entry(endpoint=["monitor-1.ward-3.example", 1])]},
            "an earlier generation": {"earlier": [[2, fixed("generation 2"), beacon()]]},
        },
        {
            "a policy as an array": ("policy", [1]),
            "a CRL null": ("crl", None),
            "issuers as one certificate": ("issuers", fixed("site CA", 80)),
            "an issuer as text": ("issuers", ["certificate"]),
            "a key server's bundle null": ("key-server", None),
            "streams as a map": ("streams", {}),
            "a stream as an array": ("streams", [[fixed("s", 16)]]),
            "a stream id of 15 bytes": ("streams", [entry(stream=fixed("s", 15))]),
            "a stream without a head": ("streams", [without]),
            "a head as text": ("streams", [entry(head="head")]),
            "a device name as bytes": ("streams", [entry(device=b"monitor-1")]),
            "an instance null": ("streams", [entry(instance=None)]),
            "a port beyond 16 bits": ("streams", [entry(endpoint=["192.0.2.7", 65536])]),
            "an endpoint without a port": ("streams", [entry(endpoint=["192.0.2.7"])]),
            "an endpoint as text": ("streams", [entry(endpoint="192.0.2.7:4711")]),
            "a port of 0": ("streams", [entry(endpoint=["192.0.2.7", 0])]),
            "no host": ("streams", [entry(endpoint=["", 4711])]),
            "a host with a port": ("streams", [entry(endpoint=["192.0.2.7:4711", 4711])]),
            "a host with a zone": ("streams", [entry(endpoint=["fe80::7%1", 4711])]),
            "a host with an empty label": ("streams", [entry(endpoint=["host..example", 4711])]),
            "a host that begins with a hyphen": ("streams", [entry(endpoint=["-host", 4711])]),
            "a host that is no URL's": ("streams", [entry(endpoint=["host/path", 4711])]),
            "a label of 64 letters": ("streams", [entry(endpoint=["h" * 64, 4711])]),
            **keys_wrong(),
        },
    )


def repair_request() -> Body:
    usual = {"channel": CHANNEL_ID, "stream": stream().stream_id, "ranges": [[3, 5], [9, 9]]}
    return Body(
        "repair request",
        usual,
        {
            "the whole stream": {"ranges": [[0, 2**62 - 1]]},
            "64 ranges": {"ranges": [[4 * number, 4 * number + 1] for number in range(64)]},
        },
        {
            "first above last": ("ranges", [[5, 3]]),
            "65 ranges": ("ranges", [[4 * number, 4 * number + 1] for number in range(65)]),
            "a sequence beyond 62 bits": ("ranges", [[0, 2**62]]),
            "a negative sequence": ("ranges", [[-1, 3]]),
            "a range of one number": ("ranges", [[3]]),
            "a range of three numbers": ("ranges", [[3, 4, 5]]),
            "a sequence as a float": ("ranges", [[3.0, 4]]),
            "ranges as a map": ("ranges", {}),
            "numbers instead of ranges": ("ranges", [3, 4]),
            "a channel id of 33 bytes": ("channel", CHANNEL_ID + b"\0"),
            "a channel's name": ("channel", "ward-3/vitals"),
            "a stream id of 15 bytes": ("stream", fixed("s", 15)),
        },
    )


def follow_request() -> Body:
    usual = {"channel": CHANNEL_ID, "stream": stream().stream_id, "from": 7}
    return Body(
        "follow request",
        usual,
        {"from the first": {"from": 0}, "from the end of all sequences": {"from": 2**62}},
        {
            "a sequence beyond 62 bits": ("from", 2**62 + 1),
            "a negative sequence": ("from", -1),
            "a sequence as text": ("from", "7"),
            "a range": ("from", [7, 9]),
            "a channel id of 31 bytes": ("channel", CHANNEL_ID[:31]),
            "a stream id of 17 bytes": ("stream", fixed("s", 17)),
        },
    )


def repair_reply() -> Body:
    sealer = stream()
    packets = sealer.data(
        secrets(), [b"\x00", b"\x00\x00"], first_sequence=3, randomness=fixed("block", 16), time=TIME
    )
    return Body(
        "repair reply",
        {"packets": packets, "oldest": 3, "head": head()},
        {
            "nothing retained": {"packets": [], "oldest": 164},
            "no heartbeat yet": {"head": None},
            "1,024 packets": {"packets": [b""] * 1024},
            "the end of a stream": {"oldest": 2**62},
        },
        {
            "1,025 packets": ("packets", [b""] * 1025),
            "a packet as text": ("packets", ["packet"]),
            "a packet null": ("packets", [None]),
            "packets as one": ("packets", packets[0]),
            "oldest null": ("oldest", None),
            "a negative oldest": ("oldest", -1),
            "a head as text": ("head", "head"),
        },
    )
