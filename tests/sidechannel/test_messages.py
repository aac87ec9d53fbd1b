"""Bodies of the side channel: what is written is read again, and nothing else is. spec/side-channel.md."""

from typing import Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealcast.keys import GateGrant, MemberRole, Secret
from sealcast.pki.signed import decode_cbor, encode_cbor
from sealcast.sidechannel.fields import MalformedMessageError
from sealcast.sidechannel.messages import (
    ChannelsAnswer,
    CrlAnswer,
    EmptyBody,
    JoinAnswer,
    JoinRequest,
    KeysAnswer,
    MemberEntry,
    MembersAnswer,
    PolicyAnswer,
    PollAnswer,
    PollRequest,
    RepairAnswer,
    RepairNodeEntry,
    RepairRequest,
    StreamEntry,
    StreamsAnswer,
    StreamUpdate,
    TimeAnswer,
)
from sealcast.sidechannel.node_messages import (
    AdmissionAnswer,
    GatesAnswer,
    NodeJoinAnswer,
    RepairNodeUpdate,
)
from sealcast.sidechannel.peer_messages import (
    ChannelsRequest,
    EndpointBody,
    FileReport,
    InboxAnswer,
    InboxRequest,
    PostedMessage,
)
from sealcast.sidechannel.refusals import ErrorAnswer


class Message(Protocol):
    def serialize(self) -> bytes: ...


KEYS = KeysAnswer(
    beacon=b"beacon",
    slots=((7, Secret(bytes([7] * 32))), (8, Secret(bytes([8] * 32)))),
    generation=3,
    step=4,
    secret=Secret(bytes([9] * 32)),
    time=1_700_000_000_000_000,
)
ENTRY = StreamEntry(
    stream=bytes(range(16)),
    device="monitor-1",
    instance="",
    credential=b"bundle",
    head=None,
    endpoint=("2001:db8::7", 4711),
)
GATES = GatesAnswer(
    beacon=b"beacon",
    generation=3,
    gates=(GateGrant(slot=7, step=4, gate=Secret(bytes([5] * 32)), credential=Secret(bytes([6] * 32))),),
    time=1_700_000_000_000_000,
)
NODE = RepairNodeEntry(device="keeper", endpoint=("keeper.example", 443))
MESSAGES: list[Message] = [
    JoinRequest(role=MemberRole.PUBLISH),
    EmptyBody(),
    KEYS,
    JoinAnswer(keys=KEYS, policy=b"p", crl=b"c", issuers=(b"ca",), key_server=b"k", streams=(ENTRY,)),
    GATES,
    NodeJoinAnswer(
        gates=GATES,
        policy=b"p",
        crl=b"c",
        issuers=(b"ca",),
        key_server=b"k",
        streams=(ENTRY,),
        repair_nodes=(NODE,),
    ),
    RepairNodeUpdate(endpoint=("192.0.2.7", 4711)),
    RepairNodeUpdate(endpoint=None),
    AdmissionAnswer(generation=3, step=255, joined=1_700_000_000_000_000),
    StreamsAnswer(streams=(ENTRY,), repair_nodes=(NODE,)),
    PollRequest(counter=2**64 - 1),
    PollAnswer(beacon=b"beacon"),
    PolicyAnswer(policy=b"p", issuers=(b"ca",)),
    CrlAnswer(crl=b"c", issuers=(b"ca", b"cb")),
    StreamsAnswer(streams=(ENTRY, ENTRY)),
    StreamUpdate(credential=b"bundle", head=b"heartbeat", endpoint=None),
    MembersAnswer(members=(MemberEntry(device="a", role=MemberRole.SUBSCRIBE),)),
    TimeAnswer(time=5),
    RepairRequest(channel=bytes(32), stream=bytes(16), ranges=((0, 0), (5, 2**62 - 1))),
    RepairAnswer(packets=(b"one", b"two"), oldest=1, head=b"h"),
    FileReport(channel=bytes(32), stream=bytes(16), round=0, is_busy=True),
    FileReport(
        channel=bytes(32),
        stream=bytes(16),
        round=7,
        whole=(bytes(16),),
        refused=((bytes([1] * 16), "no room"),),
        missing=((bytes([2] * 16), ((0, 0), (2, 5))),),
    ),
    ErrorAnswer(error="revoked", detail="device 'x' is revoked"),
    ChannelsAnswer(crl=(7, bytes(32)), channels=(("ward/ecg", 2),)),
    ChannelsRequest(known=bytes(32)),
    EndpointBody(endpoint=("192.0.2.7", 4711)),
    EndpointBody(endpoint=None),
    InboxRequest(
        messages=(
            PostedMessage(id=bytes(16), topic=None, time=0, data=b""),
            PostedMessage(id=bytes([1] * 16), topic="µ", time=2**63 - 1, data=b"data"),
        )
    ),
    InboxAnswer(stored=1),
]
NAMES = [type(message).__name__ for message in MESSAGES]


@pytest.mark.parametrize("message", MESSAGES, ids=NAMES)
def test_what_is_written_is_read_again(message: Message) -> None:
    assert type(message).parse(message.serialize()) == message  # type: ignore[attr-defined]


@pytest.mark.parametrize("message", MESSAGES, ids=NAMES)
def test_every_field_is_needed(message: Message) -> None:
    fields = decode_cbor(message.serialize())
    for name in fields.keys() - {"repair-nodes"}:
        left = {key: value for key, value in fields.items() if key != name}
        with pytest.raises(MalformedMessageError, match=name):
            type(message).parse(encode_cbor(left))  # type: ignore[attr-defined]


@pytest.mark.parametrize("message", MESSAGES, ids=NAMES)
@pytest.mark.parametrize(
    "wrong", [True, {"a": 1}, [1, 2, 3, 4, 5], "\u2603" * 5000, 2**64 - 1, [[]]], ids=repr
)
def test_every_field_has_a_type(message: Message, wrong: object) -> None:
    fields = decode_cbor(message.serialize())
    for name in fields:
        body = encode_cbor({**fields, name: wrong})
        try:
            parsed = type(message).parse(body)  # type: ignore[attr-defined]
        except MalformedMessageError:
            continue
        # Where the value fits the schema after all, it has to come out as it went in.
        assert parsed.serialize() == body


@pytest.mark.parametrize("message", MESSAGES, ids=NAMES)
def test_a_field_of_a_later_version_is_ignored(message: Message) -> None:
    """SC-17."""
    fields = decode_cbor(message.serialize())
    assert type(message).parse(encode_cbor({**fields, "later": 1})) == message  # type: ignore[attr-defined]


@pytest.mark.parametrize("message", MESSAGES, ids=NAMES)
@given(data=st.data())
def test_garbage_is_malformed_and_nothing_worse(message: Message, data: st.DataObject) -> None:
    body = bytearray(message.serialize())
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        parsed = type(message).parse(bytes(body))  # type: ignore[attr-defined]
    except MalformedMessageError:
        return
    assert type(message).parse(parsed.serialize()) == parsed  # type: ignore[attr-defined]


@pytest.mark.parametrize("body", [b"", b"\xa0\x00", b"\xbf\xff", b"[1]", b"\x80"], ids=repr)
def test_a_body_is_one_deterministic_map(body: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        EmptyBody.parse(body)


class TestRanges:
    """SC-8."""

    def body(self, ranges: object) -> bytes:
        return encode_cbor({"channel": bytes(32), "stream": bytes(16), "ranges": ranges})

    def test_64_are_allowed_and_65_are_not(self) -> None:
        assert len(RepairRequest.parse(self.body([[0, 1]] * 64)).ranges) == 64
        with pytest.raises(MalformedMessageError, match="at most 64"):
            RepairRequest.parse(self.body([[0, 1]] * 65))

    @pytest.mark.parametrize("absurd", [[2, 1], [0, 2**62], [0], [0, 1, 2], [0, "1"], [0, True]], ids=repr)
    def test_an_absurd_one_is_refused(self, absurd: list[object]) -> None:
        with pytest.raises(MalformedMessageError):
            RepairRequest.parse(self.body([absurd]))


@pytest.mark.parametrize(
    "endpoint", [["", 1], ["a b", 1], ["host/x", 1], ["h", 0], ["h", 65536], ["h\n", 1], ["a@b", 1]], ids=repr
)
def test_an_endpoint_is_a_host_and_a_port(endpoint: list[object]) -> None:
    """It becomes part of a URL at whoever reads the directory."""
    with pytest.raises(MalformedMessageError, match="endpoint"):
        StreamUpdate.parse(encode_cbor({"credential": b"", "head": None, "endpoint": endpoint}))


def test_secrets_do_not_show_in_answers() -> None:
    assert "\\t\\t" not in repr(KEYS)
    assert "…" in repr(KEYS)
