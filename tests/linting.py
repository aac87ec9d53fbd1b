"""Every certificate that a test issues in this process is checked against RFC 5280 by pkilint.

An observer of `sealcast.ca` collects them; of each shape (profile, names, extensions, kinds of keys) the
first one is linted when the tests are over (conftest.py). `EXCUSED` are findings that we disagree with, and
why; one that is no longer found has to be taken off (ca/test_linting.py).
"""

import threading
from dataclasses import dataclass, field

from cryptography import x509

_OUR_URI = (
    "RFC 5280 section 4.2.1.6 asks for an absolute URI of RFC 3986; scheme and rootless path, as in urn: and "
    "mailto:, are one. pkilint takes URLs with a host only."
)
EXCUSED: dict[tuple[str, str], str] = {
    ("site", "pkix.invalid_uri_syntax"): _OUR_URI,
    ("device", "pkix.invalid_uri_syntax"): _OUR_URI,
    ("key-server", "pkix.invalid_uri_syntax"): _OUR_URI,
    ("admin", "pkix.invalid_uri_syntax"): _OUR_URI,
    ("key-server", "pkix.invalid_domain_name_syntax"): "localhost is a name of one label, which RFC 1034 "
    "section 3.5 allows; clients on the same machine connect under it. pkilint asks for two.",
}
"""(profile, code of pkilint) to the reason. The list may only become shorter."""


@dataclass
class Collected:
    """Certificates, one of each shape."""

    ders: dict[tuple[str, ...], bytes] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, der: bytes) -> None:
        """The observer: keeps the first of its shape."""
        shape = shape_of(x509.load_der_x509_certificate(der))
        with self._lock:
            self.ders.setdefault(shape, der)


def profile_of(certificate: x509.Certificate) -> str:
    """`root`, or the role in the certificate's URI."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "root"
    return next(
        uri.split(":")[1]
        for uri in names.get_values_for_type(x509.UniformResourceIdentifier)
        if uri.startswith("sealcast:")
    )


def shape_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """What certificates have in common that a linter can tell nothing apart from."""
    extensions = certificate.extensions
    names: list[str] = []
    usages: list[str] = []
    for found in extensions:
        if isinstance(found.value, x509.SubjectAlternativeName):
            names = sorted({type(entry).__name__ for entry in found.value})
        if isinstance(found.value, x509.ExtendedKeyUsage):
            usages = sorted(usage.dotted_string for usage in found.value)
    return (
        profile_of(certificate),
        ",".join(attribute.oid.dotted_string for attribute in certificate.subject),
        ",".join(f"{found.oid.dotted_string}{'!' if found.critical else ''}" for found in extensions),
        ",".join(names),
        ",".join(usages),
        type(certificate.public_key()).__name__,
        certificate.signature_algorithm_oid.dotted_string,
    )


def findings(ders: list[bytes]) -> dict[tuple[str, str], str]:
    """(profile, code) of every finding above mere information, and what pkilint says."""
    # Seconds of imports, which only the end of the tests is to pay.
    from pkilint import loader, validation
    from pkilint.pkix import certificate as rfc5280
    from pkilint.pkix import extension, name

    linter = rfc5280.create_pkix_certificate_validator_container(
        rfc5280.create_decoding_validators(name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS),
        [
            rfc5280.create_issuer_validator_container([]),
            rfc5280.create_validity_validator_container(),
            rfc5280.create_subject_validator_container([]),
            rfc5280.create_extensions_validator_container([]),
            rfc5280.create_spki_validator_container([]),
        ],
    )
    found: dict[tuple[str, str], str] = {}
    for der in ders:
        profile = profile_of(x509.load_der_x509_certificate(der))
        document = loader.load_certificate(der, profile)
        for result in linter.validate(document.root):
            for description in result.finding_descriptions:
                finding = description.finding
                if finding.severity < validation.ValidationFindingSeverity.INFO:
                    text = f"{finding.severity.name} at {result.node.path}: {description.message or ''}"
                    found[profile, finding.code] = text
    return found


def verdict(collected: Collected) -> str:
    """What is wrong, line by line; empty if nothing is."""
    found = findings(list(collected.ders.values()))
    return "\n".join(f"{key}: {text}" for key, text in found.items() if key not in EXCUSED)
