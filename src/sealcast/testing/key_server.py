"""A key server of one channel, in memory: `sealcast.keys` behind the requests of spec/side-channel.md.

Bodies are those of `sealcast.sidechannel.messages`, byte for byte; no HTTP, no database. What is authorised,
and when, is as in the authority: by certificate, CRL and policy for each request, and once more before a
request that waited is answered.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from sealcast import _core
from sealcast.keys import (
    COUNTER_RESERVE,
    BeaconCounter,
    ChannelKeys,
    JoinBatch,
    KeyServer,
    MemberRole,
    ObjectVersion,
    Secret,
    SignedVersions,
)
from sealcast.pki import Policy, Role, SlotClock, StreamCredential, channel_id, make_bundle
from sealcast.pki.crl import GRACE, LIFE
from sealcast.pki.fec import Fec
from sealcast.pki.policy_names import Names
from sealcast.pki.times import microseconds
from sealcast.sidechannel.fields import MalformedMessageError
from sealcast.sidechannel.follow_messages import directory_digest
from sealcast.sidechannel.messages import (
    POLL_SECONDS,
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
    RepairNodeEntry,
    StreamEntry,
    StreamsAnswer,
    StreamUpdate,
    TimeAnswer,
)
from sealcast.sidechannel.node_messages import GatesAnswer, NodeJoinAnswer
from sealcast.sidechannel.refusals import ErrorAnswer, Refusal, RefusedError
from sealcast.testing.chance import chance
from sealcast.testing.clock import SECOND, Timeline
from sealcast.testing.site import PeerJudge, Site, SiteCertificate

Reply = Callable[[int | None, bytes], None]
"""Takes status and body; no status: the connection broke."""

FIRST_SLOT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOptions:
    """How the channel of a simulation is set up; durations in microseconds."""

    name: str = "ward/vitals"
    suite: int = 1
    rate: int = 1_000_000_000
    """Bits a second of one publisher."""
    slot_length: int = 3600 * SECOND
    slots_ahead: int = 4
    """How long traffic outlives the key server, in slots."""
    retention: int = 60 * SECOND
    retention_bytes: int = 256 << 20
    publisher_limit: int = 30 * SECOND
    fec: Fec = "off"
    """What publishers do that say nothing themselves."""
    join_moment: int = SECOND // 50
    """Joins within this time share one step (SC-6)."""


@dataclass(slots=True)
class _Poll:
    device: str
    certificate: bytes
    counter: int
    directory: bytes | None
    reply: Reply


class SimulatedKeyServer:
    """What is durable lives in the attributes; `stop` and `start` are a crash and a start of the process."""

    def __init__(self, site: Site, timeline: Timeline, seed: int, options: ChannelOptions) -> None:
        """Make the channel, with a policy that lists nobody, and start."""
        self.site = site
        self.options = options
        self.channel_id: bytes = channel_id(site.site_id, options.name)
        self._timeline = timeline
        self._random = chance("key server", seed)
        self._judge = PeerJudge(site.validator())
        self._publishers: set[str] = set()
        self._subscribers: set[str] = set()
        self._nodes: dict[str, tuple[str, int] | None] = {}
        self._policy_version = 0
        now = timeline.now
        self._clock = SlotClock(
            origin_time=now - now % options.slot_length, origin_number=FIRST_SLOT, length=options.slot_length
        )
        self._signed_policy = b""
        self._sign_policy()
        self._keys = ChannelKeys.create(
            self.channel_id, self._clock, slots_ahead=options.slots_ahead, now=now, draw=self._draw_secret
        )
        self._streams: dict[bytes, tuple[StreamEntry, int, bool]] = {}
        self._counter_limit = 1
        self._server: KeyServer | None = None
        self._starts = 0
        self._bundle = b""
        self._joins = JoinBatch(options.join_moment)
        self._joiners: list[tuple[str, bytes, MemberRole, Reply]] = []
        self._polls: list[_Poll] = []
        self.requests: dict[str, int] = {}
        """How often each kind of request was asked."""
        self.start()

    # -- the operator's side ---------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Whether it answers."""
        return self._server is not None

    @property
    def keys(self) -> ChannelKeys:
        """What is stored."""
        return self._keys

    @property
    def policy_version(self) -> int:
        """Of the policy in force."""
        return self._policy_version

    def start(self) -> None:
        """Start the process: a new control stream, beacon counters above all earlier ones."""
        now = self._timeline.now
        self._starts += 1
        start_nonce = self._random.randbytes(16)
        control = _core.ControlStream(
            self._random.randbytes(32), start_nonce, self.channel_id, self.options.suite
        )
        server = self.site.key_server
        credential = StreamCredential(
            spki=control.spki,
            channel_id=self.channel_id,
            suite=self.options.suite,
            site_id=self.site.site_id,
            device=server.name,
            certificate_hash=server.certificate_hash,
            not_before=max(server.not_before, now - 60 * SECOND),
            not_after=server.not_after,
            start_nonce=start_nonce,
            instance="",
            succeeds=None,
        )
        self._bundle = make_bundle(credential, server.signer, server.chain)
        self._keys = self._keys.turned(now, self._draw_secret)
        counter = BeaconCounter(self._counter_limit, self._counter_limit + COUNTER_RESERVE)
        self._counter_limit += COUNTER_RESERVE
        self._server = KeyServer(
            self._keys, self._versions(), control, counter, lambda: self._random.randbytes(16)
        )
        self._schedule_turn()

    def stop(self) -> None:
        """Crash: every request that waits ends without an answer."""
        self._server = None
        polls, self._polls = self._polls, []
        joiners, self._joiners = self._joiners, []
        self._joins.take()
        for poll in polls:
            poll.reply(None, b"")
        for *_, reply in joiners:
            reply(None, b"")

    def allow(self, device: str, role: MemberRole) -> None:
        """List a device in the policy; a new version if it was not. A repair node is a subscriber by it."""
        if role is MemberRole.REPAIR:
            self._nodes.setdefault(device, None)
        listed = self._publishers if role is MemberRole.PUBLISH else self._subscribers
        if device not in listed:
            listed.add(device)
            self._sign_policy()
            self._install()

    def put_repair_node(self, device: str, endpoint: tuple[str, int] | None) -> None:
        """Note where a repair node listens (SC-40)."""
        self._nodes[device] = endpoint
        self._note_directory()

    def remove(self, devices: Iterable[str]) -> None:
        """Take devices out of the policy, and out of the group by a fresh generation.

        Raises: RuntimeError while it is down: a removal needs the authority.
        """
        self._require_up()
        gone = sorted(set(devices))
        self._publishers.difference_update(gone)
        self._subscribers.difference_update(gone)
        self._sign_policy()
        self._keys = self._keys.removed(gone, self._draw_secret)
        self._install()

    def revoke(self, device: str, certificates: Iterable[SiteCertificate]) -> None:
        """Revoke the certificates of a device, and remove it, in one change."""
        self._require_up()
        for certificate in certificates:
            self.site.revoke(certificate, self._timeline.now)
        self.remove([device])

    def revoke_certificate(self, certificate: SiteCertificate) -> None:
        """Revoke one certificate of a device that goes on with another one."""
        self._require_up()
        self.site.revoke(certificate, self._timeline.now)
        self._install()

    # -- requests --------------------------------------------------------------------------------------------

    def handle(
        self, device: str, certificate: bytes, method: str, path: str, body: bytes, reply: Reply
    ) -> None:
        """Answer a request of `device`, which TLS has proved to hold `certificate`; at once or later."""
        if self._server is None:
            reply(None, b"")
            return
        try:
            self._authenticate(certificate)
            self._route(self._server, device, certificate, method, path, body, reply)
        except RefusedError as error:
            self._refuse(reply, error)
        except MalformedMessageError as error:
            self._refuse(reply, RefusedError(Refusal.MALFORMED_REQUEST, str(error)))

    def _route(
        self,
        server: KeyServer,
        device: str,
        certificate: bytes,
        method: str,
        path: str,
        body: bytes,
        reply: Reply,
    ) -> None:
        words = path.removeprefix("/v1/").split("/")
        kind = words[min(2, len(words) - 1)]
        self.requests[kind] = self.requests.get(kind, 0) + 1
        now = self._timeline.now
        if (method, words) == ("GET", ["crl"]):
            reply(200, CrlAnswer(crl=self.site.crl, issuers=(self.site.ca,)).serialize())
            return
        if (method, words) == ("GET", ["time"]):
            reply(200, TimeAnswer(time=now).serialize())
            return
        if len(words) < 3 or words[0] != "channels":
            raise RefusedError(Refusal.MALFORMED_REQUEST, f"no such request: {method}")
        if unquote(words[1]) != self.options.name or words[1] != quote(self.options.name, safe=""):
            raise RefusedError(Refusal.UNKNOWN_CHANNEL, "no channel of this name at this site")
        match method, words[2:]:
            case "POST", ["join"]:
                role = JoinRequest.parse(body).role
                self._authorise(device, role=role)
                self._join(device, certificate, role, reply)
            case "POST", ["keys"]:
                EmptyBody.parse(body)
                self._authorise(device, member=True)
                reply(200, self._keys_for(server, device).serialize())
            case "POST", ["poll"]:
                asked = PollRequest.parse(body)
                poll = _Poll(device, certificate, asked.counter, asked.directory, reply)
                self._authorise(device, member=True)
                self._poll(server, poll)
            case "POST", ["leave"]:
                EmptyBody.parse(body)
                self._authorise(device)
                self._keys = self._keys.left(device)
                self._install()
                reply(200, EmptyBody().serialize())
            case "GET", ["policy"]:
                self._authorise(device)
                reply(200, PolicyAnswer(policy=self._signed_policy, issuers=(self.site.ca,)).serialize())
            case "GET", ["streams"]:
                self._authorise(device)
                answer = StreamsAnswer(streams=self._entries(), repair_nodes=self._repair_nodes())
                reply(200, answer.serialize())
            case "GET", ["members"]:
                self._authorise(device)
                reply(200, self._members().serialize())
            case "PUT", ["streams", stream]:
                self._authorise(device, role=MemberRole.PUBLISH)
                self._put_stream(device, stream, StreamUpdate.parse(body))
                reply(200, EmptyBody().serialize())
            case _:
                raise RefusedError(Refusal.MALFORMED_REQUEST, f"no such request: {method}")

    def _join(self, device: str, certificate: bytes, role: MemberRole, reply: Reply) -> None:
        is_first = self._joins.deadline is None
        self._joins.add(device, role, self._timeline.now)
        self._joiners.append((device, certificate, role, reply))
        if is_first and self._joins.deadline is not None:
            start = self._starts
            self._timeline.at(self._joins.deadline, lambda: self._admit(start))

    def _admit(self, start: int) -> None:
        server = self._server
        if server is None or start != self._starts:
            return
        now = self._timeline.now
        allowed = [
            (device, role)
            for device, role in self._joins.take()
            if self._allows(device, role) and (role is MemberRole.REPAIR) is (device in self._nodes)
        ]
        self._keys = self._keys.turned(now, self._draw_secret).admitted(allowed, now, self._draw_secret)
        self._install()
        joiners, self._joiners = self._joiners, []
        for device, certificate, role, reply in joiners:
            try:
                self._authenticate(certificate)
                self._authorise(device, role=role, member=True)
            except RefusedError as error:
                self._refuse(reply, error)
                continue
            keys = self._keys_for(server, device, joining=role)
            rest: dict[str, Any] = {
                "policy": self._signed_policy,
                "crl": self.site.crl,
                "issuers": (self.site.ca,),
                "key_server": self._bundle,
                "streams": self._entries(),
                "repair_nodes": self._repair_nodes(),
                "members": len(self._keys.membership.members),
            }
            if isinstance(keys, GatesAnswer):
                reply(200, NodeJoinAnswer(gates=keys, **rest).serialize())
            else:
                reply(200, JoinAnswer(keys=keys, **rest).serialize())

    def _poll(self, server: KeyServer, poll: _Poll) -> None:
        beacon = server.poll_answer(poll.counter, self._timeline.now)
        if beacon is not None or (poll.directory is not None and poll.directory != self._directory()):
            self._answer_poll(poll)
            return
        self._polls.append(poll)
        self._timeline.after(int(POLL_SECONDS * SECOND), lambda: self._end_poll(poll))

    def _end_poll(self, poll: _Poll) -> None:
        if poll in self._polls:
            self._polls.remove(poll)
            self._answer_poll(poll)

    def _answer_poll(self, poll: _Poll) -> None:
        server, now = self._server, self._timeline.now
        if server is None:
            return
        try:
            self._authenticate(poll.certificate)
            self._authorise(poll.device, member=True)
        except RefusedError as error:
            # A removed member is told so here, within moments of its removal.
            self._refuse(poll.reply, error)
            return
        beacon = server.poll_answer(poll.counter, now) or server.beacon(now)
        told = None if poll.directory is None else self._directory()
        poll.reply(200, PollAnswer(beacon=beacon.datagram, directory=told).serialize())

    def _directory(self) -> bytes:
        return directory_digest(self._entries(), self._repair_nodes())

    def _note_directory(self) -> None:
        """Answer those who wait for another directory (SC-45)."""
        known = self._directory()
        waiting = [poll for poll in self._polls if poll.directory not in (None, known)]
        self._polls = [poll for poll in self._polls if poll not in waiting]
        for poll in waiting:
            self._answer_poll(poll)

    def _put_stream(self, device: str, stream: str, update: StreamUpdate) -> None:
        now = self._timeline.now
        validator = _core.Validator([self.site.root], [self.site.ca])
        try:
            credential = validator.verify_credential(
                update.credential,
                role=str(Role.DEVICE),
                channel_id=self.channel_id,
                suite=self.options.suite,
                now=now,
                crl=self.site.crl,
            )
        except ValueError as error:
            raise RefusedError(Refusal.NOT_ALLOWED, f"the credential does not verify: {error}") from None
        stream_id = bytes(credential.stream_id)
        if stream_id.hex() != stream or credential.name != device:
            raise RefusedError(Refusal.NOT_ALLOWED, "the credential is of another stream or device")
        next_sequence, is_final = 0, False
        if update.head is not None:
            _, next_sequence, is_final = _core.parse_heartbeat(update.head)
        known = self._streams.get(stream_id)
        if known is not None and (known[2] or next_sequence < known[1]):
            # A head only moves forward, and an end is final.
            return
        # The latest update stands last.
        self._streams.pop(stream_id, None)
        entry = StreamEntry(
            stream=stream_id,
            device=device,
            instance=credential.instance,
            credential=update.credential,
            head=update.head if update.head is not None or known is None else known[0].head,
            endpoint=update.endpoint,
        )
        self._streams[stream_id] = (entry, next_sequence, is_final)
        self._note_directory()

    # -- inside ----------------------------------------------------------------------------------------------

    def _allows(self, device: str, role: MemberRole) -> bool:
        return device in (self._publishers if role is MemberRole.PUBLISH else self._subscribers)

    def _authenticate(self, certificate: bytes) -> None:
        reason = self._judge.why_refused(certificate, self.site.crl, self._timeline.now)
        if reason is not None:
            refusal = Refusal.REVOKED if reason == "revoked" else Refusal.NOT_AUTHENTICATED
            raise RefusedError(refusal, reason)

    def _authorise(self, device: str, *, role: MemberRole | None = None, member: bool = False) -> None:
        roles = tuple(MemberRole) if role is None else (role,)
        if not any(self._allows(device, role) for role in roles):
            raise RefusedError(Refusal.NOT_ALLOWED, f"the policy does not list {device!r}")
        if member and not self._keys.membership.is_present(device):
            raise RefusedError(Refusal.NOT_ALLOWED, f"{device!r} has not joined")

    @staticmethod
    def _refuse(reply: Reply, error: RefusedError) -> None:
        body = ErrorAnswer(error=error.refusal.code, detail=error.detail).serialize()
        reply(error.refusal.status, body)

    def _require_up(self) -> None:
        if self._server is None:
            raise RuntimeError("the authority is down: nobody can be removed")

    def _keys_for(
        self, server: KeyServer, device: str, *, joining: MemberRole | None = None
    ) -> KeysAnswer | GatesAnswer:
        if not self._keys.membership.is_repair_node(device):
            return self._keys_answer(server, device, joining)
        given = server.gates_reply(self._timeline.now, self.options.suite)
        return GatesAnswer(
            beacon=given.beacon, generation=given.generation, gates=given.gates, time=given.time
        )

    def _repair_nodes(self) -> tuple[RepairNodeEntry, ...]:
        return tuple(
            RepairNodeEntry(device=device, endpoint=endpoint)
            for device, endpoint in self._nodes.items()
            if endpoint is not None and self._keys.membership.is_repair_node(device)
        )

    def _keys_answer(self, server: KeyServer, device: str, joining: MemberRole | None) -> KeysAnswer:
        reply = server.keys_reply(self._timeline.now, device, joining)
        return KeysAnswer(
            beacon=reply.beacon,
            slots=reply.slots,
            generation=reply.generation,
            step=reply.step,
            secret=reply.secret,
            time=reply.time,
            earlier=tuple((turned.number, turned.secret, turned.beacon) for turned in reply.earlier),
        )

    def _entries(self) -> tuple[StreamEntry, ...]:
        return tuple(
            entry for entry, _, _ in self._streams.values() if self._allows(entry.device, MemberRole.PUBLISH)
        )

    def _members(self) -> MembersAnswer:
        return MembersAnswer(
            members=tuple(
                MemberEntry(device=member.device, role=member.role)
                for member in self._keys.membership.present()
                if self._allows(member.device, member.role)
            )
        )

    def _sign_policy(self) -> None:
        options, now = self.options, self._timeline.now
        self._policy_version += 1
        policy = Policy(
            site_id=self.site.site_id,
            channel=options.name,
            version=self._policy_version,
            issued=now,
            next_update=now + microseconds(LIFE + GRACE),
            suite=options.suite,
            group="239.1.2.3",
            port=5000,
            interface=None,
            rate=options.rate,
            slots=self._clock,
            retention=options.retention,
            retention_bytes=options.retention_bytes,
            publisher_limit=options.publisher_limit,
            fec=options.fec,
            publishers=Names.of(sorted(self._publishers)),
            subscribers=Names.of(sorted(self._subscribers)),
        )
        self._signed_policy = policy.sign(self.site.issuer.signer)

    def _versions(self) -> SignedVersions:
        return SignedVersions(
            policy=ObjectVersion(
                version=self._policy_version, digest=hashlib.sha256(self._signed_policy).digest()
            ),
            crl=ObjectVersion(version=self.site.crl_number, digest=hashlib.sha256(self.site.crl).digest()),
        )

    def _install(self) -> None:
        server = self._server
        if server is not None and server.install(self._keys, self._versions(), self._timeline.now):
            polls, self._polls = self._polls, []
            for poll in polls:
                self._answer_poll(poll)

    def _schedule_turn(self) -> None:
        start = self._starts
        self._timeline.at(self._keys.next_turn(self._timeline.now), lambda: self._turn(start))

    def _turn(self, start: int) -> None:
        if self._server is not None and start == self._starts:
            self._keys = self._keys.turned(self._timeline.now, self._draw_secret)
            self._install()
            self._schedule_turn()

    def _draw_secret(self) -> Secret:
        return Secret(self._random.randbytes(32))
