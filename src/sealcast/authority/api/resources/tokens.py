"""One-time tokens for the enrolment of devices: make, list without the secret, withdraw."""

from typing import Any

from sqlalchemy import select

from sealcast.authority import audit, enrolment, issuance
from sealcast.authority.admins import AdminRole
from sealcast.authority.api.handling import Answer, Call
from sealcast.authority.api.problems import Problem
from sealcast.authority.api.resources.shapes import (
    CHANGED,
    NAME,
    ROLES,
    page,
    page_of,
    parameters,
    time_or_none,
    time_text,
)
from sealcast.authority.api.routing import PAGE, Route
from sealcast.authority.api.schema import Component, flag, listed, moment, nullable, number, record, text
from sealcast.authority.models import DeviceRow, TokenRow
from sealcast.ca import Permit
from sealcast.errors import ConflictError, UnknownNameError
from sealcast.pki.quantities import MAX_DURATION

TTL = number(
    "For how long it is good, in microseconds.",
    minimum=1_000_000,
    maximum=MAX_DURATION,
    default=3_600_000_000,
)
"""Both kinds of tokens take it."""

_ID_BYTES = 8
_ID = text("The first 16 hexadecimal digits of its hash.", pattern="^[0-9a-f]{16}$")

NEW_TOKEN = Component(
    "NewToken",
    record(
        "What to make a token for.",
        ["device"],
        device=NAME,
        ttl_us=TTL,
        roles=nullable(ROLES),
        registers={
            **flag("Whether the device is a registration authority: it enrols and renews others."),
            "default": False,
        },
    ),
)
TOKEN_SECRET = Component(
    "TokenSecret",
    record(
        "A token, told this once; the authority keeps its hash.",
        id=_ID,
        token=text("The token itself.", pattern="^[a-z2-7]{32}$"),
        name=text("Whom it admits."),
        expires=moment("Until when."),
        readmits=flag("Whether it lets a device or admin in again that was revoked."),
    ),
)
TOKEN = Component(
    "Token",
    record(
        "A token, without the token.",
        id=_ID,
        name=text("Whom it admits."),
        kind=text("What it makes.", enum=["device", "admin"]),
        created=moment("When it was made."),
        expires=moment("Until when it is good."),
        roles=nullable(listed(text("A role."), "Those that the device gets; null: it keeps its own.")),
        used=nullable(moment("When it was used.")),
        serial=nullable(text("The certificate that it was used for, hexadecimal.")),
    ),
)
TOKENS = page_of(TOKEN, "Tokens", "A page of tokens, by id. Those that expired unused are forgotten in time.")


def secret_json(token: str, name: str, expires: int, *, readmits: bool = False) -> dict[str, Any]:
    """A new token as `TOKEN_SECRET` describes it."""
    return {
        "id": enrolment.token_hash(token)[:_ID_BYTES].hex(),
        "token": token,
        "name": name,
        "expires": time_text(expires),
        "readmits": readmits,
    }


def _create(call: Call) -> Answer:
    device, ttl = call.body["device"], call.body["ttl_us"]
    known = call.session.get(DeviceRow, device)
    is_revoked = known is not None and known.revoked is not None
    if is_revoked:
        # It takes a revocation back.
        call.caller.require(AdminRole.SECURITY_OFFICER)
    if call.body["registers"]:
        # It lets others in, as an admin does.
        call.caller.require(AdminRole.SECURITY_OFFICER)
        issuance.permit(call.session, call.site.issuer, Permit.REGISTRATION_AUTHORITY, device, call.now)
    issuance.readmit(call.session, call.site.issuer, device, call.now)
    roles = call.body.get("roles")
    token = enrolment.create_token(
        call.session,
        device=device,
        ttl=ttl,
        now=call.now,
        roles=roles,
        registers=call.body["registers"],
    )
    return Answer(body=secret_json(token, device, call.now + ttl, readmits=is_revoked))


def _list(call: Call) -> Answer:
    limit = call.query["limit"]
    chosen = select(TokenRow)
    if after := call.query.get("after"):
        chosen = chosen.where(TokenRow.hash > bytes.fromhex(after) + b"\xff" * (32 - _ID_BYTES))
    if "name" in call.query:
        chosen = chosen.where(TokenRow.device == call.query["name"])
    if "used" in call.query:
        chosen = chosen.where(TokenRow.used.is_not(None) if call.query["used"] else TokenRow.used.is_(None))
    rows = call.session.scalars(chosen.order_by(TokenRow.hash).limit(limit + 1)).all()
    return Answer(body=page([_json(row) for row in rows], limit, "id"))


def _revoke(call: Call) -> Answer:
    start = bytes.fromhex(call.path["token"])
    row = call.session.scalars(
        select(TokenRow).where(TokenRow.hash >= start, TokenRow.hash <= start + b"\xff" * (32 - _ID_BYTES))
    ).first()
    if row is None:
        raise UnknownNameError(
            f"unknown token {call.path['token']!r}", cure="see: sealcast authority tokens list DIR"
        )
    if row.used is not None:
        raise ConflictError(
            f"token {call.path['token']} was used by {row.device!r}", cure="revoke the device instead"
        )
    if row.kind != "device":
        call.caller.require(AdminRole.SECURITY_OFFICER)
    call.session.delete(row)
    audit.record(call.session, call.now, "revoke token", row.device, token=call.path["token"])
    return Answer(body={"changed": True})


def _json(row: TokenRow) -> dict[str, Any]:
    return {
        "id": row.hash[:_ID_BYTES].hex(),
        "name": row.device,
        "kind": row.kind,
        "created": time_text(row.created),
        "expires": time_text(row.expires),
        "roles": row.roles,
        "used": time_or_none(row.used),
        "serial": row.serial,
    }


_PAGE_BY_ID = {**PAGE, "after": _ID}

ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/v1/tokens",
        name="createToken",
        role=AdminRole.OPERATOR,
        summary="make token",
        description="Makes a one-time token that lets a device enrol under a name. The device need not "
        "exist; one that does enrols anew. For one that is revoked, or that is to register others, only a "
        "security officer makes a token. "
        "The token is in this answer and nowhere else.",
        answer=TOKEN_SECRET,
        handler=_create,
        status=201,
        body=NEW_TOKEN,
    ),
    Route(
        method="GET",
        path="/v1/tokens",
        name="listTokens",
        role=AdminRole.VIEWER,
        summary="list tokens",
        description="Tokens by id, in pages, used ones too.",
        answer=TOKENS,
        handler=_list,
        query={**_PAGE_BY_ID, "name": NAME, "used": flag("Only used ones, or only unused ones.")},
    ),
    Route(
        method="DELETE",
        path="/v1/tokens/{token}",
        name="revokeToken",
        role=AdminRole.OPERATOR,
        summary="revoke token",
        description="Withdraws a token that was not used yet; one that makes an admin, a security officer "
        "only.",
        answer=CHANGED,
        handler=_revoke,
        parameters=parameters(token=_ID),
        problems=(Problem.UNKNOWN, Problem.CONFLICT),
    ),
)
