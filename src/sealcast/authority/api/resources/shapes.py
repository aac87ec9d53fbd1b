"""What several resources share: names, times, certificates, and lists in pages."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from sealcast.authority.api.schema import Component, JsonSchema, listed, moment, nullable, record, text
from sealcast.pki.certificates import certificates_pem, parse_certificate
from sealcast.pki.policy_rules import MAX_ROLES
from sealcast.pki.times import microseconds, to_datetime

NAME = text(
    "A name: 1 to 63 letters, digits, dots, underscores and hyphens, a letter or digit first.",
    pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
    examples=["monitor-1"],
)
"""TR-2."""

ROLES = listed(
    text("A role.", pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", examples=["monitor"]),
    "What policies may call the device by besides its name.",
    maxItems=MAX_ROLES,
)

CERTIFICATE = Component(
    "Certificate",
    record(
        "A certificate that is trusted, or that the site's CA has issued.",
        subject=text("Distinguished name (RFC 4514)."),
        serial=text("Serial number, hexadecimal.", pattern="^[0-9a-f]+$"),
        not_before=moment("Start of its life."),
        not_after=moment("End of its life."),
        sha256=text("SHA-256 of the DER certificate, hexadecimal.", pattern="^[0-9a-f]{64}$"),
        pem=text("The certificate itself."),
    ),
)

ISSUED = Component(
    "IssuedCertificate",
    record(
        "A certificate of a device or an admin.",
        serial=text("Serial number, hexadecimal.", pattern="^[0-9a-f]+$"),
        not_before=moment("Start of its life."),
        not_after=moment("End of its life."),
        revoked=nullable(moment("When it was revoked.")),
    ),
)

CHANGED = Component(
    "Changed",
    record(
        "How a change that may be repeated ended.",
        changed={"type": "boolean", "description": "False: it was so before, nothing was done."},
    ),
)


def page_of(component: Component, name: str, description: str) -> Component:
    """The answer of a list."""
    return Component(
        name,
        record(
            description,
            items=listed(component, "In order."),
            next=nullable(text("What to give as `after` for the next page; null at the end.")),
        ),
    )


def page(items: Sequence[Mapping[str, Any]], limit: int, key: str) -> dict[str, Any]:
    """A page of at most `limit` of the items, of which one more was looked for."""
    kept = [dict(item) for item in items[:limit]]
    return {"items": kept, "next": str(kept[-1][key]) if len(items) > limit else None}


def time_text(moment_us: int) -> str:
    """RFC 3339, UTC, whole seconds."""
    return f"{to_datetime(moment_us):%Y-%m-%dT%H:%M:%SZ}"


def time_or_none(moment_us: int | None) -> str | None:
    """The same for what may not have happened."""
    return None if moment_us is None else time_text(moment_us)


def certificate_json(der: bytes) -> dict[str, Any]:
    """A certificate as `CERTIFICATE` describes it."""
    certificate = parse_certificate(der)
    return {
        "subject": certificate.subject.rfc4514_string(),
        "serial": f"{certificate.serial_number:x}",
        "not_before": time_text(microseconds(certificate.not_valid_before_utc)),
        "not_after": time_text(microseconds(certificate.not_valid_after_utc)),
        "sha256": hashlib.sha256(der).hexdigest(),
        "pem": certificates_pem([der]).decode("ascii"),
    }


def parameters(**schemas: JsonSchema) -> dict[str, JsonSchema]:
    """Parameters of a path."""
    return schemas
