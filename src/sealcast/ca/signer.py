"""Signers: who holds a private key and signs with it.

A signer in a file is here; one in a PKCS#11 token implements the same interface. Private keys never leave
a signer. Spec: spec/trust.md section 2 (kinds of keys), spec/registry.md (algorithms).
"""

from abc import ABC, abstractmethod
from enum import Enum
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from sealcast import system
from sealcast.ca.keyfile import private_key_pem, read_private_key
from sealcast.ca.passphrase import NO_PASSPHRASE, Passphrase, PassphraseSource
from sealcast.errors import CertificateError, StorageError
from sealcast.pki.certificates import certificate_der
from sealcast.pki.csr import PrivateKey, RequestExtras, make_csr
from sealcast.pki.files import PRIVATE, read_file, storage_errors, write_atomically
from sealcast.pki.signed import Algorithm, PublicKey, algorithm_of, signature_hash


class KeyKind(Enum):
    """Kinds of keys that Sealcast makes."""

    P256 = "P-256"
    P384 = "P-384"
    ED25519 = "Ed25519"


_KINDS = {
    Algorithm.ECDSA_P256: KeyKind.P256,
    Algorithm.ECDSA_P384: KeyKind.P384,
    Algorithm.ED25519: KeyKind.ED25519,
}


class Signer(ABC):
    """One private key, and what it may sign. Satisfies `sealcast.pki.Signer`."""

    @property
    @abstractmethod
    def public_key(self) -> PublicKey:
        """The public half."""

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm of `sign`. Spec: registry.md."""
        return algorithm_of(self.public_key)

    @abstractmethod
    def sign(self, data: bytes) -> bytes:
        """Sign unhashed bytes. Returns: a DER signature for ECDSA, 64 bytes for Ed25519."""

    @abstractmethod
    def sign_certificate(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        """Sign a certificate that `pki.profiles` has built."""

    @abstractmethod
    def sign_crl(self, builder: x509.CertificateRevocationListBuilder) -> bytes:
        """Sign a CRL that `pki.crl` has built. Returns: DER."""

    @abstractmethod
    def make_csr(
        self, name: str, *, current: x509.Certificate | None = None, extras: RequestExtras | None = None
    ) -> bytes:
        """Return a DER request for this key; arguments as `pki.make_csr`."""

    @abstractmethod
    def sign_request(self, builder: x509.CertificateSigningRequestBuilder) -> bytes:
        """Sign a request that says more than a device's. Returns: DER."""


class KeySigner(Signer):
    """A signer whose key is in the memory of this process."""

    def __init__(self, key: PrivateKey) -> None:
        self._key = key
        self._public_key = key.public_key()
        algorithm_of(self._public_key)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.algorithm.name})"

    @classmethod
    def generate(cls, kind: KeyKind = KeyKind.P256) -> Self:
        """Make a new key."""
        match kind:
            case KeyKind.P256:
                return cls(ec.generate_private_key(ec.SECP256R1()))
            case KeyKind.P384:
                return cls(ec.generate_private_key(ec.SECP384R1()))
            case KeyKind.ED25519:
                return cls(ed25519.Ed25519PrivateKey.generate())

    @property
    def kind(self) -> KeyKind:
        """Which of the kinds it is."""
        return _KINDS[self.algorithm]

    @classmethod
    def from_pem(
        cls, pem: bytes, source: str, *, name: str = "", passphrases: PassphraseSource = NO_PASSPHRASE
    ) -> Self:
        """Read a PEM key; for one that is encrypted, ask `passphrases` under `name`.

        `source`: its path, for errors. Raises: CertificateError.
        """
        return cls(read_private_key(pem, source, name, passphrases))

    def to_pem(self, passphrase: Passphrase | None = None) -> bytes:
        """Return the private key as PKCS#8 PEM: for its own file and for nothing else."""
        return private_key_pem(self._key, passphrase)

    def store(self, path: Path, passphrase: Passphrase | None = None) -> None:
        """Write the key as a file of its own, which must not be there. Raises: StorageError."""
        if path.exists():
            raise StorageError(
                str(path), "exists already", cure="choose another folder; keys are never overwritten"
            )
        write_atomically(path, self.to_pem(passphrase), PRIVATE)

    def to_pkcs8(self) -> bytes:
        """Return the private key as unencrypted PKCS#8 DER: for a device whose key was made for it."""
        return self._key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def public_key(self) -> PublicKey:
        """The public half."""
        return self._public_key

    def sign(self, data: bytes) -> bytes:
        """Sign unhashed bytes. Returns: a DER signature for ECDSA, 64 bytes for Ed25519."""
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(data)
        return self._key.sign(data, ec.ECDSA(signature_hash(self.algorithm)))

    def sign_certificate(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        """Sign a certificate that `pki.profiles` has built."""
        return builder.sign(self._key, self._hash())

    def sign_crl(self, builder: x509.CertificateRevocationListBuilder) -> bytes:
        """Sign a CRL that `pki.crl` has built. Returns: DER."""
        return builder.sign(self._key, self._hash()).public_bytes(serialization.Encoding.DER)

    def make_csr(
        self, name: str, *, current: x509.Certificate | None = None, extras: RequestExtras | None = None
    ) -> bytes:
        """Return a DER request for this key; arguments as `pki.make_csr`."""
        return make_csr(self._key, name, current=current, extras=extras)

    def sign_request(self, builder: x509.CertificateSigningRequestBuilder) -> bytes:
        """Sign a request that says more than a device's. Returns: DER."""
        return builder.sign(self._key, self._hash()).public_bytes(serialization.Encoding.DER)

    def _hash(self) -> hashes.SHA256 | hashes.SHA384 | None:
        match self.algorithm:
            case Algorithm.ECDSA_P256:
                return hashes.SHA256()
            case Algorithm.ECDSA_P384:
                return hashes.SHA384()
            case Algorithm.ED25519:
                return None


class FileSigner(KeySigner):
    """A signer whose key is in a PEM file (PKCS#8, mode 0600), encrypted if there is a passphrase."""

    @classmethod
    def create(cls, path: Path, kind: KeyKind = KeyKind.P256, passphrase: Passphrase | None = None) -> Self:
        """Make a new key and store it. Raises: StorageError, also if the file is there already."""
        signer = cls.generate(kind)
        signer.store(path, passphrase)
        return signer

    @classmethod
    def open(cls, path: Path, *, name: str = "", passphrases: PassphraseSource = NO_PASSPHRASE) -> Self:
        """Load the key; for one that is encrypted, ask `passphrases` under `name`.

        Raises: StorageError if it is missing or readable by others, CertificateError.
        """
        with storage_errors(path):
            mode = path.stat().st_mode
        if mode & system.OTHERS_MAY_READ:
            raise StorageError(
                str(path),
                f"a private key that others may read (mode {mode & 0o777:04o})",
                cure=f"chmod 600 {path}, and think about whether it leaked",
            )
        return cls.from_pem(read_file(path), str(path), name=name, passphrases=passphrases)


def nobody_like(signer: Signer) -> KeySigner:
    """Return a signer with a new key of the same kind, for what is signed only because a library wants it."""
    return KeySigner.generate(_KINDS[signer.algorithm])


def fits(signer: Signer, certificate: x509.Certificate) -> bool:
    """Tell whether a certificate is for a signer's key."""
    return public_key_of(certificate_der(certificate)) == signer.public_key


def public_key_of(certificate: bytes) -> PublicKey:
    """Return the public key of a DER certificate. Raises.

    CertificateError if it is of no kind that we use.
    """
    try:
        public_key = x509.load_der_x509_certificate(certificate).public_key()
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm) as error:
        raise CertificateError(f"not a usable certificate: {error}", reason="malformed") from None
    if not isinstance(public_key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        raise CertificateError("the certificate's key is neither P-256, P-384 nor Ed25519", reason="key")
    algorithm_of(public_key)
    return public_key
