"""Revocations: what was revoked, and the list that says so."""

import base64

from sqlalchemy import select

from sealcast.authority import revocation
from sealcast.authority.admins import AdminRole
from sealcast.authority.api.handling import Answer, Call
from sealcast.authority.api.resources.shapes import page, page_of, time_text
from sealcast.authority.api.routing import PAGE, Route
from sealcast.authority.api.schema import Component, moment, number, record, text
from sealcast.authority.models import CertificateRow

_SERIAL = text("Serial number, hexadecimal.", pattern="^[0-9a-f]{1,40}$")

REVOCATION = Component(
    "Revocation",
    record(
        "A certificate that was revoked.",
        serial=_SERIAL,
        name=text("Whose it was."),
        role=text("Role of its holder."),
        not_after=moment("Until when it stands on the list."),
        revoked=moment("When it was revoked."),
    ),
)
REVOCATIONS = page_of(REVOCATION, "Revocations", "A page of revoked certificates, by serial number.")
CRL = Component(
    "RevocationList",
    record(
        "The list in force (RFC 5280).",
        number=number("It only grows."),
        issued=moment("When it was signed."),
        next_update=moment("From then on it is refused."),
        der=text("The list itself, base64 of DER."),
    ),
)


def _list(call: Call) -> Answer:
    limit = call.query["limit"]
    rows = call.session.execute(
        select(
            CertificateRow.serial,
            CertificateRow.name,
            CertificateRow.role,
            CertificateRow.not_after,
            CertificateRow.revoked,
        )
        .where(CertificateRow.revoked.is_not(None), CertificateRow.serial > call.query.get("after", ""))
        .order_by(CertificateRow.serial)
        .limit(limit + 1)
    ).all()
    items = [
        {
            "serial": row.serial,
            "name": row.name,
            "role": row.role,
            "not_after": time_text(row.not_after),
            "revoked": time_text(row.revoked or 0),
        }
        for row in rows
    ]
    return Answer(body=page(items, limit, "serial"))


def _crl(call: Call) -> Answer:
    crl = revocation.load_crl(call.session)
    return Answer(
        body={
            "number": crl.number,
            "issued": time_text(crl.issued),
            "next_update": time_text(crl.next_update),
            "der": base64.b64encode(crl.own).decode("ascii"),
        }
    )


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/v1/revocations",
        name="listRevocations",
        role=AdminRole.VIEWER,
        summary="list revocations",
        description="Revoked certificates by serial number, in pages, also those that have ended by now.",
        answer=REVOCATIONS,
        handler=_list,
        query={**PAGE, "after": _SERIAL},
    ),
    Route(
        method="GET",
        path="/v1/crl",
        name="getCrl",
        role=AdminRole.VIEWER,
        summary="show CRL",
        description="The revocation list in force.",
        answer=CRL,
        handler=_crl,
        tagged=True,
    ),
)
