"""NIST PKITS as cases: the Public Key Interoperability Test Suite of 2011.

The expected verdict is in the name of each end entity's file; the names that do not say it are of the
sections on certificate policies, and stand for the default inputs (any policy is acceptable, none is
required). What belongs to a path is found by names: issuers by their subjects, folded as RFC 5280 section
7.1 says; a list by its issuer, whose name stands in a certificate of the path as issuer or as cRLIssuer.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import cryptography_vectors

from tests.pki.paths.cases import PathCase

JUNE_2011 = 1_308_700_800_000_000
"""Microseconds. All certificates are valid from 2010 to 2030, but for those that are not to be."""

INVALID_BY_POLICY = {f"DifferentPoliciesTest{number}EE" for number in (4, 5, 7, 8, 9, 12)}

_FOLDER = Path(cryptography_vectors.__file__).parent / "x509" / "PKITS_data"
_ANCHOR = "TrustAnchorRootCertificate"
_END_ENTITY = re.compile(r"Test\d+(EE)?$")
_VERSION, _INTEGER = 0xA0, 0x02

Name = tuple[tuple[bytes, str], ...]


def cases() -> Iterator[PathCase]:
    """One for each end entity."""
    certificates = _read("certs", "crt")
    lists = {der: _crl_issuer(der) for der in _read("crls", "crl").values()}
    issuers = {
        der: _folded(_cert_names(der)[1])
        for name, der in certificates.items()
        if name != _ANCHOR and not _END_ENTITY.search(name)
    }
    for name, der in certificates.items():
        if not _END_ENTITY.search(name):
            continue
        path = _path(der, issuers)
        crls = [crl for crl, issuer in lists.items() if any(issuer in certificate for certificate in path)]
        yield PathCase(
            name=name,
            is_valid=not name.startswith("Invalid") and name not in INVALID_BY_POLICY,
            anchors=(certificates[_ANCHOR],),
            chain=tuple(path),
            crl=b"".join(crls) or None,
            now=JUNE_2011,
        )


def _read(folder: str, suffix: str) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in sorted((_FOLDER / folder).glob(f"*.{suffix}"))}


def _path(end_entity: bytes, issuers: dict[bytes, Name]) -> list[bytes]:
    """The end entity first, then every CA that might stand above it."""
    path = [end_entity]
    for der in path:
        wanted = _folded(_cert_names(der)[0])
        path += [issuer for issuer, subject in issuers.items() if subject == wanted and issuer not in path]
    return path


def _elements(der: bytes) -> list[tuple[int, bytes, bytes]]:
    """Of what a constructed value holds: tag, the whole element, its content.

    A reader of our own, as the suite has certificates that parsers of today refuse.
    """
    found, position = [], 0
    while position < len(der):
        start, size = position + 2, der[position + 1]
        if size & 0x80:
            start, size = start + (size & 0x7F), int.from_bytes(der[start : start + (size & 0x7F)])
        found.append((der[position], der[position : start + size], der[start : start + size]))
        position = start + size
    return found


def _fields(der: bytes, first: int) -> list[tuple[int, bytes, bytes]]:
    """The fields of what is signed, after an optional one with the tag `first`."""
    (_, _, outer), *_ = _elements(der)
    (_, _, signed), *_ = _elements(outer)
    fields = _elements(signed)
    return fields[1:] if fields[0][0] == first else fields


@cache
def _cert_names(der: bytes) -> tuple[bytes, bytes]:
    """Issuer and subject, DER."""
    _, _, issuer, _, subject, *_ = _fields(der, _VERSION)
    return issuer[1], subject[1]


def _crl_issuer(der: bytes) -> bytes:
    return _fields(der, _INTEGER)[1][1]


@cache
def _folded(name: bytes) -> Name:
    (_, _, names), *_ = _elements(name)
    attributes = [_elements(pair) for _, _, pairs in _elements(names) for _, _, pair in _elements(pairs)]
    return tuple(
        (kind, " ".join(value.decode("utf-8", "replace").casefold().split()))
        for (_, kind, _), (_, _, value) in attributes
    )
