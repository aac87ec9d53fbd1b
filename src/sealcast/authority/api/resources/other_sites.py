"""Other sites whose devices may be members here: their CRLs, and where they are fetched."""

import base64
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from sealcast.authority import bundles, other_sites
from sealcast.authority.admins import AdminRole
from sealcast.authority.api.handling import Answer, Call
from sealcast.authority.api.problems import Problem
from sealcast.authority.api.resources.shapes import CHANGED, page, page_of, parameters, time_text
from sealcast.authority.api.routing import PAGE, Route
from sealcast.authority.api.schema import Component, moment, number, record, text
from sealcast.authority.models import CrlSourceRow, OtherCrlRow
from sealcast.authority.service import import_crl
from sealcast.errors import UsageError
from sealcast.pki.crl import MAX_CRL_BYTES

_SITE = text("32 hexadecimal digits.", pattern="^[0-9a-f]{32}$")
_KEY = text("SHA-256 of the site CA's public key, hexadecimal.", pattern="^[0-9a-f]{64}$")
_URL = text("Of that site's authority, https://HOST:PORT.", pattern="^https://[!-~]{1,500}$")
_MAX_BASE64 = MAX_CRL_BYTES * 4 // 3 + 4

OTHER_CRL = Component(
    "OtherSiteCrl",
    record(
        "The latest CRL of a site CA of another site.",
        key=_KEY,
        site=_SITE,
        number=number("It only grows."),
        issued=moment("Its thisUpdate."),
        next_update=moment("From then on no new stream of that site's devices is accepted."),
        imported=moment("When it came here."),
    ),
)
OTHER_CRLS = page_of(OTHER_CRL, "OtherSiteCrls", "A page of CRLs, by the key of the site CA.")
NEW_CRL = Component(
    "NewOtherSiteCrl",
    record("A CRL of another site.", ["der"], der=text("Base64 of DER.", maxLength=_MAX_BASE64)),
)
TAKEN = Component("TakenCrl", record("What is held now.", number=number("Its number.", minimum=0)))
SOURCE = Component("CrlSource", record("Where another site's CRL is fetched.", site=_SITE, url=_URL))
SOURCES = page_of(SOURCE, "CrlSources", "A page of sources, by site.")
PLACE = Component("CrlSourcePlace", record("Where it is fetched.", ["url"], url=_URL))


def _list(call: Call) -> Answer:
    limit = call.query["limit"]
    rows = call.session.scalars(
        select(OtherCrlRow)
        .where(OtherCrlRow.key_id > bytes.fromhex(call.query.get("after", "")))
        .order_by(OtherCrlRow.key_id)
        .limit(limit + 1)
    ).all()
    items = [
        {
            "key": row.key_id.hex(),
            "site": row.site_id.hex(),
            "number": row.number,
            "issued": time_text(row.issued),
            "next_update": time_text(row.next_update),
            "imported": time_text(row.imported),
        }
        for row in rows
    ]
    return Answer(body=page(items, limit, "key"))


def _import(call: Call) -> Answer:
    taken, changes = import_crl(call.session, call.site, call.given, call.now)
    return Answer(body={"number": taken}, changes=changes)


def _read(body: Mapping[str, Any]) -> bytes:
    try:
        return base64.b64decode(str(body["der"]), validate=True)
    except ValueError:
        raise UsageError("the CRL is not base64", cure="encode the DER file as it is") from None


def _list_sources(call: Call) -> Answer:
    limit = call.query["limit"]
    rows = call.session.scalars(
        select(CrlSourceRow)
        .where(CrlSourceRow.site_id > bytes.fromhex(call.query.get("after", "")))
        .order_by(CrlSourceRow.site_id)
        .limit(limit + 1)
    ).all()
    return Answer(body=page([{"site": row.site_id.hex(), "url": row.url} for row in rows], limit, "site"))


def _set_source(call: Call) -> Answer:
    return _change_source(call, call.body["url"])


def _remove_source(call: Call) -> Answer:
    return _change_source(call, None)


def _change_source(call: Call, url: str | None) -> Answer:
    changed = other_sites.set_source(
        call.session,
        bytes.fromhex(call.path["site"]),
        url,
        bundles.load_bundle(call.session),
        call.site.site_id,
        call.now,
    )
    return Answer(body={"changed": changed})


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/v1/other-crls",
        name="listOtherCrls",
        role=AdminRole.VIEWER,
        summary="list CRLs of other sites",
        description="The CRLs of other sites that members get with this site's own, in pages.",
        answer=OTHER_CRLS,
        handler=_list,
        query={**PAGE, "after": _KEY},
    ),
    Route(
        method="POST",
        path="/v1/other-crls",
        name="importCrl",
        role=AdminRole.OPERATOR,
        summary="import CRL of another site",
        description="Takes a CRL that a site CA of another site has signed which the trust bundle lists. Its "
        "number never goes back. Members are told at once, and those whom it names lose their keys.",
        answer=TAKEN,
        handler=_import,
        body=NEW_CRL,
        max_body_bytes=_MAX_BASE64 + 1024,
        read_body=_read,
        problems=(Problem.REFUSED,),
    ),
    Route(
        method="GET",
        path="/v1/crl-sources",
        name="listCrlSources",
        role=AdminRole.VIEWER,
        summary="list CRL sources",
        description="From where the CRLs of other sites are fetched, in pages.",
        answer=SOURCES,
        handler=_list_sources,
        query={**PAGE, "after": _SITE},
    ),
    Route(
        method="PUT",
        path="/v1/crl-sources/{site}",
        name="setCrlSource",
        role=AdminRole.SECURITY_OFFICER,
        summary="set CRL source",
        description="Fetches another site's CRL from its authority every few seconds from now on.",
        answer=CHANGED,
        handler=_set_source,
        body=PLACE,
        parameters=parameters(site=_SITE),
        problems=(Problem.UNKNOWN,),
    ),
    Route(
        method="DELETE",
        path="/v1/crl-sources/{site}",
        name="removeCrlSource",
        role=AdminRole.SECURITY_OFFICER,
        summary="remove CRL source",
        description="Fetches another site's CRL no more; the one that is held stays.",
        answer=CHANGED,
        handler=_remove_source,
        parameters=parameters(site=_SITE),
    ),
)
