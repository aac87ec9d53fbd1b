"""A register as it stands after years, with its certificates, tokens, reports and log; written in one go.

What a device would have asked for one by one is put into the tables at once, in the form that the authority
gives it; the certificates themselves are random bytes, as nothing here reads them again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from sealcast.authority import audit, bundles, channels, revocation
from sealcast.authority.channels import ChannelSettings
from sealcast.authority.issuance import LEDGER_FILE
from sealcast.authority.models import (
    AuditRow,
    Base,
    CertificateRow,
    DeviceRow,
    MemberRow,
    ReportRow,
    SiteRow,
    TokenRow,
)
from sealcast.authority.site import Site
from sealcast.ca import Intent, Ledger
from sealcast.pki.names import Identity, Role
from sealcast.pki.times import system_time

ROLES = ("monitor", "display", "pump")
"""In turns."""

WHOLE_SITE = "site/all"
"""A channel that every device may subscribe to."""

_WHOLE_SITE = ChannelSettings(
    name=WHOLE_SITE, group="239.253.0.1", port=5000, publish=("publisher-*",), subscribe=("*",)
)
_DAY = 86_400 * 1_000_000
_CERTIFICATE_BYTES = 700
_AT_ONCE = 10_000


def device_name(number: int) -> str:
    """Return the name of one of them."""
    return f"device-{number:06}"


def fill(folder: Path, *, devices: int, revoked: int, members: int) -> None:
    """Enrol so many devices, each with a certificate and a used token, half with a report; revoke more.

    A channel lists all of them, and the last `members` of them have joined it.
    """
    site, now = Site.open(folder), system_time()
    total, ends = devices + revoked, now + 60 * _DAY
    serials = [f"{serial:x}" for serial in _reserve(folder / LEDGER_FILE, site.site_id, total, ends, now)]
    with site.storage.transaction() as session:
        latest = bundles.latest_version(session)
        _add(session, DeviceRow, (
            {"name": device_name(n), "enrolled": now - _DAY, "revoked": None if n < devices else now - 1,
             "roles": [ROLES[n % len(ROLES)]], "maker_key": None, "ends": ends,
             "bundle_version": latest if n % 2 == 0 and n < devices else 0}
            for n in range(total)
        ))  # fmt: skip
        _add(session, CertificateRow, (
            {"serial": serials[n], "name": device_name(n), "role": "device", "not_before": now - _DAY,
             "not_after": ends, "der": os.urandom(_CERTIFICATE_BYTES),
             "revoked": None if n < devices else now - 1}
            for n in range(total)
        ))  # fmt: skip
        _add(session, TokenRow, (
            {"hash": os.urandom(32), "device": device_name(n), "kind": "device", "created": now - _DAY,
             "expires": now - _DAY + 1, "used": now - _DAY, "serial": serials[n], "roles": None,
             "registers": False}
            for n in range(total)
        ))  # fmt: skip
        _add(session, ReportRow, (
            {"device": device_name(n), "bundle_version": latest, "serial": serials[n], "reported": now}
            for n in range(0, devices, 2)
        ))  # fmt: skip
        channels.add_channel(session, site, _WHOLE_SITE, now)
        _add(session, MemberRow, (
            {"channel": WHOLE_SITE, "device": device_name(n), "role": "subscribe", "generation": 1, "step": 0,
             "joined": now, "left": False}
            for n in range(devices - members, devices)
        ))  # fmt: skip
        _add(session, AuditRow, _entries(session, serials, now))
        revocation.issue_crl(session, site.issuer, now)
        session.get_one(SiteRow, 1).ledger_position = site.issuer.last_position()


def _reserve(path: Path, site_id: bytes, count: int, ends: int, now: int) -> list[int]:
    """Enter the certificates into the ledger of the site CA."""
    ledger = Ledger(path)
    intents = [
        Intent(
            identity=Identity(role=Role.DEVICE, site_id=site_id, name=device_name(number)),
            request=os.urandom(32),
            time=now - _DAY,
            ends=ends,
        )
        for number in range(count)
    ]
    serials = ledger.reserve_all(intents)
    ledger.conclude_all({serial: os.urandom(32) for serial in serials})
    return serials


def _add(session: Session, table: type[Base], rows: Iterator[dict[str, Any]]) -> None:
    page: list[dict[str, Any]] = []
    for row in rows:
        page.append(row)
        if len(page) == _AT_ONCE:
            session.execute(insert(table), page)
            page = []
    if page:
        session.execute(insert(table), page)


def _entries(session: Session, serials: Sequence[str], now: int) -> Iterator[dict[str, Any]]:
    """The log of those enrolments, a chain as `audit.verify` wants it."""
    head = audit.head(session)
    number, last = (head.number, head.hash) if head is not None else (0, bytes(32))
    for place, serial in enumerate(serials):
        number += 1
        fields: dict[str, Any] = {
            "id": number, "time": now, "actor": f"device:{device_name(place)}", "action": "enrol device",
            "subject": device_name(place), "outcome": audit.DONE,
            "detail": {"by": "token", "generated": False, "serial": serial},
        }  # fmt: skip
        content = json.dumps(list(fields.values()), sort_keys=True, separators=(",", ":")).encode()
        this = audit.entry_hash(last, content)
        yield {**fields, "previous": last, "hash": this}
        last = this
