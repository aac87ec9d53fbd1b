"""A private key as a PEM file: PKCS#8, in clear or encrypted under a passphrase.

The encrypted form is PBES2 with scrypt and AES-256-CBC (RFC 8018, RFC 7914 section 7): what `openssl pkcs8
-topk8 -scrypt` writes and `openssl pkey` reads. `cryptography` reads it too, but by itself writes PBKDF2 with
2,048 rounds, which is too cheap to guess.
"""

import base64
import os
from textwrap import wrap

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.x509 import ObjectIdentifier

from sealcast.ca.passphrase import SALT_BYTES, Passphrase, PassphraseSource
from sealcast.errors import CertificateError
from sealcast.pki.csr import PrivateKey

_ENCRYPTED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
_BLOCK_BYTES = 16


def private_key_pem(key: PrivateKey, passphrase: Passphrase | None) -> bytes:
    """Return a key as PKCS#8 PEM, encrypted if there is a passphrase: for its own file and nothing else."""
    if passphrase is None:
        return key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    clear = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    lines = wrap(base64.b64encode(_encrypted(clear, passphrase)).decode("ascii"), 64)
    return b"\n".join(
        [_ENCRYPTED, *(line.encode() for line in lines), _ENCRYPTED.replace(b"BEGIN", b"END"), b""]
    )


def read_private_key(pem: bytes, path: str, name: str, passphrases: PassphraseSource) -> PrivateKey:
    """Read a PEM key, decrypting it if need be.

    `path`: for errors. `name`: under which `passphrases` knows it.
    Raises: CertificateError: no key, a kind that we do not use, or no or a wrong passphrase.
    """
    passphrase = None
    if is_encrypted(pem):
        passphrase = passphrases.find(name, what=path)
        if passphrase is None:
            raise CertificateError(
                f"{path}: the key is encrypted, and there is no passphrase",
                reason="key",
                cure=no_passphrase_cure(name),
            )
    try:
        key = serialization.load_pem_private_key(pem, password=passphrase.reveal() if passphrase else None)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        if passphrase is not None:
            raise CertificateError(
                f"{path}: the passphrase is wrong, or the file is damaged",
                reason="key",
                cure="give the passphrase of this key, or restore the file from its backup",
            ) from None
        raise CertificateError(
            f"{path}: holds no PEM private key",
            reason="key",
            cure="give a file that starts with BEGIN PRIVATE KEY",
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise CertificateError(
            f"{path}: the key is neither P-256, P-384 nor Ed25519", reason="key", cure="make such a key"
        )
    return key


def is_encrypted(pem: bytes) -> bool:
    """Tell whether a PEM key needs a passphrase, in the present form or in OpenSSL's old one."""
    return _ENCRYPTED in pem or b"Proc-Type: 4,ENCRYPTED" in pem


def no_passphrase_cure(name: str) -> str:
    """What to do where a passphrase is missing. `name`: of the key; empty for one that must be in clear."""
    if not name:
        return "decrypt it: openssl pkey -in FILE -out FILE"
    return (
        "give it by --passphrase-file, SEALCAST_PASSPHRASE, SEALCAST_PASSPHRASE_FILE, the systemd credential "
        f"sealcast-{name}, or at a terminal"
    )


@asn1.sequence
class _ScryptParameters:
    salt: bytes
    cost: int
    block_size: int
    parallelization: int


@asn1.sequence
class _Kdf:
    algorithm: ObjectIdentifier
    parameters: _ScryptParameters


@asn1.sequence
class _EncryptionScheme:
    algorithm: ObjectIdentifier
    iv: bytes


@asn1.sequence
class _Pbes2Parameters:
    kdf: _Kdf
    scheme: _EncryptionScheme


@asn1.sequence
class _Pbes2:
    algorithm: ObjectIdentifier
    parameters: _Pbes2Parameters


@asn1.sequence
class _EncryptedPrivateKeyInfo:
    algorithm: _Pbes2
    encrypted: bytes


def _encrypted(clear: bytes, passphrase: Passphrase) -> bytes:
    salt, iv, cost = os.urandom(SALT_BYTES), os.urandom(_BLOCK_BYTES), passphrase.cost
    padder = PKCS7(_BLOCK_BYTES * 8).padder()
    encryptor = Cipher(algorithms.AES(passphrase.derive(salt, cost)), modes.CBC(iv)).encryptor()
    encrypted = encryptor.update(padder.update(clear) + padder.finalize()) + encryptor.finalize()
    kdf = _Kdf(
        algorithm=ObjectIdentifier("1.3.6.1.4.1.11591.4.11"),
        parameters=_ScryptParameters(salt=salt, cost=cost.n, block_size=cost.r, parallelization=cost.p),
    )
    scheme = _EncryptionScheme(algorithm=ObjectIdentifier("2.16.840.1.101.3.4.1.42"), iv=iv)
    pbes2 = _Pbes2(
        algorithm=ObjectIdentifier("1.2.840.113549.1.5.13"),
        parameters=_Pbes2Parameters(kdf=kdf, scheme=scheme),
    )
    return asn1.encode_der(_EncryptedPrivateKeyInfo(algorithm=pbes2, encrypted=encrypted))
