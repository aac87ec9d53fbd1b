"""The switches of enrolment (EST, RFC 7030)."""

from dataclasses import asdict
from typing import Any

from sealcast.authority.admins import AdminRole
from sealcast.authority.api.handling import Answer, Call
from sealcast.authority.api.routing import Route
from sealcast.authority.api.schema import Component, flag, listed, number, record, text
from sealcast.authority.est_state import load_settings, load_state, set_settings
from sealcast.authority.service import Changes
from sealcast.est.settings import MAX_LABELS
from sealcast.pki.quantities import MAX_DURATION

_SWITCHES = {
    "labels": listed(
        text("A label.", pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", examples=["ward-3"]),
        "Under which the operations are offered besides the site's id: /.well-known/est/LABEL/.",
        maxItems=MAX_LABELS,
    ),
    "server_keygen": flag("Whether private keys are made for devices that ask for it (/serverkeygen)."),
    "linking_required": flag(
        "Whether every request must be bound to its TLS session, which then is one of TLS 1.2."
    ),
    "strict_bodies": flag("Whether requests in PEM armour or raw DER are refused."),
    "approve_tokens": flag("Whether first enrolments by token wait for approval."),
    "open_requests": flag("Whether devices without a token may ask, and wait for approval."),
    "recovery_grace_us": number(
        "For how long after its certificate's end a device may recover by itself, in microseconds; 0: never.",
        minimum=0,
        maximum=MAX_DURATION,
    ),
}

SETTINGS = Component("EnrolmentSettings", record("The switches in force.", **_SWITCHES))
NEW_SETTINGS = Component(
    "NewEnrolmentSettings",
    {**record("Those to be changed; the others stay.", [], **_SWITCHES), "minProperties": 1},
)


def _show(call: Call) -> Answer:
    return Answer(body=_json(call))


def _set(call: Call) -> Answer:
    call.check_match(_json(call))
    set_settings(call.session, call.now, call.body)
    call.session.flush()
    return Answer(body=_json(call), changes=Changes(est=load_state(call.session)))


def _json(call: Call) -> dict[str, Any]:
    settings = load_settings(call.session)
    return {**asdict(settings), "labels": list(settings.labels)}


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/v1/enrolment",
        name="getEnrolment",
        role=AdminRole.VIEWER,
        summary="show enrolment",
        description="The switches of enrolment.",
        answer=SETTINGS,
        handler=_show,
        tagged=True,
    ),
    Route(
        method="PATCH",
        path="/v1/enrolment",
        name="setEnrolment",
        role=AdminRole.SECURITY_OFFICER,
        summary="set enrolment",
        description="Changes switches of enrolment; they count from the next request of a device on, those "
        "that concern TLS from the next connection on.",
        answer=SETTINGS,
        handler=_set,
        body=NEW_SETTINGS,
        tagged=True,
        conditional=True,
    ),
)
