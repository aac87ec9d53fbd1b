"""F2 on the management API: every request and method with every kind of identity, against allow_list.toml.

D8: what a header says about who asks counts for nothing, on any listener. D10, E6: a connection that is open
outlives no removal.
"""

import asyncio
import base64
import hashlib
import ssl
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import pytest
from cryptography import x509
from sqlalchemy import select
from sqlalchemy.orm import Session
from yarl import URL

from sealcast.authority.admins import AdminRole
from sealcast.authority.api.table import TABLE
from sealcast.authority.app import running
from sealcast.authority.approvals import Credential, ask
from sealcast.authority.models import DeviceRow, RotationRow, TokenRow
from sealcast.authority.rotation_steps import Step
from sealcast.authority.site import ROOT_FILE, ROOT_KEY_FILE, SERVER_FILE, exclusive
from sealcast.ca import FileSigner, KeySigner, SiteCa
from sealcast.ca.site_request import SiteRequest
from sealcast.device import DeviceIdentity
from sealcast.errors import CertificateError, NotAllowedError, TokenError
from sealcast.est.messages import encode_body
from sealcast.keys import MemberRole
from sealcast.pki.bundle import BundleSite
from sealcast.pki.certificates import certificate_der, certificates_pem, parse_certificate
from sealcast.pki.names import Role
from sealcast.pki.profiles import CertificateIssuer, admin_builder
from sealcast.sidechannel.messages import EmptyBody
from tests.authority.bundles import add_version, held, new_root, next_bundle
from tests.authority.conftest import DAY, LOOPBACK, Site, make_site
from tests.authority.maker import Maker
from tests.authority.test_routes import (
    METHODS,
    issuer_of_itself,
    own_files,
    site_ca_of_another_root,
    write_files,
)

CHANNEL = "ward/ecg"
ALLOW_LIST: dict[str, list[str]] = tomllib.loads(
    (Path(__file__).parent / "allow_list.toml").read_text(encoding="utf-8")
)["manage"]
IDENTITIES = (
    "none",
    "self-signed",
    "wrong-ca",
    "other-site",
    "unknown",
    "expired",
    "revoked",
    "device",
    "server",
    "viewer",
    "operator",
    "officer",
)
ROLES = {
    "viewer": AdminRole.VIEWER,
    "operator": AdminRole.OPERATOR,
    "officer": AdminRole.SECURITY_OFFICER,
    "revoked": AdminRole.SECURITY_OFFICER,
    "spare": AdminRole.VIEWER,
}


MAKER = Maker()
ANOTHER_ROOT = new_root()


@dataclass
class World:
    """The site, and for each identity the files that TLS shows; None: no certificate."""

    site: Site
    other: Site
    """Another one, which the trust bundle lists."""
    files: dict[str, tuple[Path, Path] | None]
    numbers: "count[int]"

    def context(self, name: str) -> ssl.SSLContext:
        # What the server shows is another test's matter.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if (files := self.files[name]) is not None:
            context.load_cert_chain(*files)
        return context

    async def request(self, row: str) -> tuple[str, Any]:
        """Path and body of a request that succeeds for whoever may make it."""
        number = next(self.numbers)
        token = await self.site.token(f"device-{number}") if "{token}" in row else ""
        listed = self.token_id(f"device-{number}") if token else ""
        path = row.split(" ")[1]
        for word, value in {
            "{device}": "monitor-1" if "revocation" not in path else "monitor-2",
            "{token}": listed,
            "{channel}": quote(CHANNEL, safe=""),
            "{version}": "latest",
            "{admin}": "spare",
            "{approval}": await self.approval(number) if "{approval}" in row else "",
            "{maker}": await self.maker() if "{maker}" in row else "",
            "{rotation}": await self.rotation(path) if "{rotation}" in row else "",
            "{site}": self.other.authority.site.site_id.hex(),
        }.items():
            path = path.replace(word, value)
        bodies: dict[str, Any] = {
            "POST /v1/tokens": {"device": f"device-{number}"},
            "POST /v1/channels": {
                "name": f"channel-{number}",
                "group": "239.192.0.1",
                "port": 5000,
                "publish": [],
                "subscribe": [],
            },
            "PATCH /v1/channels/{channel}/members": {"publish": ["monitor-*"]},
            "PUT /v1/devices/{device}/roles": {"roles": ["monitor"]},
            "PUT /v1/policy": {"source": ""},
            "POST /v1/policy/comparison": {"source": ""},
            "POST /v1/admins": {"name": f"admin-{number}", "role": "viewer"},
            "PATCH /v1/admins/{admin}": {"role": "operator"},
            "POST /v1/admins/{admin}/tokens": {},
            "POST /v1/bundles": {"bundle": base64.b64encode(next_bundle(self.site)).decode()},
            "PATCH /v1/enrolment": {"strict_bodies": True},
            "POST /v1/approvals/{approval}/decision": {"approve": False},
            "POST /v1/makers": {"certificates": MAKER.pem.decode()},
            "POST /v1/rotations": {"kind": "server"},
            "POST /v1/rotations/{rotation}/certificate": {
                "certificate": certificates_pem([self.recertified]).decode()
            },
            "POST /v1/rotations/{rotation}/advance": {"force": True},
            "POST /v1/other-crls": {"der": base64.b64encode(self.other.authority.crl.own).decode()},
            "PUT /v1/crl-sources/{site}": {"url": "https://127.0.0.1:1"},
        }
        return path, bodies.get(row)

    async def approval(self, number: int) -> str:
        """The number of a request that waits."""
        found: list[int] = []

        def make(session: Session, now: int) -> None:
            key = number.to_bytes(32, "big")
            row = ask(
                session,
                device="monitor-3",
                key_hash=key,
                generated=False,
                credential=Credential.TOKEN,
                credential_id=key,
                detail="",
                now=now,
            )
            found.append(row.id)

        await self.site.operate(make)
        return str(found[0])

    async def maker(self) -> str:
        """The fingerprint of a maker that is admitted."""
        await self.site.add_maker(MAKER)
        return hashlib.sha256(certificate_der(MAKER.root)).hexdigest()

    @cached_property
    def recertified(self) -> bytes:
        """The certificate of the site CA by another root."""
        asked = SiteRequest.of_certificate(self.site.authority.site.issuer.certificate)
        return asked.certify(ANOTHER_ROOT, self.site.clock())

    async def rotation(self, path: str) -> str:
        """The number of a rotation that waits for what `path` brings, or does."""
        step = {
            "certificate": Step.CERTIFICATE,
            "advance": Step.REISSUE,
            "abandon": Step.CERTIFICATE,
        }.get(path.rpartition("/")[2], Step.PUBLISH)
        owner = self.site.authority.bundle
        assert owner is not None
        row = RotationRow(
            kind="site" if step is Step.REISSUE else "root",
            step=str(step),
            old=self.site.authority.site.issuers[0],
            new=None if step is Step.CERTIFICATE else self.recertified,
            old_root=owner.bundle.owners()[0].certificate,
            new_root=certificate_der(ANOTHER_ROOT.certificate),
            started=0,
            forced=[],
        )
        await self.site.operate(lambda session, _: session.add(row))
        return str(row.id)

    def token_id(self, name: str) -> str:
        with self.site.authority.site.storage.snapshot() as session:
            return session.scalars(select(TokenRow.hash).where(TokenRow.device == name)).one()[:8].hex()


def admin_certificate(issuer: SiteCa, name: str, signer: KeySigner, now: int) -> bytes:
    """An admin's certificate made at `now`, which may be any time."""
    builder = admin_builder(
        name=name,
        site_name=issuer.site_name,
        site_id=issuer.site_id,
        public_key=signer.public_key,
        issuer=CertificateIssuer.of(parse_certificate(issuer.certificate), issuer.signer.public_key),
        serial=x509.random_serial_number(),
        now=now,
    )
    return certificate_der(issuer.signer.sign_certificate(builder))


def self_signed_officer(site_id: bytes, signer: KeySigner, now: int) -> bytes:
    builder = admin_builder(
        name="officer",
        site_name="Ward",
        site_id=site_id,
        public_key=signer.public_key,
        issuer=issuer_of_itself("officer", signer.public_key, not_after=now + DAY),
        serial=1,
        now=now,
    )
    return certificate_der(signer.sign_certificate(builder))


def foreign_files(site: Site, folder: Path) -> dict[str, tuple[Path, Path] | None]:
    """The identities that nobody has enrolled."""
    now = site.clock()
    issuer = SiteCa(site.authority.site.issuer.certificate, FileSigner.open(site.folder / "ca.key"))
    foreign = site_ca_of_another_root(issuer.site_id, now)
    makers: dict[str, Callable[[KeySigner], list[bytes]]] = {
        "self-signed": lambda signer: [self_signed_officer(issuer.site_id, signer, now)],
        "wrong-ca": lambda signer: [
            admin_certificate(foreign, "officer", signer, now),
            foreign.certificate,
        ],
        "unknown": lambda signer: [admin_certificate(issuer, "nobody", signer, now), issuer.certificate],
        "expired": lambda signer: [
            admin_certificate(issuer, "officer", signer, now - 100 * DAY),
            issuer.certificate,
        ],
    }
    files: dict[str, tuple[Path, Path] | None] = {
        "none": None,
        "server": (site.folder / SERVER_FILE, site.folder / SERVER_FILE),
    }
    for name, make in makers.items():
        signer = KeySigner.generate()
        files[name] = write_files(folder, f"admin-{name}", signer, make(signer))
    return files


@pytest.fixture
async def world(site: Site, tmp_path: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        files = foreign_files(site, tmp_path)
        await site.add_channel(CHANNEL, publish=("*",), subscribe=("*",))
        files["device"] = own_files(await site.enrol("monitor-1"))
        await site.enrol("monitor-2")
        for name, role in ROLES.items():
            files[name] = own_files(await site.admin(name, role))
        officer = await site.api(DeviceIdentity.open(site.devices / "admin-officer", Role.ADMIN))
        assert (await officer("PUT", "/v1/admins/revoked/revocation")).status == 200
        other = make_site(tmp_path / "other", root=(site.folder / ROOT_FILE, site.folder / ROOT_KEY_FILE))
        stack.enter_context(exclusive(other))
        authority, listening = await stack.enter_async_context(running(other, listen=LOOPBACK))
        elsewhere = Site(other, tmp_path / "other-devices", authority, listening, site.clock, stack)
        files["other-site"] = own_files(await elsewhere.admin("officer", AdminRole.SECURITY_OFFICER))
        await list_site(site, elsewhere)
        yield World(site, elsewhere, files, count())


async def list_site(site: Site, other: Site) -> None:
    """List another site in a site's trust bundle, under the root that both have."""
    (root,), entries = held(site).bundle.anchors, held(site).bundle.sites
    authority = other.authority.site
    entry = BundleSite(
        site_id=authority.site_id, name="Other", delegated=False, authorities=(authority.issuer.certificate,)
    )
    await add_version(site, anchors=(replace(root, sites=()),), sites=(*entries, entry))


def test_every_request_has_a_row() -> None:
    """A new route fails here until someone has decided who may use it."""
    assert {f"{route.method} {route.path}" for route in TABLE} == set(ALLOW_LIST)


def test_the_list_says_what_the_document_says() -> None:
    for route in TABLE:
        allowed = [name for name in ("viewer", "operator", "officer") if ROLES[name].includes(route.role)]
        assert ALLOW_LIST[f"{route.method} {route.path}"] == allowed, route.path


@pytest.mark.timeout(300)
async def test_only_cells_of_the_allow_list_succeed(world: World) -> None:
    """F2."""
    paths = sorted({row.split(" ")[1] for row in ALLOW_LIST})
    found: dict[str, list[str]] = {}

    async def try_all(name: str) -> None:
        connector = aiohttp.TCPConnector(ssl=world.context(name))
        async with aiohttp.ClientSession(connector=connector) as session:
            for path in paths:
                for method in METHODS:
                    row = f"{method} {path}"
                    if await succeeds(world, session, row, name):
                        found.setdefault(row, []).append(name)

    await asyncio.gather(*(try_all(name) for name in IDENTITIES))
    expected = {row: sorted(names) for row, names in ALLOW_LIST.items()}
    # HEAD is a GET without the body.
    expected |= {row.replace("GET", "HEAD"): names for row, names in expected.items() if "GET" in row}
    assert {row: sorted(names) for row, names in found.items()} == expected


async def succeeds(world: World, session: aiohttp.ClientSession, row: str, name: str) -> bool:
    path, body = await world.request(row)
    url = URL(f"{world.site.listening.manage}{path}", encoded=True)
    try:
        async with session.request(row.split(" ")[0], url, json=body) as answer:
            await answer.read()
            assert answer.status < 500, (row, name)
            return answer.status < 400
    except (aiohttp.ClientError, ConnectionError):
        # The handshake was refused.
        return False


async def test_a_stranger_is_not_told_which_paths_there_are(world: World) -> None:
    for name in ("unknown", "revoked", "device", "server", "other-site"):
        connector = aiohttp.TCPConnector(ssl=world.context(name))
        async with aiohttp.ClientSession(connector=connector) as session:
            for path in ("/v1/nothing", "/v1/site"):
                async with session.get(f"{world.site.listening.manage}{path}") as answer:
                    assert answer.status == 401, name


async def test_tls_1_2_is_not_spoken(world: World) -> None:
    context = world.context("officer")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"{world.site.listening.manage}/v1/site")


class Connection:
    """One TLS connection, and HTTP on it as a test writes it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, url: str, context: ssl.SSLContext) -> "Connection":
        parts = urlsplit(url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port, ssl=context))

    async def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> int:
        lines = {"Host": "localhost", "Content-Length": str(len(body)), **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        await self.send(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        return await self.status()

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def status(self) -> int:
        """The status of the next answer, whose body is read."""
        head = (await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 10)).decode().lower()
        length = next(
            (int(line.partition(":")[2]) for line in head.split("\r\n") if line.startswith("content-length")),
            0,
        )
        await asyncio.wait_for(self._reader.readexactly(length), 10)
        return int(head.split(" ")[1])

    async def has_ended(self) -> bool:
        return not await asyncio.wait_for(self._reader.read(1), 10)

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except (OSError, ssl.SSLError):
            # The other end was faster.
            return


def claims(certificate: bytes) -> dict[str, str]:
    """What a proxy would say for the holder of `certificate`."""
    pem = quote(certificate.decode())
    return {
        "X-SSL-Client-Cert": pem,
        "X-Client-Cert": pem,
        "X-Forwarded-Client-Cert": f'Cert="{pem}";URI=sealcast:admin:officer',
        "Client-Cert": f":{pem}:",
        "X-SSL-Client-Verify": "SUCCESS",
        "X-SSL-Client-S-DN": "CN=officer,O=Ward",
        "X-Remote-User": "officer",
        "X-Forwarded-User": "officer",
        "X-Forwarded-For": "127.0.0.1",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "localhost",
        "X-Real-IP": "127.0.0.1",
        "Forwarded": "for=127.0.0.1;proto=https",
        "X-HTTP-Method-Override": "PUT",
        "X-Original-URL": "/v1/admins",
    }


async def test_d8_headers_say_nothing_about_who_asks(world: World) -> None:
    """D8: on management, the key server, EST."""
    site = world.site
    chain = world.files["officer"]
    assert chain is not None
    officer, device = chain[0].read_bytes(), (world.files["device"] or chain)[0].read_bytes()
    for name, status in (("viewer", 403), ("device", 401), ("unknown", 401)):
        connection = await Connection.open(str(site.listening.manage), world.context(name))
        body = b'{"name": "mallory", "role": "security-officer"}'
        headers = {"Content-Type": "application/json", **claims(officer)}
        assert await connection.ask("POST", "/v1/admins", headers, body) == status, name
        await connection.close()
    # An admin is no device, whatever it says.
    connection = await Connection.open(site.listening.keys, world.context("viewer"))
    assert await connection.ask("GET", "/v1/time", claims(device)) == 401
    await connection.close()
    # No certificate but a header with one: no renewal.
    connection = await Connection.open(site.listening.authority, world.context("none"))
    csr = KeySigner.generate().make_csr("monitor-1", current=parse_certificate(site_certificate(world)))
    headers = {"Content-Type": "application/pkcs10", **claims(device)}
    assert await connection.ask("POST", "/.well-known/est/simplereenroll", headers, encode_body(csr)) == 403
    await connection.close()


def site_certificate(world: World) -> bytes:
    return DeviceIdentity.open(world.site.devices / "monitor-1").certificate


SMUGGLED = b"PUT /v1/devices/monitor-2/revocation HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
SMUGGLING = {
    "both lengths": b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n",
    "a space before the colon": b"Content-Length : %d\r\n\r\n",
    "a folded header": b"X: a\r\n Content-Length: %d\r\n\r\n",
    "a chunked that is none": b"Content-Length: %d\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "a bare line feed": b"X: a\nContent-Length: %d\r\n\r\n",
    "a length with a sign": b"Content-Length: +%d\r\n\r\n",
    "a negative length": b"Content-Length: -%d\r\n\r\n",
}


@pytest.mark.parametrize("way", SMUGGLING)
async def test_d8_a_smuggled_request_ends_the_connection(world: World, way: str) -> None:
    """D8: two ends must not read one stream of bytes in two ways: what is ambiguous is answered by an end."""
    site = world.site
    for url in (site.listening.manage, site.listening.keys, site.listening.authority):
        connection = await Connection.open(str(url), world.context("officer"))
        head = SMUGGLING[way]
        head = head % len(SMUGGLED) if b"%d" in head else head
        await connection.send(b"GET /v1/site HTTP/1.1\r\nHost: localhost\r\n" + head + SMUGGLED)
        assert await connection.status() == 400, url
        assert await connection.has_ended(), url
        await connection.close()
    with site.authority.site.storage.snapshot() as session:
        device = session.get(DeviceRow, "monitor-2")
        assert device is not None
        assert device.revoked is None


async def test_d10_an_open_connection_outlives_no_removal(world: World) -> None:
    """D10, E6: the next request on it is refused, by key server, EST and management."""
    site = world.site
    identity = await site.enrol("monitor-3")
    await (await site.client(identity)).join(CHANNEL, MemberRole.SUBSCRIBE)
    world.files["removed"] = own_files(identity)
    keys = await Connection.open(site.listening.keys, world.context("removed"))
    est = await Connection.open(site.listening.authority, world.context("removed"))
    manage = await Connection.open(str(site.listening.manage), world.context("spare"))
    path = f"/v1/channels/{quote(CHANNEL, safe='')}/keys"
    csr = encode_body(
        KeySigner.generate().make_csr("monitor-3", current=parse_certificate(identity.certificate))
    )
    ask_est = ("POST", "/.well-known/est/simplereenroll", {"Content-Type": "application/pkcs10"}, csr)
    assert await keys.ask("POST", path, body=EmptyBody().serialize()) == 200
    assert await est.ask(*ask_est) == 200
    assert await manage.ask("GET", "/v1/site") == 200
    officer = await site.api(DeviceIdentity.open(site.devices / "admin-officer", Role.ADMIN))
    assert (await officer("PUT", "/v1/devices/monitor-3/revocation")).status == 200
    assert (await officer("PUT", "/v1/admins/spare/revocation")).status == 200
    assert await keys.ask("POST", path, body=EmptyBody().serialize()) == 403
    assert await est.ask(*ask_est) == 403
    assert await manage.ask("GET", "/v1/site") == 401
    for connection in (keys, est, manage):
        await connection.close()


async def test_e6_a_removed_device_comes_back_by_a_new_admission_only(world: World) -> None:
    """E6: the ban is on the device's name. A token from before does not help; after a new one it has to join
    anew, and its old certificate stays refused."""
    site = world.site
    identity = await site.enrol("monitor-3")
    old = await site.client(identity)
    await old.join(CHANNEL, MemberRole.SUBSCRIBE)
    token = await site.token("monitor-3")
    await site.authority.revoke_device("monitor-3")
    with pytest.raises(TokenError):
        await site.enrol("monitor-3", token)
    again = await site.client(await site.enrol("monitor-3"))
    with pytest.raises(NotAllowedError):
        await again.keys(CHANNEL)
    await again.join(CHANNEL, MemberRole.SUBSCRIBE)
    await again.keys(CHANNEL)
    with pytest.raises(CertificateError, match="revoked"):
        await old.keys(CHANNEL)
