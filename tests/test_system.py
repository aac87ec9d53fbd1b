"""What stands in for an operating system's own; of Windows what can be tried on any."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sealcast import system


@pytest.mark.parametrize("name", ["ecg.bin", "a b", "CONSOLE", "com", "café", "x.con"])
def test_names_that_windows_has(name: str, tmp_path: Path) -> None:
    assert system.below_on_windows(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize(
    "name",
    [
        "..\\x",
        "a\\b",
        "C:x",
        "file:stream",
        "CON",
        "nul.txt",
        "com1",
        "aux ",
        "x.",
        "a?",
        "..",
        "lpt9.tar.gz",
    ],
)
def test_names_that_lead_elsewhere_on_windows(name: str, tmp_path: Path) -> None:
    """A name comes from a publisher: a device or a path must not be had by one."""
    with pytest.raises(OSError, match="Windows has no files of the name"):
        system.below_on_windows(tmp_path, name)


def test_one_holds_a_lock_at_a_time(tmp_path: Path) -> None:
    first, second = (os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT) for _ in range(2))
    assert system.lock(first)
    assert not system.lock(second)
    os.close(first)
    assert system.lock(second, waits=True)
    os.close(second)


def test_reading_at_a_place_leaves_the_file_where_it_is(tmp_path: Path) -> None:
    descriptor = system.open_file(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"a line\r\n")
    assert system.write_at(descriptor, b"A", 0) == 1
    assert system.read_at(descriptor, 6, 0) == b"A line"
    os.write(descriptor, b"more")
    os.close(descriptor)
    assert (tmp_path / "file").read_bytes() == b"A line\r\nmore"


def test_a_link_is_not_followed_where_it_is_not_to_be(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "there")
    os.close(system.open_file(tmp_path / "link", os.O_RDONLY))
    with pytest.raises(OSError, match="symbolic link"):
        system.open_file(tmp_path / "link", os.O_RDONLY, follows=False)
