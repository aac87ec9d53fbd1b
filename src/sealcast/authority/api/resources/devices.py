"""Devices: list, show, revoke."""

from typing import Any

from sqlalchemy import func, select

from sealcast.authority import channels
from sealcast.authority.admins import AdminRole
from sealcast.authority.api.handling import Answer, Call
from sealcast.authority.api.problems import Problem
from sealcast.authority.api.resources.shapes import (
    CHANGED,
    ISSUED,
    NAME,
    ROLES,
    page,
    page_of,
    parameters,
    time_or_none,
    time_text,
)
from sealcast.authority.api.routing import PAGE, Route
from sealcast.authority.api.schema import Component, listed, moment, nullable, record, text
from sealcast.authority.models import CertificateRow, DeviceRow
from sealcast.authority.service import Changes, revoke
from sealcast.errors import UnknownNameError
from sealcast.pki.names import Role
from sealcast.pki.policy_rules import check_roles

_FIELDS: dict[str, Any] = {
    "name": NAME,
    "roles": listed(text("A role."), "What policies may call it by besides its name."),
    "state": text("`enrolled` or `revoked`.", enum=["enrolled", "revoked"]),
    "enrolled": moment("When it last enrolled with a token."),
    "revoked": nullable(moment("When it was revoked.")),
    "not_after": nullable(moment("End of its last certificate.")),
}

DEVICE = Component("Device", record("A device that was enrolled at least once.", **_FIELDS))
DEVICES = page_of(DEVICE, "Devices", "A page of devices, by name.")
DEVICE_DETAIL = Component(
    "DeviceDetail",
    record(
        "A device and its certificates.",
        **_FIELDS,
        certificates=listed(ISSUED, "Newest first; the last hundred."),
    ),
)

NEW_ROLES = Component("NewRoles", record("Other roles.", roles=ROLES))

_STATES = {"enrolled": DeviceRow.revoked.is_(None), "revoked": DeviceRow.revoked.is_not(None)}
_MAX_CERTIFICATES = 100


def _list(call: Call) -> Answer:
    limit = call.query["limit"]
    chosen = select(DeviceRow).where(DeviceRow.name > call.query.get("after", ""))
    if "state" in call.query:
        chosen = chosen.where(_STATES[call.query["state"]])
    if "name" in call.query:
        chosen = chosen.where(DeviceRow.name.op("GLOB")(call.query["name"]))
    rows = call.session.scalars(chosen.order_by(DeviceRow.name).limit(limit + 1)).all()
    ends = _ends(call, [row.name for row in rows])
    return Answer(body=page([_json(row, ends) for row in rows], limit, "name"))


def _show(call: Call) -> Answer:
    name = call.path["device"]
    row = call.session.get(DeviceRow, name)
    if row is None:
        raise UnknownNameError(f"unknown device {name!r}", cure="see: sealcast authority device list DIR")
    certificates = call.session.execute(
        select(
            CertificateRow.serial, CertificateRow.not_before, CertificateRow.not_after, CertificateRow.revoked
        )
        .where(CertificateRow.name == name, CertificateRow.role == Role.DEVICE)
        .order_by(CertificateRow.not_before.desc(), CertificateRow.serial)
        .limit(_MAX_CERTIFICATES)
    )
    listed_certificates = [
        {
            "serial": serial,
            "not_before": time_text(not_before),
            "not_after": time_text(not_after),
            "revoked": time_or_none(revoked),
        }
        for serial, not_before, not_after, revoked in certificates
    ]
    return Answer(body=_json(row, _ends(call, [name])) | {"certificates": listed_certificates})


def _revoke(call: Call) -> Answer:
    done, changes = revoke(call.session, call.site, call.path["device"], call.now)
    return Answer(body={"changed": done}, changes=changes)


def _set_roles(call: Call) -> Answer:
    name = call.path["device"]
    stored = channels.set_roles(call.session, call.site, name, check_roles(call.body["roles"]), call.now)
    row = call.session.get_one(DeviceRow, name)
    return Answer(body=_json(row, _ends(call, [name])), changes=Changes(channels=stored))


def _json(row: DeviceRow, ends: dict[str, int]) -> dict[str, Any]:
    return {
        "name": row.name,
        "roles": row.roles,
        "state": "revoked" if row.revoked is not None else "enrolled",
        "enrolled": time_text(row.enrolled),
        "revoked": time_or_none(row.revoked),
        "not_after": time_or_none(ends.get(row.name)),
    }


def _ends(call: Call, names: list[str]) -> dict[str, int]:
    found = call.session.execute(
        select(CertificateRow.name, func.max(CertificateRow.not_after))
        .where(CertificateRow.role == Role.DEVICE, CertificateRow.name.in_(names))
        .group_by(CertificateRow.name)
    )
    return {name: end for name, end in found}  # noqa: C416  # a Row is a tuple to Python, not to mypy


_DEVICE = parameters(device=NAME)

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/v1/devices",
        name="listDevices",
        role=AdminRole.VIEWER,
        summary="list devices",
        description="Devices by name, in pages.",
        answer=DEVICES,
        handler=_list,
        query={
            **PAGE,
            "state": text("Only those in this state.", enum=["enrolled", "revoked"]),
            "name": text(
                "Only those whose name matches this glob (`*`, `?`, `[abc]`).",
                pattern="^[A-Za-z0-9._?*\\[\\]-]{1,80}$",
            ),
        },
    ),
    Route(
        method="GET",
        path="/v1/devices/{device}",
        name="getDevice",
        role=AdminRole.VIEWER,
        summary="show device",
        description="A device and its certificates.",
        answer=DEVICE_DETAIL,
        handler=_show,
        parameters=_DEVICE,
        tagged=True,
        problems=(Problem.UNKNOWN,),
    ),
    Route(
        method="PUT",
        path="/v1/devices/{device}/roles",
        name="setDeviceRoles",
        role=AdminRole.OPERATOR,
        summary="set roles",
        description="Replaces the roles of a device. Policies that name them follow at once, without a new "
        "certificate.",
        answer=DEVICE,
        handler=_set_roles,
        parameters=_DEVICE,
        body=NEW_ROLES,
        problems=(Problem.UNKNOWN,),
    ),
    Route(
        method="PUT",
        path="/v1/devices/{device}/revocation",
        name="revokeDevice",
        role=AdminRole.SECURITY_OFFICER,
        summary="revoke device",
        description="Removes a device: its certificates, its unused tokens, its place in every policy, its "
        "keys. When this is answered the removal is in force, and no later key is handed to the device. It "
        "may come back only by a token that is made afterwards.",
        answer=CHANGED,
        handler=_revoke,
        parameters=_DEVICE,
        problems=(Problem.UNKNOWN,),
    ),
)
