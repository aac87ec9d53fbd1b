"""Half-written files: their names, their locks, and what becomes of those whose writer is gone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealcast.endpoint.partial import PartialFile, is_file_name, sweep
from sealcast.errors import StorageError


@pytest.mark.parametrize("name", ["image.bin", "a b", "größe.txt", "x" * 239])
def test_plain_names_are_taken(name: str, tmp_path: Path) -> None:
    assert is_file_name(name)
    PartialFile.create(tmp_path, name).remove()


@pytest.mark.parametrize(
    "name", ["", ".hidden", "..", "a/b", "a\\b", "a\0b", "a\nb", "\x1b[2J", "x" * 240, "\udcff", "ö" * 120]
)
def test_other_names_are_refused(name: str) -> None:
    assert not is_file_name(name)


@given(st.text(st.characters()))
def test_an_accepted_name_stays_in_its_folder(name: str) -> None:
    if is_file_name(name):
        assert (Path("/folder") / name).parent == Path("/folder")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("replaces", [False, True])
def test_a_whole_file_takes_its_name(tmp_path: Path, replaces: bool) -> None:
    partial = PartialFile.create(tmp_path, "f")
    partial.write(b"whole")
    assert all(name.startswith(".f.") for name in names(tmp_path))
    assert partial.place(tmp_path / "f", replaces=replaces)
    assert names(tmp_path) == ["f"]
    assert (tmp_path / "f").read_bytes() == b"whole"


@pytest.mark.parametrize("replaces", [False, True])
def test_a_name_that_is_taken(tmp_path: Path, replaces: bool) -> None:
    (tmp_path / "f").write_bytes(b"before")
    partial = PartialFile.create(tmp_path, "f")
    partial.write(b"after")
    assert partial.place(tmp_path / "f", replaces=replaces) == replaces
    partial.remove()
    assert names(tmp_path) == ["f"]
    assert (tmp_path / "f").read_bytes() == (b"after" if replaces else b"before")


def test_two_at_once_take_one_name_once(tmp_path: Path) -> None:
    first, second = PartialFile.create(tmp_path, "f"), PartialFile.create(tmp_path, "f")
    first.write(b"first")
    second.write(b"second")
    assert first.place(tmp_path / "f", replaces=False)
    assert not second.place(tmp_path / "f", replaces=False)
    second.remove()
    assert (names(tmp_path), (tmp_path / "f").read_bytes()) == (["f"], b"first")


def test_what_a_killed_writer_leaves_is_swept_and_no_other(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from sealcast.endpoint.partial import PartialFile;"
        "kept = PartialFile.create(Path(sys.argv[1]), 'f'); kept.write(b'half');"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    process = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert process.returncode == -9
    assert len(names(tmp_path)) == 1, "the killed one has left its file"
    mine = PartialFile.create(tmp_path, "f")
    others = [".f.part", ".bashrc", "f.0123abcd.part", ".f.0123ABCD.part"]
    for name in others:
        (tmp_path / name).write_bytes(b"of somebody else")
    (tmp_path / ".d.0123abcd.part").mkdir()
    os.mkfifo(tmp_path / ".p.0123abcd.part")
    (tmp_path / ".l.0123abcd.part").symlink_to(tmp_path / ".bashrc")
    kept = set(names(tmp_path))
    assert sweep(tmp_path) == 1
    assert len(kept - set(names(tmp_path))) == 1
    assert {*others, ".d.0123abcd.part", ".p.0123abcd.part", ".l.0123abcd.part"} < set(names(tmp_path))
    assert sweep(tmp_path) == 0
    mine.write(b"whole")
    assert mine.place(tmp_path / "f", replaces=False)
    assert (tmp_path / "f").read_bytes() == b"whole"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="gone"):
        sweep(tmp_path / "gone")
    with pytest.raises(StorageError, match="gone"):
        PartialFile.create(tmp_path / "gone", "f")
