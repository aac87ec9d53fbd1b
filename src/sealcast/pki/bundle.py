"""The trust bundle: which roots and site CAs an owner's devices believe in, version by version.

Each version names its predecessor by hash and is signed by roots that the predecessor trusts; version 1 is
pinned by its own hash. So whoever holds any version can walk to the latest one, and no site CA or authority
can add a root. Spec: spec/trust.md section 5 (TR-16 to TR-20).
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Self

from cryptography import x509

from sealcast.errors import CertificateError, UsageError
from sealcast.pki.certificates import (
    certificate_identity,
    is_issued_by,
    is_self_signed,
    parse_certificate,
    spki,
)
from sealcast.pki.files import read_file
from sealcast.pki.names import Role, check_site_id, check_site_name
from sealcast.pki.signed import (
    Algorithm,
    Context,
    SignedObject,
    Signer,
    algorithm_of,
    decode_array,
    encode_cbor,
    sign_input,
)
from sealcast.pki.times import microseconds

BUNDLE_FORMAT = 1
MAX_BUNDLE_BYTES = 1 << 20
"""Hundreds of sites; a bundle is read whole before any of it is believed."""

_MAX_ENTRIES = 4096
_HASH_BYTES = 32
_FILE_CURE = "give a file as `root sign-bundle` or `authority bundle export` writes it"


ScopedAnchor = tuple[bytes, tuple[bytes, ...]]
"""A certificate (DER) and the ids of the sites that it may vouch for."""


class Purpose(IntEnum):
    """What an anchor may vouch for. Spec: registry.md, purposes of anchors."""

    OWNER = 1
    """Site CAs within its scope, and the next version of the bundle."""
    MAKER = 2
    """The first enrolment of a device by its maker's certificate (IDevID), and nothing else."""
    SITE = 3
    """Site CAs within its scope, and nothing else: the root of another owner, whose sites take part here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """A root that counts."""

    certificate: bytes
    """DER, self-signed."""
    purpose: Purpose
    since: int
    """From when on it counts, microseconds."""
    sites: tuple[bytes, ...] = ()
    """The site ids (16 bytes each) that it may vouch for, sorted; empty: every site of the bundle."""

    @property
    def key_id(self) -> bytes:
        """SHA-256 of the root's SubjectPublicKeyInfo, 32 bytes: it names the signer of a bundle."""
        return key_id(self.certificate)

    def covers(self, site_id: bytes) -> bool:
        """Tell whether a site is within the scope."""
        return not self.sites or site_id in self.sites


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleSite:
    """A site, and the CA certificates that speak for it."""

    site_id: bytes
    """16 bytes."""
    name: str
    delegated: bool
    """Whether a site CA of this site may change the list of its site CAs by itself (TR-20)."""
    authorities: tuple[bytes, ...]
    """DER, the one that issues now first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustBundle:
    """One version. Field for field the structure of TR-16."""

    version: int
    """From 1, one more each time."""
    predecessor: bytes | None
    """SHA-256 of the signed predecessor, 32 bytes; None in version 1 alone."""
    issued: int
    """Microseconds."""
    threshold: int
    """How many owner's roots of this version must sign the next one."""
    anchors: tuple[Anchor, ...]
    sites: tuple[BundleSite, ...]

    def __post_init__(self) -> None:
        if self.version < 1 or (self.predecessor is None) != (self.version == 1):
            names = "no" if self.predecessor is None else "a"
            raise UsageError(
                f"version {self.version} of a trust bundle names {names} predecessor",
                cure="draft it from the one in force; version 1 has no predecessor, and every other one has",
            )
        if self.predecessor is not None and len(self.predecessor) != _HASH_BYTES:
            raise UsageError(
                f"a predecessor's hash has {_HASH_BYTES} bytes, not {len(self.predecessor)}",
                cure="draft it from the one in force: sealcast authority bundle draft DIR",
            )
        _check_once([anchor.key_id for anchor in self.anchors], "root")
        _check_once([site.site_id for site in self.sites], "site")
        owners = self.owners()
        if not 1 <= self.threshold <= len(owners):
            raise UsageError(
                f"{self.threshold} signatures of {len(owners)} owner's roots would lock every device out",
                cure="ask for at least one signature, and for at most as many as there are owner's roots",
            )
        for anchor in self.anchors:
            _check_anchor(anchor)
        for site in self.sites:
            self._check_site(site)

    def owners(self) -> tuple[Anchor, ...]:
        """The roots that vouch for sites and sign the next version."""
        return tuple(anchor for anchor in self.anchors if anchor.purpose is Purpose.OWNER)

    def vouching(self) -> tuple[Anchor, ...]:
        """The roots that vouch for sites, those of other owners too."""
        return tuple(anchor for anchor in self.anchors if anchor.purpose is not Purpose.MAKER)

    def makers(self) -> tuple[Anchor, ...]:
        """The roots that vouch for first enrolments."""
        return tuple(anchor for anchor in self.anchors if anchor.purpose is Purpose.MAKER)

    def trusted(self, now: int) -> tuple[ScopedAnchor, ...]:
        """Return what peers are judged by at a time (TR-21): certificate and the sites it may vouch for.

        `now`: microseconds.
        """
        everywhere = tuple(site.site_id for site in self.sites)
        roots = [
            (anchor.certificate, anchor.sites or everywhere)
            for anchor in self.vouching()
            if anchor.since <= now
        ]
        by_themselves = [
            (der, (site.site_id,))
            for site in self.sites
            for der in site.authorities
            if is_self_signed(parse_certificate(der))
        ]
        return (*roots, *by_themselves)

    def authorities(self) -> tuple[bytes, ...]:
        """Return the site CA certificates (DER) of every site; they help to build paths."""
        return tuple(der for site in self.sites for der in site.authorities)

    def site(self, site_id: bytes) -> BundleSite:
        """Return a site's entry. Raises: CertificateError if the bundle does not list it."""
        for site in self.sites:
            if site.site_id == site_id:
                return site
        raise CertificateError(
            f"the trust bundle lists no site {site_id.hex()}",
            reason="unknown-site",
            cure="have the owner's roots sign a bundle that lists it",
        )

    def encode(self) -> bytes:
        """Return the `tbs` of TR-16."""
        return encode_cbor(
            [
                BUNDLE_FORMAT,
                self.version,
                self.predecessor,
                self.issued,
                self.threshold,
                [
                    [anchor.certificate, int(anchor.purpose), anchor.since, list(anchor.sites)]
                    for anchor in self.anchors
                ],
                [
                    [site.site_id, site.name, int(site.delegated), list(site.authorities)]
                    for site in self.sites
                ],
            ]
        )

    @classmethod
    def decode(cls, tbs: bytes) -> Self:
        """Read a `tbs`. Raises: CertificateError."""
        match decode_array(tbs):
            case [
                1, int(version), bytes() | None as predecessor, int(issued), int(threshold),
                list(anchors), list(sites),
            ] if max(len(anchors), len(sites)) <= _MAX_ENTRIES:  # fmt: skip
                pass
            case _:
                raise CertificateError(
                    f"what was signed, {len(tbs)} bytes, is no trust bundle of format {BUNDLE_FORMAT}",
                    reason="malformed",
                    cure=_FILE_CURE,
                )
        try:
            return cls(
                version=version,
                predecessor=predecessor,
                issued=issued,
                threshold=threshold,
                anchors=tuple(_anchor(fields) for fields in anchors),
                sites=tuple(_site(fields) for fields in sites),
            )
        except UsageError as error:
            raise CertificateError(
                f"not a trust bundle: {error.problem}", reason="malformed", cure=error.cure
            ) from None

    def _check_site(self, site: BundleSite) -> None:
        """Every CA bears the site's id, and a root within scope stands behind it (TR-17)."""
        if not site.authorities:
            raise UsageError(f"site {site.name!r} would have no site CA", cure="list at least one")
        _check_once(site.authorities, f"site CA of site {site.name!r}")
        for der in site.authorities:
            certificate = parse_certificate(der)
            identity = certificate_identity(certificate)
            if identity.role is not Role.SITE or identity.site_id != site.site_id:
                raise UsageError(
                    f"{identity.uri} is no site CA of site {site.name!r}",
                    cure=f"list certificates whose URI names the site {site.site_id.hex()}",
                )
            if site.delegated and is_self_signed(certificate):
                continue
            if not any(
                anchor.covers(site.site_id)
                and is_issued_by(certificate, parse_certificate(anchor.certificate))
                for anchor in self.vouching()
            ):
                raise UsageError(
                    f"no owner's root of this bundle, nor one of another owner, has signed a site CA of site "
                    f"{site.name!r}",
                    cure="keep the root that signed it, or have another one sign it",
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedBundle:
    """A bundle's bytes with signatures; what it says counts only once `accept` or `pin` has returned it."""

    tbs: bytes
    signatures: tuple[tuple[bytes, Algorithm, bytes], ...]
    """Key id of the signer, algorithm, signature; sorted by key id."""

    @classmethod
    def unsigned(cls, bundle: TrustBundle) -> Self:
        """Take a bundle that nobody has signed yet."""
        return cls(tbs=bundle.encode(), signatures=())

    def sign(self, certificate: bytes, signer: Signer) -> Self:
        """Add the signature of a root, or of a site CA where TR-20 allows it; one that is there is replaced.

        `certificate`: DER, of the signer's key.
        """
        name = key_id(certificate)
        entry = (name, signer.algorithm, signer.sign(sign_input(Context.TRUST_BUNDLE.value, self.tbs)))
        others = [signature for signature in self.signatures if signature[0] != name]
        return type(self)(tbs=self.tbs, signatures=tuple(sorted([*others, entry])))

    def serialize(self) -> bytes:
        """Return the object's bytes."""
        return encode_cbor(
            [self.tbs, [[name, int(algorithm), value] for name, algorithm, value in self.signatures]]
        )

    @property
    def hash(self) -> bytes:
        """SHA-256 of the bytes, 32 bytes: what the next version, a beacon and a pin name it by."""
        return hashlib.sha256(self.serialize()).digest()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read an object's bytes. Raises: CertificateError."""
        if len(data) > MAX_BUNDLE_BYTES:
            raise CertificateError(
                f"a trust bundle of {len(data)} bytes is too large: at most {MAX_BUNDLE_BYTES}",
                reason="malformed",
                cure="check that it is the right file, or list fewer roots and sites",
            )
        match decode_array(data):
            case [bytes(tbs), list(signatures)] if len(signatures) <= _MAX_ENTRIES:
                entries = tuple(_signature(fields) for fields in signatures)
            case _:
                raise CertificateError(
                    f"{len(data)} bytes are no signed trust bundle", reason="malformed", cure=_FILE_CURE
                )
        names = [name for name, _, _ in entries]
        if names != sorted(set(names)):
            raise CertificateError(
                f"the {len(names)} signatures of a trust bundle are not in order, or one stands twice",
                reason="malformed",
                cure=_FILE_CURE,
            )
        return cls(tbs=tbs, signatures=entries)

    def read(self) -> TrustBundle:
        """Return what it says, unverified. Raises: CertificateError."""
        return TrustBundle.decode(self.tbs)

    def signed_by(self, certificates: Iterable[bytes]) -> int:
        """Count the distinct keys of `certificates` (DER) whose signature is here and holds."""
        keys = {key_id(der): parse_certificate(der).public_key() for der in certificates}
        return sum(
            name in keys and _holds(self.tbs, keys[name], algorithm, value)
            for name, algorithm, value in self.signatures
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedBundle:
    """A version that is believed; only `pin`, `begin_by_roots`, `accept` and `stored` make one."""

    bundle: TrustBundle
    signed: bytes
    hash: bytes

    @property
    def version(self) -> int:
        """Its number."""
        return self.bundle.version


def read_bundle_file(path: Path) -> bytes:
    """Read a signed bundle that a person has named; nothing is believed.

    Raises: CertificateError: it is something else. StorageError.
    """
    data = read_file(path, limit=MAX_BUNDLE_BYTES)
    try:
        SignedBundle.parse(data)
    except CertificateError as error:
        raise CertificateError(
            f"{path}: is no trust bundle: {error.problem}",
            reason=error.reason,
            cure=_FILE_CURE,
        ) from None
    return data


def stored(data: bytes) -> VerifiedBundle:
    """Believe what our own disk holds, where only a believed version is ever written.

    Raises: CertificateError: it is damaged.
    """
    signed = SignedBundle.parse(data)
    return VerifiedBundle(bundle=signed.read(), signed=data, hash=signed.hash)


def pin(data: bytes, fingerprint: bytes) -> VerifiedBundle:
    """Believe version 1 by its hash, which came out of band (TR-18).

    `data`: the signed bundle. `fingerprint`: SHA-256 of it, 32 bytes. Raises: CertificateError.
    """
    if hashlib.sha256(data).digest() != fingerprint:
        raise CertificateError(
            f"the trust bundle has the fingerprint {hashlib.sha256(data).hexdigest()}, not "
            f"{fingerprint.hex()}",
            reason="pin",
            cure="compare both fingerprints with the owner's",
        )
    signed = SignedBundle.parse(data)
    bundle = signed.read()
    if bundle.version != 1:
        raise CertificateError(
            f"only version 1 of a trust bundle can be pinned, not {bundle.version}",
            reason="version",
            cure="give version 1, or the owner's roots with --root FILE",
        )
    if signed.signed_by(anchor.certificate for anchor in bundle.owners()) < bundle.threshold:
        raise CertificateError(
            f"version 1 of the trust bundle lacks signatures: it asks for {bundle.threshold} of its roots",
            reason="signature",
            cure="have them sign it: sealcast root sign-bundle",
        )
    return VerifiedBundle(bundle=bundle, signed=data, hash=fingerprint)


def begin_by_roots(data: bytes, roots: Sequence[bytes]) -> VerifiedBundle:
    """Believe any version by owner's roots (DER) of its own that came out of band and signed it (TR-18).

    For a device that is made after a root of version 1 has gone. Raises: CertificateError.
    """
    signed = SignedBundle.parse(data)
    bundle = signed.read()
    owners = {anchor.certificate for anchor in bundle.owners()}
    if signed.signed_by(der for der in roots if der in owners) < bundle.threshold:
        raise CertificateError(
            f"version {bundle.version} of the trust bundle is not signed by the roots that were given",
            reason="signature",
            cure="give every owner's root with --root FILE, or the fingerprint of the bundle",
        )
    return VerifiedBundle(bundle=bundle, signed=data, hash=signed.hash)


def accept(held: VerifiedBundle, data: bytes) -> VerifiedBundle:
    """Step from the version that is held to the next one (TR-19, TR-20).

    A wrong yes hands the fleet to whoever signed; a wrong no leaves a device at what it held.

    `data`: the signed successor. Raises: CertificateError, which says what is wrong with it.
    """
    signed = SignedBundle.parse(data)
    bundle = signed.read()
    check_successor(held.bundle, held.hash, bundle)
    owners = [anchor.certificate for anchor in held.bundle.owners() if _is_in_force(anchor, bundle.issued)]
    if signed.signed_by(owners) < held.bundle.threshold and not _is_delegated(held.bundle, bundle, signed):
        raise CertificateError(
            f"version {bundle.version} of the trust bundle lacks signatures: version {held.version} asks for "
            f"{held.bundle.threshold} of its owner's roots",
            reason="signature",
            cure="sign it where the keys of these roots are: sealcast root sign-bundle",
        )
    return VerifiedBundle(bundle=bundle, signed=data, hash=hashlib.sha256(data).digest())


def check_successor(held: TrustBundle, held_hash: bytes, bundle: TrustBundle) -> None:
    """Check what a next version says, whoever signs it (TR-19).

    `held_hash`: of the signed version that is held, 32 bytes. Raises: CertificateError with the reason
    `version`, `predecessor`, `time` or `lockout`.
    """
    if bundle.version != held.version + 1:
        raise CertificateError(
            f"version {bundle.version} of the trust bundle does not follow version {held.version}",
            reason="version",
            cure=f"give version {held.version + 1}: every version is taken in its turn",
        )
    if bundle.predecessor != held_hash:
        raise CertificateError(
            f"version {bundle.version} of the trust bundle follows another version {held.version} than ours",
            reason="predecessor",
            cure="draft it from the version in force: sealcast authority bundle draft DIR",
        )
    if bundle.issued < held.issued:
        raise CertificateError(
            f"version {bundle.version} of the trust bundle was issued at {bundle.issued} µs, before its "
            f"predecessor at {held.issued} µs",
            reason="time",
            cure="check the clock where it was drafted, and draft it anew",
        )
    _check_lockout(held, bundle)


def walk(held: VerifiedBundle, versions: Iterable[bytes]) -> Iterator[VerifiedBundle]:
    """Step through versions in order, as a device that slept does; each is given once it is believed.

    Raises: CertificateError at the first that does not follow.
    """
    for data in versions:
        held = accept(held, data)
        yield held


def key_id(certificate: bytes) -> bytes:
    """SHA-256 of the SubjectPublicKeyInfo of a DER certificate, 32 bytes. Raises: CertificateError."""
    return hashlib.sha256(spki(parse_certificate(certificate).public_key())).digest()


def _is_delegated(held: TrustBundle, bundle: TrustBundle, signed: SignedBundle) -> bool:
    """TR-20: nothing but the CA lists of delegated sites differs, and a held CA of each such site signed."""
    if (held.threshold, held.anchors) != (bundle.threshold, bundle.anchors):
        return False
    before = {site.site_id: site for site in held.sites}
    if [site.site_id for site in bundle.sites] != [site.site_id for site in held.sites]:
        return False
    changed = [site for site in bundle.sites if before[site.site_id] != site]
    for site in changed:
        old = before[site.site_id]
        alive = [der for der in old.authorities if _is_valid(parse_certificate(der), bundle.issued)]
        if not (old.delegated and site.delegated and old.name == site.name) or not signed.signed_by(alive):
            return False
    return bool(changed)


def _check_lockout(held: TrustBundle, bundle: TrustBundle) -> None:
    """Refuse a version after which devices could be at a loss (TR-19)."""
    known = {anchor.key_id for anchor in held.owners()}
    if not any(anchor.key_id in known for anchor in bundle.owners()):
        raise CertificateError(
            "the trust bundle keeps no owner's root of its predecessor: it would lock out who holds "
            "certificates of the old ones",
            reason="lockout",
            cure="remove the old root one version after the new one was added",
        )
    in_force = sum(_is_in_force(anchor, bundle.issued) for anchor in bundle.owners())
    if in_force < bundle.threshold:
        raise CertificateError(
            f"only {in_force} owner's roots of the trust bundle are in force, and its successor needs "
            f"{bundle.threshold}: no device could ever take another one",
            reason="lockout",
            cure="list roots that are valid now, or ask for fewer signatures",
        )


def _is_in_force(anchor: Anchor, moment: int) -> bool:
    return anchor.since <= moment and _is_valid(parse_certificate(anchor.certificate), moment)


def _is_valid(certificate: x509.Certificate, moment: int) -> bool:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return microseconds(begins) <= moment <= microseconds(ends)


def _check_anchor(anchor: Anchor) -> None:
    certificate = parse_certificate(anchor.certificate)
    if not is_self_signed(certificate):
        raise UsageError(
            f"a root of a trust bundle is not self-signed: {_name(certificate)}", cure="list the root itself"
        )
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        constraints = x509.BasicConstraints(ca=False, path_length=None)
    if not constraints.ca:
        raise UsageError(
            f"a root of a trust bundle is no CA: {_name(certificate)}", cure="list a CA certificate"
        )
    if anchor.purpose is Purpose.OWNER:
        # It has to sign the next version, by an algorithm of the registry.
        algorithm_of(certificate.public_key())
    if anchor.purpose is Purpose.SITE and not anchor.sites:
        raise UsageError(
            f"a root of another owner would vouch for every site: {_name(certificate)}",
            cure="list the sites that are its own",
        )
    if list(anchor.sites) != sorted(set(anchor.sites)):
        raise UsageError(
            f"the sites in the scope of a root are not sorted, or one stands twice: {_name(certificate)}",
            cure="list each once, in the order of their ids",
        )
    for site_id in anchor.sites:
        check_site_id(site_id)


def _name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string()[:80] or "without a name"


def _check_once(entries: Sequence[bytes], what: str) -> None:
    if len(set(entries)) != len(entries):
        raise UsageError(f"a trust bundle lists a {what} twice", cure="leave one of them out")


def _anchor(fields: Any) -> Anchor:
    match fields:
        case [bytes(certificate), int(purpose), int(since), list(sites)] if (
            purpose in Purpose.__members__.values() and all(isinstance(site, bytes) for site in sites)
        ):
            return Anchor(certificate=certificate, purpose=Purpose(purpose), since=since, sites=tuple(sites))
        case _:
            raise CertificateError("not a root of a trust bundle", reason="malformed", cure=_FILE_CURE)


def _site(fields: Any) -> BundleSite:
    match fields:
        case [bytes(site_id), str(name), (0 | 1) as delegated, list(authorities)] if all(
            isinstance(der, bytes) for der in authorities
        ):
            return BundleSite(
                site_id=check_site_id(site_id),
                name=check_site_name(name),
                delegated=bool(delegated),
                authorities=tuple(authorities),
            )
        case _:
            raise CertificateError("not a site of a trust bundle", reason="malformed", cure=_FILE_CURE)


def _signature(fields: Any) -> tuple[bytes, Algorithm, bytes]:
    match fields:
        case [bytes(name), int(code), bytes(value)] if (
            len(name) == _HASH_BYTES and code in Algorithm.__members__.values()
        ):
            return name, Algorithm(code), value
        case _:
            raise CertificateError("not a signature of a trust bundle", reason="malformed", cure=_FILE_CURE)


def _holds(tbs: bytes, key: Any, algorithm: Algorithm, value: bytes) -> bool:
    try:
        SignedObject(tbs=tbs, algorithm=algorithm, signature=value).verify(Context.TRUST_BUNDLE, key)
    except CertificateError:
        return False
    return True
