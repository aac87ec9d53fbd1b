"""Half-written files: their names, their locks, and what is gone on with when their writer is gone."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sealcast.endpoint.partial import KEPT_SECONDS, PartialFile, sweep
from sealcast.endpoint.transfer import PIECE_BYTES, Offer
from sealcast.errors import StorageError
from sealcast.system import parent_of

DATA = bytes(range(256)) * (PIECE_BYTES // 256) * 2 + b"the last piece"


def offer(name: str = "f", data: bytes = DATA) -> Offer:
    return Offer(number=0, count=1, name=name, size=len(data), sha256=hashlib.sha256(data).digest())


def partial(folder: Path, name: str = "f", *, publisher: str = "p", data: bytes = DATA) -> PartialFile:
    opened = PartialFile(folder, offer(name, data), publisher)
    opened.open()
    return opened


def put(file: PartialFile, *pieces: int, data: bytes = DATA) -> None:
    for piece in pieces:
        file.have.add(piece, piece)
    file.write([(piece, data[piece * PIECE_BYTES :][:PIECE_BYTES]) for piece in pieces])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("replaces", [False, True])
def test_a_whole_file_takes_its_name(tmp_path: Path, replaces: bool, order: tuple[int, ...]) -> None:
    file = partial(tmp_path)
    put(file, *order)
    assert file.is_whole
    assert file.done == len(DATA)
    assert all(name.startswith(".f.") for name in names(tmp_path))
    assert file.digest() == hashlib.sha256(DATA).digest()
    assert file.place(replaces=replaces)
    assert names(tmp_path) == ["f"]
    assert (tmp_path / "f").read_bytes() == DATA


@pytest.mark.parametrize("replaces", [False, True])
def test_a_name_that_is_taken(tmp_path: Path, replaces: bool) -> None:
    (tmp_path / "f").write_bytes(b"before")
    file = partial(tmp_path)
    put(file, 0, 1, 2)
    assert file.place(replaces=replaces) == replaces
    file.remove()
    assert names(tmp_path) == ["f"]
    assert (tmp_path / "f").read_bytes() == (DATA if replaces else b"before")


def test_two_at_once_take_one_name_once(tmp_path: Path) -> None:
    first, second = partial(tmp_path), partial(tmp_path)
    put(first, 0, 1, 2)
    put(second, 0, 1, 2)
    assert first.place(replaces=False)
    assert not second.place(replaces=False)
    second.remove()
    assert names(tmp_path) == ["f"]


def test_what_was_let_go_of_is_gone_on_with(tmp_path: Path) -> None:
    before = partial(tmp_path)
    put(before, 2, 0)
    before.close()
    again = PartialFile(tmp_path, offer(), "p")
    assert again.find()
    assert (again.have.ranges(), again.done) == ([(0, 0), (2, 2)], PIECE_BYTES + len(b"the last piece"))
    put(again, 1)
    assert again.digest() == hashlib.sha256(DATA).digest()
    assert again.place(replaces=False)
    assert names(tmp_path) == ["f"]


def test_the_same_object_goes_on_without_reading_again(tmp_path: Path) -> None:
    file = partial(tmp_path)
    put(file, 0)
    file.close()
    file.open()
    put(file, 1, 2)
    assert file.digest() == hashlib.sha256(DATA).digest()


@pytest.mark.parametrize("other", ["publisher", "content", "name"])
def test_another_file_is_not_gone_on_with(tmp_path: Path, other: str) -> None:
    before = partial(tmp_path)
    put(before, 0)
    before.close()
    name = "g" if other == "name" else "f"
    data = DATA[::-1] if other == "content" else DATA
    again = PartialFile(tmp_path, offer(name, data), "q" if other == "publisher" else "p")
    assert not again.find()
    again.open()
    assert not again.have.count


def test_f2_pieces_that_a_crash_has_spoilt_are_not_taken_for_received(tmp_path: Path) -> None:
    """The list was on the disk, the pieces were not; and the last record was cut off."""
    before = partial(tmp_path)
    put(before, 0, 1, 2)
    before.close()
    [part] = tmp_path.glob(".f.*.part")
    with part.open("r+b") as file:
        file.seek(PIECE_BYTES + 5)
        file.write(b"\0\0\0")
    have = part.with_suffix(".have")
    os.truncate(have, have.stat().st_size - 3)
    again = PartialFile(tmp_path, offer(), "p")
    assert again.find()
    assert again.have.ranges() == [(0, 0)]
    put(again, 1, 2)
    again.close()
    third = PartialFile(tmp_path, offer(), "p")
    assert third.find()
    assert third.is_whole


def test_what_a_killed_writer_leaves_is_gone_on_with(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]);"
        "from tests.endpoint.test_partial import partial, put;"
        "file = partial(Path(sys.argv[1])); put(file, 0, 1); os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = str(Path(__file__).parents[2])
    process = subprocess.run([sys.executable, "-c", program, str(tmp_path), root], check=False)
    assert process.returncode == -signal.SIGKILL
    assert sweep(tmp_path) == 0
    again = PartialFile(tmp_path, offer(), "p")
    assert again.find()
    assert again.have.count == 2


def test_what_nobody_will_go_on_with_is_swept_and_nothing_else(tmp_path: Path) -> None:
    mine = partial(tmp_path)
    put(mine, 0)
    old = partial(tmp_path, "old")
    put(old, 0)
    old.close()
    for path in tmp_path.glob(".old.*"):
        os.utime(path, (0, time.time() - KEPT_SECONDS - 1))
    single = partial(tmp_path, "single", data=b"one piece")  # has no list
    single.close()
    others = [".f.part", ".bashrc", "f.0123abcd.part", ".f.0123ABCD.part"]
    for name in others:
        (tmp_path / name).write_bytes(b"of somebody else")
    (tmp_path / ".d.0123abcd.part").mkdir()
    os.mkfifo(tmp_path / ".p.0123abcd.part")
    (tmp_path / ".l.0123abcd.part").symlink_to(tmp_path / ".bashrc")
    (tmp_path / ".gone.0123abcd.have").write_bytes(b"its file is gone")
    kept = set(names(tmp_path))
    assert sweep(tmp_path) == 2
    gone = {name.split(".")[1] for name in kept - set(names(tmp_path))}
    assert gone == {"old", "single", "gone"}
    assert {*others, ".d.0123abcd.part", ".p.0123abcd.part", ".l.0123abcd.part"} < set(names(tmp_path))
    assert sweep(tmp_path) == 0
    put(mine, 1, 2)
    assert mine.place(replaces=False)


@pytest.mark.parametrize("place", ["above", "itself"])
def test_c8_no_link_leads_out_of_the_folder(tmp_path: Path, place: str) -> None:
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "sub").symlink_to(outside) if place == "above" else (folder / "sub").mkdir()
    (outside if place == "above" else folder / "sub").joinpath("x").touch()
    if place == "itself":
        (folder / "sub" / "f").symlink_to(outside / "f")
    file = partial(folder, "sub/f")
    put(file, 0, 1, 2)
    if place == "above":
        with pytest.raises(StorageError, match="folder/sub/f"):
            file.place(replaces=True)
        assert names(outside) == ["x"]
    else:
        assert file.place(replaces=True)
        assert not (folder / "sub" / "f").is_symlink()
        assert names(outside) == []


def test_folders_are_made_on_the_way(tmp_path: Path) -> None:
    file = partial(tmp_path, "a/b/f")
    put(file, 0, 1, 2)
    assert file.place(replaces=False)
    assert (tmp_path / "a" / "b" / "f").read_bytes() == DATA
    with pytest.raises(FileNotFoundError), parent_of(tmp_path, "x/y", make=False):
        pass


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="gone"):
        sweep(tmp_path / "gone")
    with pytest.raises(StorageError, match="gone"):
        partial(tmp_path / "gone")
