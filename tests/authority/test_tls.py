"""What the listeners of a running service offer in TLS, as testssl.sh sees them.

testssl.sh speaks TLS by itself, with what OpenSSL of today has lost: old versions, weak ciphers, malformed
records. (sslyze would too; it asks for an older `cryptography` than we use.) It takes over ten seconds of a
core for each listener, so all are looked at side by side, once.
"""

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from sealcast.authority.site import ROOT_FILE
from sealcast.endpoint import Device
from sealcast.keys import MemberRole
from tests.authority.conftest import make_site, serving

pytestmark = [
    pytest.mark.needs_program("testssl", "openssl"),
    pytest.mark.timeout(400),
]

CHANNEL = "ward/ecg"
PATIENCE_SECONDS = 350
"""On a machine that does much else besides."""

CHECKS = ("-p", "-s", "-S")
"""Protocols, ciphers, certificate."""
OF_TLS_1_2 = ("-f", "-H", "-I", "-T", "-BB", "-R", "-C", "-W", "-F")
"""Forward secrecy, heartbleed, CCS injection, ticketbleed, ROBOT, renegotiation, compression, SWEET32, FREAK.
TLS 1.3 has none of these to get wrong, and the first check says where it is alone."""

LISTENERS = ("est", "keys", "manage", "publisher")

WEAK = ("NULL", "aNULL", "EXPORT", "LOW", "3DES_IDEA", "AVERAGE")
EVERYWHERE = {
    **dict.fromkeys(("SSLv2", "SSLv3", "TLS1", "TLS1_1"), "not offered"),
    **{f"cipherlist_{kind}": "not offered" for kind in WEAK},
    "TLS1_3": "offered with final",
    "cipherlist_STRONG": "offered",
    "ALPN": "not offered",
    "sessionresumption_ticket": "not supported",
    "TLS_session_ticket": "no -- no lifetime advertised",
    "cert_keySize": "EC 256 bits",
    "cert_signatureAlgorithm": "ECDSA with SHA256",
    "certs_countServer": "2",
    "certs_list_ordering_problem": "no",
    "cert_chain_of_trust": "passed.",
}
"""Finding by its name in testssl.sh."""
# A publisher's certificate names no host: its peers look at the identity (TR-8).
NAMED = {"cert_trust": "Ok via SAN (same w/o SNI)"}
EST = {"TLS1_2": "offered", "secure_client_renego": "not vulnerable"}
SIDE_CHANNEL = {"TLS1_2": "not offered", "SSL_sessionID_support": "no"}
EXPECTED = {
    "est": EVERYWHERE | NAMED | EST,
    "keys": EVERYWHERE | NAMED | SIDE_CHANNEL,
    "manage": EVERYWHERE | NAMED | SIDE_CHANNEL,
    "publisher": EVERYWHERE | SIDE_CHANNEL,
}

EXCUSED = {
    "cert_revocation": "lists come over the side channel, by beacons (TR-9); a certificate names no place to "
    "fetch one from",
    "cert_trust": "a publisher is known by the identity in its certificate, not by a host's name (TR-8)",
}
"""What testssl.sh would have otherwise, and why it is so. The list may only become shorter."""
GRAVE = {"LOW", "MEDIUM", "HIGH", "CRITICAL"}


@dataclass
class World:
    """Where each listener is, and what testssl.sh found there."""

    root: Path
    urls: dict[str, str]
    findings: dict[str, dict[str, tuple[str, str]]]
    """Listener, name of a finding: severity and text."""


@asynccontextmanager
async def looked_at(folder: Path) -> AsyncIterator[World]:
    async with serving(make_site(folder / "authority"), folder / "devices") as site:
        await site.add_channel(CHANNEL)
        device = Device(await site.enrol("monitor-1"))
        publisher = await site.stack.enter_async_context(device.publisher(CHANNEL, linger=0))
        member = await site.member("monitor-2", CHANNEL, MemberRole.SUBSCRIBE)
        [endpoint] = [
            entry.endpoint for entry in await member.streams(CHANNEL) if entry.stream == publisher.stream_id
        ]
        assert endpoint is not None
        listening, root = site.listening, site.folder / ROOT_FILE
        assert listening.manage is not None
        places = (listening.authority, listening.keys, listening.manage, f"https://127.0.0.1:{endpoint[1]}")
        urls = dict(zip(LISTENERS, places, strict=True))
        found = await asyncio.gather(
            *(
                look(url, root, folder / name, CHECKS + (OF_TLS_1_2 if name == "est" else ()))
                for name, url in urls.items()
            )
        )
        yield World(root, urls, dict(zip(LISTENERS, found, strict=True)))


async def look(url: str, root: Path, output: Path, checks: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """Run testssl.sh; return its findings."""
    report = output.with_suffix(".json")
    process = await asyncio.create_subprocess_exec(
        "testssl", "--quiet", "--warnings", "off", "--color", "0", "-n", "none", "--ip", "127.0.0.1",
        "--add-ca", str(root), "--jsonfile", str(report), *checks, url,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    # Its exit code counts findings.
    assert report.exists(), said.decode("utf-8", "replace")
    return {entry["id"]: (entry["severity"], entry["finding"]) for entry in json.loads(report.read_text())}


async def test_d10_listeners_offer_what_the_design_says_and_no_more(tmp_path: Path) -> None:
    """EST: TLS 1.2 and 1.3; the side channel: 1.3 alone; authenticated encryption with forward secrecy.

    D10: no tickets, as a session that is resumed would outlive the certificate that began it. In one test, so
    that all listeners are looked at once, however many processes the tests run in.
    """
    async with looked_at(tmp_path) as world:
        grave: dict[str, set[str]] = {}
        for listener in LISTENERS:
            found = world.findings[listener]
            assert len(found) > 40, "it has looked"
            texts = {name: found.get(name, ("", None))[1] for name in EXPECTED[listener]}
            assert texts == EXPECTED[listener], listener
            grave[listener] = {name for name, (severity, _) in found.items() if severity in GRAVE}
            assert await gives_no_ticket(urlsplit(world.urls[listener]).netloc, world.root), listener
        assert set().union(*grave.values()) == set(EXCUSED), grave


async def gives_no_ticket(place: str, root: Path) -> bool:
    """By OpenSSL's client, in TLS 1.3; testssl.sh looks at 1.2 alone."""
    process = await asyncio.create_subprocess_exec(
        "openssl", "s_client", "-connect", place, "-CAfile", str(root), "-tls1_3",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(PATIENCE_SECONDS):
        said, _ = await process.communicate(b"Q\n")
    return b"TLSv1.3" in said and b"session ticket" not in said.lower()


async def test_keys_that_are_too_weak_are_none_to_tls() -> None:
    """The kind of a peer's key is no part of its path (pki/paths/disagreements.toml): TLS refuses weak ones,
    with 112 bits as the least.
    """
    assert ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).security_level >= 2
    assert ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).security_level >= 2
