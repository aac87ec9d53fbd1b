"""The trust bundle: its versions, the next one, and how far the devices are with it."""

import base64
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from sealcast.authority import bundles, rotation_bundle
from sealcast.authority.admins import AdminRole
from sealcast.authority.api.handling import Answer, Call
from sealcast.authority.api.problems import Problem
from sealcast.authority.api.resources.shapes import page, page_of, time_text
from sealcast.authority.api.routing import PAGE, Route
from sealcast.authority.api.schema import Component, listed, moment, number, record, text
from sealcast.authority.models import BundleRow
from sealcast.errors import UnknownNameError, UsageError
from sealcast.pki.bundle import MAX_BUNDLE_BYTES

_LATEST = "latest"
_VERSION = text("Its number, or `latest`.", pattern=f"^({_LATEST}|[1-9][0-9]{{0,17}})$")
_MAX_BASE64 = MAX_BUNDLE_BYTES * 4 // 3 + 4
_FIELDS: Mapping[str, Any] = {
    "version": number("Its number.", minimum=1),
    "fingerprint": text("SHA-256 of it as it is signed, hexadecimal."),
    "issued": moment("When it was written."),
}

VERSION = Component("BundleVersion", record("A version of the trust bundle.", **_FIELDS))
VERSIONS = page_of(VERSION, "BundleVersions", "A page of versions, by number.")
BUNDLE = Component(
    "Bundle",
    record(
        "A version of the trust bundle, as it is signed.",
        **_FIELDS,
        bundle=text("The signed bundle, base64 (spec/trust.md TR-16)."),
    ),
)
SIGNED = Component(
    "SignedBundle",
    record(
        "The next version, signed by roots that the one before trusts.",
        ["bundle"],
        bundle=text("The signed bundle, base64 (spec/trust.md TR-16).", maxLength=_MAX_BASE64),
    ),
)
PROGRESS = Component(
    "BundleProgress",
    record(
        "How far the devices are with a version.",
        version=number("Its number.", minimum=1),
        devices=number("Devices that are enrolled and hold a good certificate.", minimum=0),
        reported=number("Of these, how many have reported it or a later one.", minimum=0),
        missing=listed(text("A device."), "The others, at most a thousand, by name."),
    ),
)

_MOST_MISSING = 1000


def _json(row: BundleRow) -> dict[str, Any]:
    return {"version": row.version, "fingerprint": row.hash.hex(), "issued": time_text(row.issued)}


def _list(call: Call) -> Answer:
    limit = call.query["limit"]
    rows = call.session.scalars(
        select(BundleRow)
        .where(BundleRow.version > int(call.query.get("after", 0)))
        .order_by(BundleRow.version)
        .limit(limit + 1)
    ).all()
    return Answer(body=page([_json(row) for row in rows], limit, "version"))


def _row(call: Call) -> BundleRow:
    asked = call.path["version"]
    version = bundles.latest_version(call.session) if asked == _LATEST else int(asked)
    row = call.session.get(BundleRow, version)
    if row is None and asked == _LATEST:
        raise UnknownNameError(
            "the site has no trust bundle yet",
            cure="draft, sign and import version 1: sealcast authority bundle draft DIR",
        )
    if row is None:
        raise UnknownNameError(
            f"there is no version {asked} of the trust bundle",
            cure="see: sealcast authority bundle list DIR",
        )
    return row


def _get(call: Call) -> Answer:
    row = _row(call)
    return Answer(body={**_json(row), "bundle": base64.b64encode(row.signed).decode("ascii")})


def _add(call: Call) -> Answer:
    bundle, changes = rotation_bundle.import_bundle(call.session, call.site, call.given, call.now)
    call.session.flush()
    row = call.session.get_one(BundleRow, bundle.version)
    return Answer(body=_json(row), changes=changes)


def _read(body: Mapping[str, Any]) -> bytes:
    try:
        return base64.b64decode(str(body["bundle"]), validate=True)
    except ValueError:
        raise UsageError("the trust bundle is not base64", cure="encode the signed file as it is") from None


def _progress(call: Call) -> Answer:
    found = bundles.bundle_progress(call.session, _row(call).version, call.now, most=_MOST_MISSING)
    return Answer(
        body={
            "version": found.version,
            "devices": found.devices,
            "reported": found.reported,
            "missing": list(found.missing),
        }
    )


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/v1/bundles",
        name="listBundles",
        role=AdminRole.VIEWER,
        summary="list trust bundles",
        description="Every version of the trust bundle, in pages; the last one is in force.",
        answer=VERSIONS,
        handler=_list,
        query={**PAGE, "after": text("Where the page before ended.", pattern="^[0-9]{1,18}$")},
    ),
    Route(
        method="POST",
        path="/v1/bundles",
        name="addBundle",
        role=AdminRole.SECURITY_OFFICER,
        summary="add trust bundle",
        description="Takes the next version and tells every device of it. It is refused unless it follows "
        "from the one in force by the signatures that this one asks for, and unless this site could live "
        "with it.",
        answer=VERSION,
        handler=_add,
        status=201,
        body=SIGNED,
        max_body_bytes=_MAX_BASE64 + 1024,
        read_body=_read,
        problems=(Problem.REFUSED,),
    ),
    Route(
        method="GET",
        path="/v1/bundles/{version}",
        name="getBundle",
        role=AdminRole.VIEWER,
        summary="show trust bundle",
        description="A version as it is signed.",
        answer=BUNDLE,
        handler=_get,
        parameters={"version": _VERSION},
        tagged=True,
        problems=(Problem.UNKNOWN,),
    ),
    Route(
        method="GET",
        path="/v1/bundles/{version}/progress",
        name="getBundleProgress",
        role=AdminRole.VIEWER,
        summary="show progress of trust bundle",
        description="How many devices have said that they trust by this version, or a later one.",
        answer=PROGRESS,
        handler=_progress,
        parameters={"version": _VERSION},
        problems=(Problem.UNKNOWN,),
    ),
)
