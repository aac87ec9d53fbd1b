"""Signers: keys in files."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sealcast.ca import FileSigner, KeyKind, KeySigner
from sealcast.errors import CertificateError, StorageError
from sealcast.pki.signed import Algorithm, Context, SignedObject


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [
        (KeyKind.P256, Algorithm.ECDSA_P256),
        (KeyKind.P384, Algorithm.ECDSA_P384),
        (KeyKind.ED25519, Algorithm.ED25519),
    ],
)
def test_a_key_is_stored_for_its_owner_alone(tmp_path: Path, kind: KeyKind, algorithm: Algorithm) -> None:
    path = tmp_path / "key.pem"
    made = FileSigner.create(path, kind)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
    opened = FileSigner.open(path)
    assert opened.public_key == made.public_key
    assert opened.algorithm is algorithm
    SignedObject.sign(Context.POLICY, b"tbs", opened).verify(Context.POLICY, made.public_key)


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    made = FileSigner.create(tmp_path / "key.pem")
    with pytest.raises(StorageError):
        FileSigner.create(tmp_path / "key.pem")
    assert FileSigner.open(tmp_path / "key.pem").public_key == made.public_key


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    FileSigner.create(tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(mode)
    with pytest.raises(StorageError, match="others may read"):
        FileSigner.open(tmp_path / "key.pem")


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"key\.pem"):
        FileSigner.open(tmp_path / "key.pem")


def test_the_key_is_in_no_text() -> None:
    signer = KeySigner.generate()
    secret = signer.to_pem().splitlines()[1].decode()
    assert secret not in repr(signer)
    assert repr(signer) == "KeySigner(ECDSA_P256)"


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: bytes | None = None) -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


@pytest.mark.parametrize(
    ("pem", "words"),
    [
        (b"", "no PEM private key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no PEM private key"),
        (_pem(ec.generate_private_key(ec.SECP256R1()), b"pass"), "encrypted"),
        (_pem(rsa.generate_private_key(65537, 2048)), "neither"),
        (_pem(ec.generate_private_key(ec.SECP521R1())), "neither"),
    ],
    ids=["empty", "garbage", "encrypted", "rsa", "p521"],
)
def test_other_keys_are_refused(pem: bytes, words: str) -> None:
    with pytest.raises(CertificateError, match=words):
        KeySigner.from_pem(pem, "key.pem")
