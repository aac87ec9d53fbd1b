"""A whole estate in virtual time: a real authority, real agents on disk, real engines on a simulated network.

What is not there is TLS, whose library reads the machine's clock: each request goes to the authority's own
handlers in this process, after each side has judged the other's certificate as it would after the handshake.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Self
from unittest import mock

from aiohttp import StreamReader
from aiohttp.test_utils import make_mocked_request

from sealcast.authority import admins, ends, enrolment, issuance
from sealcast.authority.admins import AdminRole
from sealcast.authority.channels import ChannelSettings
from sealcast.authority.routes_keys import make_application
from sealcast.authority.service import Authority, Changes
from sealcast.authority.site import Site as SiteFolder
from sealcast.authority.site import init_site
from sealcast.ca import KeySigner, Permit, create_root
from sealcast.ca.signer import Signer
from sealcast.device import DeviceIdentity, agent, enroll_async, renew_async, trust
from sealcast.device import enrolment as device_enrolment
from sealcast.device.agent import DeviceAgent
from sealcast.device.trust import follow_trust_async
from sealcast.errors import CertificateError, SealcastError, UnreachableError
from sealcast.est import EnrolmentRequest, EstClient
from sealcast.est.client import RequestPlan
from sealcast.est.renewal import POLL_SECONDS, CertificateId, RenewalHint
from sealcast.pki import Role, Validator, channel_id
from sealcast.pki.bundle import VerifiedBundle
from sealcast.pki.certificates import (
    certificate_der,
    certificates_pem,
    parse_certificate,
    parse_pem_certificates,
)
from sealcast.pki.csr import CertificateRequest
from sealcast.pki.ends import End
from sealcast.pki.files import PRIVATE, write_atomically
from sealcast.pki.renewal_proof import RenewalProof
from sealcast.sidechannel.client import UnknownVersionError
from sealcast.sidechannel.messages import (
    BundleAnswer,
    ChannelsAnswer,
    CrlAnswer,
    PolicyAnswer,
    Report,
)
from sealcast.testing import MILLISECOND, SECOND, ManualClock, Network, SideChannel, Timeline
from sealcast.testing.hosts import Surroundings
from sealcast.testing.publisher import CREDENTIAL_LIFE, SimulatedPublisher
from sealcast.testing.site import SiteCertificate
from sealcast.testing.subscriber import SimulatedSubscriber
from tests.management import manage

HOUR = 3600 * SECOND
DAY = 24 * HOUR
HOP = 23 * HOUR
"""Shorter than the shortest life of what is renewed by the clock (a stream credential, 24 h)."""

CHANNEL = "ward/ecg"
MONITOR, DISPLAY, ADMIN = "monitor-1", "display-1", "anna"


@dataclass
class EstateSite:
    """What the simulated hosts have to know of the site."""

    site_id: bytes
    root: bytes
    ca: bytes

    def validator(self) -> Validator:
        return Validator([self.root], [self.ca])


@dataclass
class Estate:
    """Everything that has an end, and what renews it; `blocked`: what does not renew just now."""

    folder: Path
    age: int = 0
    """How long ago the site was made, microseconds."""
    root_age: int = 0
    """How old its root was then."""
    stride: int = HOP
    """How much time passes at a hop, and what a stream credential outlives."""
    blocked: set[str] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    """What the upkeep could not do."""
    refused: list[CertificateError] = field(default_factory=list)
    """Those of these that are about a certificate."""

    def __post_init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.ahead = -self.age
        self.timeline = Timeline(ManualClock())
        key = KeySigner.generate()
        self.root = create_root(site_name="Owner", signer=key, now=self.clock() - self.root_age)
        files = self.folder / "owner.pem", self.folder / "owner.key"
        files[0].write_bytes(certificates_pem([certificate_der(self.root.certificate)]))
        write_atomically(files[1], key.to_pem(), PRIVATE)
        init_site(self.folder / "authority", site_name="Ward", root=files, hosts=(), now=self.clock())
        site = SiteFolder.open(self.folder / "authority")
        self.authority = Authority(site, self.clock)
        self.do(self.authority.start())
        self.application = make_application(self.authority)
        self.application.freeze()
        network = Network(self.timeline, 1)
        self.network = network
        self.polls: list[tuple[Any, ...]] = []
        self.site = EstateSite(site.site_id, site.roots[0], site.issuer.certificate)
        side_channel = SideChannel(self.timeline, network, 1)
        side_channel.serve_keys(self.handle)
        self.around = Surroundings(
            timeline=self.timeline,
            network=network,
            side_channel=side_channel,
            site=self.site,  # type: ignore[arg-type]
            channel=CHANNEL,
            channel_id=channel_id(site.site_id, CHANNEL),
            seed=1,
        )
        patches = (
            (device_enrolment, "EstClient", self._est()),
            (agent, "EstClient", self._est()),
            (agent, "KeyServerClient", self._keys()),
            (trust, "KeyServerClient", self._keys()),
        )
        self.patches = [mock.patch.object(module, name, value) for module, name, value in patches]
        for patch in self.patches:
            patch.start()
        self.hosts: dict[str, SimulatedPublisher | SimulatedSubscriber] = {}
        self.bundles: dict[str, VerifiedBundle | None] = {}
        """The trust bundle that each of them goes by."""
        self.validators: dict[str, Validator] = {}
        """What each of them judges the key server by."""

    def close(self) -> None:
        for patch in self.patches:
            patch.stop()
        self.do(self.authority.stop())
        self.loop.close()

    # -- time ------------------------------------------------------------------------------------------------

    def clock(self) -> int:
        """The time of the whole estate."""
        return self.timeline.now + self.ahead

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def run(self, seconds: float) -> None:
        limit = self.timeline.now + round(seconds * SECOND)
        while self.timeline.advance(limit):
            pass

    def hop(self, duration: int | None = None) -> None:
        """Let time pass at once, then do what was due meanwhile."""
        duration = duration or self.stride
        self.ahead += duration
        for host in self.hosts.values():
            host.skew += duration
        self.upkeep()
        for name, host in self.hosts.items():
            identity = self.identity(name)
            if identity.bundle != self.bundles[name]:
                self.trust(identity)
                host.trust(identity.anchors, identity.issuers)
            if (
                isinstance(host, SimulatedPublisher)
                and host.is_up
                and "stream credential" not in self.blocked
            ):
                host.adopt(as_certificate(identity))
            else:
                host.identity = as_certificate(identity)
            host.touch()
        self.wake_polls()

    def upkeep(self) -> None:
        """What the service, the agents and the admins do by themselves."""
        for what, work, is_due in (
            ("slots", self.authority.turn_slots, True),
            ("objects", self.authority.renew_objects, True),
            (
                "server",
                self.authority.renew_certificate,
                self.clock() >= self.authority.identity.renewal_time,
            ),
        ):
            if is_due and what not in self.blocked:
                self.attempt(work())
        for name in self.hosts:
            if f"device {name}" not in self.blocked:
                self.attempt(self.look(name))
        path = self.folder / ADMIN
        if path.exists() and "admin" not in self.blocked:
            held = DeviceIdentity.open(path, Role.ADMIN)
            if self.clock() >= held.renewal_time():
                self.attempt(renew_async(path, now=self.clock(), role=Role.ADMIN))
                self.attempt(follow_trust_async(path, Role.ADMIN, now=self.clock()))

        # Who starts anew begins with these.
        site = self.authority.site
        self.site.root, self.site.ca = site.roots[0], site.issuer.certificate

    def attempt(self, work: Coroutine[Any, Any, Any]) -> None:
        """Failures are what some tests are about; they are tried again at the next hop."""
        try:
            self.do(work)
        except SealcastError as error:
            self.failures.append(f"{error}")
            if isinstance(error, CertificateError):
                self.refused.append(error)

    async def look(self, name: str) -> None:
        async with DeviceAgent(self.folder / name, clock=self.clock) as present:
            await present.look()

    # -- who is there ----------------------------------------------------------------------------------------

    def identity(self, name: str) -> DeviceIdentity:
        return DeviceIdentity.open(self.folder / name)

    def trust(self, identity: DeviceIdentity) -> None:
        self.bundles[identity.name], self.validators[identity.name] = identity.bundle, identity.validator()

    def enrol(self, name: str, role: Role = Role.DEVICE) -> None:
        self.do(self._enrol(name, role))

    async def _enrol(self, name: str, role: Role) -> None:
        now = self.clock()

        def job(session: Any) -> tuple[str, Changes]:
            if role is Role.ADMIN:
                admins.add_admin(session, name, AdminRole.VIEWER, now)
                issuance.permit(session, self.authority.site.issuer, Permit.ADMIN, name, now)
            token = enrolment.create_token(session, device=name, ttl=HOUR, now=now, kind=role)
            return token, Changes(admins=admins.current_roles(session))

        await enroll_async(
            self.folder / name,
            authority_url="https://authority:8443",
            roots=[self.site.root],
            name=name,
            token=await self.authority.apply(job),
            now=now,
            role=role,
        )

    def populate(self, **settings: Any) -> None:
        """A channel with `settings`, its publisher and its subscriber, an admin; all running and joined."""
        self.upkeep()
        self.do(
            self.authority.add_channel(
                ChannelSettings(
                    name=CHANNEL,
                    group="239.192.0.1",
                    port=5000,
                    publish=("monitor-*",),
                    subscribe=("*",),
                    **settings,
                )
            )
        )
        for name in (MONITOR, DISPLAY):
            if not (self.folder / name).exists():
                self.enrol(name)
        self.enrol(ADMIN, Role.ADMIN)
        publisher = SimulatedPublisher(
            self.around,
            as_certificate(self.identity(MONITOR)),
            skew=self.ahead,
            credential_life=max(CREDENTIAL_LIFE, self.stride + HOUR),
        )
        self.hosts[MONITOR] = publisher
        self.trust(self.identity(MONITOR))
        publisher.start()
        self.subscribe(DISPLAY)
        self.run(1)
        # The publisher hears of the join.
        self.wake_polls()
        self.run(2)

    def subscribe(self, name: str) -> SimulatedSubscriber:
        subscriber = SimulatedSubscriber(self.around, as_certificate(self.identity(name)), skew=self.ahead)
        self.hosts[name] = subscriber
        self.trust(self.identity(name))
        self.network.attach(name, subscriber.receive)
        subscriber.start()
        return subscriber

    @property
    def publisher(self) -> SimulatedPublisher:
        host = self.hosts[MONITOR]
        assert isinstance(host, SimulatedPublisher)
        return host

    @property
    def display(self) -> SimulatedSubscriber:
        host = self.hosts[DISPLAY]
        assert isinstance(host, SimulatedSubscriber)
        return host

    def speak(self, count: int = 3) -> None:
        self.publisher.send_every(200 * MILLISECOND, count)
        self.run(1)

    def ends(self) -> list[End]:
        """All that the estate says of its ends: the authority's, and each device's whole chain."""
        with self.authority.site.storage.snapshot() as session:
            found = list(ends.site_ends(session, self.authority.site, self.clock()))
        for name in self.hosts:
            found += self.identity(name).ends()
        found += DeviceIdentity.open(self.folder / ADMIN, Role.ADMIN).ends()
        return found

    def warned(self) -> set[str]:
        """What is warned of now."""
        return {end.what for end in self.ends() if end.is_near(self.clock())}

    def manage(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """What an operator asks of the authority."""
        answer: dict[str, Any] = self.do(manage(self.authority, method, path, body))
        return answer

    # -- the wire --------------------------------------------------------------------------------------------

    def judge_server(self, validator: Validator) -> None:
        """What a client does after the handshake."""
        validator.verify_peer(self.authority.identity.chain, Role.KEY_SERVER, self.clock())

    def handle(
        self, device: str, certificate: bytes, method: str, path: str, body: bytes, reply: Callable[..., None]
    ) -> None:
        """A request of an engine."""
        if "keys" in self.blocked:
            reply(None, b"")
            return
        try:
            self.judge_server(self.validators[device])
        except CertificateError:
            reply(None, b"")
            return
        if not path.endswith("/poll"):
            reply(*self.answer(certificate, method, path, body))
            return
        poll = (certificate, method, path, body, reply)
        self.polls.append(poll)
        self.timeline.after(25 * SECOND, lambda: self.answer_poll(poll))

    def wake_polls(self) -> None:
        for poll in tuple(self.polls):
            self.answer_poll(poll)

    def answer_poll(self, poll: tuple[Any, ...]) -> None:
        if poll in self.polls:
            self.polls.remove(poll)
            self.authority.stopping = True
            status, body = self.answer(*poll[:4])
            self.authority.stopping = False
            poll[4](status, body)

    def answer(self, certificate: bytes, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Let the key server's application answer, as after a handshake with `certificate`."""
        shown = SimpleNamespace(getpeercert=lambda binary_form: certificate)
        transport = SimpleNamespace(
            get_extra_info=lambda name, default=None: shown if name == "ssl_object" else None
        )

        async def ask() -> tuple[int, bytes]:
            payload = StreamReader(mock.Mock(), 1 << 20, loop=self.loop)
            payload.feed_data(body)
            payload.feed_eof()
            request = make_mocked_request(
                method, path, transport=transport, payload=payload, app=self.application
            )
            response = await self.application._handle(request)
            return response.status, response.body or b""  # type: ignore[attr-defined]

        answer: tuple[int, bytes] = self.do(ask())
        return answer

    def _est(estate) -> type[EstClient]:  # noqa: N805
        class InProcess(EstClient):
            """EST's messages, handed to the authority."""

            def __init__(self, url: str, roots: Any, *, own: Any = None, **options: Any) -> None:
                super().__init__(url, roots)
                self._verifier = Validator(roots, options.get("authorities") or [estate.site.ca])
                self._shown = None if own is None else parse_pem(own[0])

            def _connect(self) -> None:
                if "est" in estate.blocked:
                    raise UnreachableError("https://authority:8443", "no answer in time")
                estate.judge_server(self._verifier)

            async def plan(self, name: str) -> RequestPlan:
                self._connect()
                return RequestPlan()

            async def cacerts(self) -> list[bytes]:
                self._connect()
                return list(estate.authority.est.ca_certificates())

            async def simpleenroll(self, name: str | None, token: str, csr: bytes) -> bytes:
                self._connect()
                request = EnrolmentRequest(csr=CertificateRequest.parse(csr), name=name, token=token)
                return await estate.authority.est.enroll(request)

            async def renew(self, current: bytes, signer: Signer, plan: RequestPlan) -> bytes:
                self._connect()
                csr = signer.make_csr("", current=parse_certificate(current), extras=plan.extras)
                request = EnrolmentRequest(csr=CertificateRequest.parse(csr), certificate=self._shown)
                return await estate.authority.est.reenroll(request)

            async def recover(self, proof: bytes) -> bytes:
                self._connect()
                return await estate.authority.recover(RenewalProof.parse(proof))

            async def renewal_info(self, certificate: bytes) -> RenewalHint | None:
                self._connect()
                window = await estate.authority.est.renewal_window(CertificateId.of(certificate))
                return None if window is None else RenewalHint(window=window, retry_after=POLL_SECONDS)

        return InProcess

    def _keys(estate) -> type:  # noqa: N805
        class InProcess:
            """What an agent asks of the key server."""

            def __init__(self, identity: DeviceIdentity, *, clock: Any, crl: Any = None) -> None:
                self._identity = identity

            async def __aenter__(self) -> Self:
                estate.judge_server(self._identity.validator())
                return self

            async def __aexit__(
                self,
                kind: type[BaseException] | None,
                error: BaseException | None,
                traceback: TracebackType | None,
            ) -> None:
                pass

            async def bundle(self, version: int) -> BundleAnswer:
                data, latest = await estate.authority.bundle_bytes(version), estate.authority.bundle
                if data is None or latest is None:
                    raise UnknownVersionError("none")
                return BundleAnswer(bundle=data, latest=latest.version)

            @property
            def shown(self) -> tuple[bytes, ...]:
                return estate.authority.identity.chain

            async def channels(self) -> ChannelsAnswer:
                crl = estate.authority.crl
                listed = estate.authority.channels_of(self._identity.name)
                return ChannelsAnswer(crl=(crl.number, crl.digest), channels=listed)

            async def crl(self) -> CrlAnswer:
                return CrlAnswer(crl=estate.authority.crl.der, issuers=())

            async def policy(self, channel: str) -> PolicyAnswer:
                found = estate.authority.channel(channel)
                assert found is not None
                return PolicyAnswer(policy=found.policy.signed, issuers=())

            async def report(self, report: Report) -> None:
                await estate.authority.record_report(self._identity.name, report)

        return InProcess


def parse_pem(path: Path) -> bytes:
    return parse_pem_certificates(path.read_bytes())[0]


def as_certificate(identity: DeviceIdentity) -> SiteCertificate:
    """A device's credentials as a simulated host takes them."""
    return SiteCertificate(
        name=identity.name,
        signer=identity.signer,  # type: ignore[arg-type]
        certificate=identity.certificate,
        chain=identity.chain,
        serial=identity.serial,
        not_before=identity.not_before,
        not_after=identity.not_after,
    )
