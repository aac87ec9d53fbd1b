"""A running authority on loopback, and devices enrolled there."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy.orm import Session
from yarl import URL

from sealcast.authority import admins, approvals, enrolment, issuance, makers
from sealcast.authority.admins import AdminRole
from sealcast.authority.api.callers import local_caller
from sealcast.authority.api.handling import Asked, prepare
from sealcast.authority.api.table import TABLE
from sealcast.authority.app import Listening, running
from sealcast.authority.channels import ChannelSettings
from sealcast.authority.est_state import load_state, set_settings
from sealcast.authority.quantities import Address
from sealcast.authority.service import Authority, Changes
from sealcast.authority.site import ROOT_FILE, exclusive, init_site
from sealcast.ca import Permit
from sealcast.device import DeviceIdentity, enroll_async
from sealcast.keys import MemberRole
from sealcast.pki.certificates import parse_pem_certificates
from sealcast.pki.idevid import NameRule
from sealcast.pki.names import Role
from sealcast.pki.times import system_time
from sealcast.sidechannel import KeyServerClient
from tests.authority.maker import Maker

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
LOOPBACK = Address(host="127.0.0.1", port=0)


@dataclass
class Clock:
    """The clock of this machine, moved by `ahead`."""

    ahead: int = 0

    def __call__(self) -> int:
        return system_time() + self.ahead


@dataclass
class Site:
    """A running authority, and what a test does with it."""

    folder: Path
    devices: Path
    authority: Authority
    listening: Listening
    clock: Clock
    stack: AsyncExitStack = field(repr=False)

    @property
    def roots(self) -> list[bytes]:
        return parse_pem_certificates((self.folder / ROOT_FILE).read_bytes())

    async def token(self, name: str, ttl: int = HOUR, *, registers: bool = False) -> str:
        return await self.authority.create_token(name, ttl, registers=registers)

    async def operate(self, change: Callable[[Session, int], object]) -> None:
        """Do what a request of the management API does to enrolment, and put it in force."""
        now = self.clock()

        def job(session: Session) -> tuple[None, Changes]:
            change(session, now)
            session.flush()
            return None, Changes(est=load_state(session))

        await self.authority.apply(job)

    async def set_enrolment(self, **switches: object) -> None:
        await self.operate(lambda session, now: set_settings(session, now, switches))

    async def approve(self, number: int) -> None:
        def change(session: Session, now: int) -> None:
            device = approvals.approve(session, number, now)
            issuance.readmit(session, self.authority.site.issuer, device, now)

        await self.operate(change)

    async def deny(self, number: int, reason: str = "") -> None:
        await self.operate(lambda session, now: approvals.deny(session, number, reason, now))

    def approvals(self) -> list[dict[str, Any]]:
        """The requests, as an operator sees them."""
        call = Asked(method="GET", raw_path="/v1/approvals", raw_query="limit=1000")
        with self.authority.site.storage.snapshot() as session:
            prepared = prepare(TABLE, call, local_caller(0))
            reply, _ = prepared.run(session, self.authority.site, self.clock(), None)
        listed: list[dict[str, Any]] = json.loads(reply.body)["items"]
        return listed

    async def add_maker(self, maker: Maker, rule: str = "serial-number", crls: str = "") -> None:
        parsed = makers.parse_maker(maker.pem.decode(), NameRule(rule), crls)
        await self.operate(lambda session, now: makers.add_maker(session, parsed, now))

    async def enrol(self, name: str, token: str | None = None) -> DeviceIdentity:
        return await enroll_async(
            self.devices / name,
            authority_url=self.listening.authority,
            roots=self.roots,
            name=name,
            token=token or await self.token(name),
            now=self.clock(),
        )

    async def admin(self, name: str, role: AdminRole) -> DeviceIdentity:
        """An admin that has enrolled."""
        now = self.clock()

        def job(session: Session) -> tuple[str, Changes]:
            admins.add_admin(session, name, role, now)
            issuance.permit(session, self.authority.site.issuer, Permit.ADMIN, name, now)
            token = enrolment.create_token(session, device=name, ttl=HOUR, now=now, kind=Role.ADMIN)
            return token, Changes(admins=admins.current_roles(session))

        return await enroll_async(
            self.devices / f"admin-{name}",
            authority_url=self.listening.authority,
            roots=self.roots,
            name=name,
            token=await self.authority.apply(job),
            now=now,
            role=Role.ADMIN,
        )

    async def api(self, identity: DeviceIdentity) -> "Api":
        """The management API as the holder of a certificate sees it, over one connection."""
        assert self.listening.manage is not None
        connector = aiohttp.TCPConnector(ssl=identity.ssl_context_client(), limit=1)
        session = await self.stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        return Api(self.listening.manage, session)

    async def client(self, identity: DeviceIdentity) -> KeyServerClient:
        return await self.stack.enter_async_context(KeyServerClient(identity, clock=self.clock))

    async def member(
        self, name: str, channel: str, role: MemberRole = MemberRole.SUBSCRIBE
    ) -> KeyServerClient:
        client = await self.client(await self.enrol(name))
        await client.join(channel, role)
        return client

    async def add_channel(self, name: str = "ward/ecg", **changes: object) -> None:
        await self.authority.add_channel(settings(name, **changes))


@dataclass
class Reply:
    """An answer of the management API."""

    status: int
    headers: Mapping[str, str]
    body: Any
    """JSON; None if there is none."""


@dataclass
class Api:
    """Requests to the management API."""

    url: str
    session: aiohttp.ClientSession

    async def __call__(self, method: str, path: str, body: object = None, **headers: str) -> Reply:
        """`headers`: with underscores for hyphens."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        place = URL(self.url + path, encoded=True)
        async with self.session.request(method, place, json=body, headers=sent) as answer:
            text = await answer.read()
            return Reply(answer.status, answer.headers, json.loads(text) if text else None)


def settings(name: str = "ward/ecg", **changes: object) -> ChannelSettings:
    values: dict[str, object] = {
        "name": name,
        "group": "239.192.0.1",
        "port": 5000,
        "publish": ("monitor-*",),
        "subscribe": ("monitor-*", "display-*"),
        **changes,
    }
    return ChannelSettings(**values)  # type: ignore[arg-type]


def make_site(folder: Path, **arguments: object) -> Path:
    """The folder of a new authority."""
    values: dict[str, object] = {
        "site_name": "Ward",
        "root": None,
        "hosts": (),
        "now": system_time(),
        **arguments,
    }
    init_site(folder, **values)  # type: ignore[arg-type]
    return folder


def beacon_counter(datagram: bytes) -> int:
    """The counter in a beacon's body (KM-15)."""
    return int.from_bytes(datagram[64:72], "big")


@asynccontextmanager
async def serving(
    folder: Path, devices: Path, places: tuple[Address, Address] | None = None
) -> AsyncIterator[Site]:
    """The authority on a folder; `places`: of EST and of the key server, by default free ones."""
    listen, keys = places or (LOOPBACK, None)
    clock = Clock()
    async with AsyncExitStack() as stack:
        assert stack.enter_context(exclusive(folder))
        authority, listening = await stack.enter_async_context(
            running(folder, listen=listen, keys=keys, clock=clock)
        )
        yield Site(folder, devices, authority, listening, clock, stack)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_site(tmp_path / "authority")


@pytest.fixture
async def site(folder: Path, tmp_path: Path) -> AsyncIterator[Site]:
    async with serving(folder, tmp_path / "devices") as site:
        yield site
