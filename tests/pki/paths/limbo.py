"""x509-limbo as cases (README.md)."""

import binascii
import json
import lzma
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sealcast.pki.times import microseconds
from tests.pki.paths.cases import PathCase

_FILE = Path(__file__).parent / "x509-limbo.json.xz"
_PRESENT = datetime(2025, 1, 1, tzinfo=UTC)
"""For cases of any time: their certificates are valid from 1970 to 2969."""


def cases() -> Iterator[PathCase]:
    """Each case of the file."""
    for case in json.loads(lzma.decompress(_FILE.read_bytes())):
        yield _case(case)


def _case(case: dict[str, Any]) -> PathCase:
    moment = datetime.fromisoformat(case["validation_time"]) if case["validation_time"] else _PRESENT
    return PathCase(
        name=case["id"],
        is_valid={"SUCCESS": True, "FAILURE": False}[case["expected_result"]],
        anchors=_ders(case["trusted_certs"]),
        chain=_ders([case["peer_certificate"], *case["untrusted_intermediates"]]),
        crl=b"".join(_ders(case["crls"])) or None,
        now=microseconds(moment),
        is_server=case["validation_kind"] == "SERVER",
    )


def _ders(pems: list[str]) -> tuple[bytes, ...]:
    # No parser: some of these are meant to be refused by one.
    return tuple(binascii.a2b_base64("".join(pem.strip().splitlines()[1:-1])) for pem in pems)
