"""The policy of the whole site, as a file: read, compare, apply, explain."""

from collections.abc import Mapping
from typing import Any

from sealcast.authority import policies
from sealcast.authority.admins import AdminRole
from sealcast.authority.api.handling import Answer, Call
from sealcast.authority.api.problems import Problem
from sealcast.authority.api.resources.channels import CHANNEL_NAME
from sealcast.authority.api.resources.shapes import parameters, time_text
from sealcast.authority.api.routing import Route
from sealcast.authority.api.schema import (
    Component,
    JsonSchema,
    flag,
    listed,
    moment,
    nullable,
    number,
    record,
    text,
)
from sealcast.authority.service import Changes
from sealcast.pki.policy_source import MAX_SOURCE_BYTES, PolicySource, read_source

_MAX_BODY_BYTES = 4 * MAX_SOURCE_BYTES
"""JSON makes a source longer."""

_DEVICE = text(
    "A device's name; of another site `site:SITE/NAME`.", pattern="^[!-~]{1,200}$", examples=["monitor-1"]
)
_NAMES = listed(text("A name or a rule."), "In order.")

_SOURCE: dict[str, JsonSchema] = {
    "source": text("TOML, as docs/policy.md tells.", maxLength=MAX_SOURCE_BYTES),
    "file": text("What errors call it.", minLength=1, maxLength=256, default="policy"),
}
SOURCE = Component("PolicySource", record("The policy as a file.", source=_SOURCE["source"]))
COMPARED = Component("ComparedPolicy", record("A policy as a file.", ["source"], **_SOURCE))
APPLIED = Component(
    "AppliedPolicy",
    record(
        "A policy as a file.",
        ["source"],
        **_SOURCE,
        force={**flag("Also if that stops a channel that is in use."), "default": False},
    ),
)
_CHANGED = record("What comes and what goes.", added=_NAMES, removed=_NAMES)
CHANGE = Component(
    "PolicyChange",
    record(
        "What a source changes, or would.",
        is_empty=flag("Everything stays as it is."),
        channels=listed(
            record(
                "A channel that changes.",
                name=text("Its name."),
                is_new=flag("It is made."),
                settings={"type": "object", "description": "Before and after, by key."},
                rules={"type": "object", "description": "Rules that come and go, by list."},
                publishers=_CHANGED,
                subscribers=_CHANGED,
            ),
            "In the order of the source.",
        ),
        sites=_CHANGED,
        untouched=listed(text("A channel."), "Not named by the source; they stay as they are."),
        idle=listed(text("A rule."), "Rules that match no device now."),
    ),
)
_VERDICT = record(
    "Whether it may.",
    allowed=flag("The signed policy lists it."),
    rule=nullable(text("The rule that decides.")),
    reason=text("Why."),
)
EXPLANATION = Component(
    "Explanation",
    record(
        "What a device may do on a channel, and why.",
        channel=text("The channel."),
        device=text("The device, as a policy writes it."),
        roles=listed(text("A role."), "Its roles."),
        version=number("Version of the signed policy."),
        issued=moment("When it was signed."),
        next_update=moment("From then on no peer obeys it."),
        publish=_VERDICT,
        subscribe=_VERDICT,
        notes=listed(text("A note."), "What keeps it out although the policy lists it."),
    ),
)


def _read(body: Mapping[str, Any]) -> PolicySource:
    return read_source(body["source"].encode()).accepted(body["file"])


def _show(call: Call) -> Answer:
    return Answer(body={"source": policies.show(call.session)})


def _compare(call: Call) -> Answer:
    return Answer(body=policies.compare(call.session, call.site, call.given).to_json())


def _apply(call: Call) -> Answer:
    change, stored = policies.apply(call.session, call.site, call.given, call.now, force=call.body["force"])
    return Answer(body=change.to_json(), changes=Changes(channels=stored))


def _explain(call: Call) -> Answer:
    answer = policies.explain(call.session, call.site, call.path["device"], call.path["channel"], call.now)
    times = {name: time_text(answer[name]) for name in ("issued", "next_update")}
    return Answer(body=answer | times)


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/v1/policy",
        name="getPolicySource",
        role=AdminRole.VIEWER,
        summary="show policy source",
        description="The channels of the site as a file; applied, it changes nothing.",
        answer=SOURCE,
        handler=_show,
        tagged=True,
    ),
    Route(
        method="PUT",
        path="/v1/policy",
        name="applyPolicy",
        role=AdminRole.OPERATOR,
        summary="apply policy",
        description="Makes the channels what the file says, all at once. Devices that lose access are "
        "removed under a fresh generation of keys before this is answered; what would stop a channel that "
        "is in use is refused without `force`.",
        answer=CHANGE,
        handler=_apply,
        body=APPLIED,
        max_body_bytes=_MAX_BODY_BYTES,
        read_body=_read,
        problems=(Problem.CONFLICT, Problem.REFUSED),
    ),
    Route(
        method="POST",
        path="/v1/policy/comparison",
        name="comparePolicy",
        role=AdminRole.VIEWER,
        summary="compare policy",
        description="Says what applying the file would change, and changes nothing.",
        answer=CHANGE,
        handler=_compare,
        body=COMPARED,
        only_reads=True,
        max_body_bytes=_MAX_BODY_BYTES,
        read_body=_read,
        problems=(Problem.CONFLICT, Problem.REFUSED),
    ),
    Route(
        method="GET",
        path="/v1/channels/{channel}/explanations/{device}",
        name="explainPolicy",
        role=AdminRole.VIEWER,
        summary="explain policy",
        description="What a device may do on a channel, by which rule and in which signed version; or why "
        "not.",
        answer=EXPLANATION,
        handler=_explain,
        parameters=parameters(channel=CHANNEL_NAME, device=_DEVICE),
        problems=(Problem.UNKNOWN, Problem.REFUSED),
    ),
)
