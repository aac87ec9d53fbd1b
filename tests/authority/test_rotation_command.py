"""`sealcast authority rotate` on a folder: ceremonies elsewhere, keys at rest, a signer, what is refused.

TR-23 to TR-25.
"""

import asyncio
import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from sealcast.authority.admins import AdminRole
from sealcast.authority.control import FolderManagement
from sealcast.authority.issuance import CA_FILE, CA_KEY_FILE
from sealcast.authority.site import ROOT_FILE, ROOT_KEY_FILE
from sealcast.ca import FileSigner, Passphrase, PassphraseSource
from sealcast.ca.keyfile import is_encrypted
from sealcast.ca.signer import public_key_of
from sealcast.cli import main
from sealcast.device import renew_async
from sealcast.errors import CertificateError, SealcastError, UsageError
from sealcast.pki.certificates import parse_certificate, parse_pem_certificates
from sealcast.pki.files import PRIVATE, write_atomically
from sealcast.pki.names import Role
from tests.authority.conftest import Site, make_site, serving
from tests.authority.test_passphrases import CHEAP
from tests.authority.test_rotation import look
from tests.authority.test_signer_process import PASSWORD, service, signer, split_folder

SOME, OTHER = "some of them", "other ones"


@pytest.fixture
def apart(tmp_path: Path) -> tuple[Path, tuple[Path, Path]]:
    """An authority's folder, and the root's files, which lie elsewhere."""
    folder = make_site(tmp_path / "authority")
    root = tmp_path / "root.pem", tmp_path / "root.key"
    root[0].write_bytes((folder / ROOT_FILE).read_bytes())
    (folder / ROOT_KEY_FILE).rename(root[1])
    return folder, root


def run(*words: str | Path) -> int:
    return main([str(word) for word in words])


def rotate(*words: str | Path) -> int:
    return run("authority", "rotate", *words)


def step(folder: Path) -> str:
    listed = FolderManagement(folder).call("GET", "/v1/rotations", query={"limit": 1000})["items"]
    return str(listed[-1]["step"])


def sign_elsewhere(folder: Path, draft: Path, root: tuple[Path, Path]) -> None:
    """As an operator carries it to the root's machine and back."""
    before = draft.with_suffix(".before")
    before.unlink(missing_ok=True)
    assert run("authority", "bundle", "export", folder, "--output", before) == 0
    keys = "--root-cert", root[0], "--root-key", root[1]
    assert run("root", "sign-bundle", draft, "--predecessor", before, *keys) == 0
    assert run("authority", "bundle", "import", folder, draft) == 0
    draft.unlink()


def issuing(folder: Path) -> bytes:
    return parse_pem_certificates((folder / CA_FILE).read_bytes())[0]


def test_a_site_ca_whose_root_is_elsewhere(
    apart: tuple[Path, tuple[Path, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, root = apart
    old = issuing(folder)
    csr, certificate, draft = tmp_path / "site.csr", tmp_path / "site.pem", tmp_path / "draft"
    key = (folder / CA_KEY_FILE).read_bytes()
    assert rotate("site", folder, "--csr-out", folder / CA_KEY_FILE) == 8
    assert FolderManagement(folder).call("GET", "/v1/rotations", query={"limit": 1})["items"] == []
    assert rotate("site", folder) == 2
    assert "give --csr-out FILE" in capsys.readouterr().err
    assert rotate("site", folder, "--csr-out", folder / CA_KEY_FILE) == 8
    assert "ca.key: exists already" in capsys.readouterr().err
    assert (folder / CA_KEY_FILE).read_bytes() == key
    for _ in range(2):
        assert rotate("site", folder, "--csr-out", csr) == 0
    keys = "--root-cert", root[0], "--root-key", root[1]
    assert run("root", "sign-site", csr, *keys, "--output", certificate) == 0
    assert rotate("site", folder, "--certificate", certificate) == 2
    assert "give --bundle-out FILE" in capsys.readouterr().err
    assert step(folder) == "publish"
    assert rotate("site", folder, "--bundle-out", draft) == 0
    assert f"next: {draft}, to be signed by 1 owner's roots" in capsys.readouterr().out
    # Given again while it waits, it takes no signature away.
    written = draft.read_bytes()
    assert rotate("site", folder, "--bundle-out", draft) == 0
    assert draft.read_bytes() == written
    assert rotate("site", folder, "--bundle-out", csr) == 8
    sign_elsewhere(folder, draft, root)
    assert step(folder) == "reports"
    assert run("authority", "status", folder) == 0
    shown = capsys.readouterr().out
    assert "rotation        1 of the site CA: waits for the devices' reports, then switches (0 of 0)" in shown
    # Nobody is there to wait for.
    assert rotate("site", folder, "--bundle-out", draft) == 0
    assert step(folder) == "retire"
    sign_elsewhere(folder, draft, root)
    assert step(folder) == "done"
    new = issuing(folder)
    assert parse_certificate(new).subject.rfc4514_string() == "CN=Ward CA 2,O=Ward"
    assert FileSigner.open(folder / CA_KEY_FILE).public_key == public_key_of(new) != public_key_of(old)
    capsys.readouterr()
    assert rotate("status", folder) == 0
    assert capsys.readouterr().out == "rotation 1 of the site CA: done\n"
    assert rotate("status", folder, "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["kind"] == "site"


def test_a_site_rotation_that_has_ended_is_not_begun_again_by_the_same_command(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rotate("site", folder, "--certificate", folder / ROOT_FILE) == 2
    assert "no rotation of the site CA waits for one" in capsys.readouterr().err
    assert rotate("site", folder, "--csr-out", folder / CA_KEY_FILE) == 0, "the root's key is here"
    assert step(folder) == "done"
    new = issuing(folder)
    assert rotate("site", folder) == 2
    refused = capsys.readouterr().err
    assert "rotation 1 of the site CA is done" in refused
    assert "--again" in refused
    assert issuing(folder) == new
    assert rotate("site", folder, "--again") == 0
    assert issuing(folder) != new
    # Nor does a draft drop the site CA that issues.
    draft = tmp_path / "draft"
    words = "authority", "bundle", "draft", folder, "--output", draft, "--remove-ca", folder / CA_FILE
    assert run(*words) == 5
    assert "would cut this site off" in capsys.readouterr().err
    assert not draft.exists()


def test_a_root_rotation_goes_on_with_its_own_root_and_its_old_key_is_passed_over(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new, other = ((tmp_path / f"{name}.pem", tmp_path / f"{name}.key") for name in ("new", "other"))
    for root in (new, other):
        assert run("root", "new", *root, "--name", "Owner", "--kind", "P-256") == 0
    assert rotate("root", folder, "--new-root-cert", new[0]) == 0
    assert step(folder) == "certificate"
    assert rotate("root", folder, "--new-root-cert", other[0], "--new-root-key", other[1]) == 2
    refused = capsys.readouterr().err
    for root in (new, other):
        (der,) = parse_pem_certificates(root[0].read_bytes())
        assert hashlib.sha256(der).hexdigest() in refused
    assert step(folder) == "certificate"
    assert rotate("root", folder, "--new-root-cert", new[0], "--new-root-key", new[1]) == 0
    assert step(folder) == "done"
    # root.key is the old root's, and root.pem the new one.
    assert rotate("site", folder, "--csr-out", tmp_path / "site.csr") == 0
    assert step(folder) == "certificate"
    assert rotate("site", folder, "--root-cert", new[0], "--root-key", other[1]) == 5
    assert f"{other[1]}: is not the key of any root in {new[0]}" in capsys.readouterr().err
    assert rotate("site", folder, "--root-cert", new[0], "--root-key", new[1]) == 0
    assert step(folder) == "done"


def test_a_site_to_which_its_list_is_delegated(apart: tuple[Path, tuple[Path, Path]], tmp_path: Path) -> None:
    """TR-20: a root certifies the new site CA, and signs no bundle."""
    folder, root = apart
    draft, csr, certificate = tmp_path / "draft", tmp_path / "site.csr", tmp_path / "site.pem"
    assert run("authority", "bundle", "draft", folder, "--output", draft, "--delegate") == 0
    sign_elsewhere(folder, draft, root)
    assert run("authority", "bundle", "draft", folder, "--output", draft, "--delegate") == 2, (
        "it is so already"
    )
    assert rotate("site", folder, "--csr-out", csr) == 0
    keys = "--root-cert", root[0], "--root-key", root[1]
    assert run("root", "sign-site", csr, *keys, "--output", certificate) == 0
    assert rotate("site", folder, "--certificate", certificate) == 0
    assert step(folder) == "done"


def test_a_root_whose_keys_are_elsewhere(apart: tuple[Path, tuple[Path, Path]], tmp_path: Path) -> None:
    folder, root = apart
    new = tmp_path / "new.pem", tmp_path / "new.key"
    assert run("root", "new", *new, "--name", "Owner", "--kind", "P-256") == 0
    assert rotate("root", folder) == 2, "no new root"
    assert rotate("root", folder, "--new-root-cert", new[0]) == 0
    certificate, draft, crosses = tmp_path / "site.pem", tmp_path / "draft", tmp_path / "crosses"
    keys = "--root-cert", new[0], "--root-key", new[1]
    assert run("root", "sign-site", folder / CA_FILE, *keys, "--output", certificate) == 0
    pairs = "--old-cert", root[0], "--old-key", root[1], "--new-cert", new[0], "--new-key", new[1]
    assert run("root", "cross-sign", *pairs, "--output", crosses) == 0
    given = "--certificate", certificate, "--crosses", crosses, "--bundle-out", draft
    assert rotate("root", folder, *given) == 0
    sign_elsewhere(folder, draft, root)
    assert rotate("root", folder, "--bundle-out", draft) == 0
    assert step(folder) == "retire"
    with pytest.raises(AssertionError):
        # The old root's signature is not one that counts for who comes later.
        sign_elsewhere(folder, draft, root)
    assert rotate("root", folder, "--bundle-out", draft) == 0
    sign_elsewhere(folder, draft, new)
    assert step(folder) == "done"
    assert (folder / ROOT_FILE).read_bytes() == new[0].read_bytes()


def test_the_encrypted_key_of_a_root_that_was_replaced_is_not_asked_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = tmp_path / "new.pem", tmp_path / "new.key"
    assert run("root", "new", *new, "--name", "Owner", "--kind", "P-256") == 0
    new_root = "--new-root-cert", new[0], "--new-root-key", new[1]
    assert rotate("root", folder, *new_root) == 0
    assert step(folder) == "done"
    key = folder / ROOT_KEY_FILE
    write_atomically(key, FileSigner.open(key).to_pem(Passphrase(b"old", CHEAP)), PRIVATE)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("getpass.getpass", lambda _: pytest.fail("somebody was asked"))
    assert rotate("site", folder, "--csr-out", tmp_path / "site.csr") == 0
    # Nor does the passphrase of other keys disturb.
    monkeypatch.setenv("SEALCAST_PASSPHRASE", "another")
    assert rotate("site", folder, "--root-cert", new[0], "--root-key", new[1]) == 0
    assert step(folder) == "done"


async def enrolled(folder: Path, devices: Path, *names: str) -> None:
    async with serving(folder, devices) as site:
        for name in names:
            await site.enrol(name)


async def test_a_step_ahead_of_the_devices_is_refused_with_the_counts(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await enrolled(folder, tmp_path / "devices", "monitor-1", "monitor-2")
    assert rotate("site", folder) == 0
    told = capsys.readouterr().out
    assert "waits for the devices' reports, then switches (0 of 2)" in told
    assert "missing: monitor-1" in told
    assert rotate("site", folder) == 2
    refused = capsys.readouterr().err
    assert "2 of 2 devices have not reported the trust bundle: monitor-1, monitor-2" in refused
    assert "--force" in refused
    # For one step, not for all that follow; and a time for devices to renew in is said with the switch.
    assert rotate("site", folder, "--force", "--within", "2h") == 0
    assert step(folder) == "reissue"
    assert rotate("site", folder, "--within", "10m") == 2
    assert "--within 10m comes too late: rotation 1 has switched at " in capsys.readouterr().err
    assert rotate("site", folder) == 2
    assert "2 of 2 devices have no certificate of the new site CA in use" in capsys.readouterr().err
    assert rotate("site", folder, "--force") == 0
    assert step(folder) == "done"
    assert rotate("status", folder) == 0
    assert "forced: reports, reissue" in capsys.readouterr().out


async def test_from_another_machine(site: Site) -> None:
    """The key server's new certificate is of a site CA that the admin's folder does not know yet (TR-25)."""
    admin = await site.admin("olga", AdminRole.SECURITY_OFFICER)
    keys = "--root-cert", site.folder / ROOT_FILE, "--root-key", site.folder / ROOT_KEY_FILE
    place = "--url", site.listening.manage or "", "--admin", admin.path
    assert await asyncio.to_thread(rotate, "site", *place, *keys) == 0
    assert await asyncio.to_thread(step, site.folder) == "reissue"
    assert await asyncio.to_thread(rotate, "site", *place, *keys) == 2, "the admin has no new certificate"
    await renew_async(admin.path, role=Role.ADMIN)
    assert await asyncio.to_thread(rotate, "site", *place, *keys) == 0
    assert await asyncio.to_thread(step, site.folder) == "done"
    assert await asyncio.to_thread(rotate, "server", *place) == 0
    assert await asyncio.to_thread(rotate, "status", *place) == 0


def test_what_makes_no_sense_is_refused(folder: Path, tmp_path: Path) -> None:
    management = FolderManagement(folder)
    for body, problem in (
        ({"kind": "moon"}, "kind"),
        ({}, "kind"),
        ({"kind": "site", "root": "x"}, "exactly where a root is rotated"),
        ({"kind": "root"}, "exactly where a root is rotated"),
        ({"kind": "root", "root": "x"}, "holds no PEM certificate"),
    ):
        with pytest.raises(SealcastError, match=problem):
            management.call("POST", "/v1/rotations", body=dict(body))
    for words in (
        ("site", folder, "--root-cert", folder / ROOT_FILE),
        ("site", folder, "--certificate", tmp_path / "nowhere"),
        ("site", folder, "--within", "yesterday"),
        ("abandon", folder, "7"),
        ("moon", folder),
    ):
        assert rotate(*words) != 0, words
    with pytest.raises(UsageError):
        management.call("POST", "/v1/rotations/1/advance", body={"within_seconds": 0})


def test_the_new_key_is_encrypted_as_the_old_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = PassphraseSource(environment={"SEALCAST_PASSPHRASE": SOME}, prompt=None, cost=CHEAP)
    folder = make_site(tmp_path / "authority", new_passphrases=source)
    assert rotate("site", folder) != 0, "no passphrase at hand"
    monkeypatch.setenv("SEALCAST_PASSPHRASE", SOME)
    away = (folder / ROOT_KEY_FILE).rename(tmp_path / "root.key")
    assert rotate("site", folder, "--csr-out", tmp_path / "site.csr") == 0
    (key,) = folder.glob("ca-*.key")
    assert is_encrypted(key.read_bytes())
    # A passphrase that is changed meanwhile is that of both.
    monkeypatch.setenv("SEALCAST_NEW_PASSPHRASE", OTHER)
    assert run("authority", "key", "passwd", folder) == 0
    away.rename(folder / ROOT_KEY_FILE)
    monkeypatch.setenv("SEALCAST_PASSPHRASE", OTHER)
    monkeypatch.setenv("SEALCAST_ROOT_PASSPHRASE", SOME)
    assert rotate("site", folder) == 0
    assert step(folder) == "done"
    changed = PassphraseSource(environment={"SEALCAST_PASSPHRASE": OTHER}, prompt=None)
    opened = FileSigner.open(folder / CA_KEY_FILE, name="ca", passphrases=changed)
    assert opened.public_key == public_key_of(issuing(folder))


async def test_the_root_above_a_signer_process(tmp_path: Path) -> None:
    """Nothing of the signer is needed for it: it goes on with its key."""
    folder, key_folder = split_folder(tmp_path)
    new = tmp_path / "new.pem", tmp_path / "new.key"
    assert run("root", "new", *new, "--name", "Owner", "--kind", "P-256") == 0
    old = issuing(folder)
    with signer(key_folder):
        async with service(folder, tmp_path / "devices") as site:
            await site.authority.renew_certificate()
        assert rotate("server", folder) == 0
        assert rotate("root", folder, "--new-root-cert", new[0], "--new-root-key", new[1]) == 0
        assert step(folder) == "done"
        certified = issuing(folder)
        assert public_key_of(certified) == public_key_of(old)
        async with service(folder, tmp_path / "devices") as site:
            assert (await site.enrol("monitor-1")).roots == tuple(parse_pem_certificates(new[0].read_bytes()))
    with pytest.raises(CertificateError):
        FileSigner.open(key_folder / CA_KEY_FILE)


async def test_the_key_of_a_signer_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is made there and stays there, while the service runs, whose devices follow."""
    folder, key_folder = split_folder(tmp_path)
    old = issuing(folder)
    keys = "--root-cert", folder / ROOT_FILE, "--root-key", folder / ROOT_KEY_FILE

    async def go_on(expected: str) -> None:
        assert await asyncio.to_thread(rotate, "site", folder, *keys) == 0
        assert await asyncio.to_thread(step, folder) == expected

    with signer(key_folder):
        async with service(folder, tmp_path / "devices") as site:
            await site.add_channel()
            identity = await site.enrol("monitor-1")
            assert await asyncio.to_thread(rotate, "site", folder, *keys) == 5
            assert f"{key_folder / ROOT_FILE}: there is no root here" in capsys.readouterr().err
            shutil.copyfile(folder / ROOT_FILE, key_folder / ROOT_FILE)
            await go_on("reports")
            await look(identity, site)
            await go_on("reissue")
            new = issuing(folder)
            assert public_key_of(new) != public_key_of(old)
            identity = await renew_async(identity.path, now=site.clock())
            await look(identity, site)
            await go_on("done")
            assert site.authority.site.issuers == (new,)
            await site.enrol("monitor-2")
            assert await site.authority.revoke_device("monitor-2")
    assert not list(folder.glob("ca*.key"))
    changed = PassphraseSource(environment={"SEALCAST_PASSPHRASE": PASSWORD}, prompt=None)
    opened = FileSigner.open(key_folder / CA_KEY_FILE, name="ca", passphrases=changed)
    assert opened.public_key == public_key_of(new)
    assert [path.name for path in key_folder.glob("ca*.key")] == [CA_KEY_FILE]
    # Both begin anew.
    (folder / ROOT_KEY_FILE).unlink()
    with signer(key_folder):
        assert rotate("site", folder, "--again", "--csr-out", tmp_path / "site.csr") == 0
        assert step(folder) == "certificate"


def test_a_signer_in_the_folder_of_the_service(folder: Path, tmp_path: Path) -> None:
    """Two processes of one user that share all files."""
    old, csr = issuing(folder), tmp_path / "site.csr"
    root = (folder / ROOT_KEY_FILE).rename(tmp_path / "root.key")
    with signer(folder):
        assert rotate("site", folder, "--csr-out", csr) == 0
        assert len(list(folder.glob("ca-*.key"))) == 1
        assert rotate("abandon", folder, "1") == 0
        assert not list(folder.glob("ca-*.key"))
        csr.unlink()
        assert rotate("site", folder, "--csr-out", csr) == 0
    # Neither a start of the signer nor a command of the service takes the key that waits for a leftover.
    with signer(folder):
        assert rotate("status", folder) == 0
        assert rotate("server", folder) == 0
        assert rotate("site", folder, "--root-cert", folder / ROOT_FILE, "--root-key", root) == 0
        assert step(folder) == "done"
    new = issuing(folder)
    assert FileSigner.open(folder / CA_KEY_FILE).public_key == public_key_of(new) != public_key_of(old)
    assert not list(folder.glob("ca-*.key"))
    # And the one-process form goes on from there.
    assert rotate("server", folder) == 0
