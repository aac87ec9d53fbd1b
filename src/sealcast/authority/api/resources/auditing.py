"""The audit log: read it, check it."""

from typing import Any

from sqlalchemy import select

from sealcast.authority import audit
from sealcast.authority.admins import AdminRole
from sealcast.authority.api.handling import Answer, Call
from sealcast.authority.api.resources.shapes import page, page_of, time_text
from sealcast.authority.api.routing import PAGE, Route
from sealcast.authority.api.schema import Component, flag, moment, nullable, number, record, text
from sealcast.authority.audit import Head
from sealcast.authority.models import AuditRow

_HASH = text("SHA-256, hexadecimal.", pattern="^[0-9a-f]{64}$")
_HEAD = text("NUMBER:HASH of an entry.", pattern="^[1-9][0-9]{0,17}:[0-9a-f]{64}$")
_NUMBER = number("Number of an entry.", minimum=0, maximum=2**62)

ENTRY = Component(
    "AuditEntry",
    record(
        "An entry of the log; its hash is over the entry before and over all that is here.",
        number=_NUMBER,
        time=moment("When."),
        time_us=number("The same in microseconds, as it is hashed."),
        actor=text("Who: `admin:NAME`, `local:UID`, `device:NAME`, `authority`."),
        action=text("What: verb and noun."),
        subject=text("To what."),
        outcome=text("`done` or `refused`.", enum=["done", "refused"]),
        detail={"type": "object", "description": "More, as it is hashed."},
        previous=_HASH,
        hash=_HASH,
    ),
)
ENTRIES = page_of(ENTRY, "AuditEntries", "A page of entries, oldest first.")
VERDICT = Component(
    "AuditVerdict",
    record(
        "What a check of the whole log found.",
        holds=flag("Whether every entry fits."),
        entries=number("How many fit, from the first on.", minimum=0),
        head=nullable(text("NUMBER:HASH of the last one that fits; keep it elsewhere.")),
        first_bad=nullable(number("The first entry that does not fit, or is missing.")),
        fault=text("What is wrong with it; empty if nothing is."),
    ),
)


def _list(call: Call) -> Answer:
    limit = call.query["limit"]
    chosen = select(AuditRow).where(AuditRow.id > call.query.get("after", 0))
    for name in ("actor", "action", "subject", "outcome"):
        if name in call.query:
            chosen = chosen.where(getattr(AuditRow, name) == call.query[name])
    rows = call.session.scalars(chosen.order_by(AuditRow.id).limit(limit + 1)).all()
    return Answer(body=page([_json(row) for row in rows], limit, "number"))


def _verify(call: Call) -> Answer:
    known = [Head.parse(call.query["head"])] if "head" in call.query else []
    if (copy := audit.read_head_file(call.site.folder)) is not None:
        known.append(copy)
    verdict = audit.verify(call.session, *known)
    return Answer(
        body={
            "holds": verdict.first_bad is None,
            "entries": verdict.entries,
            "head": None if verdict.head is None else str(verdict.head),
            "first_bad": verdict.first_bad,
            "fault": verdict.fault,
        }
    )


def _json(row: AuditRow) -> dict[str, Any]:
    return {
        "number": row.id,
        "time": time_text(row.time),
        "time_us": row.time,
        "actor": row.actor,
        "action": row.action,
        "subject": row.subject,
        "outcome": row.outcome,
        "detail": row.detail,
        "previous": row.previous.hex(),
        "hash": row.hash.hex(),
    }


def _exactly(description: str) -> dict[str, Any]:
    return dict(text(description, maxLength=256))


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/v1/audit",
        name="listAudit",
        role=AdminRole.VIEWER,
        summary="list audit log",
        description="Entries of the audit log, oldest first, in pages.",
        answer=ENTRIES,
        handler=_list,
        query={
            **PAGE,
            "after": _NUMBER,
            "actor": _exactly("Only what this one did."),
            "action": _exactly("Only this action."),
            "subject": _exactly("Only what was done to this."),
            "outcome": text("Only with this outcome.", enum=["done", "refused"]),
        },
    ),
    Route(
        method="GET",
        path="/v1/audit/verification",
        name="verifyAudit",
        role=AdminRole.VIEWER,
        summary="verify audit log",
        description="Checks the chain of every entry, that the log goes on from the copy of its head beside "
        "the database, and from `head` if given. Without a head that was kept elsewhere, a log that was cut "
        "off together with that copy looks whole.",
        answer=VERDICT,
        handler=_verify,
        query={"head": _HEAD},
    ),
)
