"""Every request of the management API. A resource is added by its file and its line here."""

from sealcast.authority.admins import AdminRole
from sealcast.authority.api.handling import Answer, Call
from sealcast.authority.api.openapi import make_document
from sealcast.authority.api.resources import (
    admins,
    approvals,
    auditing,
    bundles,
    channels,
    devices,
    est,
    makers,
    other_sites,
    policies,
    policy,
    revocations,
    rotations,
    site,
    tokens,
)
from sealcast.authority.api.routing import Route, RouteTable
from sealcast.authority.api.schema import Component


def _document(_: Call) -> Answer:
    return Answer(body=make_document(TABLE))


_DOCUMENT = Route(
    method="GET",
    path="/v1/openapi.json",
    name="getDocument",
    role=AdminRole.VIEWER,
    summary="show the API's document",
    description="This document: OpenAPI 3.1, made from the table by which requests are served.",
    answer=Component("Document", {"type": "object", "description": "An OpenAPI document."}),
    handler=_document,
    tagged=True,
)

TABLE = RouteTable(
    (
        *site.ROUTES,
        *devices.ROUTES,
        *tokens.ROUTES,
        *est.ROUTES,
        *approvals.ROUTES,
        *makers.ROUTES,
        *channels.ROUTES,
        *policies.ROUTES,
        *policy.ROUTES,
        *revocations.ROUTES,
        *other_sites.ROUTES,
        *bundles.ROUTES,
        *rotations.ROUTES,
        *admins.ROUTES,
        *auditing.ROUTES,
        _DOCUMENT,
    )
)
