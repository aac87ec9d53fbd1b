"""A throw-away site in memory: root, site CA, key server, devices, CRL.

Everything follows from a seed: keys, serial numbers, and the signatures too (RFC 6979), so that two sites of
one seed are equal byte for byte. Such keys protect nothing: for tests only.

Spec: spec/trust.md section 2 (profiles), TR-9 (CRL).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from sealcast.ca import KeySigner, SiteCa
from sealcast.errors import CertificateError
from sealcast.pki import Role, Validator
from sealcast.pki.certificates import certificate_der
from sealcast.pki.crl import Revocation
from sealcast.pki.profiles import (
    CertificateIssuer,
    device_builder,
    key_server_builder,
    root_builder,
    site_ca_builder,
)
from sealcast.pki.times import microseconds
from sealcast.testing.chance import chance
from sealcast.testing.clock import START

SITE_NAME = "Simulated site"


class SeededSigner(KeySigner):
    """A P-256 signer whose key and signatures follow from a seed."""

    def __init__(self, seed: bytes) -> None:
        """Derive the key from `seed`, of any length."""
        # 40 bytes reduced: no bias worth a thought, never zero.
        scalar = int.from_bytes(hashlib.sha512(b"key\x00" + seed).digest()[:40]) % (2**255) + 1
        key = ec.derive_private_key(scalar, ec.SECP256R1())
        super().__init__(key)
        self._seeded = key

    def sign(self, data: bytes) -> bytes:
        """Sign unhashed bytes. Returns: a DER signature."""
        return self._seeded.sign(data, ec.ECDSA(SHA256(), deterministic_signing=True))

    def sign_certificate(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        """Sign a certificate that `pki.profiles` has built."""
        return builder.sign(self._seeded, SHA256(), ecdsa_deterministic=True)

    def sign_crl(self, builder: x509.CertificateRevocationListBuilder) -> bytes:
        """Sign a CRL that `pki.crl` has built. Returns: DER."""
        return builder.sign(self._seeded, SHA256(), ecdsa_deterministic=True).public_bytes(Encoding.DER)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteCertificate:
    """An end entity of the site, with its key."""

    name: str
    signer: SeededSigner
    certificate: bytes
    """DER."""
    chain: tuple[bytes, ...]
    """DER: the certificate, then the site CA."""
    serial: int
    not_before: int
    """Microseconds."""
    not_after: int
    """Microseconds."""

    @property
    def certificate_hash(self) -> bytes:
        """SHA-256 of the DER certificate, 32 bytes (TR-11)."""
        return hashlib.sha256(self.certificate).digest()


class Site:
    """Issues and revokes in memory.

    site = Site(seed=7)
    bed = site.issue_device("bed12", now=START)
    site.revoke(bed, now=START)
    """

    def __init__(self, seed: int = 0, now: int = START) -> None:
        """Make the root, the site CA, the key server's certificate and the first CRL.

        Args:
            seed: what everything follows from.
            now: microseconds.
        """
        self._random = chance("site", seed)
        self.site_id: bytes = self._random.randbytes(16)
        root_signer, ca_signer = self._signer(), self._signer()
        root = root_signer.sign_certificate(
            root_builder(
                site_name=SITE_NAME, public_key=root_signer.public_key, serial=self._serial(), now=now
            )
        )
        ca = root_signer.sign_certificate(
            site_ca_builder(
                site_name=SITE_NAME,
                site_id=self.site_id,
                public_key=ca_signer.public_key,
                issuer=CertificateIssuer.of(root, root_signer.public_key),
                serial=self._serial(),
                now=now,
            )
        )
        self.root: bytes = certificate_der(root)
        """DER: the trust anchor."""
        self.ca: bytes = certificate_der(ca)
        """DER: the site CA."""
        self.issuer = SiteCa(self.ca, ca_signer)
        """Signs policies and CRLs."""
        self._as_issuer = CertificateIssuer.of(ca, ca_signer.public_key)
        self.key_server = self.issue_key_server("keys", ("localhost",), now)
        self._revocations: list[Revocation] = []
        self.crl_number = 0
        self.crl = b""
        """DER: the CRL in force."""
        self.refresh_crl(now)

    def issue_device(self, name: str, now: int) -> SiteCertificate:
        """Certify a new key for device `name`. `now`: microseconds."""
        signer = self._signer()
        builder = device_builder(
            name=name,
            site_name=SITE_NAME,
            site_id=self.site_id,
            public_key=signer.public_key,
            issuer=self._as_issuer,
            serial=self._serial(),
            now=now,
        )
        return self._issued(name, signer, builder)

    def issue_key_server(self, name: str, hosts: Sequence[str], now: int) -> SiteCertificate:
        """Certify a new key for a key server reached under `hosts`. `now`: microseconds."""
        signer = self._signer()
        builder = key_server_builder(
            name=name,
            hosts=hosts,
            site_name=SITE_NAME,
            site_id=self.site_id,
            public_key=signer.public_key,
            issuer=self._as_issuer,
            serial=self._serial(),
            now=now,
        )
        return self._issued(name, signer, builder)

    def revoke(self, certificate: SiteCertificate, now: int) -> None:
        """Revoke a certificate and make a new CRL. `now`: microseconds."""
        self._revocations.append(Revocation(serial=certificate.serial, time=now))
        self.refresh_crl(now)

    def refresh_crl(self, now: int) -> None:
        """Make a new CRL, numbered one above the last. `now`: microseconds."""
        self.crl_number += 1
        self.crl = self.issuer.issue_crl(number=self.crl_number, revocations=self._revocations, now=now)

    def validator(self) -> Validator:
        """A validator that trusts this site's root."""
        return Validator([self.root], [self.ca])

    def _signer(self) -> SeededSigner:
        return SeededSigner(self._random.randbytes(32))

    def _serial(self) -> int:
        # TR-4: 128 bits or more; the top bit keeps the length of the encoding the same.
        return self._random.getrandbits(135) | 1 << 134

    def _issued(self, name: str, signer: SeededSigner, builder: x509.CertificateBuilder) -> SiteCertificate:
        certificate = self.issuer.signer.sign_certificate(builder)
        return SiteCertificate(
            name=name,
            signer=signer,
            certificate=certificate_der(certificate),
            chain=(certificate_der(certificate), self.ca),
            serial=certificate.serial_number,
            not_before=microseconds(certificate.not_valid_before_utc),
            not_after=microseconds(certificate.not_valid_after_utc),
        )


class PeerJudge:
    """Whom a certificate speaks for, as a TLS listener judges it for each request (SC-1, TR-8).

    The verdict of one certificate under one CRL is remembered for a minute of virtual time: a simulation asks
    thousands of times.
    """

    def __init__(self, validator: Validator) -> None:
        """Judge by `validator`."""
        self._validator = validator
        self._verdicts: dict[tuple[bytes, bytes | None, int], str | None] = {}

    def why_refused(self, certificate: bytes, crl: bytes | None, now: int) -> str | None:
        """The validator's reason for refusing a device, or None where it accepts it."""
        key = (certificate, crl, now // 60_000_000)
        if key not in self._verdicts:
            self._verdicts[key] = self._judge(certificate, crl, now)
        return self._verdicts[key]

    def _judge(self, certificate: bytes, crl: bytes | None, now: int) -> str | None:
        try:
            self._validator.verify_peer([certificate], Role.DEVICE, now, crl)
        except CertificateError as error:
            return error.reason
        return None
