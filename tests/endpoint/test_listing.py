"""Which files a sender's paths stand for, and which names a receiver takes: SC-14."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealcast.endpoint.listing import is_file_name, list_files
from sealcast.errors import StorageError, UsageError


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode())


@pytest.mark.parametrize(
    "name", ["image.bin", "a b", "größe.txt", "x" * 239, "a/b/c", "console", "nullify.txt"]
)
def test_plain_names_are_taken(name: str) -> None:
    assert is_file_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "", ".hidden", "..", "a/../b", "/a", "a//b", "a/", "a/.b", "a\\b", "a\0b", "a\nb", "\x1b[2J",
        "x" * 240, "\udcff", "ö" * 120, "nul", "NUL.txt", "a/Con", "com1", "lpt9.log", "/".join("a" * 33),
        "/".join(["b" * 200] * 6),
    ],
)  # fmt: skip
def test_c8_other_names_are_refused(name: str) -> None:
    """What a hostile publisher may offer, and what no honest one sends."""
    assert not is_file_name(name)


@given(st.text(st.characters(), max_size=40))
def test_an_accepted_name_stays_below_its_folder(name: str) -> None:
    if is_file_name(name):
        path = Path("/folder") / name
        assert path.is_relative_to("/folder")
        assert ".." not in path.parts


def test_a_folder_stands_for_what_is_below_it(tmp_path: Path) -> None:
    make(tmp_path, "tree/b", "tree/a/deep/file", "tree/empty/", "tree/a/c", "lone")
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "lone")
    (tmp_path / "tree" / "out").symlink_to(tmp_path)
    (tmp_path / "tree" / ".hidden").write_bytes(b"")
    os.mkfifo(tmp_path / "tree" / "pipe")
    listing = list_files([tmp_path / "tree", tmp_path / "lone"])
    assert [(source.name, source.size) for source in listing.sources] == [
        ("tree/a/c", 8), ("tree/a/deep/file", 16), ("tree/b", 6), ("tree/empty", None), ("lone", 4)
    ]  # fmt: skip
    assert {(path.name, reason) for path, reason in listing.skipped} == {
        ("link", "is a link"),
        ("out", "is a link"),
        (".hidden", "is hidden"),
        ("pipe", "is not a regular file"),
    }


def test_a_path_that_is_given_is_followed_and_has_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "tree/b")
    (tmp_path / "link").symlink_to(tmp_path / "tree")
    assert [source.name for source in list_files([tmp_path / "link"]).sources] == ["link/b"]
    monkeypatch.chdir(tmp_path / "tree")
    for here in (".", "../tree/", Path()):
        assert [source.name for source in list_files([here]).sources] == ["tree/b"]


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        ((), "nothing to send"),
        (("x/a", "b", "y/a"), "x/a and .*y/a have the same name"),
        (("b", "b"), "b and .*b have the same name"),
        (("x", "b", "y/x"), "x and .*y/x have the same name"),
        (("b", ".hidden"), r"no receiver takes a file of the name '\.hidden'"),
        (("a\\b",), r"no receiver takes a file of the name 'a\\\\b'"),
        (("bad",), r"bad/sub/two\\nlines: no receiver takes|two\nlines: no receiver takes"),
    ],
)
def test_names_that_no_receiver_could_take(tmp_path: Path, paths: tuple[str, ...], says: str) -> None:
    make(tmp_path, "x/a", "y/a", "y/x/c", "b", ".hidden", "a\\b", "bad/sub/two\nlines")
    with pytest.raises(UsageError, match=says):
        list_files([tmp_path / path for path in paths])


@pytest.mark.parametrize("name", ["absent", "tree/pipe"])
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    make(tmp_path, "tree/a")
    os.mkfifo(tmp_path / "tree" / "pipe")
    with pytest.raises(StorageError, match=name):
        list_files([tmp_path / "tree" / "a", tmp_path / name])
