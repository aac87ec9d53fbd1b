"""The bodies and headers of EST messages (RFC 7030 as clarified by RFC 8951).

What is sent is exact, down to line lengths, because clients in the field are strict; what is received is
read with tolerance.
"""

import base64
import binascii
import secrets
from collections.abc import Iterable
from email.parser import BytesParser
from email.policy import HTTP

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7

from sealcast.errors import CertificateError, UsageError
from sealcast.pki.certificates import certificate_der, parse_certificate

EST_PATH = "/.well-known/est"

REQUEST_TYPE = "application/pkcs10"
CERTIFICATES_TYPE = "application/pkcs7-mime"
CACERTS_TYPE = CERTIFICATES_TYPE
# One blank after the semicolon: libest compares bytes.
CERTIFICATE_TYPE = "application/pkcs7-mime; smime-type=certs-only"
ATTRIBUTES_TYPE = "application/csrattrs"
PRIVATE_KEY_TYPE = "application/pkcs8"
PARTS_TYPE = "multipart/mixed"
RENEWAL_TYPE = "application/json"
PROBLEM_TYPE = "text/plain; charset=utf-8"

# RFC 8951 deprecates the header and makes receivers ignore it; Bouncy Castle decodes base64 only if it is
# there.
TRANSFER_ENCODING_HEADER = {"Content-Transfer-Encoding": "base64"}

MAX_BODY_BYTES = 64 * 1024
"""Spec: SC-2. A request has 1 KiB; the whole room is for requests with post-quantum keys."""

_LINE = 64
_WHITE_SPACE = b" \t\r\n"


def encode_body(der: bytes, *, in_lines: bool = True) -> bytes:
    """Return base64 with a final newline, in lines of 64 columns or in one line.

    RFC 8951 section 3 makes receivers ignore white space. Two do not: libest (OpenSSL's base64 filter) needs
    lines, strongSwan's pki takes a line end inside the text for data.
    """
    text = base64.b64encode(der)
    columns = _LINE if in_lines else len(text)
    return b"".join(text[start : start + columns] + b"\n" for start in range(0, len(text), columns))


def decode_body(body: bytes, *, strict: bool = False) -> bytes:
    """Return the DER in a body: base64 with white space anywhere.

    Unless `strict`, also what some clients send instead: base64 in PEM armour, and DER as it is. Raises:
    UsageError.
    """
    if not strict:
        if _is_der(body):
            return body
        if b"-----BEGIN" in body:
            body = b"".join(line for line in body.splitlines() if not line.startswith(b"-----"))
    text = body.translate(None, _WHITE_SPACE)
    try:
        der = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise UsageError("the body is not base64", cure="send DER in base64 (RFC 8951 section 3)") from None
    if not der:
        raise UsageError("the body is empty", cure="send DER in base64 (RFC 8951 section 3)")
    return der


def _is_der(body: bytes) -> bool:
    """Tell whether a body is one SEQUENCE with a length of one or two octets, as every request is.

    No base64 begins like that: its second byte would be above 127.
    """
    match body[:2]:
        case b"\x30\x81":
            return len(body) == 3 + int.from_bytes(body[2:3], "big")
        case b"\x30\x82":
            return len(body) == 4 + int.from_bytes(body[2:4], "big")
    return False


def encode_certificates(ders: Iterable[bytes], *, in_lines: bool = True) -> bytes:
    """Return a certs-only PKCS#7 body (base64). DER puts the certificates into an order of its own."""
    certificates = [parse_certificate(der) for der in ders]
    message = pkcs7.serialize_certificates(certificates, serialization.Encoding.DER)
    return encode_body(message, in_lines=in_lines)


def decode_certificates(body: bytes) -> list[bytes]:
    """Return the DER certificates of a certs-only PKCS#7 body, whose order means nothing.

    Raises: CertificateError.
    """
    try:
        certificates = pkcs7.load_der_pkcs7_certificates(decode_body(body))
    except (ValueError, UsageError, x509.InvalidVersion, UnsupportedAlgorithm) as error:
        raise CertificateError(f"not a certs-only answer: {error}", reason="malformed") from None
    return [certificate_der(certificate) for certificate in certificates]


def encode_parts(parts: Iterable[tuple[str, bytes]], *, in_lines: bool = True) -> tuple[str, bytes]:
    """Return content type and body of a multipart/mixed answer (RFC 7030 section 4.4.2).

    `parts`: content type and DER. libest wants the header names of each part in this spelling.
    """
    # 128 random bits, and no base64 character in front: never inside a part.
    boundary = f"_{secrets.token_hex(16)}"
    lines: list[bytes] = []
    for content_type, der in parts:
        head = {"Content-Type": content_type, **TRANSFER_ENCODING_HEADER}
        lines.append(f"--{boundary}\r\n".encode())
        lines += [f"{name}: {value}\r\n".encode() for name, value in head.items()]
        lines.append(b"\r\n" + encode_body(der, in_lines=in_lines) + b"\r\n")
    return f"{PARTS_TYPE}; boundary={boundary}", b"".join(lines) + f"--{boundary}--\r\n".encode()


def decode_parts(content_type: str, body: bytes) -> dict[str, bytes]:
    """Return the parts of a multipart/mixed answer: DER by media type. Raises: CertificateError."""
    message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    try:
        return {
            part.get_content_type(): decode_body(str(part.get_payload()).encode("ascii", "replace"))
            for part in message.iter_parts()
        }
    except (UsageError, KeyError, TypeError):
        raise CertificateError("not an answer of two parts", reason="malformed") from None
