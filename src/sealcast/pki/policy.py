"""A channel's policy: the site CA's signed statement of who may do what on it.

Rules and globs are how an operator writes a policy (`policy_rules`, `policy_source`); the signed one lists
device names. Spec: spec/trust.md TR-13, TR-15.
"""

import ipaddress
from dataclasses import dataclass, replace
from typing import Self

from sealcast.errors import CertificateError, UsageError
from sealcast.pki.fec import Fec, is_ratio
from sealcast.pki.names import channel_id, check_channel_name, check_site_id
from sealcast.pki.policy_names import Names
from sealcast.pki.signed import (
    Context,
    PublicKey,
    SignedObject,
    Signer,
    array_head,
    decode_array,
    encode_cbor,
    items,
)

POLICY_FORMAT = 1
SUITES = (1, 2, 3)
"""Spec: registry.md, suites."""

MAX_SLOTS_AHEAD = 30
"""Slots beyond the present one that members may hold; with it and the one before they fill a beacon."""

_MAX_SLOT = 2**24 - 1
_HEAD_FIELDS = 17
"""Before the two lists of names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotClock:
    """From which time on slots are counted. Spec: KM-1."""

    origin_time: int
    """Microseconds since 1970."""
    origin_number: int
    """The slot that begins at the origin time, 24 bits."""
    length: int
    """Microseconds, above 0."""

    def __post_init__(self) -> None:
        if self.length <= 0 or self.origin_time < 0 or not 0 <= self.origin_number <= _MAX_SLOT:
            raise UsageError(f"not a slot clock: {self.origin_time}, {self.origin_number}, {self.length}")

    def slot(self, now: int) -> int:
        """Return the number of the slot that a time falls into."""
        return self.origin_number + (now - self.origin_time) // self.length


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One version of a channel's policy. Field for field the structure of TR-13."""

    site_id: bytes
    """16 bytes."""
    channel: str
    version: int
    """From 1, one more at each change."""
    issued: int
    """Microseconds."""
    next_update: int
    """Microseconds; from then on no peer obeys it."""
    suite: int
    group: str
    """IPv4 or IPv6 multicast address."""
    port: int
    """UDP port, 1 to 65535."""
    interface: str | None
    """Name of the network interface, or None: each device decides."""
    rate: int
    """Most bits a second of one publisher."""
    slots: SlotClock
    retention: int
    """For how long a publisher keeps packets for repair, in microseconds."""
    retention_bytes: int
    publisher_limit: int
    """How long after a new generation packets of older ones are still sealed, in microseconds. Spec.

    KM-12.
    """
    fec: Fec
    """The parity that publishers send, unless their own operator says otherwise."""
    publishers: Names
    """Device names, or `<site id>:<name>` of another site; sorted, none twice."""
    subscribers: Names

    def __post_init__(self) -> None:
        check_site_id(self.site_id)
        check_channel_name(self.channel)
        if self.suite not in SUITES:
            raise UsageError(f"unknown suite {self.suite}")
        if not _is_multicast(self.group):
            raise UsageError(
                f"not a multicast address: {self.group!r}", cure="use one of 239.0.0.0/8 or ff00::/8"
            )
        if not 1 <= self.port <= 65535:
            raise UsageError(f"not a UDP port: {self.port}")
        if self.next_update <= self.issued:
            raise UsageError("nextUpdate of the policy is not after its issue")
        amounts = (
            self.version,
            self.issued,
            self.rate,
            self.retention,
            self.retention_bytes,
            self.publisher_limit,
        )
        if min(amounts) < 0 or self.rate == 0 or self.version == 0:
            raise UsageError(f"the policy's numbers make no sense: {amounts}")
        if isinstance(self.fec, tuple) and not is_ratio(*self.fec):
            raise UsageError(f"no parity of {self.fec[1]} packets for {self.fec[0]}")

    @property
    def channel_id(self) -> bytes:
        """32 bytes. Spec: DP-3."""
        return channel_id(self.site_id, self.channel)

    def encode(self) -> bytes:
        """Return the `tbs` of TR-13."""
        return self.encode_head() + self.publishers.encode() + self.subscribers.encode()

    def encode_head(self) -> bytes:
        """Return what the `tbs` begins with: all of it but the two lists of names, which are its end."""
        fields: list[object] = [
            POLICY_FORMAT,
            self.site_id,
            self.channel,
            self.channel_id,
            self.version,
            self.issued,
            self.next_update,
            self.suite,
            self.group,
            self.port,
            self.interface,
            self.rate,
            [self.slots.origin_time, self.slots.origin_number, self.slots.length],
            self.retention,
            self.retention_bytes,
            self.publisher_limit,
            _fec_items(self.fec),
        ]
        return array_head(_HEAD_FIELDS + 2) + b"".join(map(encode_cbor, fields))

    def sign(self, signer: Signer) -> bytes:
        """Return the signed object, as peers get it; `signer` holds the site CA's key."""
        return SignedObject.sign(Context.POLICY, self.encode(), signer).serialize()

    @classmethod
    def decode(cls, tbs: bytes) -> Self:
        """Read a `tbs`. Raises: CertificateError, also if the channel id is not that of site and name."""
        match decode_array(tbs):
            case [
                1, bytes(site_id), str(channel), bytes(identifier), int(version), int(issued),
                int(next_update), int(suite), str(group), int(port), str() | None as interface, int(rate),
                [int(origin_time), int(origin_number), int(length)],
                int(retention), int(retention_bytes), int(publisher_limit),
                [int(), int()] | [] | None as fec, list(publishers), list(subscribers),
            ] if items(publishers, str) and items(subscribers, str):  # fmt: skip
                pass
            case _:
                raise CertificateError("not a policy", reason="malformed")
        try:
            policy = cls(
                site_id=site_id,
                channel=channel,
                version=version,
                issued=issued,
                next_update=next_update,
                suite=suite,
                group=group,
                port=port,
                interface=interface,
                rate=rate,
                slots=SlotClock(origin_time=origin_time, origin_number=origin_number, length=length),
                retention=retention,
                retention_bytes=retention_bytes,
                publisher_limit=publisher_limit,
                fec=_fec(fec),
                publishers=Names.of(publishers),
                subscribers=Names.of(subscribers),
            )
        except UsageError as error:
            raise CertificateError(f"not a policy: {error}", reason="malformed") from None
        if policy.channel_id != identifier:
            raise CertificateError("the policy's channel id is not that of its site and name", reason="name")
        return policy

    def signed_as(self, signed: bytes) -> tuple[Self, SignedObject]:
        """Read what a signer has made of this policy: the same, under this version or a higher one.

        The names are compared and not read anew. Raises: CertificateError if it signed anything else.
        """
        envelope = SignedObject.parse(signed)
        names = self.publishers.encode() + self.subscribers.encode()
        head = envelope.tbs[: len(envelope.tbs) - len(names)]
        match decode_array(array_head(_HEAD_FIELDS) + head[1:]):
            case [_, _, _, _, int(version), *_] if version >= self.version:
                stated = replace(self, version=version)
                if stated.encode_head() == head and envelope.tbs.endswith(names):
                    return stated, envelope
        raise CertificateError("the signer has signed another policy than it was given", reason="malformed")

    @classmethod
    def parse(cls, signed: bytes, public_key: PublicKey | None) -> Self:
        """Read a signed policy.

        `public_key`: the site CA's, under which the signature must hold; None where the engine has judged
        these very bytes already and only the fields are wanted. Raises: CertificateError.
        """
        envelope = SignedObject.parse(signed)
        return cls.decode(envelope.tbs if public_key is None else envelope.verify(Context.POLICY, public_key))


def is_of_this_form(head: bytes) -> bool:
    """Whether a `tbs` that begins so has as many fields as peers expect; an earlier release had fewer."""
    return head.startswith(array_head(_HEAD_FIELDS + 2))


def _fec_items(fec: Fec) -> list[int] | None:
    match fec:
        case "off":
            return None
        case "auto":
            return []
        case sources, parities:
            return [sources, parities]


def _fec(items: list[int] | None) -> Fec:
    match items:
        case None:
            return "off"
        case [sources, parities]:
            return sources, parities
        case _:
            return "auto"


def _is_multicast(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_multicast
    except ValueError:
        return False
