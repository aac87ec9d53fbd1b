"""The engine, in Rust: what runs per packet, and what must be the same in every language.

Times are microseconds since 1970-01-01T00:00:00Z; ids and secrets are bytes of the sizes in spec/.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict

__version__: str
"""The version of Sealcast; the only place that states it is the Cargo workspace."""

class ValidationError(ValueError):
    """What was shown is not to be believed. `reason`: one of the engine's words, for example `revoked`."""

    reason: str

class SendError(ValueError):
    """A message or credential was not taken.

    `reason`: `too-long`, `topic-too-long`, `queue-full`, `ended`; `credential-too-long`, `mtu-too-small`.
    """

    reason: str

class NetworkError(OSError):
    """A socket could not be had. `reason`: for example `unknown-interface`, `address-in-use`."""

    reason: str

def count_crls(der: bytes) -> int:
    """Return how many CRLs a document (TR-9) holds. Raises: ValidationError if no member would take it."""

def judge_crls(der: bytes, authorities: Sequence[bytes]) -> list[tuple[bytes, int, int, int, bool]]:
    """Judge the lists of a document (TR-9), in order, by who has signed them.

    Returns: issuer id (TR-29), number, thisUpdate, nextUpdate of each, and whether one of `authorities`
    (site CA certificates, DER) has signed it. Raises: ValidationError, also if a list names one of them and
    has another signature.
    """

def verify_policy(
    signed: bytes, *, issuer: bytes, site_id: bytes, channel: str, known_version: int, now: int
) -> tuple[int, int, int]:
    """Judge a policy as TR-15 says; return its version, its time of issue and its nextUpdate.

    `issuer`: the site CA's certificate (DER) of a chain that was verified. Raises: ValidationError.
    """

def channel_id(site_id: bytes, name: str) -> bytes:
    """Return the channel id, 32 bytes (DP-3)."""

def commit_slot(slot_secret: bytes, channel_id: bytes, slot: int) -> bytes:
    """Return the commitment to a slot secret, 32 bytes (KM-7)."""

def commit_generation(step_secret: bytes, channel_id: bytes, generation: int, step: int) -> bytes:
    """Return the commitment to a step secret, 32 bytes (KM-7)."""

def step_secret(previous: bytes, channel_id: bytes, generation: int, step: int) -> bytes:
    """Return the secret of `step` from that of the step before it (KM-3)."""

def gate_keys(
    slot_secret: bytes,
    step_secret: bytes,
    *,
    suite: int,
    channel_id: bytes,
    slot: int,
    generation: int,
    step: int,
) -> tuple[bytes, bytes]:
    """Return gate key and credential key of an epoch, 32 bytes each (KM-21)."""

def parse_heartbeat(datagram: bytes) -> tuple[bytes, int, bool]:
    """Return stream id, next sequence, and whether it is final. Nothing of it is verified.

    Raises: ValidationError.
    """

class PeerIdentity:
    """Whom a verified chain speaks for."""

    site_id: bytes
    name: str
    role: str
    certificate_hash: bytes
    not_after: int
    issuer: bytes
    """The site CA's certificate, DER."""

class VerifiedCredential:
    """What a verified stream credential says (TR-11)."""

    stream_id: bytes
    site_id: bytes
    name: str
    instance: str
    succeeds: bytes | None
    not_before: int
    not_after: int

class Validator:
    """The one path validator (spec/trust.md section 3)."""

    def __init__(self, anchors: Sequence[Anchor], intermediates: Sequence[bytes]) -> None:
        """Take DER certificates. Raises: ValidationError if one does not parse."""

    def verify_path(
        self, chain: Sequence[bytes], *, server: bool, now: int, crl: bytes | None = None
    ) -> None:
        """Judge a chain, end entity first, by RFC 5280 alone. Raises: ValidationError."""

    def verify_peer(self, chain: list[bytes], role: str, now: int, crl: bytes | None = None) -> PeerIdentity:
        """Judge a chain, end entity first. Raises: ValidationError."""

    def verify_credential(
        self,
        bundle: bytes,
        *,
        role: str,
        channel_id: bytes,
        suite: int,
        now: int,
        crl: bytes | None = None,
    ) -> VerifiedCredential:
        """Judge a credential bundle as TR-14 says, but for the policy. Raises: ValidationError."""

class ControlStream:
    """The key server's own stream (KM-15)."""

    def __init__(self, seed: bytes, start_nonce: bytes, channel_id: bytes, suite: int) -> None:
        """Take a fresh seed of 32 and a nonce of 16 random bytes."""

    @property
    def stream_id(self) -> bytes:
        """16 bytes."""

    @property
    def spki(self) -> bytes:
        """SubjectPublicKeyInfo of the stream key, 44 bytes."""

    def credential_tbs(
        self, *, site_id: bytes, name: str, certificate_hash: bytes, not_before: int, not_after: int
    ) -> bytes:
        """Return what the key of the key server's certificate has to sign (TR-11)."""

    def seal_beacon(
        self,
        *,
        slot: int,
        generation: int,
        step: int,
        slot_secret: bytes,
        counter: int,
        policy: tuple[int, bytes],
        crl: tuple[int, bytes],
        bundle: tuple[int, bytes],
        generation_commitment: bytes,
        first_slot: int,
        slot_commitments: list[bytes],
        now: int,
        randomness: bytes,
    ) -> bytes:
        """Return a signed and gated beacon datagram."""

def later_signed_time(known: int, signed: int, wall: int) -> int:
    """Return the signed time to remember when an object signed at `signed` is taken (TR-27)."""

def steady_time() -> int:
    """Return the time by a clock that starts with the wall clock and is never set (TR-28)."""

class Presence:
    """One of the subscribers that a device has on a channel, in all its processes, until this object goes."""

    def __init__(self, device_folder: Path, channel_id: bytes) -> None:
        """Count a subscriber in; waits up to 3 s for one that is leaving. Raises: OSError."""

    def is_last(self) -> bool:
        """Count it out; True if there is no other. Until this object goes, the next one waits."""

def list_interfaces() -> list[str]:
    """Return the interfaces of this machine that do multicast, each as `name (address)`."""

Anchor = bytes | tuple[bytes, Sequence[bytes]]
"""DER alone: for every site; or with the ids of the sites that it may vouch for."""

Epoch = tuple[int, int, int]
"""Slot, generation, step."""

Fec = tuple[int, int] | Literal["auto", "off"]
"""Data and parity packets of a group; what reported losses ask for; or none. As an argument None: what the
policy says.
"""

class Policy(TypedDict):
    """The fields of the policy in force (TR-13); durations in microseconds, rate in bit/s."""

    version: int
    suite: int
    group: str
    port: int
    interface: str | None
    rate: int
    slot_length: int
    retention: int
    fec: Fec
    publishers: list[str]
    subscribers: list[str]

class Message:
    """A verified message, and who sent it. It keeps the packet in memory that it came in."""

    data: bytes
    """A copy, made whenever it is asked for; `memoryview(message)` makes none."""
    topic: str | None
    publisher: str
    """The publisher as the channel's policy writes it: its name, or `<site id>:<name>` of another site."""
    instance: str
    site_id: bytes
    stream_id: bytes
    sequence: int
    """Sequence of the packet that completed it."""
    message_id: int
    epoch: Epoch
    time: int
    """Time of sealing, microseconds."""
    origin: tuple[bytes, int, int] | None
    """Of a last value that was sealed again: stream id, sequence and time of the original."""
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

class Command:
    """A request on the side channel that the host is to make."""

    id: int
    peers: list[tuple[bytes, str, str, int]] | None
    """None: the key server; else site id, device, host and port of peers, to be tried in order."""
    method: str
    path: str
    body: bytes
    timeout: int
    """Microseconds."""

Event = Message | tuple[str, dict[str, object]]
"""A message as it is, any other event as its name and fields."""

class ReceiveEngine:
    """A subscriber without I/O: datagrams, answers, time in; messages, events, commands out."""

    def __init__(
        self,
        *,
        site_id: bytes,
        channel: str,
        device_site_id: bytes,
        device: str,
        anchors: Sequence[Anchor],
        issuers: Sequence[bytes],
        now: int,
        jitter_seed: int,
        delivery: Literal["reliable", "realtime", "unordered"] = "reliable",
        deadline: int | None = None,
        start: Literal["now", "last", "start"] = "now",
        max_message_bytes: int = ...,
        buffer_bytes: int = ...,
        window_packets: int = ...,
        policy_version_floor: int = 0,
        crl_number_floor: int = 0,
        generation_floor: int = 0,
        signed_time: int = 0,
        crl: bytes | None = None,
        crl_numbers: Sequence[tuple[bytes, int]] = (),
        keep: tuple[int, int] | None = None,
        side_channel: bool = False,
    ) -> None:
        """`site_id`: the channel's; `device_site_id`: the device's own, which may be another.

        `deadline`: microseconds, of `realtime` and of nothing else.
        The floors: what `floors` returned last, also of an earlier process; nothing below is accepted.
        `signed_time`: likewise. `crl`: the CRLs that were held then; `crl_numbers`: issuer id and number of
        each list that was seen (TR-29). `now`, here and in what follows: of a clock that is never set.
        `keep`: bytes and microseconds for which a repair node keeps packets; it opens none.
        `side_channel`: there is no multicast; sources are asked for what comes next.
        """

    def receive_datagrams(self, datagrams: Sequence[bytes], now: int) -> list[str | None]:
        """Take datagrams; return why each was refused, None where it was taken."""

    def poll_events(self, limit: int) -> list[Event]: ...
    def poll_messages(self, limit: int) -> list[Message]: ...
    def poll_commands(self) -> list[Command]: ...
    def handle_response(self, id: int, status: int | None, body: bytes, now: int) -> None:
        """Take the answer to a command; no status: nobody could be reached."""

    def next_deadline(self) -> int | None: ...
    def handle_deadline(self, now: int) -> None: ...
    def policy(self) -> Policy | None: ...
    def crl(self) -> bytes | None:
        """Return the DER CRL in force."""

    def set_trust(self, anchors: Sequence[Anchor], issuers: Sequence[bytes], now: int) -> None:
        """Believe in other anchors from now on (TR-21); running streams are judged by them at once."""

    def floors(self) -> tuple[int, int, int]:
        """Return the highest policy version, CRL number and generation seen, for the host to store."""

    def set_wall(self, now: int, wall: int) -> None:
        """Say what the wall clock says at `now`, whenever that may have changed; before, `now` counts."""

    def date(self, now: int) -> int:
        """Return what validity goes by at `now` (TR-27)."""

    def signed_time(self) -> int:
        """Return the latest signed time, for the host to store."""

    def is_member(self, device: str) -> bool:
        """Return whether the policy lists the device, written as TR-13 says."""

    def epoch(self, now: int) -> Epoch | None: ...
    def counters(self) -> dict[str, int]: ...
    def streams(self) -> list[tuple[bytes, str, int, int]]:
        """Return id, device as the policy has it, next sequence to resolve, head of each running stream."""

    def last_heard(self) -> list[tuple[bytes, str, int]]:
        """Return id, device as the policy has it, and when it was last heard, of each stream not ended."""

    def served(
        self,
        stream: bytes,
        ranges: Sequence[tuple[int, int]],
        admission: tuple[int, int, int],
        now: int,
    ) -> tuple[list[bytes], int, bytes | None] | None:
        """Return what a repair node keeps within `ranges`: packets, lowest sequence kept, latest heartbeat.

        `admission`: of who asks: generation, step, time of joining. None: it knows nothing of the stream.
        """

    def reach(self, stream: bytes) -> tuple[int, bool] | None:
        """Return one above the highest sequence that a repair node keeps, and whether the stream's end is.

        None: it knows nothing of the stream.
        """

    def await_fresh(self) -> None:
        """Have it told when there is more to serve."""

    def take_fresh(self, goes_on: bool) -> list[bytes]:
        """Return the streams of which there is more since that was awaited; whether it goes on to be."""

    def use_shelf(self, folder: str, segment_bytes: int, now: int, wall: int) -> None:
        """Keep packets in a folder, where an earlier process may have left some. Raises: OSError.

        `now`, `wall`: what the clock that is never set and the wall clock say.
        """

    def leave_shelf(self) -> None:
        """Write what has not been written yet, and keep nothing any more."""

    def shelf_trouble(self) -> tuple[str | None, int]:
        """Return what the disk says as long as it takes nothing, and how many packets it has not taken."""

    def expire_kept(self, now: int) -> None:
        """Drop what is kept beyond its time."""

    def kept(self) -> tuple[int, int]:
        """Return packets and bytes that a repair node keeps."""

    def held_secrets(self) -> tuple[list[int], list[tuple[int, int]]]:
        """Return numbers of the slots, and of the steps of generations, whose secrets are held."""

    def fingerprint(self) -> bytes:
        """Return a digest of all state that a packet may change."""

class ReceiveDriver:
    """The thread between a group's socket and a ReceiveEngine."""

    def __init__(
        self,
        engine: ReceiveEngine,
        *,
        group: str,
        port: int,
        interface: str,
        notify: int,
        source: str | None = None,
        receive_buffer_bytes: int = ...,
    ) -> None:
        """Open the socket and start. Raises: NetworkError, ValidationError."""

    def rearm(self) -> None: ...
    def wake(self) -> None: ...
    def statistics(self) -> tuple[int, int, int, bool]:
        """Return datagrams, datagrams dropped by the kernel, buffer bytes, whether the system capped them."""

    def stop(self) -> None: ...

class SendEngine:
    """A publisher without I/O: messages, answers, time in; datagrams, events, commands out."""

    def __init__(
        self,
        *,
        site_id: bytes,
        channel: str,
        device_site_id: bytes,
        device: str,
        anchors: Sequence[Anchor],
        issuers: Sequence[bytes],
        now: int,
        jitter_seed: int,
        seed: bytes,
        start_nonce: bytes,
        instance: str = "",
        mtu: int = ...,
        max_block: int = ...,
        fec: Fec | None = None,
        fec_delay: int = ...,
        max_message_bytes: int = ...,
        queue_bytes: int = ...,
        retain_topics: int = 0,
        retain_bytes: int = 0,
        adaptive_rate: bool = True,
        policy_version_floor: int = 0,
        crl_number_floor: int = 0,
        generation_floor: int = 0,
        signed_time: int = 0,
        crl: bytes | None = None,
        crl_numbers: Sequence[tuple[bytes, int]] = (),
    ) -> None:
        """`site_id`: the channel's; `device_site_id`: the device's own, which may be another.

        The floors: what `floors` returned last, also of an earlier process; nothing below is accepted.
        `signed_time`: likewise. `crl`: the CRLs that were held then; `crl_numbers`: issuer id and number of
        each list that was seen (TR-29). `now`, here and in what follows: of a clock that is never set.
        """

    @property
    def stream_id(self) -> bytes: ...
    def send(self, data: bytes, topic: str | None = None) -> int:
        """Queue a message and return its id. Raises: SendError."""

    def send_many(self, messages: Sequence[bytes], topic: str | None = None) -> int:
        """Queue messages until the queue is full; return how many were taken. Raises: SendError."""

    def set_loss(self, permille: int) -> None: ...
    @property
    def fec(self) -> Fec:
        """The parity of the packets that come."""

    def take_report(self, device: str, lost: int, sent: int, now: int) -> int | None:
        """Take a subscriber's report; return the milliseconds after which its next one is wanted.

        None: there are too many for now.
        """

    @property
    def pace(self) -> int:
        """What of the policy's rate is sent at, in thousandths."""

    def seal_block(self, now: int, randomness: bytes) -> int: ...
    def poll_transmit(self, limit: int) -> list[bytes]: ...
    def poll_events(self, limit: int) -> list[Event]: ...
    def poll_commands(self) -> list[Command]: ...
    def handle_response(self, id: int, status: int | None, body: bytes, now: int) -> None: ...
    def next_deadline(self) -> int | None: ...
    def handle_deadline(self, now: int, randomness: bytes) -> None:
        """Do what is due; `randomness`: 32 fresh bytes."""

    def credential_tbs(
        self,
        *,
        site_id: bytes,
        name: str,
        certificate_hash: bytes,
        not_before: int,
        not_after: int,
        succeeds: bytes | None = None,
    ) -> bytes | None: ...
    def set_credential(self, signed: bytes, chain: Sequence[bytes], not_after: int, now: int) -> None:
        """Take the signed credential and its chain, DER.

        Raises: SendError if no packets of this MTU can carry them.
        """

    def serve_outbound(self) -> None:
        """Have repair nodes asked what they want (SC-50), in place of an endpoint; before the join."""

    def set_endpoint(self, host: str, port: int) -> None: ...
    def predecessor(self) -> bytes | None: ...
    @property
    def is_registered(self) -> bool: ...
    @property
    def is_finished(self) -> bool: ...
    @property
    def has_queued(self) -> bool: ...
    @property
    def payload_limit(self) -> int: ...
    @property
    def next_sequence(self) -> int: ...
    def _begin_at(self, sequence: int, message_id: int) -> None:
        """Number the first packet and message otherwise, before the join, to test where numbers end."""

    def finish(self, now: int, successor: bytes | None = None) -> None: ...
    def abandon(self) -> None:
        """Drop what waits for sealing, so that the end can be said at once."""

    def repair(self, ranges: Sequence[tuple[int, int]], now: int) -> tuple[list[bytes], int, bytes | None]:
        """Return packets still held, the oldest sequence held, the latest heartbeat (SC-8)."""

    def reach(self) -> tuple[int, bool]:
        """Return one above the highest sequence that is retained, and whether the end has been said."""

    def await_fresh(self) -> None:
        """Have it told when there is more to serve."""

    def take_fresh(self, goes_on: bool) -> list[bytes]:
        """Return the stream if there is more of it since that was awaited; whether it goes on to be."""

    def policy(self) -> Policy | None: ...
    def crl(self) -> bytes | None:
        """Return the DER CRL in force."""

    def set_trust(self, anchors: Sequence[Anchor], issuers: Sequence[bytes], now: int) -> None:
        """Believe in other anchors from now on (TR-21); running streams are judged by them at once."""

    def floors(self) -> tuple[int, int, int]:
        """Return the highest policy version, CRL number and generation seen, for the host to store."""

    def set_wall(self, now: int, wall: int) -> None:
        """Say what the wall clock says at `now`, whenever that may have changed; before, `now` counts."""

    def date(self, now: int) -> int:
        """Return what validity goes by at `now` (TR-27)."""

    def sealing_date(self, now: int) -> int:
        """Return the date for a credential: others judge by it what is sealed at `now` (TR-27)."""

    def signed_time(self) -> int:
        """Return the latest signed time, for the host to store."""

    def is_member(self, device: str) -> bool:
        """Return whether the policy lists the device, written as TR-13 says."""

    def epoch(self, now: int) -> Epoch | None: ...
    def counters(self) -> dict[str, int]: ...

class SendDriver:
    """The thread between a SendEngine and the group's socket."""

    def __init__(
        self,
        engine: SendEngine,
        *,
        group: str,
        port: int,
        interface: str,
        rate: int,
        notify: int,
        ttl: int = 1,
        dscp: int = 0,
    ) -> None:
        """Open the socket and start. Raises: NetworkError, ValidationError."""

    def rearm(self) -> None: ...
    def wake(self) -> None: ...
    def want_room(self) -> None:
        """Ask to be notified once when the queue has drained by half."""

    def statistics(self) -> tuple[int, int, int]:
        """Return datagrams sent, sends that the system refused, and its number for the last (0: none)."""

    def stop(self) -> None: ...
