"""The TOML form of a site's policy: what is refused, with line, place, value and cure; and the way back."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealcast.errors import ConfigError, UsageError
from sealcast.pki.channel_settings import ChannelSettings
from sealcast.pki.policy_rules import Rule
from sealcast.pki.policy_source import MAX_SOURCE_BYTES, PolicySource, Problem, read_source, write_source
from sealcast.pki.quantities import (
    MAX_RATE,
    MIN_RATE,
    format_duration,
    format_rate,
    format_size,
    parse_duration,
    parse_rate,
    parse_size,
)
from tests.pki.test_names import CHANNEL_NAMES, DEVICE_NAMES, SITE_IDS
from tests.pki.test_policy_rules import RULES, SITES

WARD = """\
[sites]
north = "000102030405060708090a0b0c0d0e0f"

[channel."ward/ecg"]
group = "239.192.1.1"
port = 5000
interface = "eth1"
rate = "5Mbit/s"
slot = "30m"
slots-ahead = 12
retention = 90
retention-bytes = "64M"
publisher-limit = "10s"
fec = "25%"
suite = 2
publish = ["monitor-*", "role:monitor"]
subscribe = [
  "role:display",
  "site:north/central",
]
deny = ["monitor-13"]
"""


def accepted(text: str) -> PolicySource:
    return read_source(text.encode()).accepted("policy.toml")


def problems(text: str | bytes) -> tuple[Problem, ...]:
    return read_source(text if isinstance(text, bytes) else text.encode()).problems


def ward(**changes: str) -> str:
    """One channel, with keys as they are given; an empty text leaves a key out."""
    keys = {
        "group": '"239.192.1.1"',
        "port": "5000",
        "publish": '["monitor-*"]',
        "subscribe": '["display-*"]',
        **changes,
    }
    lines = [f"{key.replace('_', '-')} = {value}" for key, value in keys.items() if value]
    return "\n".join(['[channel."ward/ecg"]', *lines, ""])


def test_a_source_says_everything() -> None:
    source = accepted(WARD)
    assert source.sites == {"north": bytes(range(16))}
    (settings,) = source.channels
    assert settings == ChannelSettings(
        name="ward/ecg", group="239.192.1.1", port=5000, interface="eth1", rate=5_000_000, slot=1_800_000_000,
        slots_ahead=12, retention=90_000_000, retention_bytes=64 << 20, publisher_limit=10_000_000, suite=2,
        publish=("monitor-*", "role:monitor"), deny=("monitor-13",), fec="64+16",
        subscribe=("role:display", "site:000102030405060708090a0b0c0d0e0f/central"),
    )  # fmt: skip
    assert problems(WARD) == ()


def test_what_is_left_out_has_the_default() -> None:
    (settings,) = accepted(ward()).channels
    assert settings == ChannelSettings(
        name="ward/ecg", group="239.192.1.1", port=5000, publish=("monitor-*",), subscribe=("display-*",)
    )


@pytest.mark.parametrize(
    ("text", "line", "place", "value"),
    [
        ("colour = 1", 1, "", '"colour"'),
        ("[channel]\nx = 1", 2, 'channel "x"', "1"),
        ("channel = 1", 1, "channel", "1"),
        ("sites = 1", 1, "sites", "1"),
        ("[sites]\nnorth = 5", 2, 'sites, "north"', "5"),
        ('[sites]\nnorth = "5"', 2, 'sites, "north"', "'5'"),
        ('[sites]\n"a b" = "000102030405060708090a0b0c0d0e0f"', 2, 'sites, "a b"', "'a b'"),
        (f'[sites]\n{"0" * 32} = "000102030405060708090a0b0c0d0e0f"', 2, "sites", "reads as an id"),
        ('[channel."/ecg"]\n' + ward().partition("\n")[2], 1, 'channel "/ecg"', "'/ecg'"),
        ("[channel.ward.ecg]\nport = 1", 1, 'channel "ward"', "tables inside"),
        (ward(colour="1"), 6, "ward/ecg", '"colour"'),
        (ward(group='"10.0.0.1"'), 2, "group", "'10.0.0.1'"),
        (ward(group='"nowhere"'), 2, "group", "'nowhere'"),
        (ward(group='"224.0.0.5"'), 2, "group", "224.0.0.5"),
        (ward(group='"ff15::1%eth0"'), 2, "group", "ff15::1%eth0"),
        (ward(group='"ff10::1"'), 2, "group", "ff10::1"),
        (ward(group="239"), 2, "group", "239"),
        (ward(port="0"), 3, "port", "0"),
        (ward(port="65536"), 3, "port", "65536"),
        (ward(port='"5000"'), 3, "port", '"5000"'),
        (ward(port="true"), 3, "port", "true"),
        (ward(port="5000.0"), 3, "port", "5000.0"),
        (ward(interface='""'), 6, "interface", "''"),
        (ward(interface='"eth 0"'), 6, "interface", "'eth 0'"),
        (ward(interface="0"), 6, "interface", "0"),
        (ward(rate='"fast"'), 6, "rate", "'fast'"),
        (ward(rate='"63kbit/s"'), 6, "rate", "'63kbit/s'"),
        (ward(rate="0"), 6, "rate", "'0'"),
        (ward(rate="-1"), 6, "rate", "'-1'"),
        (ward(rate="1.5"), 6, "rate", "1.5"),
        (ward(slot='"1y"'), 6, "slot", "'1y'"),
        (ward(slot='"1ms"'), 6, "slot", "1000 µs"),
        (ward(slots_ahead="31"), 6, "slots-ahead", "31"),
        (ward(suite="4"), 6, "suite", "4"),
        (ward(retention="nan"), 6, "retention", "nan"),
        (ward(retention="2020-01-01"), 6, "retention", "2020-01-01"),
        (ward(retention_bytes='"1T"'), 6, "retention-bytes", "'1T'"),
        (ward(publisher_limit="[]"), 6, "publisher-limit", "[]"),
        (ward(fec='"8"'), 6, "fec", "'8'"),
        (ward(fec='"65+2"'), 6, "fec", "'65+2'"),
        (ward(fec='"201%"'), 6, "fec", "'201%'"),
        (ward(fec="8"), 6, "fec", "'8'"),
        (ward(fec="true"), 6, "fec", "true"),
        (ward(publish='"monitor-*"'), 4, "publish", '"monitor-*"'),
        (ward(publish="[1]"), 4, "publish", "[1]"),
        (ward(publish="[\n'a',\n'b c']"), 6, "publish", "'b c'"),
        (ward(publish='["site:south/a"]'), 4, "publish", "'south'"),
        (ward(publish='["site:north/*"]'), 4, "publish", "'site:north/*'"),
        (ward(deny='["["]'), 6, "deny", "'['"),
        (ward(publish=str([f"m{n}" for n in range(1001)])), 4, "publish", "1001"),
        (ward(group=""), 1, "ward/ecg", "group is missing"),
        (ward(port=""), 1, "ward/ecg", "port is missing"),
        (ward(publish=""), 1, "ward/ecg", "publish is missing"),
        (ward(subscribe=""), 1, "ward/ecg", "subscribe is missing"),
        (ward() + ward(), 6, "", "not TOML"),
        (ward(port="5000\nport = 5001"), 4, "", "not TOML"),
        ("[channel", None, "", "not TOML"),
        ("a = " + "[" * 5000, None, "", "nested"),
        ("a = " + "9" * 5000, None, "", "digits"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_line_place_value_and_cure(
    text: str, line: int | None, place: str, value: str
) -> None:
    reading = read_source(text.encode())
    assert reading.source is None
    (problem,) = [problem for problem in reading.problems if problem.is_error]
    assert problem.line == line
    assert place in problem.place
    assert value in problem.problem + problem.place
    assert problem.cure
    shown = problem.text("policy.toml")
    assert "\n" not in shown
    assert len(shown) < 500
    with pytest.raises(ConfigError, match=r"policy\.toml"):
        reading.accepted("policy.toml")


def test_bytes_that_are_no_text() -> None:
    (problem,) = problems(b"# \n\xff")
    assert (problem.line, problem.is_error) == (2, True)
    (problem,) = problems(b"#" * (MAX_SOURCE_BYTES + 1))
    assert str(MAX_SOURCE_BYTES + 1) in problem.problem


def test_every_mistake_is_told_at_once_in_the_order_of_the_file() -> None:
    text = ward(port="0", rate="0", publish='["[", "!"]')
    found = problems(text)
    assert [problem.line for problem in found] == [3, 4, 4, 6]
    with pytest.raises(ConfigError) as caught:
        read_source(text.encode()).accepted("policy.toml")
    assert "3 more" in caught.value.cure


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", None, "no channel"),
        (ward(group='"239.0.0.5"'), 2, "224.0.0.0/24"),
        (ward(group='"224.1.2.3"'), 2, "239.0.0.0/8"),
        (ward(group='"ff05::1:3"'), 2, "IANA"),
        (ward(port="80"), 3, "80"),
        (ward(publish="[]"), 4, "nobody may publish"),
        (ward(subscribe='["a"]', deny='["a"]'), 5, "nobody may subscribe"),
        (ward(publish='["a", "a"]'), 4, "twice"),
        (ward() + ward().replace("ecg", "bp"), 7, "same group and port"),
        (ward() + ward(group='"239.64.1.1"').replace("ecg", "bp"), 7, "239.192.1.1"),
        (ward(group='"ff15::1:1"') + ward(group='"ff18::1:1"').replace("ecg", "bp"), 7, "ff15::1:1"),
        (f'[sites]\na = "{"0" * 32}"\nb = "{"0" * 32}"\n' + ward(), 3, "the same site"),
    ],
)
def test_a_doubt_is_a_warning(text: str, line: int | None, words: str) -> None:
    reading = read_source(text.encode())
    assert reading.source is not None
    (problem,) = reading.problems
    assert not problem.is_error
    assert problem.line == line
    assert words in problem.problem


@pytest.mark.parametrize("other", [ward(port="5001"), ward(group='"239.192.1.2"')])
def test_channels_that_only_look_alike_are_fine(other: str) -> None:
    assert problems(ward() + other.replace("ecg", "bp")) == ()


SETTINGS = st.fixed_dictionaries(
    {
        "name": CHANNEL_NAMES,
        "group": st.sampled_from(["239.192.1.1", "239.255.255.1", "ff15::7:1"]),
        "port": st.integers(1, 65535),
        "interface": st.none() | st.from_regex(r"[!-~]{1,15}", fullmatch=True) | st.just("ü\N{SNOWMAN}"),
        "rate": st.integers(MIN_RATE, MAX_RATE),
        "suite": st.sampled_from([1, 2, 3]),
        "slot": st.integers(100_000, 10**14),
        "slots_ahead": st.integers(1, 30),
        "retention": st.integers(100_000, 10**14),
        "retention_bytes": st.integers(1, 2**49),
        "publisher_limit": st.integers(1, 10**14),
        "fec": st.sampled_from(["off", "auto", "8+2", "64+16"]),
        "publish": st.lists(RULES, max_size=4),
        "subscribe": st.lists(RULES, max_size=4),
        "deny": st.lists(RULES, max_size=2),
    }
)


def canonical(texts: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(Rule.parse(text, SITES).text() for text in texts))


@given(
    st.lists(SETTINGS, max_size=3, unique_by=lambda settings: settings["name"]),
    st.dictionaries(DEVICE_NAMES.filter(lambda name: len(name) < 32), SITE_IDS, max_size=3),
)
def test_what_is_written_is_read_back(drawn: list[dict[str, Any]], sites: Mapping[str, bytes]) -> None:
    """Source and settings are one pair, whatever the rules are."""
    wanted = [
        ChannelSettings(
            **{
                **settings,
                "publish": canonical(settings["publish"]),
                "subscribe": canonical(settings["subscribe"]),
                "deny": canonical(settings["deny"]),
            }
        )
        for settings in drawn
    ]
    text = write_source([asdict(settings) for settings in wanted], sites)
    source = accepted(text)
    assert list(source.channels) == wanted
    assert source.sites == sites
    assert write_source([asdict(settings) for settings in source.channels], source.sites) == text


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_judged(data: bytes) -> None:
    reading = read_source(data)
    assert (reading.source is None) == any(problem.is_error for problem in reading.problems)


TOML_VALUES = st.recursive(
    st.booleans() | st.integers(-10, 10**20) | st.floats() | st.text(max_size=8) | RULES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["group", "port", "interface", "rate", "suite", "slot", "slots-ahead", "retention", "retention-bytes",
     "publisher-limit", "fec", "publish", "subscribe", "deny", "channel", "sites", "x"]
)  # fmt: skip


def toml(value: Any) -> str:
    """A value in TOML; floats and texts as JSON writes them are the same there, or no TOML at all."""
    match value:
        case dict():
            return "{" + ", ".join(f"{json.dumps(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case _:
            return json.dumps(value)


@given(
    st.dictionaries(
        st.text(max_size=6) | CHANNEL_NAMES, st.dictionaries(KEYS, TOML_VALUES, max_size=6), max_size=2
    ),
    st.dictionaries(KEYS, TOML_VALUES, max_size=2),
)
def test_any_toml_is_judged(channels: dict[str, dict[str, Any]], rest: dict[str, Any]) -> None:
    lines = [f"{json.dumps(key)} = {toml(value)}" for key, value in rest.items()]
    for name, table in channels.items():
        lines += [
            f"[channel.{json.dumps(name)}]",
            *(f"{key} = {toml(value)}" for key, value in table.items()),
        ]
    reading = read_source("\n".join(lines).encode())
    for problem in reading.problems:
        assert problem.cure
        assert "\n" not in problem.text("policy.toml")
    if reading.source is not None:
        for settings in reading.source.channels:
            settings.rules()


@given(st.integers(1, 3 * 10**14), st.integers(MIN_RATE, MAX_RATE), st.integers(1, 10**15))
def test_amounts_are_written_so_that_they_are_read_as_they_were(duration: int, rate: int, size: int) -> None:
    assert parse_duration(format_duration(duration)) == duration
    assert parse_rate(format_rate(rate)) == rate
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("amount", "text"), [(90_000_000, "90s"), (3_600_000_000, "1h"), (500_000, "500ms"), (7, "7us")]
)
def test_durations_are_written_as_people_do(amount: int, text: str) -> None:
    assert format_duration(amount) == text


@pytest.mark.parametrize(
    "changes",
    [{"deny": ("[",)}, {"retention_bytes": 0}, {"publisher_limit": 0}, {"rate": 1}, {"interface": ""}],
    ids=str,
)
def test_settings_are_checked_wherever_they_are_made(changes: dict[str, Any]) -> None:
    values: dict[str, Any] = {"name": "a", "group": "239.1.1.1", "port": 1, "publish": (), "subscribe": ()}
    assert ChannelSettings(**values).name == "a"
    with pytest.raises(UsageError):
        ChannelSettings(**values, **changes)
