"""Requests for a first certificate that wait for a yes."""

from typing import Any

from sqlalchemy import select

from sealcast.authority import approvals, issuance
from sealcast.authority.admins import AdminRole
from sealcast.authority.api.handling import Answer, Call
from sealcast.authority.api.problems import Problem
from sealcast.authority.api.resources.shapes import page, page_of, parameters, time_or_none, time_text
from sealcast.authority.api.routing import PAGE, Route
from sealcast.authority.api.schema import Component, flag, moment, nullable, number, record, text
from sealcast.authority.approvals import MAX_REASON, Credential, State
from sealcast.authority.models import ApprovalRow, DeviceRow

_NUMBER = number("Its number.", minimum=1, maximum=2**62)

APPROVAL = Component(
    "Approval",
    record(
        "A request for a first certificate.",
        id=_NUMBER,
        device=text("The name that is asked for."),
        known=text("What the site knows of that name.", enum=["new", "enrolled", "revoked"]),
        state=text(
            "`approved`: the device has not fetched its certificate yet.",
            enum=[str(state) for state in State],
        ),
        credential=text("What was shown with it.", enum=[str(credential) for credential in Credential]),
        detail=text("Of a maker's certificate: its subject."),
        key_sha256=text(
            "SHA-256 of the public key (SubjectPublicKeyInfo): compare it with what the device shows.",
            pattern="^[0-9a-f]{64}$",
        ),
        generated=flag("Whether the key is to be made by the authority."),
        requested=moment("When it was first made."),
        asked=moment("When it was last repeated."),
        decided=nullable(moment("When it was decided.")),
        reason=text("Of a denial."),
        serial=nullable(text("The certificate that it led to, hexadecimal.")),
    ),
)
APPROVALS = page_of(APPROVAL, "Approvals", "A page of requests, by number. Old ones are forgotten in time.")
DECISION = Component(
    "Decision",
    record(
        "What is decided.",
        ["approve"],
        approve=flag("True: the device gets its certificate when it asks again. False: it is refused."),
        reason=text(
            "Of a denial, told to the device.",
            maxLength=MAX_REASON,
            pattern="^[^\\x00-\\x1f\\x7f]*$",
            default="",
        ),
    ),
)


def _list(call: Call) -> Answer:
    limit = call.query["limit"]
    chosen = select(ApprovalRow).where(ApprovalRow.id > call.query.get("after", 0))
    if "state" in call.query:
        chosen = chosen.where(ApprovalRow.state == call.query["state"])
    rows = call.session.scalars(chosen.order_by(ApprovalRow.id).limit(limit + 1)).all()
    return Answer(body=page([_json(call, row) for row in rows], limit, "id"))


def _show(call: Call) -> Answer:
    return Answer(body=_json(call, _row(call)))


def _decide(call: Call) -> Answer:
    row = _row(call)
    call.check_match(_json(call, row))
    if not call.body["approve"]:
        approvals.deny(call.session, row.id, call.body["reason"], call.now)
        return Answer(body=_json(call, row))
    known = call.session.get(DeviceRow, row.device)
    if known is not None and known.revoked is not None:
        # It takes a revocation back.
        call.caller.require(AdminRole.SECURITY_OFFICER)
    approvals.approve(call.session, row.id, call.now)
    issuance.readmit(call.session, call.site.issuer, row.device, call.now)
    return Answer(body=_json(call, row))


def _row(call: Call) -> ApprovalRow:
    return approvals.approval_row(call.session, int(call.path["approval"]))


def _json(call: Call, row: ApprovalRow) -> dict[str, Any]:
    known = call.session.get(DeviceRow, row.device)
    return {
        "id": row.id,
        "device": row.device,
        "known": "new" if known is None else "enrolled" if known.revoked is None else "revoked",
        "state": row.state,
        "credential": row.credential,
        "detail": row.detail,
        "key_sha256": row.key_hash.hex(),
        "generated": row.generated,
        "requested": time_text(row.requested),
        "asked": time_text(row.asked),
        "decided": time_or_none(row.decided),
        "reason": row.reason,
        "serial": row.serial,
    }


_APPROVAL = parameters(approval=text("The number of the request.", pattern="^[1-9][0-9]{0,17}$"))

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/v1/approvals",
        name="listApprovals",
        role=AdminRole.VIEWER,
        summary="list approvals",
        description="Requests for a first certificate by number, in pages, decided ones too.",
        answer=APPROVALS,
        handler=_list,
        query={
            **PAGE,
            "after": _NUMBER,
            "state": text("Only those in this state.", enum=[str(state) for state in State]),
        },
    ),
    Route(
        method="GET",
        path="/v1/approvals/{approval}",
        name="getApproval",
        role=AdminRole.VIEWER,
        summary="show approval",
        description="A request for a first certificate.",
        answer=APPROVAL,
        handler=_show,
        parameters=_APPROVAL,
        tagged=True,
        problems=(Problem.UNKNOWN,),
    ),
    Route(
        method="POST",
        path="/v1/approvals/{approval}/decision",
        name="decideApproval",
        role=AdminRole.OPERATOR,
        summary="decide approval",
        description="Approves or denies a request that waits, once. The yes is to the key that is shown, and "
        "ends if the device is revoked. For a device that was revoked before, only a security officer "
        "says yes.",
        answer=APPROVAL,
        handler=_decide,
        parameters=_APPROVAL,
        body=DECISION,
        conditional=True,
        problems=(Problem.UNKNOWN, Problem.CONFLICT),
    ),
)
