"""A maker of devices: its root, an issuer below it, and the certificates (IDevIDs) that it gives."""

import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sealcast.ca import KeySigner
from sealcast.pki.certificates import certificate_der, certificates_pem

# IEEE 802.1AR section 8.7: no end.
FOR_EVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
PAST = datetime(2020, 1, 1, tzinfo=UTC)


class Maker:
    """Root and issuer; `pem` is what an operator admits it by."""

    def __init__(self, name: str = "Acme", *, path_length: int | None = 0, **issuer: Any) -> None:
        self.name = name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.root = self.ca(f"{name} root", self.key, self.key, f"{name} root", path_length=None)
        self.issuer_key = ec.generate_private_key(ec.SECP256R1())
        self.issuer = self.ca(
            f"{name} issuer", self.issuer_key, self.key, f"{name} root", path_length=path_length, **issuer
        )

    @property
    def pem(self) -> bytes:
        return certificates_pem([certificate_der(self.root), certificate_der(self.issuer)])

    def ca(
        self,
        subject: str,
        key: ec.EllipticCurvePrivateKey,
        issuer_key: ec.EllipticCurvePrivateKey,
        issuer: str,
        *,
        path_length: int | None,
        is_ca: bool = True,
        signs: bool = True,
        constraints: x509.NameConstraints | None = None,
        until: datetime = FOR_EVER,
    ) -> x509.Certificate:
        """A CA certificate, or one that only looks like it."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(name_of(subject))
            .issuer_name(name_of(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(PAST)
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=path_length if is_ca else None), True)
            .add_extension(key_usage(key_cert_sign=signs, crl_sign=signs), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False)
        )
        if constraints is not None:
            builder = builder.add_extension(constraints, True)
        return builder.sign(issuer_key, hashes.SHA256())

    def certificate(
        self,
        key: ec.EllipticCurvePrivateKey,
        *,
        serial_number: str | None = "SN-7",
        hardware_serial: bytes | None = None,
        names: list[x509.GeneralName] | None = None,
        usages: list[x509.ObjectIdentifier] | None = None,
        until: datetime = FOR_EVER,
        issuer: x509.Certificate | None = None,
        issuer_key: ec.EllipticCurvePrivateKey | None = None,
        is_ca: bool = False,
        signs_data: bool = True,
    ) -> x509.Certificate:
        """An IDevID, or one that is wrong in what is given."""
        issuer, issuer_key = issuer or self.issuer, issuer_key or self.issuer_key
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, self.name)]
        if serial_number is not None:
            subject.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, serial_number))
        names = list(names or [])
        if hardware_serial is not None:
            # HardwareModuleName of RFC 4108: SEQUENCE { hwType 1.3.6.1.4.1.1, hwSerialNum }.
            value = (
                bytes.fromhex("06062b0601040101") + b"\x04" + bytes([len(hardware_serial)]) + hardware_serial
            )
            sequence = b"\x30" + bytes([len(value)]) + value
            names.append(x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.4"), sequence))
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(PAST)
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), True)
            .add_extension(key_usage(digital_signature=signs_data, key_encipherment=not signs_data), True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        if usages is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), False)
        return builder.sign(issuer_key, hashes.SHA256())

    def idevid(self, folder: Path, **arguments: Any) -> tuple[Path, Path]:
        """The files that a device leaves the factory with: its certificate and the issuer's, its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.certificate(key, **arguments)
        chain = [certificate_der(certificate), certificate_der(self.issuer)]
        return write(folder, chain, key)

    def crl(self, *serials: int, until: datetime | None = None, of_root: bool = False) -> str:
        """PEM: the issuer's revocation list, or the root's."""
        key, issuer = (self.key, self.root) if of_root else (self.issuer_key, self.issuer)
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer.subject)
            .last_update(PAST)
            .next_update(until or now + timedelta(days=1))
            .add_extension(x509.CRLNumber(1), False)
        )
        for serial in serials:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(PAST).build()
            )
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def write(folder: Path, chain: list[bytes], key: ec.EllipticCurvePrivateKey) -> tuple[Path, Path]:
    """PEM files of a chain and its key."""
    stem = folder / f"idevid-{secrets.token_hex(4)}"
    chain_file, key_file = stem.with_suffix(".pem"), stem.with_suffix(".key")
    chain_file.write_bytes(certificates_pem(chain))
    key_file.touch(0o600)
    key_file.write_bytes(KeySigner(key).to_pem())
    return chain_file, key_file


def name_of(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def key_usage(**on: bool) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: on.get(name, False) for name in names})
