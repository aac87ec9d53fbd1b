"""TLS contexts of the side channel: TLS 1.3, both sides show certificates, names of hosts do not count.

The handshake proves that the peer holds the key of a certificate under our roots; who that is, its role, and
whether it is revoked is judged after the handshake by the validator. Spec: spec/trust.md TR-8,
spec/side-channel.md.
"""

import ssl
from collections.abc import Sequence
from pathlib import Path

from sealcast.errors import CertificateError
from sealcast.pki.certificates import certificates_pem, is_issued_by, is_self_signed, parse_certificate
from sealcast.pki.files import storage_errors
from sealcast.pki.times import to_datetime


def client_context(chain_file: Path, key_file: Path, authorities: Sequence[bytes]) -> ssl.SSLContext:
    """Return a context for connections to peers and key servers.

    `chain_file`: PEM, own certificate first, then the site CA's. `key_file`: PEM. `authorities`: DER, the
    roots, and site CA certificates of peers that show their own certificate only.
    Raises: StorageError, CertificateError.
    """
    return _mutual(ssl.PROTOCOL_TLS_CLIENT, chain_file, key_file, authorities)


def server_context(chain_file: Path, key_file: Path, authorities: Sequence[bytes]) -> ssl.SSLContext:
    """Return a context for a listener that admits only holders of certificates.

    Arguments as `client_context`.
    """
    context = _mutual(ssl.PROTOCOL_TLS_SERVER, chain_file, key_file, authorities)
    # A resumed session would skip the check of the certificate's validity.
    context.num_tickets = 0
    return context


def load_own_certificate(context: ssl.SSLContext, chain_file: Path, key_file: Path) -> None:
    """Set or replace a context's own certificate; on a live listener the next handshake shows the new one.

    Raises: StorageError, CertificateError.
    """
    with storage_errors(chain_file):
        try:
            context.load_cert_chain(chain_file, key_file)
        except ssl.SSLError as error:
            raise CertificateError(
                f"{chain_file}: certificate and key do not fit: {error.reason or error}", reason="key"
            ) from None


def clock_problem(detail: str, now: int) -> str | None:
    """Return the cure where TLS refused a certificate for its time: the other side's, or our own clock.

    `detail`: TLS's words. `now`: what this machine's clock says, microseconds.
    """
    if "not yet valid" in detail or "expired" in detail:
        return (
            f"this machine's clock says {to_datetime(now):%Y-%m-%dT%H:%M:%SZ}: set it if that is wrong; "
            "else the other side has to renew"
        )
    return None


def trust(context: ssl.SSLContext, authorities: Sequence[bytes]) -> None:
    """Add DER certificates to a context's trusted ones; on a live listener from the next handshake on."""
    try:
        context.load_verify_locations(cadata=certificates_pem(authorities).decode("ascii"))
    except ssl.SSLError as error:
        raise CertificateError(
            f"a root cannot be used for TLS: {error.reason or error}", reason="malformed"
        ) from None


def leading(roots: Sequence[bytes], authorities: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return DER roots, and of the site CA certificates those that lead to one of them, for a TLS context.

    OpenSSL goes on with the first issuer that it finds, and does not try another one of the same name and
    key, as there is while a root is rotated; so it is shown none that leads nowhere.
    """
    parsed = [parse_certificate(der) for der in roots]
    known = [(der, parse_certificate(der)) for der in authorities]
    return (
        *roots,
        *(
            der
            for der, authority in known
            if is_self_signed(authority) or any(is_issued_by(authority, root) for root in parsed)
        ),
    )


def _mutual(
    protocol: ssl._SSLMethod, chain_file: Path, key_file: Path, authorities: Sequence[bytes]
) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    trust(context, authorities)
    load_own_certificate(context, chain_file, key_file)
    return context
