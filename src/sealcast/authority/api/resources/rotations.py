"""Rotations: of a root, of the site CA's key, of the server's certificate; each step is a request."""

import base64
from dataclasses import replace
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from sqlalchemy import select

from sealcast.authority import rotation, rotation_bundle
from sealcast.authority.admins import AdminRole
from sealcast.authority.api.handling import Answer, Call
from sealcast.authority.api.problems import Problem
from sealcast.authority.api.resources.shapes import (
    CERTIFICATE,
    certificate_json,
    page,
    page_of,
    parameters,
    time_or_none,
    time_text,
)
from sealcast.authority.api.routing import PAGE, Route
from sealcast.authority.api.schema import Component, flag, listed, moment, nullable, number, record, text
from sealcast.authority.models import RotationRow
from sealcast.authority.rotation_progress import standing_of
from sealcast.authority.rotation_state import Result, rotation_row
from sealcast.authority.rotation_steps import Kind, Step
from sealcast.ca import PassphraseSource
from sealcast.errors import UsageError

_MOST_NAMES = 1000
_MAX_PEM = 16 * 1024
_MAX_WITHIN_SECONDS = 90 * 24 * 3600
_NUMBER = text("The number of the rotation.", pattern="^[1-9][0-9]{0,17}$")

ROTATION = Component(
    "Rotation",
    record(
        "A rotation, and where the devices stand in it.",
        id=number("Its number.", minimum=1),
        kind=text("What is rotated.", enum=[str(kind) for kind in Kind]),
        step=text(
            "What it waits for: the certificate of the new site CA; a trust bundle that lists old and new; "
            "the devices' reports of it; their new certificates; a trust bundle without the old one.",
            enum=[str(step) for step in Step],
        ),
        started=moment("When it began."),
        switched=nullable(moment("Since when the new one issues.")),
        finished=nullable(moment("When it ended.")),
        version=nullable(number("The version of the trust bundle whose reports count.", minimum=1)),
        request=nullable(text("PEM: the request for the new site CA's certificate.")),
        old=text("PEM: the certificate that goes: the site CA's, or the server's."),
        new=nullable(text("PEM: the one that comes.")),
        new_root=nullable(text("PEM: the new root.")),
        forced=listed(text("A step."), "Steps that were taken ahead of the devices."),
        devices=number("Devices that are enrolled and hold a good certificate; 0 at the end.", minimum=0),
        reported=number("Of these, how many have reported the trust bundle that is waited for.", minimum=0),
        missing=listed(text("A device."), "The others, at most a thousand, by name."),
        reissued=number("Devices that use a certificate of the new site CA.", minimum=0),
        old_devices=listed(text("A device."), "The others, at most a thousand, by name."),
        old_admins=listed(text("An admin."), "Admins without a certificate of the new site CA."),
    ),
)
ROTATIONS = page_of(ROTATION, "Rotations", "A page of rotations, by number.")
NEW_ROTATION = Component(
    "NewRotation",
    record(
        "What to rotate.",
        ["kind"],
        kind=text("What it is.", enum=[str(kind) for kind in Kind]),
        root=text("PEM: the new root's certificate, where that is rotated.", maxLength=_MAX_PEM),
    ),
)
SITE_CERTIFICATE = Component(
    "SiteCertificate",
    record(
        "What a root has signed.",
        ["certificate"],
        certificate=text("PEM: the site CA's certificate.", maxLength=_MAX_PEM),
        crosses=text(
            "PEM: certificates of old and new root by each other, for EST clients.", maxLength=_MAX_PEM
        ),
    ),
)
STEP = Component(
    "RotationStep",
    record(
        "How to go on.",
        [],
        force={**flag("Leave devices behind that are not so far."), "default": False},
        within_seconds=number(
            "In which time devices take their new certificates, where the site CA is switched; an hour if it "
            "is left out. At another step it is refused.",
            minimum=1,
            maximum=_MAX_WITHIN_SECONDS,
        ),
    ),
)
DRAFT = Component(
    "BundleDraft",
    record(
        "A trust bundle that nobody has signed yet.",
        bundle=text("The unsigned bundle, base64, as `sealcast root sign-bundle` takes it."),
        version=number("Its number.", minimum=1),
        threshold=number("How many owner's roots have to sign it.", minimum=1),
        certificates=listed(CERTIFICATE, "The owner's roots that may sign it."),
    ),
)


def _json(call: Call, row: RotationRow) -> dict[str, Any]:
    standing = standing_of(call.session, row, call.now)
    return {
        "id": row.id,
        "kind": row.kind,
        "step": row.step,
        "started": time_text(row.started),
        "switched": time_or_none(row.switched),
        "finished": time_or_none(row.finished),
        "version": row.version,
        "request": None if row.request is None else _request_pem(row.request),
        "old": certificate_json(row.old)["pem"],
        "new": None if row.new is None else certificate_json(row.new)["pem"],
        "new_root": None if row.new_root is None else certificate_json(row.new_root)["pem"],
        "forced": list(row.forced),
        "devices": standing.devices,
        "reported": standing.reported,
        "missing": list(standing.missing[:_MOST_NAMES]),
        "reissued": standing.reissued,
        "old_devices": list(standing.old[:_MOST_NAMES]),
        "old_admins": list(standing.old_admins[:_MOST_NAMES]),
    }


def _request_pem(der: bytes) -> str:
    return x509.load_der_x509_csr(der).public_bytes(serialization.Encoding.PEM).decode("ascii")


def _answer(call: Call, result: Result) -> Answer:
    call.session.flush()
    return Answer(body=_json(call, result.row), changes=result.changes)


def _passphrases(call: Call) -> PassphraseSource:
    """In a running service nobody sits at the terminal."""
    own = call.site.passphrases
    return own if call.running is None else replace(own, prompt=None)


def _row(call: Call) -> RotationRow:
    return rotation_row(call.session, int(call.path["rotation"]))


def _list(call: Call) -> Answer:
    limit = call.query["limit"]
    chosen = select(RotationRow).where(RotationRow.id > int(call.query.get("after", 0)))
    rows = call.session.scalars(chosen.order_by(RotationRow.id).limit(limit + 1)).all()
    return Answer(body=page([_json(call, row) for row in rows], limit, "id"))


def _show(call: Call) -> Answer:
    return Answer(body=_json(call, _row(call)))


def _start(call: Call) -> Answer:
    kind, root = Kind(call.body["kind"]), call.body.get("root")
    if (root is not None) != (kind is Kind.ROOT):
        raise UsageError(
            "a new root is given exactly where a root is rotated",
            cure="give the member root, or leave it out",
        )
    match kind:
        case Kind.SERVER:
            return _answer(call, rotation.rotate_server(call.session, call.site, call.now))
        case Kind.SITE:
            return _answer(call, rotation.start_site(call.session, call.site, _passphrases(call), call.now))
        case Kind.ROOT:
            return _answer(call, rotation.start_root(call.session, call.site, str(root).encode(), call.now))


def _certify(call: Call) -> Answer:
    result = rotation.take_certificate(
        call.session,
        call.site,
        _row(call),
        call.body["certificate"].encode(),
        call.body.get("crosses", "").encode(),
        _passphrases(call),
        call.now,
    )
    return _answer(call, result)


def _advance(call: Call) -> Answer:
    within = call.body.get("within_seconds")
    result = rotation.advance(
        call.session,
        call.site,
        _row(call),
        force=call.body.get("force", False),
        within=None if within is None else within * 1_000_000,
        now=call.now,
    )
    return _answer(call, result)


def _abandon(call: Call) -> Answer:
    return _answer(call, rotation.abandon(call.session, call.site, _row(call), call.now))


def _draft(call: Call) -> Answer:
    drafted = rotation_bundle.draft(call.session, call.site, _row(call), call.now)
    return Answer(
        body={
            "bundle": base64.b64encode(drafted.unsigned).decode("ascii"),
            "version": drafted.version,
            "threshold": drafted.threshold,
            "certificates": [certificate_json(der) for der in drafted.signers],
        }
    )


_ROTATION = parameters(rotation=_NUMBER)

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/v1/rotations",
        name="listRotations",
        role=AdminRole.VIEWER,
        summary="list rotations",
        description="Rotations by number, in pages, those that have ended too.",
        answer=ROTATIONS,
        handler=_list,
        query={**PAGE, "after": text("Where the page before ended.", pattern="^[0-9]{1,18}$")},
    ),
    Route(
        method="POST",
        path="/v1/rotations",
        name="startRotation",
        role=AdminRole.SECURITY_OFFICER,
        summary="start rotation",
        description="Begins to rotate. A server's certificate is replaced at once. For a site CA another key "
        "is made, and its request waits for a root's signature; for a root the site CA's present certificate "
        "waits for that of the new root. There is one rotation of a root or a site CA at a time.",
        answer=ROTATION,
        handler=_start,
        status=201,
        body=NEW_ROTATION,
        problems=(Problem.CONFLICT, Problem.REFUSED),
    ),
    Route(
        method="GET",
        path="/v1/rotations/{rotation}",
        name="getRotation",
        role=AdminRole.VIEWER,
        summary="show rotation",
        description="A rotation, and how many devices stand where.",
        answer=ROTATION,
        handler=_show,
        parameters=_ROTATION,
        problems=(Problem.UNKNOWN,),
    ),
    Route(
        method="POST",
        path="/v1/rotations/{rotation}/certificate",
        name="certifyRotation",
        role=AdminRole.SECURITY_OFFICER,
        summary="take certificate of rotation",
        description="Takes the site CA's certificate, as a root has signed it. Nothing is issued by it yet.",
        answer=ROTATION,
        handler=_certify,
        parameters=_ROTATION,
        body=SITE_CERTIFICATE,
        problems=(Problem.UNKNOWN, Problem.CONFLICT, Problem.REFUSED),
    ),
    Route(
        method="GET",
        path="/v1/rotations/{rotation}/bundle",
        name="draftRotationBundle",
        role=AdminRole.VIEWER,
        summary="draft trust bundle of rotation",
        description="The trust bundle that the rotation waits for. Signed where the roots' keys are, it is "
        "added as any other one, and takes the rotation one step on.",
        answer=DRAFT,
        handler=_draft,
        parameters=_ROTATION,
        problems=(Problem.UNKNOWN, Problem.CONFLICT, Problem.REFUSED),
    ),
    Route(
        method="POST",
        path="/v1/rotations/{rotation}/advance",
        name="advanceRotation",
        role=AdminRole.SECURITY_OFFICER,
        summary="advance rotation",
        description="Goes one step on: switches to the new issuer once every device has reported the trust "
        "bundle, and begins to retire the old one once every device uses a new certificate. Ahead of that it "
        "is refused, with the counts, unless it is forced; devices that are left behind need an operator's "
        "token.",
        answer=ROTATION,
        handler=_advance,
        parameters=_ROTATION,
        body=STEP,
        problems=(Problem.UNKNOWN, Problem.CONFLICT),
    ),
    Route(
        method="POST",
        path="/v1/rotations/{rotation}/abandon",
        name="abandonRotation",
        role=AdminRole.SECURITY_OFFICER,
        summary="give up rotation",
        description="Ends a rotation of which nothing has been published. A key made for it is destroyed.",
        answer=ROTATION,
        handler=_abandon,
        parameters=_ROTATION,
        problems=(Problem.UNKNOWN, Problem.CONFLICT),
    ),
)
