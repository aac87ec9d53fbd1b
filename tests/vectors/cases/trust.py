"""Signed objects: stream credential, bundle, policy."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from hashlib import sha256
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.reference import ed25519, schedule
from tests.reference.credential import CREDENTIAL_CONTEXT, POLICY_CONTEXT, Bundle, Credential, Policy, Signed
from tests.reference.credential import encode as cbor
from tests.vectors.cases import certificates
from tests.vectors.cases.certificates import MICROSECONDS_PER_DAY, OTHER_SITE_ID, SITE_ID, Party
from tests.vectors.cases.schedule import MICROSECONDS_PER_HOUR, START
from tests.vectors.cases.writing import Group, VectorFile, fixed

CHANNEL = "ward-3/vitals"
CHANNEL_ID = schedule.channel_id(SITE_ID, CHANNEL)
NOW = START + MICROSECONDS_PER_DAY
ENCODING_NOTE = ("MISSING_CHECK", "CBOR that is not in its one deterministic encoding")
STRUCTURE_NOTE = (
    "MISSING_CHECK",
    "a field that is missing, one too many, or of another type, length or form",
)


@cache
def root() -> Party:
    return certificates.root()


@cache
def site_ca() -> Party:
    return certificates.site_ca(root())


@cache
def monitor() -> Party:
    return certificates.device(site_ca())


def usual_credential(**changed: Any) -> Credential:
    usual = Credential(
        spki=schedule.spki(ed25519.public_key_of(fixed("stream 1"))),
        channel_id=CHANNEL_ID,
        suite=1,
        site_id=SITE_ID,
        device="monitor-1",
        certificate_hash=sha256(monitor().der).digest(),
        not_before=START,
        not_after=START + 30 * MICROSECONDS_PER_DAY,
        start_nonce=fixed("start nonce", 16),
    )
    return replace(usual, **changed)


def usual_policy(**changed: Any) -> Policy:
    usual = Policy(
        site_id=SITE_ID,
        channel=CHANNEL,
        channel_id=CHANNEL_ID,
        version=3,
        issued=START,
        next_update=START + 7 * MICROSECONDS_PER_DAY,
        suite=1,
        group="239.192.0.1",
        port=47000,
        interface=None,
        rate=20_000_000,
        origin_time=START,
        origin_number=7,
        slot_length=MICROSECONDS_PER_HOUR,
        retention=60_000_000,
        retention_bytes=1 << 26,
        publisher_limit=10_000_000,
        fec=None,
        publishers=("monitor-1", "monitor-2"),
        subscribers=("station-1",),
    )
    return replace(usual, **changed)


def make_bundle(stated: Credential, device: Party, *issuers: Party) -> bytes:
    signed = Signed.sign(device.key, CREDENTIAL_CONTEXT, stated.serialize())
    chain = (device.der, *(issuer.der for issuer in issuers))
    return Bundle(signed=signed.serialize(), chain=chain).serialize()


def not_deterministic(tbs: bytes, items: list[Any]) -> list[tuple[str, bytes]]:
    """Other encodings of the array `items`, whose deterministic one is `tbs`, and what is near to them."""
    head, version = tbs[:1], tbs[1:2]
    if tbs != cbor(items) or version != b"\x01":
        raise ValueError("not what the forms below take apart")
    at = tbs.index(b"\x50")  # the first byte string of 16
    return [
        ("an array of indefinite length", b"\x9f" + tbs[1:] + b"\xff"),
        ("the length of the array in another byte", bytes((0x98, head[0] & 0x1F)) + tbs[1:]),
        ("the version in another byte", head + b"\x18\x01" + tbs[2:]),
        ("the version in eight more bytes", head + b"\x1b" + (1).to_bytes(8) + tbs[2:]),
        ("the version as a bignum", head + b"\xc2\x41\x01" + tbs[2:]),
        ("the version as a float", head + b"\xf9\x3c\x00" + tbs[2:]),
        ("a length of a byte string in another byte", tbs[:at] + b"\x58\x10" + tbs[at + 1 :]),
        ("a byte string in two chunks", tbs[:at] + _chunks(tbs[at + 1 : at + 17]) + tbs[at + 17 :]),
        ("a byte behind it", tbs + b"\x00"),
        ("a second item behind it", tbs + tbs),
        ("cut by a byte", tbs[:-1]),
        ("cut in the middle", tbs[: len(tbs) // 2]),
        ("nothing", b""),
        ("a tag around it", b"\xd9\xd9\xf7" + tbs),
    ]


def _chunks(sixteen: bytes) -> bytes:
    """A byte string of indefinite length, in two halves."""
    return b"\x5f\x48" + sixteen[:8] + b"\x48" + sixteen[8:] + b"\xff"


def credential() -> VectorFile:
    key = certificates.ed25519_key("device")
    inputs = {"context": CREDENTIAL_CONTEXT, "devicePublicKey": key.public_key().public_bytes_raw()}
    group = Group("signed by an Ed25519 device key, so that the signature is always the same", inputs)

    for comment, stated in (
        ("usual", usual_credential()),
        ("an instance", usual_credential(instance="left")),
        ("a succession", usual_credential(succeeds=fixed("stream id", 16))),
        ("suite 2", usual_credential(suite=2)),
        ("the longest names", usual_credential(device="d" * 63, instance="i" * 63)),
        ("the highest times", usual_credential(not_before=2**64 - 2, not_after=2**64 - 1)),
    ):
        signed = Signed.sign(key, CREDENTIAL_CONTEXT, stated.serialize())
        group.valid(
            comment,
            tbs=signed.tbs,
            signature=signed.signature,
            signed=signed.serialize(),
            fields=credential_fields(stated),
        )

    def refuse(comment: str, reason: str, flag: str, made: Signed) -> None:
        signed = made.serialize()
        group.invalid(comment, reason, flags=(flag,), tbs=made.tbs, signature=made.signature, signed=signed)

    tbs = usual_credential().serialize()
    items = cbor2.loads(tbs)
    for comment, other in not_deterministic(tbs, items):
        refuse(comment, "malformed", "Encoding", Signed.sign(key, CREDENTIAL_CONTEXT, other))
    for comment, place, value in (
        ("version 0", 0, 0),
        ("version 2", 0, 2),
        ("version true", 0, True),
        ("a negative version", 0, -1),
        ("a key of 43 bytes", 1, items[1][:-1]),
        ("a key of 45 bytes", 1, items[1] + b"\0"),
        ("an X25519 key", 1, items[1].replace(bytes.fromhex("2b6570"), bytes.fromhex("2b656e"))),
        ("a key as text", 1, "x" * 44),
        ("a channel id of 31 bytes", 2, items[2][:-1]),
        ("a channel id of 33 bytes", 2, items[2] + b"\0"),
        ("the suite as text", 3, "1"),
        ("a negative suite", 3, -1),
        ("a site id of 15 bytes", 4, items[4][:-1]),
        ("a site id as text", 4, SITE_ID.hex()),
        ("no device name", 5, ""),
        ("a device name of 64 characters", 5, "d" * 64),
        ("a device name with a slash", 5, "a/b"),
        ("a device name with a line feed", 5, "a\n"),
        ("a device name as bytes", 5, b"monitor-1"),
        ("a certificate hash of 20 bytes", 6, items[6][:20]),
        ("notBefore as a float", 7, 1.5),
        ("notBefore beyond 64 bits", 7, 2**64),
        ("notAfter null", 8, None),
        ("notAfter as a tagged date", 8, cbor2.CBORTag(1, 1)),
        ("a nonce of 15 bytes", 9, items[9][:-1]),
        ("an instance of 64 characters", 10, "i" * 64),
        ("an instance with a space", 10, "a b"),
        ("an instance null", 10, None),
        ("a predecessor of 15 bytes", 11, bytes(15)),
        ("a predecessor of no bytes", 11, b""),
        ("a predecessor false", 11, False),
    ):
        other = cbor([*items[:place], value, *items[place + 1 :]])
        refuse(comment, "malformed", "Structure", Signed.sign(key, CREDENTIAL_CONTEXT, other))
    for comment, other in (
        ("a field is missing", cbor(items[:-1])),
        ("a field too many", cbor([*items, None])),
        ("a map", cbor(dict(enumerate(items)))),
        ("a byte string around it", cbor(tbs)),
    ):
        refuse(comment, "malformed", "Structure", Signed.sign(key, CREDENTIAL_CONTEXT, other))

    good = Signed.sign(key, CREDENTIAL_CONTEXT, tbs)
    bad = bytes((good.signature[0] ^ 1,)) + good.signature[1:]
    s = int.from_bytes(good.signature[32:], "little") + ed25519.GROUP_ORDER
    another = usual_credential(not_after=START + 31 * MICROSECONDS_PER_DAY)
    for comment, flag, made in (
        ("a bit of the signature flipped", "Signature", replace(good, signature=bad)),
        ("S + L", "Signature", replace(good, signature=good.signature[:32] + s.to_bytes(32, "little"))),
        ("63 bytes", "Signature", replace(good, signature=good.signature[:-1])),
        ("no signature", "Signature", replace(good, signature=b"")),
        ("another credential", "Signature", replace(good, tbs=another.serialize())),
        (
            "another key",
            "Signature",
            Signed.sign(certificates.ed25519_key("device 2"), CREDENTIAL_CONTEXT, tbs),
        ),
        ("signed as a policy", "Context", Signed.sign(key, POLICY_CONTEXT, tbs)),
        ("signed without a context", "Context", replace(good, signature=key.sign(tbs))),
        ("said to be ECDSA", "Algorithm", replace(good, algorithm=1)),
        ("an algorithm that is not registered", "Algorithm", replace(good, algorithm=4)),
        ("algorithm 0", "Algorithm", replace(good, algorithm=0)),
    ):
        refuse(comment, "signature", flag, made)
    serialized = good.serialize()
    for comment, signed_bytes in (
        ("the signed object with a byte behind it", serialized + b"\0"),
        ("the signed object cut by a byte", serialized[:-1]),
        ("the signed object of indefinite length", b"\x9f" + serialized[1:] + b"\xff"),
        ("the signed object with a fourth item", cbor([tbs, 2, good.signature, None])),
        ("tbs that is no byte string", cbor([items, 2, good.signature])),
    ):
        group.invalid(
            comment,
            "malformed",
            flags=("Encoding",),
            tbs=tbs,
            signature=good.signature,
            signed=signed_bytes,
        )
    notes = {
        "Encoding": ENCODING_NOTE,
        "Structure": STRUCTURE_NOTE,
        "Signature": ("MISSING_CHECK", "the signature is not the device's over these bytes"),
        "Context": ("MISSING_CHECK", "signed for another use, or for none"),
        "Algorithm": ("MISSING_CHECK", "an algorithm that is not the key's"),
    }
    return VectorFile("credential", ["TR-10", "TR-11", "DP-11"], notes, [group])


def credential_fields(stated: Any) -> dict[str, Any]:
    """What a vector says of a stream credential, whoever has read it."""
    return {
        "spki": stated.spki,
        "channelId": stated.channel_id,
        "suite": stated.suite,
        "siteId": stated.site_id,
        "device": stated.device,
        "certificateHash": stated.certificate_hash,
        "notBefore": stated.not_before,
        "notAfter": stated.not_after,
        "startNonce": stated.start_nonce,
        "instance": stated.instance,
        "succeeds": stated.succeeds,
    }


def bundle() -> VectorFile:
    """Whom TR-14 lets publish. No CRL: these vectors are about the stream, not about revocation."""
    policy = usual_policy(
        publishers=tuple(sorted(("gauge-1", "key-server", "monitor-1", f"{OTHER_SITE_ID.hex()}:guest-1")))
    )
    signed_policy = Signed.sign(site_ca().key, POLICY_CONTEXT, policy.serialize()).serialize()
    inputs = {
        "anchors": [root().der],
        "policy": signed_policy,
        "channelId": CHANNEL_ID,
        "suite": 1,
    }
    group = Group("a bundle that vouches for a stream on a channel", inputs)
    stream_id = schedule.stream_id(ed25519.public_key_of(fixed("stream 1")))
    moment: dict[str, Any] = {"streamId": stream_id, "role": "device", "now": NOW, "packetTime": NOW}
    usual = usual_credential()

    def certified(device: Party, **changed: Any) -> Credential:
        name = device.certificate.subject.rfc4514_string().rpartition("CN=")[2].partition(",")[0]
        fields = {"device": name, "certificate_hash": sha256(device.der).digest()} | changed
        return usual_credential(**fields)

    def valid(comment: str, made: bytes, **changed: Any) -> None:
        group.valid(comment, bundle=made, **(moment | changed))

    def refuse(comment: str, reason: str, flag: str, made: bytes, **changed: Any) -> None:
        group.invalid(comment, reason, flags=(flag,), bundle=made, **(moment | changed))

    ca, own = site_ca(), monitor()
    other_ca = certificates.site_ca(root(), OTHER_SITE_ID, "other site CA")
    gauge = certificates.device(ca, "gauge-1", key=certificates.ed25519_key("gauge-1"))
    guest = certificates.device(other_ca, "guest-1", site_id=OTHER_SITE_ID)
    server = certificates.device(ca, "key-server", role="key-server")
    genuine = make_bundle(usual, own, ca)
    valid("a device with a P-256 key", genuine)
    valid("a device with an Ed25519 key", make_bundle(certified(gauge), gauge, ca))
    guest_says = certified(guest, site_id=OTHER_SITE_ID)
    valid("a device of another site that the policy lists", make_bundle(guest_says, guest, other_ca))
    valid("the key server", make_bundle(certified(server), server, ca), role="key-server")
    valid("the first moment", genuine, now=usual.not_before, packetTime=usual.not_before)
    valid("the last moment", genuine, now=usual.not_after, packetTime=usual.not_after)

    refuse("another stream", "stream-id", "Binding", genuine, streamId=fixed("stream id", 16))
    for comment, reason, changed in (
        ("another certificate's hash", "certificate", {"certificate_hash": fixed("hash")}),
        ("another device's name", "certificate", {"device": "monitor-2"}),
        ("another site", "certificate", {"site_id": OTHER_SITE_ID}),
        ("another channel", "channel", {"channel_id": fixed("channel 2")}),
        ("another suite", "suite", {"suite": 2}),
    ):
        refuse(comment, reason, "Binding", make_bundle(usual_credential(**changed), own, ca))
    second = certificates.device(ca, "monitor-2")
    signed_by_second = Signed.sign(second.key, CREDENTIAL_CONTEXT, usual.serialize())
    swapped = Bundle(signed=signed_by_second.serialize(), chain=(own.der, ca.der)).serialize()
    refuse("signed by another device", "signature", "Binding", swapped)
    unlisted = certificates.device(ca, "intruder-1")
    refuse("not listed", "policy", "Policy", make_bundle(certified(unlisted), unlisted, ca))
    visitor = certificates.device(other_ca, "monitor-1", site_id=OTHER_SITE_ID)
    visitor_says = certified(visitor, site_id=OTHER_SITE_ID)
    refuse(
        "a listed name, but of another site",
        "policy",
        "Policy",
        make_bundle(visitor_says, visitor, other_ca),
    )

    before, after = usual.not_before - 1, usual.not_after + 1
    refuse("now a microsecond before notBefore", "time", "Time", genuine, now=before)
    refuse("now a microsecond after notAfter", "time", "Time", genuine, now=after)
    refuse("a packet from before notBefore", "time", "Time", genuine, packetTime=before)
    refuse("a packet from after notAfter", "time", "Time", genuine, packetTime=after)
    expired_at = START + 90 * MICROSECONDS_PER_DAY
    long = usual_credential(not_after=START + 400 * MICROSECONDS_PER_DAY)
    outlived = make_bundle(long, own, ca)
    refuse("the device's certificate has expired", "chain", "Time", outlived, now=expired_at)
    later = certificates.device(ca, begins=NOW + MICROSECONDS_PER_DAY)
    refuse("a certificate not yet valid", "chain", "Time", make_bundle(certified(later), later, ca))

    refuse("a device certificate in place of the key server's", "chain", "Role", genuine, role="key-server")
    refuse(
        "a key server's certificate in place of a device's",
        "chain",
        "Role",
        make_bundle(certified(server), server, ca),
    )
    stranger = certificates.root("another root")
    strange_ca = certificates.site_ca(stranger, name="strange site CA")
    strange = certificates.device(strange_ca)
    refuse("a root that is not ours", "chain", "Chain", make_bundle(certified(strange), strange, strange_ca))
    refuse(
        "our site CA, that did not issue it", "chain", "Chain", make_bundle(certified(strange), strange, ca)
    )
    refuse("the site CA is missing", "chain", "Chain", make_bundle(usual, own))
    refuse("the chain from the top down", "chain", "Chain", _with_chain(usual, own, [ca.der, own.der]))
    by_root = certificates.device(root(), "monitor-1")
    refuse("issued by the root itself", "chain", "Chain", make_bundle(certified(by_root), by_root))
    crossing = certificates.device(other_ca, "monitor-1", site_id=SITE_ID)
    refuse(
        "issued by the CA of another site",
        "chain",
        "Chain",
        make_bundle(certified(crossing), crossing, other_ca),
    )
    sub_ca = certificates.device(own, "monitor-1", key=certificates.p256("below a device"))
    refuse("issued by a device", "chain", "Chain", make_bundle(certified(sub_ca), sub_ca, own, ca))
    hollow = certificates.site_ca(root(), name="hollow site CA", authority=False)
    below = certificates.device(hollow)
    made = make_bundle(certified(below), below, hollow)
    refuse("issued by what has a site's name and is no CA", "chain", "Chain", made)
    broken = own.der[:-1] + bytes((own.der[-1] ^ 1,))
    hashed = usual_credential(certificate_hash=sha256(broken).digest())
    refuse(
        "a certificate with a broken signature", "chain", "Chain", _with_chain(hashed, own, [broken, ca.der])
    )
    refuse("no certificate in DER", "chain", "Chain", _with_chain(usual, own, [b"\x30\x00", ca.der]))

    parts = cbor2.loads(genuine)
    for comment, made in (
        ("empty", b""),
        ("a byte behind it", genuine + b"\0"),
        ("cut by a byte", genuine[:-1]),
        ("no chain", cbor([parts[0]])),
        ("an empty chain", cbor([parts[0], []])),
        ("a third item", cbor([*parts, None])),
        ("the signed object not in a byte string", cbor([cbor2.loads(parts[0]), parts[1]])),
        ("a certificate as text", cbor([parts[0], ["x", parts[1][1]]])),
        ("indefinite length", b"\x9f" + genuine[1:] + b"\xff"),
        ("beyond 8 x 1,204 bytes", cbor([parts[0], [*parts[1], bytes(8 * 1204)]])),
    ):
        refuse(comment, "malformed", "Malformed", made)
    notes = {
        "Binding": (
            "MISSING_CHECK",
            "the credential speaks of another stream, certificate, channel or suite",
        ),
        "Policy": ("MISSING_CHECK", "the policy does not list this device of this site as a publisher"),
        "Time": ("MISSING_CHECK", "now, or the time of the packet, is outside of a validity"),
        "Role": ("MISSING_CHECK", "another role than the one asked for (TR-7)"),
        "Chain": ("MISSING_CHECK", "the chain does not lead to an anchor as TR-5 says"),
        "Malformed": STRUCTURE_NOTE,
    }
    spec = ["TR-5", "TR-6", "TR-7", "TR-12", "TR-14"]
    return VectorFile("bundle", spec, notes, [group])


def _with_chain(stated: Credential, device: Party, chain: list[bytes]) -> bytes:
    signed = Signed.sign(device.key, CREDENTIAL_CONTEXT, stated.serialize())
    return Bundle(signed=signed.serialize(), chain=tuple(chain)).serialize()


def policy() -> VectorFile:
    ca = site_ca()
    moment: dict[str, Any] = {"now": NOW, "knownVersion": 0}
    inputs = {"context": POLICY_CONTEXT, "anchors": [root().der], "issuers": [ca.der]}
    group = Group("signed by the site CA with the nonce of RFC 6979", inputs)

    def sign(tbs: bytes) -> Signed:
        return Signed.sign(ca.key, POLICY_CONTEXT, tbs)

    def refuse(comment: str, reason: str, flag: str, made: Signed, **changed: Any) -> None:
        group.invalid(
            comment,
            reason,
            flags=(flag,),
            tbs=made.tbs,
            signed=made.serialize(),
            **(moment | changed),
        )

    guests = tuple(sorted((f"{OTHER_SITE_ID.hex()}:guest-1", "monitor-1", "Monitor-1", "monitor-10")))
    for comment, stated, changed in (
        ("usual", usual_policy(), {}),
        ("suite 2 on IPv6", usual_policy(suite=2, group="ff15::4711"), {}),
        ("an interface", usual_policy(interface="eth0"), {}),
        ("parity", usual_policy(fec=(8, 2)), {}),
        ("the most parity", usual_policy(fec=(64, 16)), {}),
        ("parity by what is reported lost", usual_policy(fec=()), {}),
        ("nobody", usual_policy(publishers=(), subscribers=()), {}),
        ("guests", usual_policy(publishers=guests, subscribers=guests), {}),
        ("the version that is known", usual_policy(), {"knownVersion": 3}),
        ("the last moment", usual_policy(), {"now": usual_policy().next_update - 1}),
        ("the highest numbers", usual_policy(version=2**64 - 1, port=65535, origin_number=2**24 - 1), {}),
    ):
        signed = sign(stated.serialize())
        group.valid(
            comment,
            tbs=signed.tbs,
            signed=signed.serialize(),
            fields=_policy_fields(stated),
            **(moment | changed),
        )

    tbs = usual_policy().serialize()
    items = cbor2.loads(tbs)
    for comment, other in not_deterministic(tbs, items):
        refuse(comment, "malformed", "Encoding", sign(other))
    for comment, place, value in (
        ("version of the form 2", 0, 2),
        ("a site id of 15 bytes", 1, SITE_ID[:-1]),
        ("a site id as text", 1, SITE_ID.hex()),
        ("no channel name", 2, ""),
        ("a channel name with a star", 2, "ward-*"),
        ("a channel id of 16 bytes", 3, CHANNEL_ID[:16]),
        ("a negative version", 4, -1),
        ("a version beyond 64 bits", 4, 2**64),
        ("issued as a float", 5, 1.5),
        ("nextUpdate null", 6, None),
        ("the suite as text", 7, "1"),
        ("the group as bytes", 8, bytes((239, 192, 0, 1))),
        ("a port of 17 bits", 9, 65536),
        ("a port as text", 9, "47000"),
        ("an interface false", 10, False),
        ("a rate as a float", 11, 2.5),
        ("an origin of two numbers", 12, [START, 7]),
        ("an origin of four numbers", 12, [START, 7, 1, 1]),
        ("an origin beyond 24 bits", 12, [START, 2**24, 1]),
        ("slots of no length", 12, [START, 7, 0]),
        ("no retention", 13, None),
        ("parity of one number", 16, [8]),
        ("parity of three numbers", 16, [8, 2, 1]),
        ("parity for no packets", 16, [0, 2]),
        ("parity of no packets", 16, [8, 0]),
        ("parity for more packets than a group has", 16, [65, 2]),
        ("parity of more packets than a group has", 16, [64, 17]),
        ("parity as text", 16, "8+2"),
        ("parity false", 16, False),
        ("publishers as text", 17, "monitor-1"),
        ("publishers not sorted", 17, ["monitor-2", "monitor-1"]),
        ("a publisher twice", 17, ["monitor-1", "monitor-1"]),
        ("a glob", 17, ["monitor-*"]),
        ("a publisher without a name", 17, [""]),
        ("a site id in upper case", 17, [f"{'AB' * 16}:guest-1"]),
        ("a site id cut short", 17, ["ab:guest-1"]),
        ("a publisher as bytes", 17, [b"monitor-1"]),
        ("subscribers not sorted", 18, ["b", "a"]),
        ("a subscriber twice", 18, ["a", "a"]),
        ("subscribers null", 18, None),
    ):
        other = cbor([*items[:place], value, *items[place + 1 :]])
        refuse(comment, "malformed", "Structure", sign(other))
    refuse("a field is missing", "malformed", "Structure", sign(cbor(items[:-1])))
    refuse("a field too many", "malformed", "Structure", sign(cbor([*items, []])))

    good = sign(tbs)
    bad = good.signature[:-1] + bytes((good.signature[-1] ^ 1,))
    second = certificates.p256("another site CA")
    other_context = Signed.sign(ca.key, CREDENTIAL_CONTEXT, tbs)
    for comment, flag, made in (
        ("a bit of the signature flipped", "Signature", replace(good, signature=bad)),
        ("no signature", "Signature", replace(good, signature=b"")),
        ("another policy", "Signature", replace(good, tbs=usual_policy(version=4).serialize())),
        ("another key", "Signature", Signed.sign(second, POLICY_CONTEXT, tbs)),
        ("a device of the site", "Signature", Signed.sign(monitor().key, POLICY_CONTEXT, tbs)),
        ("signed as a credential", "Context", other_context),
        ("signed without a context", "Context", replace(good, signature=_bare(ca, tbs))),
        ("said to be Ed25519", "Algorithm", replace(good, algorithm=2)),
        ("said to be P-384", "Algorithm", replace(good, algorithm=3)),
        ("an algorithm that is not registered", "Algorithm", replace(good, algorithm=9)),
    ):
        refuse(comment, "signature", flag, made)
    other_channel = usual_policy(channel="ward-4/vitals")
    refuse("the id of another channel", "channel", "Channel", sign(other_channel.serialize()))
    foreign = usual_policy(site_id=OTHER_SITE_ID, channel_id=schedule.channel_id(OTHER_SITE_ID, CHANNEL))
    refuse("a channel of another site", "site", "Channel", sign(foreign.serialize()))
    refuse("a version below the known one", "version", "Fresh", good, knownVersion=4)
    refuse("at nextUpdate", "time", "Fresh", good, now=usual_policy().next_update)
    notes = {
        "Encoding": ENCODING_NOTE,
        "Structure": STRUCTURE_NOTE,
        "Signature": ("MISSING_CHECK", "the signature is not the site CA's over these bytes"),
        "Context": ("MISSING_CHECK", "signed for another use, or for none"),
        "Algorithm": ("MISSING_CHECK", "an algorithm that is not the key's"),
        "Channel": ("MISSING_CHECK", "the channel id is that of site and name, the site that of the CA"),
        "Fresh": ("MISSING_CHECK", "older than what is known, or out of date (TR-15)"),
    }
    return VectorFile("policy", ["TR-10", "TR-13", "TR-15"], notes, [group])


def _bare(party: Party, tbs: bytes) -> bytes:
    if isinstance(party.key, Ed25519PrivateKey):
        return party.key.sign(tbs)
    return party.key.sign(tbs, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


def _policy_fields(stated: Policy) -> dict[str, Any]:
    return {
        "siteId": stated.site_id,
        "channel": stated.channel,
        "channelId": stated.channel_id,
        "version": stated.version,
        "issued": stated.issued,
        "nextUpdate": stated.next_update,
        "suite": stated.suite,
        "group": stated.group,
        "port": stated.port,
        "interface": stated.interface,
        "rate": stated.rate,
        "originTime": stated.origin_time,
        "originNumber": stated.origin_number,
        "slotLength": stated.slot_length,
        "retention": stated.retention,
        "retentionBytes": stated.retention_bytes,
        "publisherLimit": stated.publisher_limit,
        "fec": None if stated.fec is None else list(stated.fec),
        "publishers": list(stated.publishers),
        "subscribers": list(stated.subscribers),
    }
