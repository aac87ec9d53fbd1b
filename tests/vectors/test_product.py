"""The package's own Python gives each answer of the vectors that it has a say in, valid and invalid alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, Self

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sealcast import _core
from sealcast.errors import CertificateError, UsageError
from sealcast.keys import Secret
from sealcast.keys.epochs import Generation
from sealcast.pki import CredentialBundle, Policy, StreamCredential, channel_id
from sealcast.pki.certificates import parse_certificate
from sealcast.pki.credential import ed25519_spki, stream_id
from sealcast.pki.fec import Fec
from sealcast.pki.policy import SlotClock
from sealcast.pki.signed import SignedObject, decode_cbor, sign_input
from sealcast.sidechannel.fields import MalformedMessageError
from sealcast.sidechannel.follow_messages import FollowRequest
from sealcast.sidechannel.loss_messages import LossAnswer, LossReport
from sealcast.sidechannel.messages import (
    JoinAnswer,
    JoinRequest,
    KeysAnswer,
    PollAnswer,
    PollRequest,
    RepairAnswer,
    RepairRequest,
)
from sealcast.sidechannel.peer_messages import (
    ChannelsRequest,
    EndpointBody,
    FileReport,
    InboxAnswer,
    InboxRequest,
)
from sealcast.sidechannel.wanted_messages import WantedAnswer, WantedRequest
from tests.vectors.cases.trust import credential_fields
from tests.vectors.reading import Case, cases

DATA, HEARTBEAT = 1, 3


class Body(Protocol):
    """A body of the side channel."""

    def serialize(self) -> bytes: ...

    @classmethod
    def parse(cls, data: bytes) -> Self: ...


@contextmanager
def refused(case: Case, *errors: type[Exception]) -> Iterator[None]:
    """What is done inside raises one of `errors` if the case is invalid, and nothing else ever."""
    raised = None
    try:
        yield
    except errors as error:
        raised = error
    assert (raised is None) == case.is_valid, raised


@cases("channel_id")
def test_channel_id(case: Case) -> None:
    with refused(case, UsageError):
        case.expect(channelId=channel_id(case.octets("siteId"), case["channelName"]))


@cases("stream_id")
def test_stream_id(case: Case) -> None:
    spki = ed25519_spki(case.octets("publicKey"))
    case.expect(spki=spki, streamId=stream_id(spki))


@cases("slot")
def test_slot(case: Case) -> None:
    clock = SlotClock(
        origin_time=case["originTime"], origin_number=case["originNumber"], length=case["slotLength"]
    )
    case.expect(slot=clock.slot(case["time"]))


@cases("key_schedule")
def test_steps(case: Case) -> None:
    """KM-3, as the key server takes them; the keys below are the engine's."""
    channel = case.octets("channelId")
    generation = Generation(number=case["generation"], step=0, secret=Secret(case.octets("generationSecret")))

    def draw() -> Secret:
        raise AssertionError("a step draws nothing")

    for _ in range(case["step"]):
        generation = generation.stepped(channel, draw)
    assert (generation.number, generation.step) == (case["generation"], case["step"])
    case.expect(stepSecret=generation.secret.reveal())


@cases("commitments")
def test_commitments(case: Case) -> None:
    channel, secret = case.octets("channelId"), case.octets("secret")
    if case["kind"] == "slot":
        found = _core.commit_slot(secret, channel, case["slot"])
    else:
        found = _core.commit_generation(secret, channel, case["generation"], case["step"])
    assert (found == case.octets("commitment")) == case.is_valid


@cases("statement")
def test_sign_input(case: Case) -> None:
    case.expect(signInput=sign_input(case["context"].encode(), case.octets("statement")))


@cases("datagram")
def test_heartbeat_datagrams(case: Case) -> None:
    """The key server reads heads of streams without judging them."""
    datagram = case.octets("datagram")
    if case.is_valid and case["type"] == HEARTBEAT:
        body = case.octets("body")
        expected = (datagram[6:22], int.from_bytes(body[8:16], "big"), bool(body[16] & 1))
        assert _core.parse_heartbeat(datagram) == expected
    elif (case.is_valid and case["type"] == DATA) or case.reason == "malformed":
        with pytest.raises(_core.ValidationError):
            _core.parse_heartbeat(datagram)


@cases("credential")
def test_credential(case: Case) -> None:
    key = Ed25519PublicKey.from_public_bytes(case.octets("devicePublicKey"))
    signed = case.octets("signed")
    if not case.is_valid:
        with pytest.raises(CertificateError) as refusal:
            StreamCredential.parse(signed, key)
        # An algorithm that nobody has registered is no signed object, to a parser of signed objects.
        also = {"malformed"} if "Algorithm" in case["flags"] else set()
        assert refusal.value.reason in {case.reason} | also
        return
    stated = StreamCredential.parse(signed, key)
    assert SignedObject.parse(signed).serialize() == signed
    case.expect(
        tbs=stated.encode(),
        fields=credential_fields(stated),
    )


@cases("bundle")
def test_bundle(case: Case) -> None:
    """TR-14 as the key server judges what a publisher puts into the directory."""
    policy = Policy.parse(case.octets("policy"), None)
    anchors = [bytes.fromhex(anchor) for anchor in case["anchors"]]
    data, role = case.octets("bundle"), case["role"]
    with refused(case, CertificateError, _core.ValidationError):
        bundle = CredentialBundle.parse(data)
        assert bundle.serialize() == data
        found = _core.Validator(anchors, []).verify_credential(
            data, role=role, channel_id=policy.channel_id, suite=policy.suite, now=case["now"]
        )
        member = found.name if found.site_id == policy.site_id else f"{found.site_id.hex()}:{found.name}"
        if (
            found.stream_id != case.octets("streamId")
            or not found.not_before <= case["packetTime"] <= found.not_after
            or (role == "device" and member not in policy.publishers)
        ):
            raise CertificateError("not for this stream, time or channel", reason="name")
        stated = bundle.credential()
        assert (stated.stream_id, stated.device) == (found.stream_id, found.name)
        assert (stated.succeeds, stated.instance) == (found.succeeds, found.instance)


@cases("policy")
def test_policy(case: Case) -> None:
    issuer = parse_certificate(bytes.fromhex(case["issuers"][0])).public_key()
    assert isinstance(issuer, ec.EllipticCurvePublicKey)
    if case.reason not in (None, "version", "time", "site"):
        with pytest.raises(CertificateError):
            Policy.parse(case.octets("signed"), issuer)
        return
    policy = Policy.parse(case.octets("signed"), issuer)
    if not case.is_valid:
        # How fresh it is, and whose, is judged by who knows the chain and an earlier version: the engine.
        return
    slots = policy.slots
    case.expect(
        tbs=policy.encode(),
        fields={
            "siteId": policy.site_id,
            "channel": policy.channel,
            "channelId": policy.channel_id,
            "version": policy.version,
            "issued": policy.issued,
            "nextUpdate": policy.next_update,
            "suite": policy.suite,
            "group": policy.group,
            "port": policy.port,
            "interface": policy.interface,
            "rate": policy.rate,
            "originTime": slots.origin_time,
            "originNumber": slots.origin_number,
            "slotLength": slots.length,
            "retention": policy.retention,
            "retentionBytes": policy.retention_bytes,
            "publisherLimit": policy.publisher_limit,
            "fec": _fec(policy.fec),
            "publishers": policy.publishers,
            "subscribers": policy.subscribers,
        },
    )


def _fec(fec: Fec) -> list[int] | None:
    match fec:
        case "off":
            return None
        case "auto":
            return []
        case sources, parities:
            return [sources, parities]


BODIES: dict[str, type[Body]] = {
    "join request": JoinRequest,
    "join reply": JoinAnswer,
    "keys reply": KeysAnswer,
    "poll request": PollRequest,
    "poll reply": PollAnswer,
    "repair request": RepairRequest,
    "follow request": FollowRequest,
    "repair reply": RepairAnswer,
    "wanted request": WantedRequest,
    "wanted reply": WantedAnswer,
    "file report": FileReport,
    "loss report": LossReport,
    "loss reply": LossAnswer,
    "channels request": ChannelsRequest,
    "endpoint": EndpointBody,
    "inbox request": InboxRequest,
    "inbox reply": InboxAnswer,
}


@cases("side_channel")
def test_side_channel(case: Case) -> None:
    kind, body = BODIES[case["kind"]], case.octets("body")
    if not case.is_valid:
        with pytest.raises(MalformedMessageError):
            kind.parse(body)
        return
    parsed = kind.parse(body)
    # Written anew it has what is known, field for field; of a later version's body that is not all.
    written: dict[str, Any] = decode_cbor(parsed.serialize())
    fields = {name: value for name, value in case["fields"].items() if name != "earlier" or value}
    assert in_hexadecimal(written) == fields
    if "Later" not in case["flags"] and fields == case["fields"]:
        assert parsed.serialize() == body


def in_hexadecimal(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: in_hexadecimal(item) for name, item in value.items()}
    return [in_hexadecimal(item) for item in value] if isinstance(value, list) else value
