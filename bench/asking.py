"""Who asks for certificates, and a server that does no more than it must: `python -m bench.asking ROLE …`.

Both ends of `bench.enrolment`. The same client asks the authority and the server that is its limit.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SHOWN = 32
"""Devices that renew in turns; each has a TLS context, which is made beforehand."""
_LIFE = datetime.timedelta(days=90)
_BACKLOG = 512
_THREADS = 8


def _say(**report: Any) -> None:
    print(json.dumps(report), flush=True)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


# -- the client ----------------------------------------------------------------------------------------------


class Client:
    """Asks over a connection of its own each time, as devices do."""

    def __init__(self, root: str, folder: str | Path) -> None:
        self._root = root
        self._folder = Path(folder)
        self._plain = ssl.create_default_context(cafile=root)
        self._shown: list[tuple[ssl.SSLContext, x509.Certificate]] = []

    async def enrol(self, port: int, name: str, token: str) -> None:
        """A first certificate; those of the first few devices are kept, to be renewed later."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        basic = base64.b64encode(f"{name}:{token}".encode()).decode()
        head = f"Authorization: Basic {basic}\r\n"
        certificate = await self._ask(port, self._plain, "simpleenroll", csr, head)
        if len(self._shown) < SHOWN:
            self._keep(key, certificate)

    async def renew(self, port: int, index: int) -> None:
        """A successor of one of the certificates that are kept, for a new key."""
        context, current = self._shown[index % len(self._shown)]
        key = ec.generate_private_key(ec.SECP256R1())
        names = current.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        csr = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(current.subject)
            .add_extension(names.value, critical=names.critical)
            .sign(key, hashes.SHA256())
        )
        await self._ask(port, context, "simplereenroll", csr, "")

    def _keep(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        file = self._folder / f"shown-{len(self._shown)}.pem"
        file.write_bytes(_key_pem(key) + certificate.public_bytes(serialization.Encoding.PEM))
        context = ssl.create_default_context(cafile=self._root)
        context.load_cert_chain(file)
        self._shown.append((context, certificate))

    async def _ask(
        self, port: int, context: ssl.SSLContext, what: str, csr: x509.CertificateSigningRequest, head: str
    ) -> x509.Certificate:
        body = base64.b64encode(csr.public_bytes(serialization.Encoding.DER))
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname="localhost"
        )
        writer.write(
            f"POST /.well-known/est/{what} HTTP/1.1\r\nHost: localhost\r\n{head}"
            f"Content-Type: application/pkcs10\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n".encode()
            + body
        )
        answer = await reader.read(-1)
        writer.close()
        start, _, content = answer.partition(b"\r\n\r\n")
        if not start.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"refused: {answer[:300]!r}")
        (certificate,) = pkcs7.load_der_pkcs7_certificates(base64.b64decode(content))
        return certificate


async def ask(*, root: str, folder: str, tokens: Sequence[tuple[str, str]], at_once: int) -> None:
    """Do what each line of standard input says, `enrol PORT COUNT` or `renew PORT COUNT`; say how long it
    took.

    `tokens`: pairs of name and token, which are used up one after the other.
    """
    client = Client(root, folder)
    pairs = iter(tokens)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    _say(ready=True)
    while line := (await reader.readline()).split():
        what, port, count = line[0], int(line[1]), int(line[2])
        if what == b"enrol":
            work = iter([client.enrol(port, *pair) for pair in islice(pairs, count)])
        else:
            work = iter([client.renew(port, index) for index in range(count)])

        async def some(work: Iterator[Any] = work) -> None:
            for each in work:
                await each

        cpu, start = time.process_time(), time.monotonic()
        await asyncio.gather(*(some() for _ in range(at_once)))
        _say(seconds=time.monotonic() - start, cpu=time.process_time() - cpu)


# -- the limit -----------------------------------------------------------------------------------------------


def answer(*, server: str, root: str, ca: str, waits: int, folder: str) -> None:
    """Serve what cannot be left out: the handshake, the request's signature, the certificate's.

    Blocking sockets, no HTTP but its framing, no register, no rule. `server` and
    `ca`: PEM with key and certificate; of both the product's own. `waits`: how often a record is written to
    the disk and waited for, for each certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(root)
    context.load_verify_locations(ca)
    context.num_tickets = 0
    pem = Path(ca).read_bytes()
    issuer = x509.load_pem_x509_certificate(pem)
    signing_key = serialization.load_pem_private_key(pem, None)
    if not isinstance(signing_key, ec.EllipticCurvePrivateKey):
        raise SystemExit(f"not an EC key: {ca}")
    journal = os.open(Path(folder) / "journal", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    def serve(listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with context.wrap_socket(connection, server_side=True) as peer:
                data = b""
                while not _is_whole(data):
                    if not (part := peer.recv(16384)):
                        raise SystemExit("a request ended early")
                    data += part
                der = _certificate(data.partition(b"\r\n\r\n")[2], issuer, signing_key)
                with disk:
                    for _ in range(waits):
                        os.write(journal, der)
                        os.fdatasync(journal)
                body = base64.b64encode(der)
                peer.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)
                peer.unwrap()

    disk = threading.Lock()
    with socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG) as listener:
        _say(port=listener.getsockname()[1])
        # More than one only so that the core has work while a connection waits for its client.
        threads = [threading.Thread(target=serve, args=(listener,), daemon=True) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
        threads[0].join()


def _is_whole(data: bytes) -> bool:
    head, end, body = data.partition(b"\r\n\r\n")
    length = head.rpartition(b"Content-Length: ")[2].partition(b"\r\n")[0]
    return bool(end) and len(body) >= int(length)


def _certificate(body: bytes, issuer: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> bytes:
    """A certificate of the same shape as a device's, as a certs-only message."""
    request = x509.load_der_x509_csr(base64.b64decode(body))
    if not request.is_signature_valid:
        raise SystemExit("a signature does not hold")
    public_key, now = request.public_key(), datetime.datetime.now(datetime.UTC)
    uri = x509.UniformResourceIdentifier(f"sealcast:device:{'0' * 32}:limit")
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        x509.CertificateBuilder()
        .subject_name(request.subject)
        .issuer_name(issuer.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + _LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
        .add_extension(usages, critical=False)
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return pkcs7.serialize_certificates([certificate], serialization.Encoding.DER)


if __name__ == "__main__":
    if sys.argv[1] == "ask":
        parameters = json.loads(sys.argv[2])
        parameters["tokens"] = json.loads(Path(parameters["tokens"]).read_text())
        asyncio.run(ask(**parameters))
    else:
        answer(**json.loads(sys.argv[2]))
