"""The policy of a site as its operator writes it: TOML, one table for each channel.

    [sites]
    north = "00112233445566778899aabbccddeeff"

    [channel."ward/ecg"]
    group = "239.192.1.1"
    port = 5000
    publish = ["monitor-*"]
    subscribe = ["role:display", "site:north/central"]
    deny = ["display-9"]

`read_source` finds every problem in one go and says in which line; `write_source` is its counterpart. Neither
touches a file. What the rules mean: `policy_rules`.
"""

import json
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sealcast.errors import ConfigError, UsageError
from sealcast.pki.channel_settings import (
    ChannelSettings,
    check_rule_count,
    check_setting,
    doubts_about_group,
    link_address,
)
from sealcast.pki.fec import format_fec, parse_fec
from sealcast.pki.names import check_channel_name, check_device_name, parse_site_id
from sealcast.pki.policy_rules import Rule
from sealcast.pki.quantities import (
    format_duration,
    format_rate,
    format_size,
    parse_duration,
    parse_rate,
    parse_size,
)
from sealcast.pki.toml_lines import TomlLines

MAX_SOURCE_BYTES = 4 << 20
"""Ten thousand channels; the file is read whole."""

MAX_CHANNELS = 10_000

_MAX_SITES = 1000

_RULE_LISTS = ("publish", "subscribe", "deny")
_REQUIRED = ("group", "port", "publish", "subscribe")
_QUANTITIES: Mapping[str, tuple[Callable[[str], Any], Callable[[Any], str]]] = {
    "rate": (parse_rate, format_rate),
    "slot": (parse_duration, format_duration),
    "retention": (parse_duration, format_duration),
    "retention_bytes": (parse_size, format_size),
    "publisher_limit": (parse_duration, format_duration),
    "fec": (lambda text: format_fec(parse_fec(text)), str),
}
"""What has more than one way to be written: how it is read, and written."""
# In the order in which they are written.
_KEYS = {
    name.replace("_", "-"): name
    for name in (
        "group", "port", "interface", "rate", "suite", "slot", "slots_ahead", "retention", "retention_bytes",
        "publisher_limit", "fec", *_RULE_LISTS,
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that is wrong with a source, or that is hardly meant."""

    place: str
    """Table and key, for example `channel "ward/ecg", port`."""
    problem: str
    """What is wrong, with the value."""
    cure: str
    line: int | None = None
    """From 1; None where it cannot be told."""
    is_error: bool = True

    def text(self, file: str) -> str:
        """One line for people."""
        where = file if self.line is None else f"{file}:{self.line}"
        place = f"{self.place}: " if self.place else ""
        return f"{where}: {place}{self.problem} ({self.cure})"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySource:
    """A source without errors."""

    channels: tuple[ChannelSettings, ...]
    """In the order of the file."""
    sites: Mapping[str, bytes] = field(default_factory=dict)
    """Ids of other sites, by the names that the operator gives them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a source turned out to be."""

    source: PolicySource | None
    """None if there is an error."""
    problems: tuple[Problem, ...]
    """In the order of the file, as far as lines are known."""

    def accepted(self, file: str) -> PolicySource:
        """The source, if it has no error.

        Raises:
            ConfigError: it has; the text is that of the first.
        """
        errors = [problem for problem in self.problems if problem.is_error]
        if self.source is not None:
            return self.source
        more = f"; and {len(errors) - 1} more: see sealcast policy check" if len(errors) > 1 else ""
        first = errors[0]
        raise ConfigError(first.text(file).removesuffix(f" ({first.cure})"), cure=first.cure + more)


def read_source(data: bytes) -> Reading:
    """Read and check a source; never raises, whatever it is given."""
    reader = _Reader()
    source = reader.read(data)
    ordered = sorted(reader.problems, key=lambda problem: problem.line or 0)
    return Reading(
        source=None if any(problem.is_error for problem in ordered) else source, problems=tuple(ordered)
    )


def write_source(channels: Iterable[Mapping[str, Any]], sites: Mapping[str, bytes]) -> str:
    """Write a source that `read_source` reads as the same.

    Args:
        channels: the fields of `ChannelSettings`, by name; rules as they were stored.
        sites: names for ids of other sites.
    """
    parts = []
    if sites:
        lines = [f"{_key(name)} = {_string(site_id.hex())}" for name, site_id in sorted(sites.items())]
        parts.append("\n".join(["[sites]", *lines]))
    for settings in channels:
        lines = [f"[channel.{_string(settings['name'])}]"]
        for key, name in _KEYS.items():
            if (value := settings.get(name)) is None or (name == "deny" and not value):
                continue
            lines.append(f"{key} = {_value(name, value, sites)}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + ("\n" if parts else "")


class _Reader:
    """Gathers the problems of one source."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._lines = TomlLines("")

    def read(self, data: bytes) -> PolicySource | None:
        document = self._parse(data)
        if document is None:
            return None
        for key in document:
            if key not in ("channel", "sites"):
                self._problem(
                    "", f"unknown key {_shown(key)}", 'there are [sites] and [channel."NAME"]', path=(key,)
                )
        sites = self._sites(document.get("sites", {}))
        tables = document.get("channel", {})
        if not isinstance(tables, dict):
            self._wrong_type("channel", tables, "a table for each channel", ("channel",))
            return None
        if len(tables) > MAX_CHANNELS:
            self._problem("", f"{len(tables)} channels", f"use at most {MAX_CHANNELS}", path=("channel",))
            return None
        found = [self._channel(name, table, sites) for name, table in tables.items()]
        channels = [settings for settings in found if settings is not None]
        if not tables:
            self._warn("", "no channel", 'add one as [channel."NAME"]')
        self._compare(channels)
        return PolicySource(channels=tuple(channels), sites=sites)

    def _parse(self, data: bytes) -> dict[str, Any] | None:
        if len(data) > MAX_SOURCE_BYTES:
            self._problem("", f"{len(data)} bytes", f"a policy has at most {MAX_SOURCE_BYTES}")
            return None
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            self._problem("", f"not UTF-8 at byte {error.start}", "save it as UTF-8", line=line)
            return None
        try:
            document = tomllib.loads(text)
        except RecursionError:
            self._problem("", "nested too deeply", "a policy has tables, values and lists of texts")
        except tomllib.TOMLDecodeError as error:
            self._problem("", f"not TOML: {error}", "correct it", line=_line_in(str(error)))
        except ValueError:
            # Python reads no number of thousands of digits.
            self._problem("", "a number of thousands of digits", "correct it")
        else:
            self._lines = TomlLines(text)
            return document
        return None

    def _sites(self, table: Any) -> dict[str, bytes]:
        if not isinstance(table, dict):
            self._wrong_type("sites", table, 'NAME = "site id"', ("sites",))
            return {}
        if len(table) > _MAX_SITES:
            self._problem("sites", f"{len(table)} names", f"use at most {_MAX_SITES}", ("sites",))
            return {}
        sites: dict[str, bytes] = {}
        for name, site_id in table.items():
            path = ("sites", name)
            place = f"sites, {_shown(name)}"
            if not isinstance(site_id, str):
                self._wrong_type(place, site_id, "a site id, in quotes", path)
                continue
            with self._noting(place, path):
                _check_site_label(name)
                sites[name] = parse_site_id(site_id)
        first_name: dict[bytes, str] = {}
        for name, site_id in sites.items():
            if (other := first_name.setdefault(site_id, name)) != name:
                self._warn(
                    f"sites, {_shown(name)}",
                    f"the same site as {_shown(other)}",
                    "keep one name",
                    ("sites", name),
                )
        return sites

    def _channel(self, name: str, table: Any, sites: Mapping[str, bytes]) -> ChannelSettings | None:
        place, path = f"channel {_shown(name)}", ("channel", name)
        before = len(self.problems)
        with self._noting(place, path):
            check_channel_name(name)
        if not isinstance(table, dict):
            self._wrong_type(place, table, "a table", path)
            return None
        if any(isinstance(value, dict) for value in table.values()) and not _KEYS.keys() & table.keys():
            # [channel.ward/ecg] is no TOML, but [channel.ward.ecg] is, and means another thing.
            self._problem(
                place, "tables inside a channel", f'write [channel."{name}/..."], in quotes', path=path
            )
            return None
        values: dict[str, Any] = {"name": name}
        for key, value in table.items():
            if (field_name := _KEYS.get(key)) is None:
                cure = f"there are: {', '.join(_KEYS)}"
                self._problem(place, f"unknown key {_shown(key)}", cure, path=(*path, key))
                continue
            with self._noting(f"{place}, {key}", (*path, key)):
                if field_name in _RULE_LISTS:
                    values[field_name] = self._rules(place, path, key, value, sites)
                else:
                    values[field_name] = _setting(field_name, value)
        for key in _REQUIRED:
            if key not in table:
                self._problem(place, f"{key} is missing", f"add {_EXAMPLES[key]}", path=path)
        if any(problem.is_error for problem in self.problems[before:]):
            return None
        settings = ChannelSettings(**values)
        self._doubt(settings, place, path)
        return settings

    def _rules(
        self, place: str, path: tuple[str, ...], key: str, value: Any, sites: Mapping[str, bytes]
    ) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise UsageError(
                f"not a list of rules: {_shown(value)}", cure=f'write for example {key} = ["monitor-*"]'
            )
        check_rule_count(len(value))
        rules: dict[str, None] = {}
        for text in value:
            try:
                rule = Rule.parse(text, sites).text()
            except UsageError as error:
                line = self._lines.of_value((*path, key), text)
                self._problem(f"{place}, {key}", error.problem, error.cure, line=line)
                continue
            if rule in rules:
                line = self._lines.of_value((*path, key), text)
                self._warn(f"{place}, {key}", f"{text!r} stands there twice", "remove one", line=line)
            rules[rule] = None
        return tuple(rules)

    def _doubt(self, settings: ChannelSettings, place: str, path: tuple[str, ...]) -> None:
        for problem, cure in doubts_about_group(settings.group):
            self._warn(f"{place}, group", problem, cure, (*path, "group"))
        if settings.port < 1024:
            problem = f"{settings.port} needs privileges on most systems"
            self._warn(f"{place}, port", problem, "use 1024 or above", (*path, "port"))
        for key in ("publish", "subscribe"):
            if not set(getattr(settings, key)) - set(settings.deny):
                cure = "add a rule, if that is not meant"
                self._warn(f"{place}, {key}", f"nobody may {key}", cure, (*path, key))

    def _compare(self, channels: Sequence[ChannelSettings]) -> None:
        """Warn of channels whose packets reach each other's members."""
        seen: dict[tuple[int, int], ChannelSettings] = {}
        for settings in channels:
            other = seen.setdefault(link_address(settings.group), settings)
            if other is settings:
                continue
            is_same = other.group == settings.group
            if is_same and other.port != settings.port:
                continue
            name = _shown(other.name)
            shared = (
                f"the same group and port as channel {name}: members of each get the other's packets"
                if is_same
                else f"{settings.group} shares its Ethernet address with {other.group} of channel {name}: "
                "network cards cannot tell them apart"
            )
            where = ("channel", settings.name, "group")
            cure = "give each channel a group of its own"
            self._warn(f"channel {_shown(settings.name)}, group", shared, cure, where)

    def _wrong_type(self, place: str, value: Any, wanted: str, path: tuple[str, ...]) -> None:
        self._problem(place, f"not {wanted}: {_shown(value)}", f"write {wanted}", path=path)

    def _noting(self, place: str, path: tuple[str, ...]) -> "_Noting":
        return _Noting(self, place, path)

    def _problem(
        self,
        place: str,
        problem: str,
        cure: str,
        path: tuple[str, ...] | None = None,
        *,
        line: int | None = None,
        is_error: bool = True,
    ) -> None:
        if path is not None:
            line = self._lines.of(path)
        self.problems.append(Problem(place=place, problem=problem, cure=cure, line=line, is_error=is_error))

    def _warn(
        self,
        place: str,
        problem: str,
        cure: str,
        path: tuple[str, ...] | None = None,
        *,
        line: int | None = None,
    ) -> None:
        self._problem(place, problem, cure, path, line=line, is_error=False)


class _Noting:
    """Turns a UsageError of the block into a problem."""

    def __init__(self, reader: _Reader, place: str, path: tuple[str, ...]) -> None:
        self._reader, self._place, self._path = reader, place, path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if not isinstance(error, UsageError):
            return False
        self._reader._problem(self._place, error.problem, error.cure, path=self._path)
        return True


def _line_in(message: str) -> int | None:
    """The line that an error of `tomllib` names."""
    _, found, rest = message.rpartition("(at line ")
    digits = rest.partition(",")[0]
    return int(digits) if found and digits.isdigit() else None


def _setting(name: str, value: Any) -> Any:
    """The value of a field from what TOML holds. Raises: UsageError."""
    wanted = int if name in ("port", "suite", "slots_ahead") else str
    if name in _QUANTITIES:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str):
            value = _QUANTITIES[name][0](value)
            check_setting(name, value)
            return value
    elif isinstance(value, wanted) and not isinstance(value, bool):
        check_setting(name, value)
        return value
    kind = "a whole number" if wanted is int else "a text in quotes"
    raise UsageError(f"not {kind}: {_shown(value)}", cure=f"write for example {_EXAMPLES[name]}")


_EXAMPLES = {
    "group": 'group = "239.192.1.1"',
    "port": "port = 5000",
    "interface": 'interface = "eth0"',
    "rate": 'rate = "20Mbit/s"',
    "suite": "suite = 3",
    "slot": 'slot = "1h"',
    "slots_ahead": "slots-ahead = 24",
    "retention": 'retention = "60s"',
    "retention_bytes": 'retention-bytes = "256M"',
    "publisher_limit": 'publisher-limit = "30s"',
    "fec": 'fec = "8+2"',
    "publish": 'publish = ["monitor-*"]',
    "subscribe": 'subscribe = ["display-*"]',
}


def _check_site_label(name: str) -> None:
    try:
        check_device_name(name)
    except UsageError as error:
        raise UsageError(f"not a name for a site: {name[:80]!r}", cure=error.cure) from None
    try:
        parse_site_id(name)
    except UsageError:
        return
    raise UsageError(f"a name for a site that reads as an id: {name!r}", cure="choose a word")


def _shown(value: Any) -> str:
    """A key or a value as a message names it, in one line of bounded length."""
    text = json.dumps(value, ensure_ascii=True, default=str) if not isinstance(value, float) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _value(name: str, value: Any, sites: Mapping[str, bytes]) -> str:
    if name in _RULE_LISTS:
        return "[" + ", ".join(_string(Rule.stored(rule).text(sites)) for rule in value) + "]"
    if name in _QUANTITIES:
        return _string(_QUANTITIES[name][1](value))
    return str(value) if isinstance(value, int) else _string(value)


def _key(name: str) -> str:
    return name if all(c.isascii() and (c.isalnum() or c in "_-") for c in name) else _string(name)


def _string(text: str) -> str:
    # A basic string of TOML is one of JSON, but that it has no DEL in clear.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
