"""The issuer that asks a signer process, over a local socket: one request a connection, CBOR, no raw signing.

    request = length (4 bytes) ‖ [word, argument, …]        answer = length ‖ [0, result] / [1, error]

Devices are asked for many at a time, each with such an answer of its own.

A serial number is a byte string, as CBOR's integers end at 64 bits. What is to be signed names the key to
sign with, by the SHA-256 of its SubjectPublicKeyInfo: during a rotation there are two. Whoever listens on the
socket is believed about whether something was issued; that it was issued by this site's CA is checked.
"""

import contextlib
import hashlib
import logging
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import load_der_public_key

from sealcast import errors, system
from sealcast.ca.issuer import DeviceRequest, Intent, Issuance, IssuedCertificate, Permit, site_name_of
from sealcast.ca.observation import announce
from sealcast.ca.signer import public_key_of
from sealcast.errors import CertificateError, InternalError, SealcastError, StorageError
from sealcast.pki.certificates import certificate_identity, parse_certificate, spki
from sealcast.pki.crl import Revocation
from sealcast.pki.hardware import HardwareIdentity
from sealcast.pki.names import Identity, Role
from sealcast.pki.policy import Policy
from sealcast.pki.signed import PublicKey, decode_cbor, encode_cbor

MAX_FRAME_BYTES = 64 * 1024 * 1024
"""A million revocations have 40 MB."""

ANSWER_SECONDS = 5.0
"""For one answer; less than other processes wait for the database while this one holds it."""

MAX_TOGETHER = 256
"""Devices, or policies, in one request."""

MAX_POLICIES_BYTES = 16 * 1024 * 1024
"""Of the policies in one request; a single one may have more."""

_log = logging.getLogger("sealcast.signer")

_LENGTH = struct.Struct(">I")
_SUN_PATH_BYTES = 108


class RemoteIssuer:
    """Satisfies `Issuer`; holds no key."""

    def __init__(self, certificate: bytes, path: Path, *, others: Sequence[bytes] = ()) -> None:
        """Take the site CA's DER certificate, and the socket that the signer listens on.

        `others`: DER certificates of site CAs of a rotation, whose lists go on. Raises: CertificateError: not
        the certificate of a site CA.
        """
        parsed = parse_certificate(certificate)
        identity = certificate_identity(parsed)
        if identity.role is not Role.SITE:
            raise CertificateError(f"not a site CA: {identity.uri}", reason="wrong-role")
        self._certificate = certificate
        self._parsed = parsed
        self._site_id = identity.site_id
        self._public_key = public_key_of(certificate)
        self._key = key_hash(self._public_key)
        self._listing = list(dict.fromkeys([self._key, *(key_hash(public_key_of(der)) for der in others)]))
        self._path = path
        # None: it was never asked, and whoever asks first is told by the error.
        self._answers: bool | None = None

    @property
    def certificate(self) -> bytes:
        """The site CA's DER certificate."""
        return self._certificate

    @property
    def public_key(self) -> PublicKey:
        """The site CA's public key."""
        return self._public_key

    @property
    def site_id(self) -> bytes:
        """16 bytes."""
        return self._site_id

    @property
    def site_name(self) -> str:
        """The organization in the site CA's subject."""
        return site_name_of(self._parsed)

    def issue_device(
        self,
        csr: bytes,
        name: str,
        now: int,
        *,
        hardware: HardwareIdentity | None = None,
        generated: PublicKey | None = None,
        registers: bool = False,
    ) -> IssuedCertificate:
        """As `Issuer.issue_device`; the signer goes by its own clock."""
        key = None if generated is None else spki(generated)
        packed = [csr, name, None, pack_hardware(hardware), key, registers]
        return _certain(self._issue_all([packed])[0])

    def renew_device(self, current: bytes, csr: bytes, now: int) -> IssuedCertificate:
        """As `Issuer.renew_device`; the signer goes by its own clock."""
        return _certain(self._issue_all([[csr, "", current, None, None, False]])[0])

    def issue_devices(
        self, requests: Sequence[DeviceRequest], now: int
    ) -> list[IssuedCertificate | SealcastError]:
        """As `Issuer.issue_devices`; the signer goes by its own clock."""
        packed = [
            [
                request.csr.der,
                request.name,
                request.current,
                pack_hardware(request.hardware),
                None if request.generated is None else spki(request.generated),
                request.registers,
            ]
            for request in requests
        ]
        return [
            outcome
            for start in range(0, len(packed), MAX_TOGETHER)
            for outcome in self._issue_all(packed[start : start + MAX_TOGETHER])
        ]

    def issue_key_server(
        self, *, public_key: PublicKey, name: str, hosts: Sequence[str], now: int
    ) -> IssuedCertificate:
        """As `Issuer.issue_key_server`; the signer goes by its own clock."""
        return self._issued(self._ask("issue-key-server", self._key, spki(public_key), name, list(hosts)))

    def issue_admin(self, csr: bytes, name: str, now: int) -> IssuedCertificate:
        """As `Issuer.issue_admin`; the signer goes by its own clock."""
        return self._issued(self._ask("issue-admin", self._key, csr, name))

    def issue_crl(self, *, number: int, revocations: Iterable[Revocation], now: int) -> bytes:
        """As `Issuer.issue_crl`; the signer goes by its own clock."""
        listed = [[pack_serial(entry.serial), entry.time] for entry in revocations]
        return _bytes(self._ask("issue-crl", self._listing, number, listed))

    def sign_policy(self, policy: Policy) -> bytes:
        """As `Issuer.sign_policy`."""
        return self.sign_policies([policy])[0]

    def sign_policies(self, policies: Sequence[Policy]) -> list[bytes]:
        """As `Issuer.sign_policies`, as many in a request as it holds."""
        signed: list[bytes] = []
        for part in _parts([policy.encode() for policy in policies]):
            answer = self._ask("sign-policies", self._key, part)
            if not isinstance(answer, list) or len(answer) != len(part):
                raise InternalError("the signer's answer to sign-policies makes no sense")
            signed += map(_bytes, answer)
        return signed

    def remove(self, name: str, now: int) -> None:
        """As `Issuer.remove`."""
        self._ask("remove", name)

    def readmit(self, name: str, now: int) -> None:
        """As `Issuer.readmit`; only for the user that the signer runs as."""
        self._ask("readmit", name)

    def removed_names(self) -> frozenset[str]:
        """As `Issuer.removed_names`."""
        return frozenset(map(str, self._ask("removed-names")))

    def permit(self, what: Permit, name: str, now: int) -> None:
        """As `Issuer.permit`; only for the user that the signer runs as."""
        self._ask("permit", str(what), name)

    def withdraw(self, what: Permit, name: str, now: int) -> None:
        """As `Issuer.withdraw`."""
        self._ask("withdraw", str(what), name)

    def permitted(self, what: Permit) -> frozenset[str]:
        """As `Issuer.permitted`."""
        return frozenset(map(str, self._ask("permitted", str(what))))

    def issued_after(self, position: int, limit: int) -> Sequence[Issuance]:
        """As `Issuer.issued_after`."""
        return [unpack_issuance(packed) for packed in self._ask("issued-after", position, limit)]

    def last_position(self) -> int:
        """As `Issuer.last_position`."""
        return int(self._ask("last-position"))

    def arranged(self, certificates: Sequence[bytes]) -> "RemoteIssuer":
        """Return an issuer that asks the same signer to issue under another certificate.

        `certificates`: DER, the one that issues first, then those whose CRLs go on.
        """
        issuer = RemoteIssuer(certificates[0], self._path, others=certificates[1:])
        issuer._answers = self._answers
        return issuer

    # --- the rotation of the key; each can be asked for again -----------------------------------------------

    def prepare_key(self, number: int) -> bytes:
        """Have the signer make its next key, or name the one that waits; returns the request (DER) for it.

        `number`: which key of the site it is. Raises: ConflictError: a rotation of it is under way.
        """
        return _bytes(self._ask("prepare-key", number))

    def take_certificate(self, certificate: bytes) -> None:
        """Give the signer the certificate (DER) of its next key.

        Raises: CertificateError: it is not, or not of a root that the signer's operator has given it.
        """
        self._ask("take-certificate", certificate)

    def switch(self, public_key: PublicKey) -> None:
        """Have the signer issue under that key alone."""
        self._ask("switch-key", key_hash(public_key))

    def retire(self, public_key: PublicKey) -> None:
        """Have the signer destroy a key in whose place another one issues."""
        self._ask("retire-key", key_hash(public_key))

    def abandon(self, public_key: PublicKey) -> None:
        """Have the signer destroy a key that it has not been switched to."""
        self._ask("abandon-key", key_hash(public_key))

    def is_listening(self) -> bool:
        """Whether somebody listens on the socket at this moment."""
        if not system.HAS_LOCAL_SOCKETS:
            return False
        try:
            with _connected(self._path):
                return True
        except OSError:
            return False

    def _issue_all(self, packed: Sequence[object]) -> list[IssuedCertificate | SealcastError]:
        answer = self._ask("issue-devices", self._key, list(packed))
        if not isinstance(answer, list) or len(answer) != len(packed):
            raise InternalError("the signer's answer to issue-devices makes no sense")
        return [self._outcome(each) for each in answer]

    def _outcome(self, packed: Any) -> IssuedCertificate | SealcastError:
        match packed:
            case [0, bytes(der)]:
                return self._issued(der)
            case [1, dict(fields)]:
                return unpack_error(fields)
        raise InternalError("the signer's answer for a device makes no sense")

    def _issued(self, der: Any) -> IssuedCertificate:
        try:
            parse_certificate(_bytes(der)).verify_directly_issued_by(self._parsed)
        except Exception as error:  # noqa: BLE001  # InvalidSignature, ValueError, TypeError: all mean the same
            raise CertificateError(
                f"the signer at {self._path} does not hold the key of this site's CA: {type(error).__name__}",
                reason="key",
                cure="start the signer with the ca.pem and ca.key of this site",
            ) from None
        return IssuedCertificate.of(announce(_bytes(der)))

    def _ask(self, word: str, *arguments: object) -> Any:
        request = encode_cbor([word, *arguments])
        try:
            with _connected(self._path) as connection:
                connection.sendall(_LENGTH.pack(len(request)) + request)
                answer = _read_frame(connection)
        except (OSError, EOFError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            failure = StorageError(
                str(self._path),
                f"the signer does not answer: {reason or type(error).__name__}",
                cure="start it with: sealcast authority serve DIR --roles signer",
            )
            if self._answers:
                # Once an outage: devices are told no more than to ask again later.
                self._answers = False
                _log.error("%s; nothing is signed until it does (%s)", failure, failure.cure)
            raise failure from None
        if self._answers is False:
            _log.warning("%s: the signer answers again", self._path)
        self._answers = True
        match decode_cbor(answer):
            case [0, result]:
                return result
            case [1, dict(fields)]:
                raise unpack_error(fields)
        raise InternalError(f"the signer's answer to {word} makes no sense")


# --- both ends ----------------------------------------------------------------------------------------------


def key_hash(public_key: PublicKey) -> bytes:
    """The name of a key in requests: SHA-256 of its SubjectPublicKeyInfo."""
    return hashlib.sha256(spki(public_key)).digest()


def pack_serial(serial: int) -> bytes:
    """A serial number as bytes, the highest first."""
    return serial.to_bytes((serial.bit_length() + 7) // 8, "big")


def pack_hardware(hardware: HardwareIdentity | None) -> list[object] | None:
    """Names of hardware as `[serial number / null, hwType / null, hwSerialNum / null]`."""
    if hardware is None:
        return None
    return [hardware.serial_number, *(hardware.module or (None, None))]


def unpack_hardware(packed: object) -> HardwareIdentity | None:
    """The reverse. Raises: CertificateError."""
    match packed:
        case None:
            return None
        case [str() | None as number, None, None]:
            return HardwareIdentity(serial_number=number)
        case [str() | None as number, str(hw_type), bytes(hw_serial_num)]:
            return HardwareIdentity(serial_number=number, module=(hw_type, hw_serial_num))
    raise CertificateError("not names of hardware", reason="malformed")


def unpack_public_key(packed: bytes) -> PublicKey:
    """A key from its SubjectPublicKeyInfo. Raises: CertificateError."""
    try:
        key = load_der_public_key(packed)
    except ValueError:
        raise CertificateError("not a public key", reason="key") from None
    if not isinstance(key, PublicKey):
        raise CertificateError("the key is neither P-256, P-384 nor Ed25519", reason="key")
    return key


def pack_issuance(entry: Issuance) -> list[object]:
    """An entry of the ledger."""
    intent = entry.intent
    return [
        entry.position,
        pack_serial(entry.serial),
        intent.identity.uri,
        intent.request,
        intent.time,
        intent.ends,
        entry.certificate,
        entry.is_void,
    ]


def unpack_issuance(packed: Any) -> Issuance:
    """The reverse. Raises: InternalError."""
    match packed:
        case [
            int(position), bytes(serial), str(uri), bytes(request), int(time), int(ends),
            bytes() | None as certificate, bool(is_void),
        ]:  # fmt: skip
            intent = Intent(identity=Identity.from_uri(uri), request=request, time=time, ends=ends)
            return Issuance(
                position=position,
                intent=intent,
                serial=int.from_bytes(serial, "big"),
                certificate=certificate,
                is_void=is_void,
            )
    raise InternalError("an entry of the signer's ledger makes no sense")


def pack_error(error: SealcastError) -> dict[str, object]:
    """An error with its class, so that it is raised at the other end as it was here."""
    kind = type(error)
    while kind.__module__ != errors.__name__:
        kind = kind.__mro__[1]
    fields = {name: value for name, value in vars(error).items() if isinstance(value, str | int | None)}
    return {"kind": kind.__name__, "fields": fields}


def unpack_error(packed: dict[str, Any]) -> SealcastError:
    """The reverse; anything else than an error of ours becomes an InternalError."""
    match packed:
        case {"kind": str(name), "fields": {"problem": str(problem), "cure": str()} as fields}:
            kind = getattr(errors, name, None)
            if isinstance(kind, type) and issubclass(kind, SealcastError):
                error: SealcastError = kind.__new__(kind)
                Exception.__init__(error, problem)
                vars(error).update(fields)
                return error
    return InternalError("the signer failed")


@contextmanager
def _connected(path: Path) -> Iterator[socket.socket]:
    with contextlib.closing(system.local_socket(path)) as connection:
        connection.settimeout(ANSWER_SECONDS)
        with system.short_path(path) as name:
            connection.connect(name)
        yield connection


def _read_frame(connection: socket.socket) -> bytes:
    (length,) = _LENGTH.unpack(_read_exactly(connection, _LENGTH.size))
    if length > MAX_FRAME_BYTES:
        raise EOFError(f"an answer of {length} bytes")
    return _read_exactly(connection, length)


def _read_exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = connection.recv(min(count - len(data), 1 << 20))
        if not part:
            raise EOFError("it ended before it had answered")
        data += part
    return bytes(data)


def _parts(encoded: Sequence[bytes]) -> Iterator[list[bytes]]:
    part: list[bytes] = []
    size = 0
    for each in encoded:
        if part and (len(part) == MAX_TOGETHER or size + len(each) > MAX_POLICIES_BYTES):
            yield part
            part, size = [], 0
        part.append(each)
        size += len(each)
    if part:
        yield part


def _certain(outcome: IssuedCertificate | SealcastError) -> IssuedCertificate:
    if isinstance(outcome, SealcastError):
        raise outcome
    return outcome


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise InternalError("the signer's answer is no byte string")
    return value
