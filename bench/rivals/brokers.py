"""Fan-out over TLS by a broker: one message to many, where every receiver has a connection of its own.

The clients speak as much of the two protocols as a stream needs (NATS client protocol; MQTT 3.1.1, QoS 0) and
read only how much came: their own cost is no part of the figure.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import json
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench.children import ChildError, cpu_seconds
from bench.rivals.packages import install
from bench.site import Site

MESSAGE_BYTES = 1024
_AHEAD = 500
"""Messages under way at most: a broker drops what it would have to keep for a slow client."""
_TOPIC = "bench"
_PATIENCE_SECONDS = 120.0
_READ_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Broker:
    """A server, and the bytes of its protocol."""

    name: str
    package: str
    program: str
    publication: bytes
    """One message, as a client sends it."""
    delivery_bytes: int
    """One message, as a client gets it."""

    def command(self, folder: Path, port: int) -> list[str]:
        """Return the command line that serves on 127.0.0.1:`port`."""
        key, chain = folder / "key.pem", folder / "chain.pem"
        if self.name == "NATS":
            tls = ["--tls", "--tlskey", str(key), "--tlscert", str(chain)]
            return [self.program, "-a", "127.0.0.1", "-p", str(port), *tls]
        settings = folder / "mosquitto.conf"
        settings.write_text(
            f"listener {port} 127.0.0.1\nkeyfile {key}\ncertfile {chain}\nallow_anonymous true\n"
            "max_queued_messages 0\nuser root\n"
        )
        return [self.program, "-c", str(settings)]

    async def connect(self, port: int, tls: ssl.SSLContext, *, listens: bool) -> _Connection:
        """Connect a client, and subscribe it if it `listens`."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_READ_BYTES)
        if self.name == "NATS":
            await reader.readline()
            await writer.start_tls(tls, server_hostname="127.0.0.1")
            options = {"verbose": False, "pedantic": False, "tls_required": True}
            writer.write(b"CONNECT " + json.dumps(options).encode() + b"\r\n")
            if listens:
                writer.write(b"SUB %s 1\r\n" % _TOPIC.encode())
            writer.write(b"PING\r\n")
            while (line := await reader.readline()) != b"PONG\r\n":
                if not line or line.startswith(b"-ERR"):
                    raise ChildError(f"NATS says {line!r}")
            return _Connection(reader, writer)
        await writer.start_tls(tls, server_hostname="127.0.0.1")
        # Clean session, no keep-alive, an identifier of the server's choice.
        writer.write(_packet(0x10, _text("MQTT") + bytes([4, 2, 0, 0]) + _text("")))
        if await reader.readexactly(4) != b"\x20\x02\x00\x00":
            raise ChildError("mosquitto refuses a client")
        if listens:
            writer.write(_packet(0x82, b"\0\1" + _text(_TOPIC) + b"\0"))
            await reader.readexactly(5)
        return _Connection(reader, writer)


@dataclass(slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    received: int = 0
    """Bytes."""

    async def listen(self, grown: asyncio.Event) -> None:
        while data := await self.reader.read(_READ_BYTES):
            self.received += len(data)
            grown.set()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await self.writer.wait_closed()


def _text(value: str) -> bytes:
    return struct.pack("!H", len(value)) + value.encode()


def _packet(first: int, body: bytes) -> bytes:
    """Return an MQTT control packet; the length in sevens of bits, the lowest first."""
    left, length = len(body), bytearray()
    while True:
        left, digit = divmod(left, 128)
        length.append(digit | (0x80 if left else 0))
        if not left:
            return bytes([first, *length]) + body


_NATS_BODY = bytes(MESSAGE_BYTES) + b"\r\n"
_MQTT_PUBLICATION = _packet(0x30, _text(_TOPIC) + bytes(MESSAGE_BYTES))

NATS = Broker(
    name="NATS",
    package="nats-server",
    program="/usr/sbin/nats-server",
    publication=b"PUB %s %d\r\n" % (_TOPIC.encode(), MESSAGE_BYTES) + _NATS_BODY,
    delivery_bytes=len(b"MSG %s 1 %d\r\n" % (_TOPIC.encode(), MESSAGE_BYTES) + _NATS_BODY),
)
MOSQUITTO = Broker(
    name="mosquitto",
    package="mosquitto",
    program="/usr/sbin/mosquitto",
    publication=_MQTT_PUBLICATION,
    delivery_bytes=len(_MQTT_PUBLICATION),
)
BROKERS = (NATS, MOSQUITTO)


async def fan_out(site: Site, broker: Broker, folder: Path, *, receivers: int, count: int) -> float:
    """Return the CPU seconds of the broker for `count` messages to `receivers`. Raises: MissingError."""
    install([broker.package], [broker.program])
    tls = _credentials(folder)
    port = _free_port()
    # On loopback: one core's cost is the same there, and there is no loss to add.
    child = await site.children.start(broker.name, broker.command(folder, port))
    try:
        async with _clients(broker, port, tls, receivers) as (publisher, subscribers, grown):
            before = cpu_seconds(child.pid)
            await _stream(broker, publisher, subscribers, grown, count)
            return cpu_seconds(child.pid) - before
    finally:
        await child.stop()


def _free_port() -> int:
    """A TCP port that nobody has, nor had a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


async def _stream(
    broker: Broker,
    publisher: _Connection,
    subscribers: Sequence[_Connection],
    grown: asyncio.Event,
    count: int,
) -> None:
    """Publish, at most so many ahead of the slowest subscriber, until all of them have all."""
    sent = 0
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while True:
            grown.clear()
            come = min(each.received for each in subscribers) // broker.delivery_bytes
            if come >= count:
                return
            room = min(count, come + _AHEAD) - sent
            if room > 0:
                publisher.writer.write(broker.publication * room)
                await publisher.writer.drain()
                sent += room
            await grown.wait()


@contextlib.asynccontextmanager
async def _clients(
    broker: Broker, port: int, tls: ssl.SSLContext, receivers: int
) -> AsyncIterator[tuple[_Connection, list[_Connection], asyncio.Event]]:
    grown = asyncio.Event()
    publisher = await _first(broker, port, tls)
    subscribers = [await broker.connect(port, tls, listens=True) for _ in range(receivers)]
    listening = [asyncio.create_task(each.listen(grown)) for each in subscribers]
    try:
        yield publisher, subscribers, grown
    finally:
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
        for each in (publisher, *subscribers):
            await each.close()


async def _first(broker: Broker, port: int, tls: ssl.SSLContext) -> _Connection:
    """Connect to a server that is starting."""
    end = time.monotonic() + 10
    while True:
        try:
            return await broker.connect(port, tls, listens=False)
        except OSError:
            if time.monotonic() > end:
                raise ChildError(f"{broker.name} does not listen") from None
            await asyncio.sleep(0.05)


def _credentials(folder: Path) -> ssl.SSLContext:
    """Make the server's key and certificate; return what trusts it."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bench")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1))
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    (folder / "chain.pem").write_bytes(certificate)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    return ssl.create_default_context(cadata=certificate.decode())
