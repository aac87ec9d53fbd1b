"""Channels: list, add, change who may take part.

There is no removal: a channel of the same name made later would have the same id and start its versions and
epochs again from 1 (invariant 8). One that is not wanted any more is left without members.
"""

from typing import Any

from sqlalchemy import select

from sealcast.authority import channels
from sealcast.authority.admins import AdminRole
from sealcast.authority.api.handling import Answer, Call
from sealcast.authority.api.problems import Problem
from sealcast.authority.api.resources.shapes import page, page_of, parameters
from sealcast.authority.api.routing import PAGE, Route
from sealcast.authority.api.schema import Component, JsonSchema, listed, nullable, number, record, text
from sealcast.authority.models import ChannelRow
from sealcast.authority.service import Changes
from sealcast.authority.stored_channel import channel_row
from sealcast.pki.channel_settings import ChannelSettings
from sealcast.pki.policy import MAX_SLOTS_AHEAD, SUITES
from sealcast.pki.policy_rules import MAX_RULES
from sealcast.pki.quantities import MAX_AMOUNT, MAX_DURATION, MAX_RATE, MIN_RATE

CHANNEL_NAME = text(
    "A channel's name: 1 to 127 letters, digits, dots, slashes, underscores and hyphens, a letter or digit "
    "first.",
    pattern="^[A-Za-z0-9][A-Za-z0-9._/-]{0,126}$",
    examples=["ward-3/ecg"],
)
"""TR-2. In a path its slashes are percent-encoded."""

_MULTICAST = (
    "^(?:(?:22[4-9]|23[0-9])(?:\\.(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])){3}"
    "|[fF]{2}[0-9a-fA-F]{2}:[0-9a-fA-F:.]{1,40})$"
)
_DEFAULTS = {name: field.default for name, field in ChannelSettings.__dataclass_fields__.items()}


def _duration(description: str, name: str, least: int) -> JsonSchema:
    return number(
        f"{description}, in microseconds.", minimum=least, maximum=MAX_DURATION, default=_DEFAULTS[name]
    )


def _rules(description: str, **words: Any) -> JsonSchema:
    rule = text(
        "A glob over device names, `role:GLOB`, or `site:SITE ID/NAME`.",
        pattern="^[!-~]{1,200}$",
        examples=["monitor-*"],
    )
    return listed(rule, description, maxItems=MAX_RULES, **words)


_SETTINGS: dict[str, JsonSchema] = {
    "name": CHANNEL_NAME,
    "group": text("IPv4 or IPv6 multicast address.", pattern=_MULTICAST, examples=["239.192.0.1"]),
    "port": number("UDP port.", minimum=1, maximum=65535),
    "publish": _rules("Who may publish."),
    "subscribe": _rules("Who may subscribe."),
    "deny": _rules("Who may do neither, whatever the others say.", default=[]),
    "interface": nullable(text("Network interface of the data path.", pattern="^[!-~]{1,64}$", default=None)),
    "rate": number(
        "Most bits a second of one publisher.", minimum=MIN_RATE, maximum=MAX_RATE, default=_DEFAULTS["rate"]
    ),
    "suite": {
        "type": "integer",
        "description": "1: AES-256-GCM, SHA-256; 2: ChaCha20-Poly1305, SHA-256; 3: AES-256-GCM, BLAKE3.",
        "enum": list(SUITES),
        "default": _DEFAULTS["suite"],
    },
    "slot_us": _duration("How often slot keys turn", "slot", 100_000),
    "slots_ahead": number(
        "Slots that members may fetch ahead.",
        minimum=1,
        maximum=MAX_SLOTS_AHEAD,
        default=_DEFAULTS["slots_ahead"],
    ),
    "retention_us": _duration("For how long publishers keep packets for repair", "retention", 100_000),
    "retention_bytes": number(
        "How much they keep.", minimum=1, maximum=MAX_AMOUNT, default=_DEFAULTS["retention_bytes"]
    ),
    "publisher_limit_us": _duration(
        "How long after a removal packets of the old generation may still be sealed", "publisher_limit", 1
    ),
    "fec": text(
        "Parity of publishers that say nothing themselves: so many packets after so many, `auto` for what "
        "reported losses ask for, or `off`.",
        pattern="^(?:off|auto|[1-9][0-9]?[+][1-9][0-9]?)$",
        examples=["8+2"],
        default=_DEFAULTS["fec"],
    ),
}

NEW_CHANNEL = Component(
    "NewChannel",
    record("A channel to be made.", ["name", "group", "port", "publish", "subscribe"], **_SETTINGS),
)
MEMBERS = Component(
    "ChannelMembers",
    {
        **record(
            "Who may take part; what is left out stays as it is.",
            [],
            publish=_rules("Replaces everyone who may publish; empty: nobody."),
            subscribe=_rules("Replaces everyone who may subscribe; empty: nobody."),
        ),
        "minProperties": 1,
    },
)


def _as_answered(schema: JsonSchema) -> JsonSchema:
    return {word: value for word, value in schema.items() if word != "default"}


_AT_MOST = f"at most {channels.MOST_DESCRIBED:,}, by name; its latest policy has all of them."

CHANNEL = Component(
    "Channel",
    record(
        "A channel and who may take part.",
        **{name: _as_answered(schema) for name, schema in _SETTINGS.items()},
        channel_id=text("64 hexadecimal digits (DP-3).", pattern="^[0-9a-f]{64}$"),
        policy_version=number("Version of the policy in force.", minimum=1),
        publishers=listed(text("A device."), f"Devices that the policy lists, {_AT_MOST}"),
        publisher_count=number("How many they are.", minimum=0),
        subscribers=listed(text("A device."), f"Devices that the policy lists, {_AT_MOST}"),
        subscriber_count=number("How many they are.", minimum=0),
    ),
)
CHANNELS = page_of(CHANNEL, "Channels", "A page of channels, by name.")


def _list(call: Call) -> Answer:
    limit = call.query["limit"]
    rows = call.session.scalars(
        select(ChannelRow)
        .where(ChannelRow.name > call.query.get("after", ""))
        .order_by(ChannelRow.name)
        .limit(limit + 1)
    ).all()
    return Answer(body=page([channels.describe_channel(call.session, row) for row in rows], limit, "name"))


def _show(call: Call) -> Answer:
    return Answer(body=_described(call, call.path["channel"]))


def _add(call: Call) -> Answer:
    # The wire says the unit in the name; the settings say it in their docstrings.
    values: dict[str, Any] = {name.removesuffix("_us"): value for name, value in call.body.items()}
    values |= {word: tuple(values[word]) for word in ("publish", "subscribe", "deny")}
    stored = channels.add_channel(call.session, call.site, ChannelSettings(**values), call.now)
    return Answer(body=_described(call, stored.name), changes=Changes(channels=[stored]))


def _set_members(call: Call) -> Answer:
    name = call.path["channel"]
    call.check_match(_described(call, name))
    publish, subscribe = (
        tuple(rules) if (rules := call.body.get(word)) is not None else None
        for word in ("publish", "subscribe")
    )
    stored = channels.set_members(
        call.session, call.site, name, publish=publish, subscribe=subscribe, now=call.now
    )
    return Answer(body=_described(call, name), changes=Changes(channels=[stored]))


def _described(call: Call, name: str) -> dict[str, Any]:
    return channels.describe_channel(call.session, channel_row(call.session, name))


_CHANNEL = parameters(channel=CHANNEL_NAME)

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/v1/channels",
        name="listChannels",
        role=AdminRole.VIEWER,
        summary="list channels",
        description="Channels by name, in pages.",
        answer=CHANNELS,
        handler=_list,
        query=PAGE,
    ),
    Route(
        method="POST",
        path="/v1/channels",
        name="addChannel",
        role=AdminRole.OPERATOR,
        summary="add channel",
        description="Makes a channel with its first policy and its first keys; it is served at once. A "
        "channel cannot be removed, as its name must never stand for another history; leave it without "
        "members instead.",
        answer=CHANNEL,
        handler=_add,
        status=201,
        body=NEW_CHANNEL,
        tagged=True,
        problems=(Problem.CONFLICT, Problem.REFUSED),
    ),
    Route(
        method="GET",
        path="/v1/channels/{channel}",
        name="getChannel",
        role=AdminRole.VIEWER,
        summary="show channel",
        description="A channel and who may take part.",
        answer=CHANNEL,
        handler=_show,
        parameters=_CHANNEL,
        tagged=True,
        problems=(Problem.UNKNOWN,),
    ),
    Route(
        method="PATCH",
        path="/v1/channels/{channel}/members",
        name="setMembers",
        role=AdminRole.OPERATOR,
        summary="set members",
        description="Replaces who may publish, who may subscribe, or both. Members that no longer match are "
        "removed under a fresh generation of keys before this is answered.",
        answer=CHANNEL,
        handler=_set_members,
        parameters=_CHANNEL,
        body=MEMBERS,
        tagged=True,
        conditional=True,
        problems=(Problem.UNKNOWN, Problem.REFUSED),
    ),
)
