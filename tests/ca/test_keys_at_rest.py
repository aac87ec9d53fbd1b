"""Keys at rest: the encrypted file, and where a passphrase comes from."""

import pickle
import shutil
import subprocess
from pathlib import Path

import pytest

from sealcast.ca import FileSigner, KeyKind, KeySigner, Passphrase, PassphraseSource, ScryptCost
from sealcast.ca.passphrase import MAX_PASSPHRASE_BYTES, read_passphrase
from sealcast.errors import CertificateError, StorageError, UsageError

SECRET = Passphrase(b"correct horse", ScryptCost(n=2**4, r=8, p=1))


def source(**environment: str) -> PassphraseSource:
    return PassphraseSource(environment=environment, prompt=None)


def private_file(path: Path, content: bytes) -> Path:
    path.touch(0o600)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", list(KeyKind))
def test_an_encrypted_key_opens_with_its_passphrase_alone(tmp_path: Path, kind: KeyKind) -> None:
    path = tmp_path / "ca.key"
    made = FileSigner.create(path, kind, SECRET)
    assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    opened = FileSigner.open(path, name="ca", passphrases=source(SEALCAST_PASSPHRASE="correct horse"))
    assert opened.public_key == made.public_key
    with pytest.raises(CertificateError, match=r"ca\.key: the passphrase is wrong"):
        FileSigner.open(path, name="ca", passphrases=source(SEALCAST_PASSPHRASE="correct house"))
    with pytest.raises(CertificateError, match=r"ca\.key: the key is encrypted") as caught:
        FileSigner.open(path, name="ca", passphrases=source())
    assert "sealcast-ca" in caught.value.cure


@pytest.mark.needs_program("openssl")
def test_openssl_reads_it_and_we_read_openssl(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.key", tmp_path / "theirs.key"
    FileSigner.create(ours, passphrase=SECRET)
    openssl = shutil.which("openssl") or ""
    environment = {"WORD": "correct horse"}
    clear = subprocess.run(
        [openssl, "pkey", "-in", str(ours), "-passin", "env:WORD"],
        env=environment,
        check=True,
        capture_output=True,
    ).stdout
    private_file(
        theirs,
        subprocess.run(
            [openssl, "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", "env:WORD"],
            input=clear,
            env=environment,
            check=True,
            capture_output=True,
        ).stdout,
    )
    passphrases = source(SEALCAST_PASSPHRASE="correct horse")
    opened = [FileSigner.open(path, name="ca", passphrases=passphrases) for path in (ours, theirs)]
    assert opened[0].public_key == opened[1].public_key == KeySigner.from_pem(clear, "openssl").public_key


def test_a_key_in_clear_asks_for_nothing(tmp_path: Path) -> None:
    def ask(_: str) -> str:
        raise AssertionError("a passphrase was asked for")

    FileSigner.create(tmp_path / "ca.key")
    FileSigner.open(tmp_path / "ca.key", name="ca", passphrases=PassphraseSource(environment={}, prompt=ask))


class TestSources:
    def test_their_order(self, tmp_path: Path) -> None:
        """A file, the environment (that of the key first), the credential, the prompt."""
        named = private_file(tmp_path / "named", b"by option\nsecond line\n")
        pointed = private_file(tmp_path / "pointed", b"by variable\r\n")
        private_file(tmp_path / "sealcast-ca", b"by systemd")
        steps = [
            ({}, "by prompt"),
            ({"CREDENTIALS_DIRECTORY": str(tmp_path)}, "by systemd"),
            ({"SEALCAST_PASSPHRASE": "by environment"}, "by environment"),
            ({"SEALCAST_PASSPHRASE_FILE": str(pointed)}, "by variable"),
            ({"SEALCAST_CA_PASSPHRASE": "by name"}, "by name"),
        ]
        environment: dict[str, str] = {}
        for added, expected in steps:
            environment |= added
            found = PassphraseSource(environment=environment, prompt=lambda _: "by prompt").find("ca")
            assert found is not None
            assert found.reveal() == expected.encode()
        found = PassphraseSource(file=named, environment=environment, prompt=None).find("ca")
        assert found is not None
        assert found.reveal() == b"by option"
        assert source().find("ca") is None
        assert source(CREDENTIALS_DIRECTORY=str(tmp_path)).find("storage") is None

    def test_bad_files_are_named(self, tmp_path: Path) -> None:
        path = tmp_path / "words"
        with pytest.raises(StorageError, match="words"):
            read_passphrase(path)
        with pytest.raises(StorageError, match="holds no passphrase"):
            read_passphrase(private_file(path, b"\nlater"))
        private_file(path, b"x" * (MAX_PASSPHRASE_BYTES + 3))
        with pytest.raises(StorageError):
            read_passphrase(path)
        private_file(path, b"word")
        path.chmod(0o640)
        with pytest.raises(StorageError, match="others may read") as caught:
            read_passphrase(path)
        assert "chmod 600" in caught.value.cure

    @pytest.mark.parametrize("value", [b"", b"x" * (MAX_PASSPHRASE_BYTES + 1)])
    def test_lengths_have_bounds(self, value: bytes) -> None:
        with pytest.raises(UsageError):
            Passphrase(value)

    def test_no_text_shows_it(self) -> None:
        assert "horse" not in repr(SECRET) + repr(source(SEALCAST_PASSPHRASE="correct horse"))
        with pytest.raises(TypeError):
            pickle.dumps(SECRET)
