"""Admins: who may use this API, in which role."""

from typing import Any

from sqlalchemy import select

from sealcast.authority import admins, enrolment, issuance
from sealcast.authority.admins import AdminRole
from sealcast.authority.api.handling import Answer, Call
from sealcast.authority.api.problems import Problem
from sealcast.authority.api.resources.shapes import (
    CHANGED,
    NAME,
    page,
    page_of,
    parameters,
    time_or_none,
    time_text,
)
from sealcast.authority.api.resources.tokens import TOKEN_SECRET, TTL, secret_json
from sealcast.authority.api.routing import PAGE, Route
from sealcast.authority.api.schema import Component, moment, nullable, record, text
from sealcast.authority.models import AdminRow
from sealcast.authority.revocation import load_crl
from sealcast.authority.service import Changes
from sealcast.ca import Permit
from sealcast.pki.names import Role

_ROLE = text(
    "viewer reads; operator also makes tokens, channels and policy; security-officer also revokes, and "
    "touches roots, bundles and admins.",
    enum=[str(role) for role in AdminRole],
)

ADMIN = Component(
    "Admin",
    record(
        "Somebody who may use this API.",
        name=NAME,
        role=_ROLE,
        state=text("`invited`: has not enrolled yet.", enum=["invited", "enrolled", "revoked"]),
        added=moment("When it was added."),
        enrolled=nullable(moment("When it last enrolled with a token.")),
        revoked=nullable(moment("When it was revoked.")),
    ),
)
ADMINS = page_of(ADMIN, "Admins", "A page of admins, by name.")
NEW_ADMIN = Component(
    "NewAdmin", record("An admin to be added.", ["name", "role"], name=NAME, role=_ROLE, ttl_us=TTL)
)
NEW_ROLE = Component("NewRole", record("Another role.", role=_ROLE))
NEW_ADMIN_TOKEN = Component("NewAdminToken", record("For how long it is to be good.", [], ttl_us=TTL))


def _list(call: Call) -> Answer:
    limit = call.query["limit"]
    rows = call.session.scalars(
        select(AdminRow)
        .where(AdminRow.name > call.query.get("after", ""))
        .order_by(AdminRow.name)
        .limit(limit + 1)
    ).all()
    return Answer(body=page([_json(row) for row in rows], limit, "name"))


def _show(call: Call) -> Answer:
    return Answer(body=_json(admins.admin_row(call.session, call.path["admin"])))


def _add(call: Call) -> Answer:
    name = call.body["name"]
    admins.add_admin(call.session, name, AdminRole(call.body["role"]), call.now)
    return _with_token(call, name)


def _new_token(call: Call) -> Answer:
    return _with_token(call, admins.admin_row(call.session, call.path["admin"]).name)


def _set_role(call: Call) -> Answer:
    row = admins.admin_row(call.session, call.path["admin"])
    call.check_match(_json(row))
    admins.set_role(call.session, row.name, AdminRole(call.body["role"]), call.now)
    return Answer(body=_json(row), changes=Changes(admins=admins.current_roles(call.session)))


def _revoke(call: Call) -> Answer:
    done = admins.revoke_admin(call.session, call.site.issuer, call.path["admin"], call.now)
    changes = Changes(admins=admins.current_roles(call.session), crl=load_crl(call.session))
    return Answer(body={"changed": done}, changes=changes)


def _with_token(call: Call, name: str) -> Answer:
    ttl = call.body["ttl_us"]
    issuance.permit(call.session, call.site.issuer, Permit.ADMIN, name, call.now)
    token = enrolment.create_token(call.session, device=name, ttl=ttl, now=call.now, kind=Role.ADMIN)
    changes = Changes(admins=admins.current_roles(call.session))
    return Answer(body=secret_json(token, name, call.now + ttl), changes=changes)


def _json(row: AdminRow) -> dict[str, Any]:
    state = "revoked" if row.revoked is not None else "invited" if row.enrolled is None else "enrolled"
    return {
        "name": row.name,
        "role": row.role,
        "state": state,
        "added": time_text(row.added),
        "enrolled": time_or_none(row.enrolled),
        "revoked": time_or_none(row.revoked),
    }


_ADMIN = parameters(admin=NAME)

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/v1/admins",
        name="listAdmins",
        role=AdminRole.VIEWER,
        summary="list admins",
        description="Admins by name, in pages.",
        answer=ADMINS,
        handler=_list,
        query={**PAGE, "after": NAME},
    ),
    Route(
        method="POST",
        path="/v1/admins",
        name="addAdmin",
        role=AdminRole.SECURITY_OFFICER,
        summary="add admin",
        description="Enters an admin, and answers with the one-time token by which it gets its certificate "
        "over EST. The admin's private key stays on its own machine.",
        answer=TOKEN_SECRET,
        handler=_add,
        status=201,
        body=NEW_ADMIN,
        problems=(Problem.CONFLICT,),
    ),
    Route(
        method="GET",
        path="/v1/admins/{admin}",
        name="getAdmin",
        role=AdminRole.VIEWER,
        summary="show admin",
        description="An admin and its role.",
        answer=ADMIN,
        handler=_show,
        parameters=_ADMIN,
        tagged=True,
        problems=(Problem.UNKNOWN,),
    ),
    Route(
        method="PATCH",
        path="/v1/admins/{admin}",
        name="setAdminRole",
        role=AdminRole.SECURITY_OFFICER,
        summary="set role",
        description="Gives an admin another role; it counts from the admin's next request on, without a new "
        "certificate.",
        answer=ADMIN,
        handler=_set_role,
        parameters=_ADMIN,
        body=NEW_ROLE,
        tagged=True,
        conditional=True,
        problems=(Problem.UNKNOWN,),
    ),
    Route(
        method="POST",
        path="/v1/admins/{admin}/tokens",
        name="createAdminToken",
        role=AdminRole.SECURITY_OFFICER,
        summary="make admin token",
        description="Makes another one-time token for an admin: one that lost its key, or that was revoked "
        "and is to come back.",
        answer=TOKEN_SECRET,
        handler=_new_token,
        status=201,
        parameters=_ADMIN,
        body=NEW_ADMIN_TOKEN,
        problems=(Problem.UNKNOWN,),
    ),
    Route(
        method="PUT",
        path="/v1/admins/{admin}/revocation",
        name="revokeAdmin",
        role=AdminRole.SECURITY_OFFICER,
        summary="revoke admin",
        description="Revokes an admin's certificates and unused tokens. Its next request is refused, also "
        "on a connection that is open.",
        answer=CHANGED,
        handler=_revoke,
        parameters=_ADMIN,
        problems=(Problem.UNKNOWN,),
    ),
)
