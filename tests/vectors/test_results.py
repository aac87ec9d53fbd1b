"""The reference gives every answer of the vectors, reading nothing but the files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.reference import ed25519, edwards, frames, parity, requests, schedule, seal, tree, trust
from tests.reference.bodies import Beacon, Heartbeat
from tests.reference.credential import CHANNEL_NAME, Credential, Policy, Signed
from tests.reference.receiver import Conflict, Gap, LostMessage, MalformedFrames, Receiver
from tests.reference.wire import Datagram, Epoch, MalformedError, PacketType, read_varint, write_varint
from tests.vectors.cases.frames import described
from tests.vectors.cases.trust import credential_fields
from tests.vectors.reading import Case, cases


@contextmanager
def refusal(case: Case) -> Iterator[None]:
    """What is done inside is refused for the file's reason, or not at all if the case is valid."""
    reason = None
    try:
        yield
    except MalformedError:
        reason = "malformed"
    except trust.RefusedError as refused:
        reason = refused.reason
    assert reason == case.reason


@cases("channel_id")
def test_channel_id(case: Case) -> None:
    assert bool(CHANNEL_NAME.fullmatch(case["channelName"])) == case.is_valid
    if case.is_valid:
        case.expect(channelId=schedule.channel_id(case.octets("siteId"), case["channelName"]))


@cases("stream_id")
def test_stream_id(case: Case) -> None:
    key = ed25519.public_key_of(case.octets("seed"))
    case.expect(publicKey=key, spki=schedule.spki(key), streamId=schedule.stream_id(key))


@cases("kdf")
def test_kdf(case: Case) -> None:
    case.expect(output=schedule.kdf(case.octets("key"), case["label"], case.octets("context")))


@cases("slot")
def test_slot(case: Case) -> None:
    origin = case["originTime"], case["originNumber"]
    case.expect(slot=schedule.slot_at(case["time"], *origin, case["slotLength"]))


@cases("key_schedule")
def test_key_schedule(case: Case) -> None:
    suite, channel = case["suite"], case.octets("channelId")
    stream, block = case.octets("streamId"), case.octets("blockId")
    epoch = Epoch(slot=case["slot"], generation=case["generation"], step=case["step"])
    step_secret = case.octets("generationSecret")
    for step in range(epoch.step):
        step_secret = schedule.next_step(step_secret, channel, epoch.generation, step)
    slot_secret = case.octets("slotSecret")
    secret = schedule.epoch_secret(suite, channel, epoch, slot_secret, step_secret)
    credential_key = schedule.credential_key(secret, suite, channel)
    case.expect(
        epoch=epoch.serialize(),
        stepSecret=step_secret,
        epochSecret=secret,
        streamSecret=schedule.stream_secret(secret, suite, channel, stream),
        blockKey=schedule.block_key(secret, suite, channel, stream, block),
        gateKey=schedule.gate_key(secret, suite, channel),
        controlGateKey=schedule.control_gate_key(slot_secret, suite, channel, epoch.slot),
        credentialKey=credential_key,
        credentialBlockKey=schedule.credential_block_key(credential_key, stream, block),
    )
    assert Epoch.parse(epoch.serialize()) == epoch


@cases("commitments")
def test_commitments(case: Case) -> None:
    receiver = Receiver(1, case.octets("channelId"))
    secret, commitment = case.octets("secret"), case.octets("commitment")
    with refusal(case):
        if case["kind"] == "slot":
            receiver.add_slot(case["slot"], secret, commitment)
        else:
            receiver.add_generation(case["generation"], case["step"], secret, commitment)


@cases("block_id")
def test_block_id(case: Case) -> None:
    numbers = case["type"], case["firstSequence"], case["time"]
    case.expect(blockId=schedule.block_id(case.octets("seed"), case.octets("randomness"), *numbers))


@cases("block_tree")
def test_block_tree(case: Case) -> None:
    suite, block, header = case["suite"], case.octets("blockId"), case.octets("header")
    leaves = [
        tree.leaf(suite, block, index, header[:54] + bytes((index,)) + header[55:], bytes.fromhex(body))
        for index, body in enumerate(case["bodies"])
    ]
    levels = tree.levels(suite, block, leaves)
    paths = [tree.path(levels, index) for index in range(case["count"])]
    joined = [b"".join(path) for path in paths]
    case.expect(leaves=leaves, nodes=levels[1:], paths=joined, root=levels[-1][0])
    roots = {tree.root_of(suite, block, at, case["count"], leaves[at], path) for at, path in enumerate(paths)}
    assert roots == {case.octets("root")}


@cases("parity")
def test_parity(case: Case) -> None:
    packets = [bytes.fromhex(packet) for packet in case["packets"]]
    symbols = [parity.symbol(packet[:64], packet[64:]) for packet in packets]
    case.expect(symbols=parity.encode(symbols, len(case["symbols"])))


@cases("block_path")
def test_block_path(case: Case) -> None:
    path = case.octets("path")
    siblings = [path[at : at + 16] for at in range(0, len(path), 16)]
    place = case["index"], case["count"], case.octets("leaf")
    try:
        root = tree.root_of(case["suite"], case.octets("blockId"), *place, siblings)
    except MalformedError:
        assert not case.is_valid
    else:
        assert (root == case.octets("root")) == case.is_valid


@cases("ed25519")
def test_ed25519(case: Case) -> None:
    inputs = case.octets("publicKey"), case.octets("message"), case.octets("signature")
    assert ed25519.verify(*inputs) == case.is_valid
    assert edwards.verdict(*inputs) == case.is_valid, "the equation itself says otherwise"


@cases("statement")
def test_statement(case: Case) -> None:
    stated = schedule.statement(
        suite=case["suite"],
        channel=case.octets("channelId"),
        stream=case.octets("streamId"),
        epoch=Epoch(slot=case["slot"], generation=case["generation"], step=case["step"]),
        block=case.octets("blockId"),
        first_sequence=case["firstSequence"],
        count=case["count"],
        time=case["time"],
        root=case.octets("root"),
    )
    context = seal.CONTEXTS[PacketType(case["type"])]
    said = schedule.sign_input(context, stated)
    case.expect(context=context, statement=stated, signInput=said)
    assert ed25519.verify(case.octets("publicKey"), said, case.octets("signature")) == case.is_valid
    if case.is_valid:
        case.expect(signature=ed25519.sign(case.octets("seed"), said))


def receiver_of(case: Case) -> Receiver:
    receiver = Receiver(case["suite"], case.octets("channelId"))
    for held in case["slots"]:
        receiver.add_slot(held["slot"], bytes.fromhex(held["secret"]))
    for held in case["generations"]:
        receiver.add_generation(held["generation"], held["step"], bytes.fromhex(held["secret"]))
    receiver.add_stream(case.octets("streamPublicKey"), control=case["control"])
    return receiver


@cases("datagram")
def test_datagram(case: Case) -> None:
    receiver = receiver_of(case)
    data = case.octets("datagram")
    assert receiver.receive(data, over_side_channel=case["sideChannel"]) == case.reason
    if not case.is_valid:
        return
    packet = Datagram.parse(data)
    header = packet.header
    assert packet.serialize() == data
    case.expect(type=header.type, time=header.time)
    if header.type == PacketType.DATA:
        leaf = tree.leaf(case["suite"], header.block_id, header.index, header.serialize(), packet.body)
        place = header.index, header.count, leaf, packet.path
        plaintext = receiver.open(packet)
        assert plaintext is not None
        found, well_formed = frames.parse(plaintext)
        assert well_formed
        case.expect(
            sequence=header.sequence,
            leaf=leaf,
            root=tree.root_of(case["suite"], header.block_id, *place),
            plaintext=plaintext,
            frames=[described(frame) for frame in found],
        )
    elif header.type == PacketType.CREDENTIAL:
        case.expect(plaintext=receiver.open(packet))
    else:
        case.expect(body=packet.body)


@cases("heartbeat")
def test_heartbeat(case: Case) -> None:
    try:
        body = Heartbeat.parse(case.octets("body"))
    except MalformedError:
        assert case.reason == "malformed"
        return
    case.expect(
        counter=body.counter,
        nextSequence=body.next_sequence,
        ended=body.ended,
        successor=body.successor,
    )
    if not case["flags"]:
        case.expect(body=body.serialize())


@cases("beacon")
def test_beacon(case: Case) -> None:
    try:
        body = Beacon.parse(case.octets("body"))
    except MalformedError:
        assert case.reason == "malformed"
        return
    case.expect(
        counter=body.counter,
        policyVersion=body.policy_version,
        policyHash=body.policy_hash,
        crlNumber=body.crl_number,
        crlHash=body.crl_hash,
        bundleVersion=body.bundle_version,
        bundleHash=body.bundle_hash,
        generationCommitment=body.generation_commitment,
        firstSlot=body.first_slot,
        slotCommitments=body.slot_commitments,
        body=body.serialize(),
    )


@cases("varint")
def test_varint(case: Case) -> None:
    encoding = case.octets("encoding")
    try:
        value, end = read_varint(encoding, 0)
    except MalformedError:
        assert case.reason == "malformed"
        return
    assert end == len(encoding)
    case.expect(value=value, encoding=write_varint(value))


@cases("frames")
def test_frames(case: Case) -> None:
    found, well_formed = frames.parse(case.octets("plaintext"))
    assert well_formed == case.is_valid
    case.expect(frames=[described(frame) for frame in found])


@cases("delivery")
def test_delivery(case: Case) -> None:
    receiver = receiver_of(case)
    stream_id = case.octets("streamId")
    for step in case["steps"]:
        match step["do"]:
            case "receive":
                reason = receiver.receive(
                    bytes.fromhex(step["datagram"]), over_side_channel=step["sideChannel"]
                )
                assert reason == step["reason"]
            case "abandon":
                receiver.abandon(stream_id, step["below"])
            case "addSlot":
                receiver.add_slot(step["slot"], bytes.fromhex(step["secret"]))
            case "addGeneration":
                secret = bytes.fromhex(step["secret"])
                receiver.add_generation(step["generation"], step["step"], secret)
    reports = receiver.reports
    case.expect(
        messages=[
            {"messageId": m.message_id, "topic": m.topic, "data": m.data, "sequence": m.sequence}
            for m in receiver.messages
        ],
        gaps=[[report.first, report.last] for report in reports if isinstance(report, Gap)],
        missing=list(receiver.missing(stream_id)),
        lostMessages=[report.message_id for report in reports if isinstance(report, LostMessage)],
        malformedPackets=[report.sequence for report in reports if isinstance(report, MalformedFrames)],
        conflicts=[report.sequence for report in reports if isinstance(report, Conflict)],
    )


@cases("credential")
def test_credential(case: Case) -> None:
    try:
        signed = Signed.parse(case.octets("signed"))
        stated = Credential.parse(signed.tbs)
    except MalformedError:
        assert case.reason == "malformed"
        return
    case.expect(tbs=signed.tbs, signature=signed.signature)
    key = Ed25519PublicKey.from_public_bytes(case.octets("devicePublicKey"))
    if not signed.holds(key, case["context"]):
        assert case.reason == "signature"
        return
    assert (stated.serialize(), signed.serialize()) == (signed.tbs, case.octets("signed"))
    case.expect(
        fields=credential_fields(stated),
    )


@cases("bundle")
def test_bundle(case: Case) -> None:
    policy = Policy.parse(Signed.parse(case.octets("policy")).tbs)
    assert (policy.channel_id, policy.suite) == (case.octets("channelId"), case["suite"])
    with refusal(case):
        trust.accept_stream(
            case.octets("bundle"),
            stream_id=case.octets("streamId"),
            policy=policy,
            anchors=[bytes.fromhex(anchor) for anchor in case["anchors"]],
            role=case["role"],
            now=case["now"],
            packet_time=case["packetTime"],
        )


@cases("policy")
def test_policy(case: Case) -> None:
    accepted = []
    with refusal(case):
        accepted.append(
            trust.accept_policy(
                case.octets("signed"),
                chain=[bytes.fromhex(issuer) for issuer in case["issuers"]],
                anchors=[bytes.fromhex(anchor) for anchor in case["anchors"]],
                now=case["now"],
                known_version=case["knownVersion"],
            )
        )
    for policy in accepted:
        _expect_policy(case, policy)


@cases("side_channel")
def test_side_channel(case: Case) -> None:
    found = []
    with refusal(case):
        found.append(requests.parse(case["kind"], case.octets("body")))
    for fields in found:
        case.expect(fields=fields)


def _expect_policy(case: Case, policy: Policy) -> None:
    case.expect(
        tbs=policy.serialize(),
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
            "originTime": policy.origin_time,
            "originNumber": policy.origin_number,
            "slotLength": policy.slot_length,
            "retention": policy.retention,
            "retentionBytes": policy.retention_bytes,
            "publisherLimit": policy.publisher_limit,
            "fec": None if policy.fec is None else list(policy.fec),
            "publishers": policy.publishers,
            "subscribers": policy.subscribers,
        },
    )
