"""Makers whose certificates (IDevIDs) admit to a first enrolment."""

from typing import Any

from sqlalchemy import select

from sealcast.authority import makers
from sealcast.authority.admins import AdminRole
from sealcast.authority.api.handling import Answer, Call
from sealcast.authority.api.problems import Problem
from sealcast.authority.api.resources.shapes import (
    CERTIFICATE,
    CHANGED,
    certificate_json,
    page,
    page_of,
    parameters,
    time_text,
)
from sealcast.authority.api.routing import PAGE, Route
from sealcast.authority.api.schema import Component, listed, moment, number, record, text
from sealcast.authority.est_state import load_state
from sealcast.authority.models import MakerRow
from sealcast.authority.service import Changes
from sealcast.pki.certificates import parse_pem_certificates
from sealcast.pki.idevid import MAX_CERTIFICATES, NameRule

_FINGERPRINT = text("SHA-256 of the root, hexadecimal.", pattern="^[0-9a-f]{64}$")
_RULE = text(
    "Which device name a certificate may enrol as: serial-number (of its subject), hardware-serial "
    "(hwSerialNum of its hardwareModuleName), approval (any, once approved).",
    enum=[str(rule) for rule in NameRule],
)
_MAX_PEM = 256 * 1024

MAKER = Component(
    "Maker",
    record(
        "A maker of devices.",
        fingerprint=_FINGERPRINT,
        subject=text("Distinguished name of the root (RFC 4514)."),
        name=_RULE,
        certificates=listed(CERTIFICATE, "The root, then the CA certificates below it."),
        crls=number("How many revocation lists are given.", minimum=0),
        added=moment("When it was added, or last changed."),
    ),
)
MAKERS = page_of(MAKER, "Makers", "A page of makers, by fingerprint.")
NEW_MAKER = Component(
    "NewMaker",
    record(
        "A maker to be admitted.",
        ["certificates"],
        certificates=text(
            f"PEM: one root, and up to {MAX_CERTIFICATES - 1} CA certificates below it.", maxLength=_MAX_PEM
        ),
        crls=text("PEM: the maker's revocation lists.", maxLength=8 * _MAX_PEM, default=""),
        name={**_RULE, "default": str(NameRule.APPROVAL)},
    ),
)


def _list(call: Call) -> Answer:
    limit = call.query["limit"]
    rows = call.session.scalars(
        select(MakerRow)
        .where(MakerRow.fingerprint > bytes.fromhex(call.query.get("after", "")))
        .order_by(MakerRow.fingerprint)
        .limit(limit + 1)
    ).all()
    return Answer(body=page([_json(row) for row in rows], limit, "fingerprint"))


def _add(call: Call) -> Answer:
    body = call.body
    maker = makers.parse_maker(body["certificates"], NameRule(body["name"]), body["crls"])
    makers.add_maker(call.session, maker, call.now)
    row = call.session.get_one(MakerRow, maker.fingerprint)
    return Answer(body=_json(row), changes=Changes(est=load_state(call.session)))


def _remove(call: Call) -> Answer:
    makers.remove_maker(call.session, bytes.fromhex(call.path["maker"]), call.now)
    call.session.flush()
    return Answer(body={"changed": True}, changes=Changes(est=load_state(call.session)))


def _json(row: MakerRow) -> dict[str, Any]:
    return {
        "fingerprint": row.fingerprint.hex(),
        "subject": row.subject,
        "name": row.rule,
        "certificates": [certificate_json(der) for der in parse_pem_certificates(row.certificates)],
        "crls": row.crls.count(makers.CRL_HEAD),
        "added": time_text(row.added),
    }


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/v1/makers",
        name="listMakers",
        role=AdminRole.VIEWER,
        summary="list makers",
        description="Makers that were added here, by fingerprint, in pages. Those of the trust bundle stand "
        "there; their devices wait for approval.",
        answer=MAKERS,
        handler=_list,
        query={**PAGE, "after": _FINGERPRINT},
    ),
    Route(
        method="POST",
        path="/v1/makers",
        name="addMaker",
        role=AdminRole.SECURITY_OFFICER,
        summary="add maker",
        description="Admits a maker's devices to their first enrolment and to nothing else. One whose root "
        "is known is replaced, with rule and revocation lists.",
        answer=MAKER,
        handler=_add,
        status=201,
        body=NEW_MAKER,
        max_body_bytes=16 * _MAX_PEM,
    ),
    Route(
        method="DELETE",
        path="/v1/makers/{maker}",
        name="removeMaker",
        role=AdminRole.SECURITY_OFFICER,
        summary="remove maker",
        description="Admits no more devices of a maker; those that have enrolled stay.",
        answer=CHANGED,
        handler=_remove,
        parameters=parameters(maker=_FINGERPRINT),
        problems=(Problem.UNKNOWN,),
    ),
)
