"""Which files a sender's paths stand for, and under which names; which names a receiver takes (SC-14).

A folder stands for what is below it. Links are not followed there, and pipes, devices and hidden entries are
left out; `Listing.skipped` names all that. A path that is given is followed if it is a link, since whoever
gives it means what it leads to. Modes, owners and times are not carried.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sealcast.endpoint.transfer import MAX_NAME_BYTES, MAX_PARTS_A_NAME, MAX_SIZE
from sealcast.errors import StorageError, UsageError
from sealcast.pki.files import storage_errors

MAX_FILE_NAME_BYTES = 239
"""Of one part of a name: 255 on every file system in use, less what a partial file's is longer by."""

_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?")
_CURE = (
    "rename it: printable, not hidden, without backslash, no name of a device such as 'nul', "
    f"{MAX_FILE_NAME_BYTES} bytes at most"
)


def is_file_name(name: str) -> bool:
    """Whether a receiver takes a file of this name, which may have folders (SC-14)."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return False
    parts = name.split("/")
    return length <= MAX_NAME_BYTES and len(parts) <= MAX_PARTS_A_NAME and all(map(_is_part, parts))


def _is_part(part: str) -> bool:
    return (
        part.isprintable()
        and 0 < len(part.encode()) <= MAX_FILE_NAME_BYTES
        and not part.startswith(".")
        and "\\" not in part
        and _DEVICES.fullmatch(part) is None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file, or one empty folder, that is to be sent."""

    path: Path
    name: str
    """As receivers see it, with `/` between folders."""
    size: int | None
    """Bytes; None: an empty folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What is to be sent."""

    sources: tuple[Source, ...]
    skipped: tuple[tuple[Path, str], ...]
    """What is left out, and why."""


def list_files(paths: Sequence[Path | str]) -> Listing:
    """List what is at these paths and below them, and check that it can be read and taken.

    Raises:
        UsageError: nothing is named, two have one name, or no receiver takes a file of that name.
        StorageError: something cannot be read.
    """
    skipped: list[tuple[Path, str]] = []
    sources: list[Source] = []
    given: dict[str, Path] = {}
    for path in map(Path, paths):
        name = _name_of(path)
        if name in given:
            # Below one folder no two names are the same, so this is all that there is to check.
            raise UsageError(
                f"{given[name]} and {path} have the same name for a receiver",
                cure="send them one by one, or a folder that holds both",
            )
        given[name] = path
    for name, path in given.items():
        sources += _walk(path, name, skipped)
    if not sources:
        raise UsageError("nothing to send", cure="name files, or folders")
    return Listing(sources=tuple(sources), skipped=tuple(skipped))


def _name_of(path: Path) -> str:
    """The name under which a path that was given is sent."""
    name = path.name if path.name not in ("", "..") else path.resolve().name
    return _checked(path, name)


def _checked(path: Path, name: str) -> str:
    if not is_file_name(name):
        raise UsageError(f"{path}: no receiver takes a file of the name {name!r}", cure=_CURE)
    return name


def _walk(path: Path, name: str, skipped: list[tuple[Path, str]]) -> Iterator[Source]:
    """The files at a path and below it, in the order of their names."""
    with storage_errors(path):
        status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        yield from _walk_folder(path, name, skipped)
    elif stat.S_ISREG(status.st_mode):
        yield _source(path, name, status.st_size)
    else:
        # A pipe or a device has no size, and opening one may wait for ever.
        raise StorageError(str(path), "is not a regular file", cure="publish it with: sealcast publish --raw")


def _walk_folder(folder: Path, name: str, skipped: list[tuple[Path, str]]) -> Iterator[Source]:
    with storage_errors(folder):
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    taken = 0
    for entry in entries:
        path = folder / entry.name
        with storage_errors(path):
            status = entry.stat(follow_symlinks=False)
        if reason := _why_skipped(entry.name, status.st_mode):
            skipped.append((path, reason))
            continue
        taken += 1
        below = _checked(path, f"{name}/{entry.name}")
        if stat.S_ISDIR(status.st_mode):
            yield from _walk_folder(path, below, skipped)
        else:
            yield _source(path, below, status.st_size)
    if not taken:
        yield Source(path=folder, name=name, size=None)


def _why_skipped(name: str, mode: int) -> str | None:
    if name.startswith("."):
        return "is hidden"
    if stat.S_ISLNK(mode):
        return "is a link"
    return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "is not a regular file"


def _source(path: Path, name: str, size: int) -> Source:
    # Whether it can be read is known before the first byte goes out.
    with storage_errors(path):
        os.close(os.open(path, os.O_RDONLY))
    if size > MAX_SIZE:
        raise StorageError(str(path), f"has {size} bytes", cure=f"send at most {MAX_SIZE} bytes in one file")
    return Source(path=path, name=name, size=size)
