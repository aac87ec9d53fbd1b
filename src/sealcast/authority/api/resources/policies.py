"""Policies: the versions of each channel's, as signed."""

import base64
from typing import Any

from sqlalchemy import select

from sealcast.authority import policy_versions
from sealcast.authority.admins import AdminRole
from sealcast.authority.api.handling import Answer, Call
from sealcast.authority.api.problems import Problem
from sealcast.authority.api.resources.channels import CHANNEL_NAME
from sealcast.authority.api.resources.shapes import page, page_of, parameters, time_text
from sealcast.authority.api.routing import PAGE, Route
from sealcast.authority.api.schema import Component, listed, moment, number, record, text
from sealcast.authority.models import PolicyRow
from sealcast.authority.policy_versions import StoredPolicy
from sealcast.authority.stored_channel import channel_row
from sealcast.errors import UnknownNameError

_MAX_VERSION = 2**62
_VERSION = number("From 1; it only grows, with gaps after a restore.", minimum=1, maximum=_MAX_VERSION)
_VERSION_PARAMETER = text("A version, or `latest`.", pattern="^(?:latest|[1-9][0-9]{0,17})$")

_FIELDS: dict[str, Any] = {
    "version": _VERSION,
    "issued": moment("When it was signed."),
    "next_update": moment("From then on no peer obeys it."),
    "publishers": listed(text("A device."), "Who may publish."),
    "subscribers": listed(text("A device."), "Who may subscribe."),
}

POLICY = Component("Policy", record("A version of a channel's policy.", **_FIELDS))
POLICIES = page_of(POLICY, "Policies", "A page of versions, latest first.")
SIGNED_POLICY = Component(
    "SignedPolicy",
    record(
        "A version of a channel's policy, as every peer checks it.",
        **_FIELDS,
        signed=text("The signed object (TR-13), base64."),
    ),
)


def _list(call: Call) -> Answer:
    row = channel_row(call.session, call.path["channel"])
    limit = call.query["limit"]
    chosen = select(PolicyRow).where(PolicyRow.channel == row.name)
    if "after" in call.query:
        chosen = chosen.where(PolicyRow.version < call.query["after"])
    rows = call.session.scalars(chosen.order_by(PolicyRow.version.desc()).limit(limit + 1)).all()
    versions = [policy_versions.load_version(call.session, each) for each in rows]
    return Answer(body=page([_json(each) for each in versions], limit, "version"))


def _show(call: Call) -> Answer:
    row = channel_row(call.session, call.path["channel"])
    wanted = call.path["version"]
    chosen = select(PolicyRow).where(PolicyRow.channel == row.name)
    if wanted != "latest":
        chosen = chosen.where(PolicyRow.version == int(wanted))
    found = call.session.scalars(chosen.order_by(PolicyRow.version.desc()).limit(1)).first()
    if found is None:
        raise UnknownNameError(
            f"channel {row.name!r} has no policy of version {wanted}", cure="see the list of its policies"
        )
    policy = policy_versions.load_version(call.session, found)
    return Answer(body=_json(policy) | {"signed": base64.b64encode(policy.signed).decode("ascii")})


def _json(policy: StoredPolicy) -> dict[str, Any]:
    return {
        "version": policy.version.version,
        "issued": time_text(policy.issued),
        "next_update": time_text(policy.next_update),
        "publishers": list(policy.publishers),
        "subscribers": list(policy.subscribers),
    }


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/v1/channels/{channel}/policies",
        name="listPolicies",
        role=AdminRole.VIEWER,
        summary="list policies",
        description="The versions of a channel's policy, latest first, in pages.",
        answer=POLICIES,
        handler=_list,
        parameters=parameters(channel=CHANNEL_NAME),
        query={**PAGE, "after": _VERSION},
        problems=(Problem.UNKNOWN,),
    ),
    Route(
        method="GET",
        path="/v1/channels/{channel}/policies/{version}",
        name="getPolicy",
        role=AdminRole.VIEWER,
        summary="show policy",
        description="One version of a channel's policy, with the signed object itself.",
        answer=SIGNED_POLICY,
        handler=_show,
        parameters=parameters(channel=CHANNEL_NAME, version=_VERSION_PARAMETER),
        tagged=True,
        problems=(Problem.UNKNOWN,),
    ),
)
