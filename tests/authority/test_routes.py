"""F2: every request and method of every listener, the authority's, a publisher's and an inbox's, with every
kind of identity, against allow_list.toml.
"""

import asyncio
import base64
import ssl
import tomllib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from yarl import URL

from sealcast.authority.admins import AdminRole
from sealcast.authority.app import running
from sealcast.authority.routes_keys import make_application
from sealcast.authority.site import ROOT_FILE, ROOT_KEY_FILE, SERVER_FILE, exclusive
from sealcast.ca import FileSigner, KeySigner, SiteCa, create_root
from sealcast.device import DeviceIdentity, enroll_async
from sealcast.endpoint import Device
from sealcast.est import CertificateId
from sealcast.est import server as est_server
from sealcast.est.messages import encode_body
from sealcast.keys import MemberRole
from sealcast.pki.certificates import (
    certificate_der,
    certificates_pem,
    parse_certificate,
)
from sealcast.pki.names import channel_id
from sealcast.pki.profiles import CertificateIssuer, device_builder
from sealcast.pki.signed import PublicKey
from sealcast.sidechannel import PeerServer
from sealcast.sidechannel.inbox import InboxServer
from sealcast.sidechannel.messages import (
    EmptyBody,
    JoinRequest,
    PollRequest,
    RepairRequest,
    Report,
    StreamUpdate,
)
from sealcast.sidechannel.peer_messages import (
    ChannelsRequest,
    EndpointBody,
    FileReport,
    InboxRequest,
    PostedMessage,
)
from tests.authority.conftest import DAY, LOOPBACK, Site, make_site
from tests.authority.maker import Maker
from tests.authority.test_keys import credential_bundle

CHANNEL = "ward/ecg"
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")
# The management listener knows other identities: test_api_access.py.
ALLOW_LIST: dict[str, dict[str, list[str]]] = {
    listener: rows
    for listener, rows in tomllib.loads(
        (Path(__file__).parent / "allow_list.toml").read_text(encoding="utf-8")
    ).items()
    if listener != "manage"
}
IDENTITIES = (
    "none",
    "token",
    "self-signed",
    "wrong-ca",
    "other-site",
    "expired",
    "revoked",
    "removed",
    "server",
    "maker",
    "registrar",
    "admin",
    "good",
)


@dataclass
class World:
    """The site, and for each identity the files that TLS shows; None: no certificate."""

    site: Site
    good: DeviceIdentity
    files: dict[str, tuple[Path, Path] | None]
    stream: tuple[bytes, bytes]
    """Id and bundle of a stream of the good device."""

    def context(self, name: str) -> ssl.SSLContext:
        # What the server shows is another test's matter.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if (files := self.files[name]) is not None:
            context.load_cert_chain(*files)
        return context

    def key(self, name: str) -> KeySigner:
        files = self.files[name]
        return KeySigner.generate() if files is None else FileSigner.open(files[1])


def routes(application: web.Application) -> set[str]:
    return {
        f"{route.method} {route.resource.canonical}"
        for route in application.router.routes()
        if route.resource is not None
    }


async def applications(site: Site) -> dict[str, web.Application]:
    identity = await site.enrol("monitor-1")
    inbox = InboxServer(identity, store=_store_nothing, is_paired=lambda _: False, crl=lambda: None)
    peer = PeerServer(
        identity,
        repair=lambda *_: None,
        files=lambda *_: False,
        is_allowed=lambda *_: None,
        crl=lambda: None,
    )
    return {
        "est": est_server.make_application(
            site.authority.est, site.authority, lambda: site.authority.crl.own
        ),
        "keys": make_application(site.authority),
        "publisher": peer.make_application(),
        "inbox": inbox.make_application(),
    }


async def _store_nothing(*_: object) -> int:
    return 0


def write_files(folder: Path, name: str, signer: KeySigner, chain: list[bytes]) -> tuple[Path, Path]:
    chain_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    chain_file.write_bytes(certificates_pem(chain))
    key_file.touch(0o600)
    key_file.write_bytes(signer.to_pem())
    return chain_file, key_file


def device_certificate(issuer: SiteCa, name: str, signer: KeySigner, now: int) -> bytes:
    """A device certificate made at `now`, which may be any time."""
    builder = device_builder(
        name=name,
        site_name=issuer.site_name,
        site_id=issuer.site_id,
        public_key=signer.public_key,
        issuer=CertificateIssuer.of(parse_certificate(issuer.certificate), issuer.signer.public_key),
        serial=x509.random_serial_number(),
        now=now,
    )
    return certificate_der(issuer.signer.sign_certificate(builder))


def self_signed(site_id: bytes, name: str, signer: KeySigner, now: int) -> bytes:
    """What a device can write about itself."""
    builder = device_builder(
        name=name,
        site_name="Ward",
        site_id=site_id,
        public_key=signer.public_key,
        issuer=issuer_of_itself(name, signer.public_key, not_after=now + DAY),
        serial=1,
        now=now,
    )
    return certificate_der(signer.sign_certificate(builder))


def issuer_of_itself(name: str, key: PublicKey, *, not_after: int) -> CertificateIssuer:
    """For a certificate that names and signs itself."""
    return CertificateIssuer(
        subject=x509.Name(
            [
                x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Ward"),
                x509.NameAttribute(x509.NameOID.COMMON_NAME, name),
            ]
        ),
        public_key=key,
        key_identifier=x509.SubjectKeyIdentifier.from_public_key(key),
        not_after=not_after,
    )


def site_ca_of_another_root(site_id: bytes, now: int) -> SiteCa:
    """The same names and the same site id, and nobody who vouches for them."""
    root = create_root(site_name="Ward", signer=KeySigner.generate(), now=now)
    signer = KeySigner.generate()
    certificate = root.issue_site_ca(site_name="Ward", site_id=site_id, public_key=signer.public_key, now=now)
    return SiteCa(certificate_der(certificate), signer)


def foreign_files(site: Site, folder: Path) -> dict[str, tuple[Path, Path] | None]:
    """The identities that this authority has not enrolled."""
    now = site.clock()
    issuer = site.authority.site.issuer
    foreign = site_ca_of_another_root(issuer.site_id, now)
    files: dict[str, tuple[Path, Path] | None] = {"none": None, "token": None}
    for name in ("self-signed", "wrong-ca", "expired"):
        signer = KeySigner.generate()
        match name:
            case "self-signed":
                chain = [self_signed(issuer.site_id, "monitor-1", signer, now)]
            case "wrong-ca":
                chain = [device_certificate(foreign, "monitor-1", signer, now), foreign.certificate]
            case _:
                ca = SiteCa(issuer.certificate, FileSigner.open(site.folder / "ca.key"))
                expired = device_certificate(ca, "monitor-1", signer, now - 100 * DAY)
                chain = [expired, issuer.certificate]
        files[name] = write_files(folder, name, signer, chain)
    files["server"] = (site.folder / SERVER_FILE, site.folder / SERVER_FILE)
    return files


def own_files(identity: DeviceIdentity) -> tuple[Path, Path]:
    return identity.certificate_file, identity.key_file


async def enrol_at_another_site(site: Site, folder: Path, stack: AsyncExitStack) -> DeviceIdentity:
    """A device of the same name at a second site under the same root."""
    other = make_site(folder / "other", root=(site.folder / ROOT_FILE, site.folder / ROOT_KEY_FILE))
    stack.enter_context(exclusive(other))
    authority, listening = await stack.enter_async_context(running(other, listen=LOOPBACK))
    return await enroll_async(
        folder / "other-device",
        authority_url=listening.authority,
        roots=site.roots,
        name="monitor-1",
        token=await authority.create_token("monitor-1", DAY),
    )


@pytest.fixture
async def world(site: Site, tmp_path: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        files = foreign_files(site, tmp_path)
        await site.add_channel(CHANNEL, publish=("*",), subscribe=("*",))
        good = await site.enrol("monitor-1")
        await (await site.client(good)).join(CHANNEL, MemberRole.SUBSCRIBE)
        for name in ("revoked", "removed"):
            identity = await site.enrol(name)
            await (await site.client(identity)).join(CHANNEL, MemberRole.SUBSCRIBE)
            files[name] = own_files(identity)
        await site.authority.revoke_device("revoked")
        await site.authority.set_members(CHANNEL, ("monitor-*",), ("monitor-*",))
        files["other-site"] = own_files(await enrol_at_another_site(site, tmp_path, stack))
        files["admin"] = own_files(await site.admin("vera", AdminRole.SECURITY_OFFICER))
        files["good"] = own_files(good)
        token = await site.token("gateway", registers=True)
        files["registrar"] = own_files(await site.enrol("gateway", token))
        # A device that its maker alone vouches for.
        maker = Maker()
        await site.add_maker(maker, "serial-number")
        files["maker"] = maker.idevid(tmp_path, serial_number="SN-7")
        # Off it is 404 for everyone (tests/est/test_server.py).
        await site.set_enrolment(server_keygen=True)
        yield World(site, good, files, credential_bundle(site, good))


@dataclass
class Listener:
    """One of those in the allow list, where it is, and of which stream it holds packets."""

    name: str
    url: str
    stream: bytes


@asynccontextmanager
async def listening(world: World, name: str) -> AsyncIterator[Listener]:
    site = world.site
    if name in ("est", "keys"):
        url = site.listening.authority if name == "est" else site.listening.keys
        yield Listener(name, url, world.stream[0])
        return
    device = Device(await site.enrol("monitor-2"))
    if name == "inbox":
        async with device.inbox() as inbox:
            assert inbox.endpoint is not None
            yield Listener(name, f"https://{inbox.endpoint[0]}:{inbox.endpoint[1]}", world.stream[0])
        return
    async with device.publisher(CHANNEL, linger=0) as publisher:
        await publisher.send(b"a beat")
        await publisher.drained()
        streams = await (await site.client(world.good)).streams(CHANNEL)
        [endpoint] = [entry.endpoint for entry in streams if entry.stream == publisher.stream_id]
        assert endpoint is not None
        yield Listener(name, f"https://{endpoint[0]}:{endpoint[1]}", publisher.stream_id)


async def request(world: World, listener: Listener, method: str, path: str, name: str) -> dict[str, Any]:
    """Body and headers that get a 200 from whoever may have one."""
    if listener.name == "est":
        signer = world.key(name)
        files = world.files[name]
        shown = None if files is None else x509.load_pem_x509_certificate(files[0].read_bytes())
        device = {"token": "fresh", "maker": "SN-7"}.get(name, "monitor-1")
        # The request is right for whom the certificate speaks for, or claims to.
        subject = None if shown is None or name == "maker" else shown
        headers = {"Content-Type": "application/pkcs10"}
        if name == "token":
            token = await world.site.token("fresh")
            headers["Authorization"] = "Basic " + base64.b64encode(f"fresh:{token}".encode()).decode()
        csr = signer.make_csr(device, current=subject)
        return {"headers": headers, "data": encode_body(csr) if method == "POST" else None}
    channel = channel_id(world.good.site_id, CHANNEL)
    bodies = {
        "join": JoinRequest(role=MemberRole.SUBSCRIBE).serialize(),
        "poll": PollRequest(counter=0).serialize(),
        "{stream}": StreamUpdate(credential=world.stream[1]).serialize(),
        "channels": ChannelsRequest(known=bytes(32)).serialize(),
        "endpoint": EndpointBody(endpoint=("127.0.0.1", 1)).serialize(),
        "inbox": InboxRequest(
            messages=(PostedMessage(id=bytes(16), topic=None, time=1, data=b"x"),)
        ).serialize(),
        "report": Report(bundle_version=0, bundle_hash=bytes(32), serial="1").serialize(),
        "repair": RepairRequest(channel=channel, stream=listener.stream, ranges=((0, 0),)).serialize(),
        "files": FileReport(channel=channel, stream=listener.stream, round=0).serialize(),
    }
    body = bodies.get(path.rpartition("/")[2], EmptyBody().serialize())
    return {"data": body if method in ("POST", "PUT", "PATCH") else None}


async def succeeds(
    world: World, listener: Listener, session: aiohttp.ClientSession, row: str, name: str
) -> bool:
    method, path = row.split(" ")
    place = path.replace("{channel}", "ward%2Fecg").replace("{stream}", world.stream[0].hex())
    place = place.replace("{device}", "monitor-1")
    place = place.replace("{version}", "1").replace("{label}", world.site.authority.site.site_id.hex())
    place = place.replace("{certificate}", CertificateId.of(world.good.certificate).serialize())
    arguments = await request(world, listener, method, path, name)
    try:
        async with session.request(method, URL(listener.url + place, encoded=True), **arguments) as answer:
            await answer.read()
            assert answer.status != 500, (row, name)
            return answer.status < 400
    except (aiohttp.ClientError, ConnectionError):
        # The handshake was refused.
        return False


async def test_every_request_has_a_row(site: Site) -> None:
    """A new route fails here until someone has decided who may use it."""
    found = await applications(site)
    assert set(found) == set(ALLOW_LIST)
    for listener, application in found.items():
        assert routes(application) == set(ALLOW_LIST[listener]), listener


def test_the_allow_list_names_identities_that_are_tried() -> None:
    assert {name for rows in ALLOW_LIST.values() for allowed in rows.values() for name in allowed} <= set(
        IDENTITIES
    )


@pytest.mark.timeout(120)
@pytest.mark.parametrize("which", ALLOW_LIST)
async def test_only_cells_of_the_allow_list_succeed(world: World, which: str) -> None:
    paths = sorted({row.split(" ")[1] for row in ALLOW_LIST[which]})
    # The leave comes last: it ends what the other requests need.
    paths.sort(key=lambda path: path.endswith("/leave"))
    found: dict[str, list[str]] = {}

    async def try_all(listener: Listener, name: str) -> None:
        connector = aiohttp.TCPConnector(ssl=world.context(name))
        async with aiohttp.ClientSession(connector=connector) as session:
            for path in paths:
                for method in METHODS:
                    row = f"{method} {path}"
                    if await succeeds(world, listener, session, row, name):
                        found.setdefault(row, []).append(name)

    async with listening(world, which) as listener:
        await asyncio.gather(*(try_all(listener, name) for name in IDENTITIES))
    allowed = {row: sorted(names) for row, names in ALLOW_LIST[which].items() if names}
    assert {row: sorted(names) for row, names in found.items()} == allowed


async def test_a_path_that_is_not_there_tells_strangers_nothing(world: World) -> None:
    """On the keys listener even a 404 is for authenticated devices."""
    for name, status in (("revoked", 403), ("server", 401), ("other-site", 401), ("good", 400)):
        connector = aiohttp.TCPConnector(ssl=world.context(name))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(world.site.listening.keys + "/v2/nothing") as answer,
        ):
            assert answer.status == status, name


async def test_a_body_is_bounded(world: World) -> None:
    """SC-2: 64 KiB to a key server, and nothing of a member's request that is longer is looked at."""
    join = JoinRequest(role=MemberRole.SUBSCRIBE).serialize()
    for body, status in ((join, 200), (join + bytes(64 * 1024), 413)):
        connector = aiohttp.TCPConnector(ssl=world.context("good"))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(world.site.listening.keys + "/v1/channels/ward%2Fecg/join", data=body) as answer,
        ):
            assert answer.status == status


@pytest.mark.parametrize(("listener", "admitted"), [("keys", False), ("est", True)])
async def test_tls_1_2_is_for_est_alone(world: World, listener: str, admitted: bool) -> None:
    """SC-10: EST clients of the field know no later one; everything else needs 1.3."""
    context = world.context("good")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    urls = {
        "est": world.site.listening.authority + "/.well-known/est/cacerts",
        "keys": world.site.listening.keys + "/v1/time",
    }
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        try:
            async with session.get(urls[listener]) as answer:
                succeeded = answer.status == 200
        except aiohttp.ClientError:
            succeeded = False
    assert succeeded == admitted
