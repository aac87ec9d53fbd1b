"""The engine, in Rust: what runs per packet, and what must be the same in every language.

Times are microseconds since 1970-01-01T00:00:00Z; ids and secrets are bytes of the sizes in spec/.
"""

__version__: str
"""The version of Sealcast; the only place that states it is the Cargo workspace."""

class ValidationError(ValueError):
    """What was shown is not to be believed. `reason`: one of the engine's words, for example `revoked`."""

    reason: str

class SendError(ValueError):
    """A message was not taken. `reason`: `too-long`, `topic-too-long`, `queue-full`, `ended`."""

    reason: str

class NetworkError(OSError):
    """A socket could not be had. `reason`: for example `unknown-interface`, `address-in-use`."""

    reason: str

def channel_id(site_id: bytes, name: str) -> bytes:
    """Return the channel id, 32 bytes (DP-3)."""

def commit_slot(slot_secret: bytes, channel_id: bytes, slot: int) -> bytes:
    """Return the commitment to a slot secret, 32 bytes (KM-7)."""

def commit_generation(step_secret: bytes, channel_id: bytes, generation: int, step: int) -> bytes:
    """Return the commitment to a step secret, 32 bytes (KM-7)."""

def step_secret(previous: bytes, channel_id: bytes, generation: int, step: int) -> bytes:
    """Return the secret of `step` from that of the step before it (KM-3)."""

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

    def __init__(self, anchors: list[bytes], intermediates: list[bytes]) -> None:
        """Take DER certificates. Raises: ValidationError if one does not parse."""

    def verify_peer(
        self, chain: list[bytes], role: str, now: int, crl: bytes | None = None
    ) -> PeerIdentity:
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
