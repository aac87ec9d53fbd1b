"""The folder of an authority: made whole or not at all, changed by one process at a time."""

import stat
from pathlib import Path

import pytest
from sqlalchemy import select

from sealcast.authority import site as module
from sealcast.authority.issuance import CA_KEY_FILE
from sealcast.authority.keystore import load_keys
from sealcast.authority.models import ChannelRow
from sealcast.authority.site import (
    KEY_SERVER_NAME,
    LOCAL_HOSTS,
    ROOT_FILE,
    ROOT_KEY_FILE,
    SERVER_FILE,
    Site,
    exclusive,
)
from sealcast.authority.vault import KEY_FILE
from sealcast.ca import FileSigner, KeySigner, create_root
from sealcast.cli import main
from sealcast.errors import CertificateError, StorageError, UsageError
from sealcast.pki.certificates import certificate_der, certificates_pem, parse_certificate
from sealcast.pki.names import Role
from sealcast.pki.times import system_time
from tests.authority.conftest import make_site


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def own_root(folder: Path, *, matching: bool = True) -> tuple[Path, Path]:
    """An owner's root in two files."""
    key_file, certificate_file = folder / "own.key", folder / "own.pem"
    signer = FileSigner.create(key_file)
    root = create_root(
        site_name="Owner", signer=signer if matching else KeySigner.generate(), now=system_time()
    )
    certificate_file.write_bytes(certificates_pem([certificate_der(root.certificate)]))
    return certificate_file, key_file


class TestInit:
    def test_what_it_makes_fits_together(self, tmp_path: Path) -> None:
        site = Site.open(make_site(tmp_path / "authority", hosts=("keys.example", "192.0.2.7")))
        identity = site.key_server()
        peer = site.validator().verify_peer(list(identity.chain), Role.KEY_SERVER, system_time(), None)
        assert (peer.name, peer.site_id) == (KEY_SERVER_NAME, site.site_id)
        assert site.hosts == (*LOCAL_HOSTS, "keys.example", "192.0.2.7")
        names = str(parse_certificate(identity.chain[0]).extensions)
        for host in site.hosts:
            assert host in names

    def test_secrets_are_the_owners_alone(self, tmp_path: Path) -> None:
        folder = make_site(tmp_path / "authority")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        public = {"root.pem", "ca.pem"}
        for name in files(folder):
            mode = stat.S_IMODE((folder / name).stat().st_mode)
            assert name in public or mode & 0o077 == 0, name

    def test_an_empty_folder_is_taken(self, tmp_path: Path) -> None:
        (tmp_path / "authority").mkdir()
        Site.open(make_site(tmp_path / "authority"))

    def test_an_own_root_is_used_and_its_key_not_kept(self, tmp_path: Path) -> None:
        root = own_root(tmp_path)
        folder = make_site(tmp_path / "authority", root=root)
        assert (folder / ROOT_FILE).read_bytes() == root[0].read_bytes()
        assert ROOT_KEY_FILE not in files(folder)
        key = root[1].read_bytes().splitlines()[1]
        assert not any(key in (folder / name).read_bytes() for name in files(folder))
        Site.open(folder)

    @pytest.mark.parametrize("fault", ["not empty", "a file", "bad root", "no root", "bad name", "crash"])
    def test_a_failure_leaves_nothing(
        self, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "x" / "authority"
        folder.parent.mkdir()
        arguments: dict[str, object] = {}
        expected: type[BaseException] = StorageError
        match fault:
            case "not empty":
                folder.mkdir()
                (folder / "mine").write_text("mine")
            case "a file":
                folder.write_text("mine")
            case "bad root":
                arguments["root"], expected = own_root(tmp_path, matching=False), CertificateError
            case "no root":
                arguments["root"] = (tmp_path / "none.pem", tmp_path / "none.key")
            case "bad name":
                arguments["site_name"], expected = "", UsageError
            case _:
                expected = KeyboardInterrupt

                def interrupt(*_: object, **__: object) -> None:
                    raise KeyboardInterrupt

                monkeypatch.setattr(module, "issue_crl", interrupt)
        before = sorted(folder.parent.rglob("*"))
        with pytest.raises(expected):
            make_site(folder, **arguments)
        assert sorted(folder.parent.rglob("*")) == before

    def test_what_a_crash_left_beside_is_cleared_away(self, tmp_path: Path) -> None:
        (tmp_path / ".authority.init-0123").mkdir()
        make_site(tmp_path / "authority")
        assert files(tmp_path) == ["authority"]

    def test_a_place_that_cannot_be_had_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StorageError, match="file"):
            make_site(tmp_path / "file" / "authority")


class TestOpen:
    def test_another_folder_is_named_with_the_cure(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="no authority's folder") as caught:
            Site.open(tmp_path)
        assert "authority init" in caught.value.cure

    @pytest.mark.parametrize("name", [CA_KEY_FILE, ROOT_FILE, "storage.key", "authority.db"])
    def test_a_missing_part_is_named(self, folder: Path, name: str) -> None:
        (folder / name).unlink()
        with pytest.raises(StorageError, match=name):
            Site.open(folder)

    def test_parts_of_two_sites_do_not_fit(self, folder: Path, tmp_path: Path) -> None:
        other = make_site(tmp_path / "other")
        (folder / "authority.db").write_bytes((other / "authority.db").read_bytes())
        with pytest.raises(StorageError, match="different sites"):
            Site.open(folder)
        (other / CA_KEY_FILE).write_bytes((folder / CA_KEY_FILE).read_bytes())
        with pytest.raises(CertificateError, match="do not match"):
            Site.open(other)

    def test_a_damaged_server_file_is_named(self, folder: Path) -> None:
        (folder / SERVER_FILE).write_bytes(b"garbage")
        with pytest.raises(CertificateError, match=SERVER_FILE):
            Site.open(folder).key_server()

    def test_a_server_file_of_another_site_is_named(self, folder: Path, tmp_path: Path) -> None:
        other = (make_site(tmp_path / "other") / SERVER_FILE).read_bytes()
        own = (folder / SERVER_FILE).read_bytes()
        (folder / SERVER_FILE).write_bytes(other)
        with pytest.raises(CertificateError, match=r"server\.pem: the certificate is that of") as caught:
            Site.open(folder).key_server()
        assert caught.value.cure
        key = other[: other.index(b"-----BEGIN CERTIFICATE")]
        (folder / SERVER_FILE).write_bytes(key + own[own.index(b"-----BEGIN CERTIFICATE") :])
        with pytest.raises(CertificateError, match=r"server\.pem: certificate and key do not match"):
            Site.open(folder).key_server()

    def test_a_storage_key_of_another_site_is_named(self, folder: Path, tmp_path: Path) -> None:
        add = ["authority", "channel", "add", str(folder), "ward/ecg", "--group", "239.192.0.1"]
        assert main([*add, "--port", "5000", "--publish", "*", "--subscribe", "*"]) == 0
        (folder / KEY_FILE).write_bytes((make_site(tmp_path / "other") / KEY_FILE).read_bytes())
        site = Site.open(folder)
        with (
            site.storage.snapshot() as session,
            pytest.raises(StorageError, match=r"does not open with storage\.key") as caught,
        ):
            load_keys(session, session.scalars(select(ChannelRow)).one(), site.vault)
        assert "same backup" in caught.value.cure


def test_one_process_at_a_time(folder: Path) -> None:
    with exclusive(folder) as first, exclusive(folder) as second:
        assert (first, second) == (True, False)
    with exclusive(folder) as third:
        assert third
