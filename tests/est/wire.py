"""An EST client without a client library: raw bytes over TLS, headers as they are on the wire."""

import asyncio
import base64
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sealcast.est.messages import encode_body
from sealcast.pki.certificates import certificates_pem

CHALLENGE_PASSWORD = x509.ObjectIdentifier("1.2.840.113549.1.9.7")
HANDSHAKE_ERRORS = (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    """Names as they were on the wire."""
    body: bytes


@dataclass
class Wire:
    """Connections to one server; each request on its own."""

    port: int
    context: ssl.SSLContext
    unique: bytes = field(default=b"", repr=False)
    """tls-unique of the last connection."""

    async def send(self, raw: bytes) -> Reply:
        return await self.send_linked(lambda _: raw)

    async def send_linked(self, make: Callable[[bytes], bytes]) -> Reply:
        """Send what is made from the tls-unique of the connection that it goes over."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.context, server_hostname="localhost"
        )
        try:
            self.unique = writer.get_extra_info("ssl_object").get_channel_binding("tls-unique") or b""
            writer.write(make(self.unique))
            await writer.drain()
            head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
            headers = dict(line.split(": ", 1) for line in head[1:] if line)
            body = await reader.readexactly(int(headers.get("Content-Length", "0")))
            return Reply(int(head[0].split()[1]), headers, body)
        finally:
            writer.close()

    async def get(self, path: str, method: str = "GET") -> Reply:
        return await self.send(
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: test\r\n\r\n".encode()
        )

    async def post(
        self,
        operation: str,
        body: bytes,
        *,
        credentials: str | None = None,
        content_type: str | None = "application/pkcs10",
        headers: str = "",
    ) -> Reply:
        return await self.send(
            request(operation, body, credentials=credentials, content_type=content_type, headers=headers)
        )


def request(
    operation: str,
    body: bytes,
    *,
    credentials: str | None = None,
    content_type: str | None = "application/pkcs10",
    headers: str = "",
) -> bytes:
    """The bytes of a POST."""
    head = f"POST /.well-known/est/{operation} HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Content-Length: {len(body)}\r\nUser-Agent: test\r\n"
    if credentials is not None:
        head += f"Authorization: Basic {base64.b64encode(credentials.encode()).decode()}\r\n"
    if content_type is not None:
        head += f"Content-Type: {content_type}\r\n"
    return f"{head}{headers}\r\n".encode() + body


def tls(roots: list[bytes], own: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """A client that trusts `roots` and checks the name `localhost`."""
    context = ssl.create_default_context(cadata=certificates_pem(roots).decode())
    if own:
        context.load_cert_chain(*own)
    return context


def csr(
    name: str,
    *,
    key: ec.EllipticCurvePrivateKey | None = None,
    current: bytes | None = None,
    subject: x509.Name | None = None,
    names: list[x509.GeneralName] | None = None,
    attributes: Mapping[x509.ObjectIdentifier, bytes] | None = None,
    extensions: list[x509.ExtensionType] | None = None,
) -> bytes:
    """DER; `current`: a DER certificate whose subject and subjectAltName are repeated."""
    builder = x509.CertificateSigningRequestBuilder()
    if current is not None:
        present = x509.load_der_x509_certificate(current)
        subject = subject or present.subject
        if names is None:
            names = list(present.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    builder = builder.subject_name(subject or x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
    for oid, value in (attributes or {}).items():
        builder = builder.add_attribute(oid, value)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for extension in extensions or []:
        builder = builder.add_extension(extension, critical=False)
    request = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def body(der: bytes) -> bytes:
    """As it goes into a request."""
    return encode_body(der)
