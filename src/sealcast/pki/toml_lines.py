"""In which line of a TOML text a key stands: `tomllib` does not say."""

import json
import tomllib
from bisect import bisect_right
from typing import Any

Path = tuple[str, ...]
"""Keys from the top."""


class TomlLines:
    """Finds lines for messages.

    Lines are looked at one by one, so a text of several lines that looks like TOML itself may mislead it; it
    is only ever used to point at a place. Nothing is looked at before the first question.
    """

    def __init__(self, text: str) -> None:
        """Take a text that is TOML."""
        self._text = text
        self._lines: list[str] = []
        self._found: dict[Path, int] = {}
        self._starts: list[int] = []

    def of(self, path: Path) -> int | None:
        """The line of a key, from 1; else of the nearest table around it."""
        self._look()
        around = (path[:depth] for depth in range(len(path), 0, -1))
        return next((self._found[part] for part in around if part in self._found), None)

    def of_value(self, path: Path, text: str) -> int | None:
        """The line of a text in the list at `path`."""
        start = self.of(path)
        if start is None or path not in self._found:
            return start
        after = bisect_right(self._starts, start)
        end = self._starts[after] if after < len(self._starts) else len(self._lines) + 1
        quoted = (json.dumps(text, ensure_ascii=False), f"'{text}'")
        for number in range(start, end):
            if any(form in self._lines[number - 1] for form in quoted):
                return number
        return start

    def _look(self) -> None:
        if self._lines:
            return
        self._lines = self._text.split("\n")
        table: Path = ()
        for number, line in enumerate(self._lines, 1):
            if line.lstrip().startswith("["):
                if (path := _path_of(line)) is not None:
                    table = path
                    for depth in range(1, len(table) + 1):
                        self._found.setdefault(table[:depth], number)
            elif "=" in line and (key := _path_of(line.partition("=")[0] + "= 0")) is not None:
                self._found.setdefault(table + key, number)
        self._starts = sorted(self._found.values())


def _path_of(line: str) -> Path | None:
    """The keys that one line of TOML leads to."""
    try:
        inner: Any = tomllib.loads(line)
    except (ValueError, RecursionError):
        return None
    path = []
    while isinstance(inner, dict) and len(inner) == 1:
        ((key, inner),) = inner.items()
        path.append(key)
    return tuple(path) or None
