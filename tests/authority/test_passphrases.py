"""Passphrases of an authority's keys: made, changed and removed, all or none."""

import asyncio
import base64
import json
import os
import shutil
from pathlib import Path

import pytest

from sealcast.authority.at_rest import KEY_FILES, change_passphrase, keys_at_rest
from sealcast.authority.site import Site, init_site
from sealcast.authority.vault import Vault, rewrapped, wrapped
from sealcast.ca import FileSigner, Passphrase, PassphraseSource, ScryptCost
from sealcast.cli import main
from sealcast.errors import CertificateError, SealcastError, StorageError, UsageError
from sealcast.keys import Secret
from sealcast.pki.times import system_time
from tests.crash import SOAK, Transition, command, survive, warm

FIRST, SECOND = "first of them", "second of them"
CLEAR = PassphraseSource(environment={}, prompt=None)


OLDER = (
    "c2VhbGNhc3Qgc3RvcmFnZSBrZXksIGVuY3J5cHRlZArwqOm6SXRoiV88udwSOeuRSy2A/aZv"
    "Wvelbx2sQhrxDey3mNcdYBkEfuysdW/1HvnEO9LQOMpsWo6G7QVDRTcSEx4/1CoSqPsgXU0V"
)

CHEAP = ScryptCost(n=2**4, r=8, p=1)
"""What a guess costs is not what is tested here."""


def source(text: str) -> PassphraseSource:
    return PassphraseSource(environment={"SEALCAST_PASSPHRASE": text}, prompt=None, cost=CHEAP)


def file(path: Path, text: str) -> Path:
    path.touch(0o600)
    path.write_text(f"{text}\n", encoding="utf-8")
    return path


@pytest.fixture
def encrypted(tmp_path: Path) -> Path:
    folder = tmp_path / "authority"
    init_site(folder, site_name="Ward", root=None, hosts=(), now=system_time(), new_passphrases=source(FIRST))
    return folder


def opens_with(folder: Path, names: tuple[str, ...] = ("ca", "root", "storage")) -> set[str]:
    """What the keys of the folder need: nothing, or a passphrase."""
    return {needs(folder / KEY_FILES[name], name) for name in names}


def needs(path: Path, name: str) -> str:
    for what, passphrases in (("nothing", CLEAR), (FIRST, source(FIRST)), (SECOND, source(SECOND))):
        try:
            if name == "storage":
                Vault.load(path, passphrases)
            else:
                FileSigner.open(path, name=name, passphrases=passphrases)
        except SealcastError:
            continue
        return what
    raise AssertionError(f"{path} opens with none of them")


def test_all_keys_change_together(encrypted: Path) -> None:
    assert opens_with(encrypted) == {FIRST}
    assert len(change_passphrase(encrypted, (), source(FIRST), Passphrase(SECOND.encode(), CHEAP))) == 3
    assert opens_with(encrypted) == {SECOND}
    change_passphrase(encrypted, (), source(SECOND), None)
    assert opens_with(encrypted) == {"nothing"}
    assert {path.stat().st_mode & 0o777 for path in map(encrypted.joinpath, KEY_FILES.values())} == {0o600}


def test_nothing_changes_where_one_key_does_not_open(encrypted: Path) -> None:
    change_passphrase(encrypted, ("storage",), source(FIRST), Passphrase(SECOND.encode(), CHEAP))
    before = {name: (encrypted / name).read_bytes() for name in KEY_FILES.values()}
    with pytest.raises(StorageError, match="wrong"):
        change_passphrase(encrypted, (), source(FIRST), None)
    assert {name: (encrypted / name).read_bytes() for name in KEY_FILES.values()} == before
    # The storage key may have its own: the service has that alone.
    both = PassphraseSource(
        environment={"SEALCAST_PASSPHRASE": FIRST, "SEALCAST_STORAGE_PASSPHRASE": SECOND}, prompt=None
    )
    Site.open(encrypted, passphrases=both)


def test_mistakes_are_named(encrypted: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'server'"):
        change_passphrase(encrypted, ("server",), source(FIRST), None)
    (encrypted / "root.key").unlink()
    with pytest.raises(StorageError, match=r"root\.key"):
        change_passphrase(encrypted, ("root",), source(FIRST), None)
    with pytest.raises(StorageError, match="holds no key"):
        change_passphrase(tmp_path, (), CLEAR, None)
    with pytest.raises(CertificateError, match=r"ca\.key: the key is encrypted"):
        Site.open(encrypted, passphrases=CLEAR)
    shutil.copyfile(encrypted / "storage.key", tmp_path / "storage.key")
    (tmp_path / "storage.key").chmod(0o600)
    with pytest.raises(StorageError, match=r"storage\.key: the key of the database is encrypted"):
        Vault.load(tmp_path / "storage.key", CLEAR)


def test_a_wrapped_storage_key_is_the_same_key(tmp_path: Path) -> None:
    key, path = Vault.new_key(), tmp_path / "storage.key"
    sealed = Vault(key).seal(Secret(b"s" * 32), "place")
    path.touch(0o600)
    path.write_bytes(wrapped(key, Passphrase(FIRST.encode(), CHEAP)))
    assert key not in path.read_bytes()
    assert Vault.load(path, source(FIRST)).open(sealed, "place") == Secret(b"s" * 32)
    with pytest.raises(StorageError, match="wrong"):
        Vault.load(path, source(SECOND))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StorageError, match="damaged"):
        Vault.load(path, source(FIRST))


def test_what_a_guess_costs_is_in_the_file(tmp_path: Path) -> None:
    key, path = bytes(range(32)), tmp_path / "storage.key"
    path.touch(0o600)
    path.write_bytes(wrapped(key, Passphrase(FIRST.encode(), CHEAP)))
    assert path.read_bytes().startswith(b"sealcast storage key, scrypt 16 8 1\n")
    assert rewrapped(path, source(FIRST), None) == key
    # Of another cost, another key comes out; and one that would keep its reader busy for hours is not tried.
    for other in (b"32 8 1", b"16 8 2", b"15 8 1", b"0 8 1", b"16 0 1", b"999999999 8 1", b"16384 999999 1"):
        path.write_bytes(wrapped(key, Passphrase(FIRST.encode(), CHEAP)).replace(b"16 8 1", other, 1))
        with pytest.raises(StorageError, match="damaged"):
            rewrapped(path, source(FIRST), None)
    with pytest.raises(UsageError, match="n 15"):
        ScryptCost(n=15, r=8, p=1)


def test_an_older_file_opens(tmp_path: Path) -> None:
    """From before its line said what a guess costs: made with `first of them`, by the version before."""
    path = tmp_path / "storage.key"
    path.touch(0o600)
    path.write_bytes(base64.b64decode(OLDER))
    assert rewrapped(path, source(FIRST), None) == bytes(range(32))
    with pytest.raises(StorageError, match="wrong"):
        rewrapped(path, source(SECOND), None)


@pytest.mark.needs_program("strace")
@pytest.mark.timeout(14400 if SOAK else 600)
async def test_a_change_killed_at_any_call_is_whole_or_absent(encrypted: Path, tmp_path: Path) -> None:
    def words(folder: Path) -> list[str]:
        return ["authority", "key", "passwd", str(folder), "--remove"]

    def look(folder: Path) -> str:
        with keys_at_rest(folder):
            pass
        (opened,) = opens_with(folder, ("ca", "root"))
        assert not [path.name for path in folder.iterdir() if path.name.startswith((".keys.", "keys."))]
        return {FIRST: "before", "nothing": "after"}[opened]

    async def prepare(folder: Path) -> None:
        await asyncio.to_thread(shutil.copytree, encrypted, folder)

    step = Transition(
        name="authority: key passwd",
        prepare=prepare,
        act=command(words, lambda: {"SEALCAST_PASSPHRASE": FIRST}),
        look=look,
    )
    (tmp_path / "scratch").mkdir()
    async with warm("sealcast.cli.authority", "sealcast.authority.at_rest") as commands:
        outcomes = await survive(commands, step, tmp_path / "scratch")
    assert outcomes["before"], outcomes
    assert outcomes["after"], outcomes


class TestCommand:
    @pytest.fixture(autouse=True)
    def no_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in os.environ if "PASSPHRASE" in name]:
            monkeypatch.delenv(name)
        monkeypatch.setattr("sys.stdin", None)

    def test_from_init_to_clear(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder, first, second = tmp_path / "a", file(tmp_path / "1", FIRST), file(tmp_path / "2", SECOND)

        def run(*words: object, code: int = 0) -> str:
            assert main(["authority", *map(str, words)]) == code, capsys.readouterr().err
            out, err = capsys.readouterr()
            assert FIRST not in out + err
            assert SECOND not in out + err
            return out or err

        run("init", folder, "--site", "Ward", "--passphrase-file", first)
        assert run("device", "list", folder, "--json") == "[]\n", "who only lists needs no key"
        assert "the key is encrypted" in run("token", folder, "--device", "m", code=5)
        assert "the key is encrypted" in run("serve", folder, code=5)
        assert "the passphrase is wrong" in run("serve", folder, "--passphrase-file", second, code=5)
        assert "there is no new passphrase" in run(
            "key", "passwd", folder, "--passphrase-file", first, code=2
        )
        changed = run("key", "passwd", folder, "--passphrase-file", first, "--new-passphrase-file", second)
        assert changed.count("is encrypted") == 3
        assert "exclude" in run("key", "passwd", folder, "--remove", "--new-passphrase-file", second, code=2)
        assert "'server'" in run("key", "passwd", folder, "--remove", "--key", "server", code=2)
        both = ("--key", "ca", "--key", "storage")
        run("key", "passwd", folder, "--passphrase-file", second, "--remove", *both)
        run("token", folder, "--device", "m")
        second.chmod(0o644)
        assert "others may read" in run("key", "passwd", folder, "--new-passphrase-file", second, code=8)

    def test_a_prompt_asks_twice(
        self, encrypted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        answers = [SECOND, "another", SECOND, SECOND]
        monkeypatch.setattr("sealcast.ca.passphrase.prompt_on_terminal", lambda _: answers.pop(0))
        monkeypatch.setenv("SEALCAST_PASSPHRASE", FIRST)
        assert main(["authority", "key", "passwd", str(encrypted)]) == 2
        assert "the two passphrases differ" in capsys.readouterr().err
        assert main(["authority", "key", "passwd", str(encrypted)]) == 0
        assert opens_with(encrypted) == {SECOND}

    def test_an_encrypted_root_certifies_a_site(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        certificate, key, first = tmp_path / "r.pem", tmp_path / "r.key", file(tmp_path / "1", FIRST)
        new = ["root", "new", str(certificate), str(key), "--name", "Owner", "--passphrase-file", str(first)]
        assert main(new) == 0
        assert key.read_text(encoding="utf-8").startswith("-----BEGIN ENCRYPTED")
        init = ["authority", "init", str(tmp_path / "a"), "--site", "Ward", "--root-cert", str(certificate)]
        assert main([*init, "--root-key", str(key)]) == 5
        assert main([*init, "--root-key", str(key), "--passphrase-file", str(first)]) == 0

    def test_extended_key_usages_of_devices(
        self, encrypted: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        def run(*words: str, code: int = 0) -> str:
            assert main(["authority", *words]) == code
            out, err = capsys.readouterr()
            return out or err

        sdc = ["1.2.840.10004.20701.1.1", "1.2.840.10004.20701.1.2"]
        shown = run("profile", str(encrypted), "--device-eku", sdc[0], "--device-eku", sdc[1])
        assert (
            shown == f"device EKUs: clientAuth serverAuth {' '.join(sdc)}\n" == run("profile", str(encrypted))
        )
        assert "any usage at all" in run("profile", str(encrypted), "--device-eku", "2.5.29.37.0", code=2)
        assert "'soon'" in run("profile", str(encrypted), "--device-eku", "soon", code=2)
        assert run("profile", str(encrypted), "--no-device-eku") == "device EKUs: clientAuth serverAuth\n"
        made = str(tmp_path / "made")
        run("init", made, "--site", "Ward", "--device-eku", sdc[0])
        assert sdc[0] in run("profile", made)
        assert json.dumps(sdc[1]) not in run("profile", made)
