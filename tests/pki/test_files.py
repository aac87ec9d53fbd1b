"""Files are whole or absent."""

import os
from pathlib import Path

import pytest

from sealcast.errors import StorageError
from sealcast.pki.files import PRIVATE, read_file, write_atomically, write_new


def test_a_file_is_replaced_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    assert path.stat().st_mode & 0o777 == 0o644
    write_atomically(path, b"new", PRIVATE)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_leftover_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / "file.tmp").symlink_to(victim)
    write_atomically(tmp_path / "file", b"secret", PRIVATE)
    assert victim.read_bytes() == b"mine"
    assert not (tmp_path / "file").is_symlink()


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left") as caught:
        write_atomically(path, b"new")
    assert caught.value.path == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_is_never_written_over_another_one(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    write_new(path, b"made")
    write_new(path, b"made")
    link.symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    for taken in (path, link, tmp_path / "folder"):
        with pytest.raises(StorageError, match="exists already") as caught:
            write_new(taken, b"else")
        assert caught.value.cure == "name another file, or remove it"
    assert path.read_bytes() == b"made"
    assert link.is_symlink()


@pytest.mark.parametrize("name", ["absent", "folder", "absent/file"])
def test_unreadable_files_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match=name) as caught:
        read_file(tmp_path / name)
    assert caught.value.exit_code == 8


def test_a_file_has_a_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"123")
    assert read_file(tmp_path / "file", limit=3) == b"123"
    with pytest.raises(StorageError):
        read_file(tmp_path / "file", limit=2)
