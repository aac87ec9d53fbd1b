"""The key server's requests (spec/side-channel.md section 1).

Each handler authorises by the certificate that the TLS handshake proved, for this request and at this moment
(SC-1): chain, role and CRL by the one validator, the register of devices, then the channel's policy. Where a
handler waits in between, it authorises once more before it answers with anything of value. Keys and polls are
for those that joined (SC-16).
"""

from dataclasses import dataclass
from typing import Any

from aiohttp import web

from sealcast import _core
from sealcast.authority.directory import StoredStream
from sealcast.authority.live import LiveChannel
from sealcast.authority.service import Authority
from sealcast.errors import CertificateError, UsageError
from sealcast.keys import GatesReply, KeysReply, MemberRole
from sealcast.pki.certificates import certificate_identity, parse_certificate
from sealcast.pki.names import Role
from sealcast.pki.policy_names import check_member
from sealcast.pki.validator import Validator, VerifiedPeer
from sealcast.sidechannel.messages import (
    CONTENT_TYPE,
    MAX_KEY_SERVER_BODY,
    POLL_SECONDS,
    BundleAnswer,
    ChannelsAnswer,
    CrlAnswer,
    EmptyBody,
    JoinAnswer,
    JoinRequest,
    KeysAnswer,
    MemberEntry,
    MembersAnswer,
    PolicyAnswer,
    PollAnswer,
    PollRequest,
    Report,
    StreamsAnswer,
    StreamUpdate,
    TimeAnswer,
)
from sealcast.sidechannel.node_messages import AdmissionAnswer, GatesAnswer, NodeJoinAnswer, RepairNodeUpdate
from sealcast.sidechannel.peer_messages import ChannelsRequest, EndpointBody
from sealcast.sidechannel.quota import Accounts, Quota
from sealcast.sidechannel.refusals import Handler, Refusal, RefusedError, answer_refusals
from sealcast.sidechannel.tls import member_name, peer_of, shown_certificate

_CHANNEL = "/v1/channels/{channel}"
_SECOND = 1_000_000
_PEER: web.RequestKey[VerifiedPeer] = web.RequestKey("peer", VerifiedPeer)


def make_application(authority: Authority) -> web.Application:
    """The application behind the keys listener."""
    requests = _Requests(authority)
    application = web.Application(
        middlewares=[answer_refusals, requests.authenticate], client_max_size=MAX_KEY_SERVER_BODY
    )
    add = application.router.add_route
    add("POST", f"{_CHANNEL}/join", requests.join)
    add("POST", f"{_CHANNEL}/keys", requests.keys)
    add("POST", f"{_CHANNEL}/poll", requests.poll)
    add("POST", f"{_CHANNEL}/leave", requests.leave)
    add("GET", f"{_CHANNEL}/policy", requests.policy)
    add("GET", f"{_CHANNEL}/streams", requests.streams)
    add("PUT", f"{_CHANNEL}/streams/{{stream}}", requests.put_stream)
    add("GET", f"{_CHANNEL}/members", requests.members)
    add("GET", f"{_CHANNEL}/members/{{device}}", requests.admission)
    add("PUT", f"{_CHANNEL}/repair-node", requests.put_repair_node)
    add("GET", "/v1/crl", requests.crl)
    add("GET", "/v1/channels", requests.channels)
    add("POST", "/v1/channels", requests.await_channels)
    add("PUT", "/v1/endpoint", requests.put_endpoint)
    add("GET", "/v1/endpoints/{device}", requests.endpoint)
    add("GET", "/v1/time", requests.time)
    add("GET", "/v1/bundles/{version:[1-9][0-9]{0,17}}", requests.bundle)
    add("POST", "/v1/report", requests.report)
    return application


@dataclass(frozen=True, slots=True)
class _Caller:
    """A device that may do something on a channel, as judged for this request."""

    device: str
    """As the channel's policy writes it."""
    peer: VerifiedPeer
    channel: LiveChannel


@dataclass(frozen=True, slots=True)
class _Proven:
    """What the validator has said of a request's certificate, and by what."""

    peer: VerifiedPeer
    validator: Validator
    crl: bytes | None
    at: int

    def stands(self, validator: Validator, crl: bytes | None, now: int) -> bool:
        """Whether it would say the same now: within a second, and by the same anchors and CRL."""
        return self.validator is validator and self.crl is crl and 0 <= now - self.at < _SECOND


_PROVEN: web.RequestKey[_Proven] = web.RequestKey("proven", _Proven)


class _Requests:
    """The handlers; each returns an answer or raises what `answer_refusals` knows."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._accounts = Accounts(Quota())

    @web.middleware
    async def authenticate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Judge the peer before anything else: a stranger is not even told which requests exist."""
        # An admin's folder follows the trust bundle too; nothing else here is an admin's.
        is_admin = request.match_info.handler == self.bundle and _role_of(request) is Role.ADMIN
        request[_PEER] = peer = self._admin(request) if is_admin else self._peer(request)
        name = member_name(peer, self._authority.site.site_id)
        if (seconds := await self._accounts.admit(name)) is not None:
            raise RefusedError(Refusal.TOO_MANY_REQUESTS, f"{name!r} asks for too much", retry_after=seconds)
        return await handler(request)

    async def join(self, request: web.Request) -> web.Response:
        """SC-4, SC-6."""
        asked = JoinRequest.parse(await request.read())
        caller = self._authorise(request, asked.role)
        await self._note_guest(request, caller)
        caller.channel.charge_join(caller.device, self._authority.clock())
        await self._authority.join(caller.channel.name, caller.device, asked.role)
        # It may have been removed while the join was stored.
        caller = self._authorise(request, asked.role, member=True)
        membership = caller.channel.keys.membership
        if membership.is_repair_node(caller.device) is not (asked.role is MemberRole.REPAIR):
            # Whoever keeps packets for others opens none, and holds no key that could (KM-21).
            raise RefusedError(
                Refusal.NOT_ALLOWED, f"a repair node, and it alone, takes part as one: {caller.device!r}"
            )
        return _answer(self._join_answer(caller, asked.role).serialize())

    async def keys(self, request: web.Request) -> web.Response:
        """SC-3: for members only, who have been counted in by a join."""
        EmptyBody.parse(await request.read())
        await self._note_guest(request, self._authorise(request, member=True))
        caller = self._authorise(request, member=True)
        return _answer(self._keys_answer(caller).serialize())

    async def poll(self, request: web.Request) -> web.Response:
        """The long-poll: a beacon as soon as something changed, at the latest after 25 s (SC-45)."""
        asked = PollRequest.parse(await request.read())
        caller = self._authorise(request, member=True)
        caller.channel.note_counter(caller.device, asked.counter)
        await self._note_guest(request, caller)
        seconds = 0.0 if self._authority.stopping else POLL_SECONDS
        now = self._authority.clock()
        beacon = await caller.channel.news(caller.device, asked.counter, seconds, now, asked.directory)
        # A removed member is told so here, within moments of its removal.
        caller = self._authorise(request, member=True)
        if beacon is None:
            beacon = caller.channel.beacon(self._authority.clock())
        told = None if asked.directory is None else caller.channel.directory(self._authority.clock())
        return _answer(PollAnswer(beacon=beacon.datagram, directory=told).serialize())

    async def leave(self, request: web.Request) -> web.Response:
        """A member that leaves; it may come back by a join."""
        EmptyBody.parse(await request.read())
        caller = self._authorise(request)
        await self._authority.leave(caller.channel.name, caller.device)
        return _answer(EmptyBody().serialize())

    async def policy(self, request: web.Request) -> web.Response:
        """The signed policy in force."""
        caller = self._authorise(request)
        answer = PolicyAnswer(policy=caller.channel.policy.signed, issuers=self._authority.site.issuers)
        return _answer(answer.serialize())

    async def streams(self, request: web.Request) -> web.Response:
        """The directory."""
        caller = self._authorise(request)
        answer = StreamsAnswer(
            streams=caller.channel.entries(),
            repair_nodes=caller.channel.node_entries(self._authority.clock()),
        )
        return _answer(answer.serialize())

    async def put_stream(self, request: web.Request) -> web.Response:
        """SC-7: a stream of the caller's own, with a credential that verifies."""
        update = StreamUpdate.parse(await request.read())
        caller = self._authorise(request, MemberRole.PUBLISH)
        entry = self._verified_entry(caller, request.match_info["stream"], update)
        await self._authority.put_stream(caller.channel.name, entry)
        return _answer(EmptyBody().serialize())

    async def put_repair_node(self, request: web.Request) -> web.Response:
        """SC-40: where a repair node listens."""
        update = RepairNodeUpdate.parse(await request.read())
        caller = self._authorise(request, MemberRole.REPAIR, member=True)
        if not caller.channel.keys.membership.is_repair_node(caller.device):
            raise RefusedError(Refusal.NOT_ALLOWED, f"{caller.device!r} has not joined as a repair node")
        caller.channel.put_repair_node(caller.device, update.endpoint, self._authority.clock())
        return _answer(EmptyBody().serialize())

    async def admission(self, request: web.Request) -> web.Response:
        """SC-42: since when a device is a member, for whoever serves it packets."""
        caller = self._authorise(request, member=True)
        device = request.match_info["device"]
        admission = caller.channel.keys.membership.admission(device)
        if admission is None or not caller.channel.policy.mentions(device):
            raise RefusedError(Refusal.NOT_ALLOWED, f"{device[:128]!r} has not joined")
        generation, step, joined = admission
        return _answer(AdmissionAnswer(generation=generation, step=step, joined=joined).serialize())

    async def members(self, request: web.Request) -> web.Response:
        """Those that joined and are still allowed."""
        caller = self._authorise(request)
        policy = caller.channel.policy
        answer = MembersAnswer(
            members=tuple(
                MemberEntry(device=member.device, role=member.role)
                for member in caller.channel.keys.membership.present()
                if policy.allows(member.device, member.role)
            )
        )
        return _answer(answer.serialize())

    async def crl(self, request: web.Request) -> web.Response:
        """The CRL in force; for devices of the site, and for those that some channel of it lists."""
        self._require_known(request)
        answer = CrlAnswer(crl=self._authority.crl.der, issuers=self._authority.site.issuers)
        return _answer(answer.serialize())

    async def channels(self, request: web.Request) -> web.Response:
        """SC-32: of the channels that list the caller; of others it is not even told that they exist."""
        self._require_known(request)
        return _answer(self._channels_of(self._device(request)))

    async def await_channels(self, request: web.Request) -> web.Response:
        """SC-33: the same, as soon as it is not what the caller knows; at the latest after 25 s."""
        asked = ChannelsRequest.parse(await request.read())
        self._require_known(request)
        device = self._device(request)
        news = self._authority.news
        body = await news.wait(device, lambda: self._channels_of(device), asked.known, POLL_SECONDS)
        # A removed device is told so here, within moments of its removal.
        request[_PEER] = self._peer(request)
        self._require_known(request)
        return _answer(body)

    async def put_endpoint(self, request: web.Request) -> web.Response:
        """SC-34: where the caller takes messages of its peers."""
        body = EndpointBody.parse(await request.read())
        self._require_known(request)
        device = self._device(request)
        if not self._authority.channels_of(device):
            raise RefusedError(Refusal.NOT_ALLOWED, f"no channel's policy lists {device!r}")
        await self._authority.put_endpoint(device, body.endpoint)
        return _answer(EmptyBody().serialize())

    async def endpoint(self, request: web.Request) -> web.Response:
        """SC-34: told to those alone that may talk to the device (TR-30)."""
        self._require_known(request)
        caller = self._device(request)
        try:
            device = check_member(request.match_info["device"])
        except UsageError as error:
            raise RefusedError(Refusal.MALFORMED_REQUEST, str(error)) from None
        if not self._authority.pairs(caller, device):
            raise RefusedError(
                Refusal.NOT_ALLOWED, f"no channel's policy lists both {caller!r} and {device!r}"
            )
        found = await self._authority.endpoint_of(device)
        self._peer(request)
        return _answer(EndpointBody(endpoint=found).serialize())

    async def time(self, request: web.Request) -> web.Response:
        """The key server's clock."""
        self._require_known(request)
        return _answer(TimeAnswer(time=self._authority.clock()).serialize())

    async def bundle(self, request: web.Request) -> web.Response:
        """SC-19: any version, so that who slept can walk them in order; for the site's admins too."""
        self._require_known(request)
        latest = self._authority.bundle
        data = await self._authority.bundle_bytes(int(request.match_info["version"]))
        if data is None or latest is None:
            raise RefusedError(Refusal.UNKNOWN_VERSION, "there is no such version of the trust bundle")
        return _answer(BundleAnswer(bundle=data, latest=latest.version).serialize())

    async def report(self, request: web.Request) -> web.Response:
        """SC-21: what a device of this site holds; rotations wait for it."""
        report = Report.parse(await request.read())
        peer = self._peer(request)
        if peer.site_id != self._authority.site.site_id:
            raise RefusedError(Refusal.NOT_ALLOWED, f"{peer.identity.uri} reports to its own site")
        try:
            await self._authority.record_report(peer.name, report)
        except UsageError as error:
            raise RefusedError(Refusal.UNKNOWN_VERSION, str(error)) from None
        return _answer(EmptyBody().serialize())

    def _device(self, request: web.Request) -> str:
        """The caller as policies of this site write it."""
        return member_name(request[_PEER], self._authority.site.site_id)

    def _channels_of(self, device: str) -> bytes:
        crl = self._authority.crl
        channels = self._authority.channels_of(device)
        return ChannelsAnswer(crl=(crl.number, crl.digest), channels=channels).serialize()

    def _join_answer(self, caller: _Caller, role: MemberRole) -> JoinAnswer | NodeJoinAnswer:
        channel, keys = caller.channel, self._keys_answer(caller, joining=role)
        rest: dict[str, Any] = {
            "policy": channel.policy.signed,
            "crl": self._authority.crl.der,
            "issuers": self._authority.site.issuers,
            "key_server": channel.bundle,
            "streams": channel.entries(),
            "repair_nodes": channel.node_entries(self._authority.clock()),
            "members": len(channel.keys.membership.members),
        }
        if isinstance(keys, GatesAnswer):
            return NodeJoinAnswer(gates=keys, **rest)
        return JoinAnswer(keys=keys, **rest)

    def _keys_answer(self, caller: _Caller, *, joining: MemberRole | None = None) -> KeysAnswer | GatesAnswer:
        if caller.channel.keys.membership.is_repair_node(caller.device):
            return _gates_answer(self._authority.gates_reply(caller.channel))
        return _keys_answer(self._authority.keys_reply(caller.channel, caller.device, joining))

    def _peer(self, request: web.Request) -> VerifiedPeer:
        authority, now = self._authority, self._authority.clock()
        validator, crl = authority.validator, authority.crl.der
        proven = request.get(_PROVEN)
        if proven is None or not proven.stands(validator, crl, now):
            proven = _Proven(peer_of(request, validator, Role.DEVICE, now, crl), validator, crl, now)
            request[_PROVEN] = proven
        try:
            return authority.judge(proven.peer)
        except CertificateError as error:
            raise RefusedError(Refusal.REVOKED, str(error)) from None

    def _admin(self, request: web.Request) -> VerifiedPeer:
        authority = self._authority
        peer = peer_of(request, authority.validator, Role.ADMIN, authority.clock(), authority.crl.der)
        if peer.site_id != authority.site.site_id or authority.admin_role(peer.name) is None:
            raise RefusedError(Refusal.NOT_ALLOWED, f"{peer.identity.uri} is no admin here")
        return peer

    def _authorise(
        self, request: web.Request, role: MemberRole | None = None, *, member: bool = False
    ) -> _Caller:
        """Judge the caller now.

        Args:
            request: carries channel and certificate.
            role: what it has to be allowed; None: anything on the channel.
            member: whether it has to have joined.

        Raises:
            RefusedError: `not-authenticated`, `revoked`, `unknown-channel` or `not-allowed`.
        """
        peer = self._peer(request)
        channel = self._authority.channel(request.match_info["channel"])
        if channel is None:
            raise RefusedError(Refusal.UNKNOWN_CHANNEL, "no channel of this name at this site")
        device = member_name(peer, self._authority.site.site_id)
        policy = channel.policy
        if not (policy.mentions(device) if role is None else policy.allows(device, role)):
            raise RefusedError(
                Refusal.NOT_ALLOWED, f"the policy does not let {device!r} {role or 'take part'}"
            )
        if member and not channel.keys.membership.is_present(device):
            raise RefusedError(Refusal.NOT_ALLOWED, f"{device!r} has not joined")
        return _Caller(device, peer, channel)

    async def _note_guest(self, request: web.Request, caller: _Caller) -> None:
        """Of another site's device nothing is in the register: it is known by what it has shown."""
        await self._authority.note_guest(caller.peer, shown_certificate(request))

    def _require_known(self, request: web.Request) -> None:
        site_id = self._authority.site.site_id
        peer = request[_PEER]
        device = member_name(peer, site_id)
        if peer.site_id != site_id and not any(
            channel.policy.mentions(device) for channel in self._authority.all_channels()
        ):
            raise RefusedError(Refusal.NOT_ALLOWED, f"{device!r} is of another site")

    def _verified_entry(self, caller: _Caller, stream: str, update: StreamUpdate) -> StoredStream:
        authority, channel = self._authority, caller.channel
        try:
            credential = authority.credentials.verify_credential(
                update.credential,
                role=str(Role.DEVICE),
                channel_id=channel.channel_id,
                suite=channel.suite,
                now=authority.clock(),
                crl=authority.crl.der,
            )
        except ValueError as error:
            raise RefusedError(Refusal.NOT_ALLOWED, f"the credential does not verify: {error}") from None
        if bytes(credential.stream_id).hex() != stream:
            raise RefusedError(Refusal.NOT_ALLOWED, "the credential is for another stream")
        if (bytes(credential.site_id), credential.name) != (caller.peer.site_id, caller.peer.name):
            raise RefusedError(Refusal.NOT_ALLOWED, "the credential names another device")
        next_sequence, final = 0, False
        if update.head is not None:
            # Signature and gate are judged by whoever uses the head; a device can lie here about its own
            # stream only, and only members of this channel would hear it.
            try:
                head_stream, next_sequence, final = _core.parse_heartbeat(update.head)
            except ValueError as error:
                raise RefusedError(Refusal.MALFORMED_REQUEST, f"head: {error}") from None
            if bytes(head_stream) != bytes(credential.stream_id):
                raise RefusedError(Refusal.NOT_ALLOWED, "the head is of another stream")
        return StoredStream(
            stream=bytes(credential.stream_id),
            device=caller.device,
            instance=credential.instance,
            credential=update.credential,
            head=update.head,
            next_sequence=next_sequence,
            final=final,
            endpoint=update.endpoint,
            not_after=credential.not_after,
        )


def _role_of(request: web.Request) -> Role | None:
    """What the client's certificate says that it is; not verified yet."""
    try:
        return certificate_identity(parse_certificate(shown_certificate(request))).role
    except CertificateError:
        return None


def _keys_answer(reply: KeysReply) -> KeysAnswer:
    return KeysAnswer(
        beacon=reply.beacon,
        slots=reply.slots,
        generation=reply.generation,
        step=reply.step,
        secret=reply.secret,
        time=reply.time,
        earlier=tuple((turned.number, turned.secret, turned.beacon) for turned in reply.earlier),
    )


def _gates_answer(reply: GatesReply) -> GatesAnswer:
    return GatesAnswer(beacon=reply.beacon, generation=reply.generation, gates=reply.gates, time=reply.time)


def _answer(body: bytes) -> web.Response:
    return web.Response(body=body, content_type=CONTENT_TYPE)
