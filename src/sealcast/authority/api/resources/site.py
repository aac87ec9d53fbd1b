"""The site: who it is, its roots, its CAs, how it does."""

from typing import Any

from sqlalchemy import func, select

from sealcast.authority import audit, bundles, ends, lost_bundles, revocation
from sealcast.authority.admins import AdminRole
from sealcast.authority.api.handling import Answer, Call
from sealcast.authority.api.resources.shapes import CERTIFICATE, certificate_json, time_or_none, time_text
from sealcast.authority.api.routing import Route
from sealcast.authority.api.schema import (
    Component,
    flag,
    listed,
    moment,
    nullable,
    number,
    record,
    text,
)
from sealcast.authority.arrangement import latest_rotation
from sealcast.authority.models import ChannelRow, DeviceRow, SiteRow
from sealcast.authority.rotation_progress import standing_of
from sealcast.authority.rotation_steps import ENDED, Kind, Step
from sealcast.pki.ends import warnings

SITE = Component(
    "Site",
    record(
        "The one site of this authority.",
        site_id=text("32 hexadecimal digits.", pattern="^[0-9a-f]{32}$"),
        name=text("For people."),
        hosts=listed(text("DNS name or IP address."), "Under which devices reach the authority."),
        created=moment("When it was made."),
        no_new_bundle=nullable(
            text("Why no new version of the trust bundle is taken until the lost ones are imported.")
        ),
    ),
)

CERTIFICATES = Component("Certificates", record("Certificates.", items=listed(CERTIFICATE, "Of one kind.")))

HEALTH = Component("Health", record("That the service answers.", status=text("`ok`.", enum=["ok"])))

STATUS = Component(
    "Status",
    record(
        "How the site stands.",
        site=text("Its name."),
        running=flag("Whether a service runs, or a command reads the folder."),
        time=moment("The authority's clock."),
        started=nullable(moment("When the service started.")),
        listening={
            "type": "object",
            "description": "URL by listener.",
            "additionalProperties": {"type": "string"},
        },
        devices=number("Enrolled devices.", minimum=0),
        revoked_devices=number("Revoked devices.", minimum=0),
        channels=listed(
            record(
                "A channel.",
                name=text("Its name."),
                members=nullable(number("How many take part; null where no service runs.", minimum=0)),
            ),
            "Every channel.",
        ),
        crl=record(
            "The revocation list in force.",
            number=number("Its number."),
            issued=moment("When it was signed."),
            next_update=moment("From then on it is refused."),
        ),
        certificates=record(
            "Ends of what the site needs to live.",
            roots=listed(moment("End of a root's life."), "Of each root."),
            site_ca=moment("End of the site CA's."),
            key_server=moment("End of the key server's."),
        ),
        ends=listed(
            record("An end.", what=text("What ends."), at=moment("When.")),
            "All that the site needs to live, the root and the site CA included; the earliest end first.",
        ),
        warnings=listed(
            text("A line for people."), "Of each of these that ends soon: it should have been renewed."
        ),
        rotation=nullable(
            record(
                "The rotation that is under way; more of it: /v1/rotations.",
                id=number("Its number.", minimum=1),
                kind=text("What is rotated.", enum=[str(kind) for kind in Kind]),
                step=text("What it waits for.", enum=[str(step) for step in Step]),
                devices=number("Devices that are enrolled and hold a good certificate.", minimum=0),
                reported=number("Those that have reported the trust bundle of the rotation.", minimum=0),
                reissued=number("Those that use a certificate of the new site CA.", minimum=0),
            )
        ),
        audit_head=nullable(text("NUMBER:HASH of the last audit entry.")),
    ),
)


def _site(call: Call) -> Answer:
    site = call.site
    row = call.session.get_one(SiteRow, 1)
    return Answer(
        body={
            "site_id": site.site_id.hex(),
            "name": site.name,
            "hosts": list(site.hosts),
            "created": time_text(row.created),
            "no_new_bundle": lost_bundles.why_not(call.session, call.now),
        }
    )


def _roots(call: Call) -> Answer:
    return Answer(body={"items": [certificate_json(der) for der in call.site.roots]})


def _site_cas(call: Call) -> Answer:
    return Answer(body={"items": [certificate_json(der) for der in call.site.issuers]})


def _health(call: Call) -> Answer:
    # A statement, so that a database that cannot be read is no health.
    call.session.execute(select(SiteRow.id)).one()
    return Answer(body={"status": "ok"})


def _status(call: Call) -> Answer:
    session, site, running = call.session, call.site, call.running
    crl = revocation.crl_dates(session)
    head = audit.head(session)
    found = ends.site_ends(session, site, call.now)
    names = session.scalars(select(ChannelRow.name).order_by(ChannelRow.name)).all()
    return Answer(
        body={
            "site": site.name,
            "running": running is not None,
            "time": time_text(call.now),
            "started": time_or_none(running.started if running else None),
            "listening": dict(running.listening) if running else {},
            "devices": bundles.enrolled_devices(session),
            "revoked_devices": _revoked_devices(call),
            "channels": [
                {"name": name, "members": running.members(name) if running else None} for name in names
            ],
            "crl": {
                "number": crl.number,
                "issued": time_text(crl.issued),
                "next_update": time_text(crl.next_update),
            },
            "certificates": {
                "roots": [certificate_json(der)["not_after"] for der in site.roots],
                "site_ca": certificate_json(site.issuer.certificate)["not_after"],
                "key_server": time_text(site.key_server().not_after),
            },
            "ends": [{"what": end.what, "at": time_text(end.ends)} for end in found],
            "warnings": list(warnings(found, call.now)),
            "rotation": _rotation(call),
            "audit_head": None if head is None else str(head),
        }
    )


def _rotation(call: Call) -> dict[str, Any] | None:
    row = latest_rotation(call.session)
    if row is None or row.step in ENDED:
        return None
    standing = standing_of(call.session, row, call.now)
    return {
        "id": row.id,
        "kind": row.kind,
        "step": row.step,
        "devices": standing.devices,
        "reported": standing.reported,
        "reissued": standing.reissued,
    }


def _revoked_devices(call: Call) -> int:
    counted = select(func.count()).select_from(DeviceRow).where(DeviceRow.revoked.is_not(None))
    return call.session.scalar(counted) or 0


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/healthz",
        name="getHealth",
        role=AdminRole.VIEWER,
        summary="health",
        description="Whether the service answers and its database can be read. Says nothing about the site.",
        answer=HEALTH,
        handler=_health,
    ),
    Route(
        method="GET",
        path="/v1/status",
        name="getStatus",
        role=AdminRole.VIEWER,
        summary="show status",
        description="How the site stands: what listens, how many take part, what ends when.",
        answer=STATUS,
        handler=_status,
    ),
    Route(
        method="GET",
        path="/v1/site",
        name="getSite",
        role=AdminRole.VIEWER,
        summary="show site",
        description="Name, id and host names of the site.",
        answer=SITE,
        handler=_site,
        tagged=True,
    ),
    Route(
        method="GET",
        path="/v1/roots",
        name="listRoots",
        role=AdminRole.VIEWER,
        summary="list roots",
        description="The roots that this authority trusts.",
        answer=CERTIFICATES,
        handler=_roots,
        tagged=True,
    ),
    Route(
        method="GET",
        path="/v1/site-cas",
        name="listSiteCas",
        role=AdminRole.VIEWER,
        summary="list site CAs",
        description="The site CA certificates that may have signed devices, policies and revocation lists.",
        answer=CERTIFICATES,
        handler=_site_cas,
        tagged=True,
    ),
)
