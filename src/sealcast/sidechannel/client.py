"""Asking over the side channel: the key server, and peers.

Spec: spec/side-channel.md sections 1 and 2.
"""

import hashlib
from collections.abc import Sequence
from types import TracebackType
from typing import Self
from urllib.parse import quote

from sealcast.errors import (
    CertificateError,
    ChannelError,
    NetworkError,
    NotAllowedError,
    PeerError,
    SealcastError,
    UnknownChannelError,
)
from sealcast.keys import MemberRole
from sealcast.pki.names import Role
from sealcast.pki.times import system_time
from sealcast.sidechannel.connection import ANSWER_SECONDS, Connection, RefusalError
from sealcast.sidechannel.messages import (
    MAX_PEER_ANSWER,
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
    RepairAnswer,
    RepairRequest,
    Report,
    StreamEntry,
    StreamsAnswer,
    StreamUpdate,
    TimeAnswer,
)
from sealcast.sidechannel.node_messages import AdmissionAnswer, NodeJoinAnswer, RepairNodeUpdate
from sealcast.sidechannel.peer_messages import (
    ChannelsRequest,
    EndpointBody,
    FileReport,
    InboxAnswer,
    InboxRequest,
    PostedMessage,
)
from sealcast.sidechannel.refusals import Refusal
from sealcast.sidechannel.tls import Clock, CurrentCrl, TlsIdentity


class UnknownVersionError(NetworkError):
    """The authority has no such version of the trust bundle."""

    default_cure = "see: sealcast authority bundle list DIR"


class KeyServerClient:
    """The requests of a member to its key server.

    Every method raises UnreachableError when nobody answers; CertificateError when the other side is not the
    site's key server, or does not accept this device any more (`reason` is then `revoked` or
    `not-authenticated`); UnknownChannelError; NotAllowedError; NetworkError for an answer that makes no
    sense. Nothing in an answer is verified here: signatures and commitments are the engine's to check.
    """

    def __init__(
        self,
        identity: TlsIdentity,
        *,
        url: str | None = None,
        site_id: bytes | None = None,
        crl: CurrentCrl = lambda: None,
        clock: Clock = system_time,
    ) -> None:
        """Ask the key server that the device knows, or that of another site.

        Args:
            identity: the device.
            url: of another key server.
            site_id: of its site; None: ours.
            crl: the CRL of this moment, to judge the key server by.
            clock: microseconds since the epoch.
        """
        self._connection = Connection(
            identity,
            url or identity.keys_url,
            role=Role.KEY_SERVER,
            expected_name=None,
            expected_site=site_id or identity.site_id,
            crl=crl,
            clock=clock,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def join(self, channel: str, role: MemberRole) -> JoinAnswer:
        """Become a member, or one anew; gives everything that a start needs (SC-4)."""
        body = JoinRequest(role=role).serialize()
        return JoinAnswer.parse(await self._ask("POST", channel, "join", body, action=str(role)))

    async def join_as_repair_node(self, channel: str) -> NodeJoinAnswer:
        """Become a repair node of a channel, or one anew (SC-39)."""
        body = JoinRequest(role=MemberRole.REPAIR).serialize()
        return NodeJoinAnswer.parse(await self._ask("POST", channel, "join", body, action="repair"))

    async def keys(self, channel: str) -> KeysAnswer:
        """The present secrets, and those of slots ahead (SC-3)."""
        return KeysAnswer.parse(await self._ask("POST", channel, "keys", EmptyBody().serialize()))

    async def poll(self, channel: str, counter: int) -> bytes:
        """Wait up to 25 s for news, then return a beacon datagram.

        Args:
            channel: its name.
            counter: of the last beacon that the member has; 0 without one.
        """
        return (await self.await_news(channel, PollRequest(counter=counter))).beacon

    async def await_news(self, channel: str, known: PollRequest) -> PollAnswer:
        """Wait up to 25 s for what is not known, which may be another directory (SC-45)."""
        body = known.serialize()
        answer = await self._ask("POST", channel, "poll", body, answer_seconds=POLL_SECONDS + ANSWER_SECONDS)
        return PollAnswer.parse(answer)

    async def leave(self, channel: str) -> None:
        """Say that this device no longer takes part."""
        EmptyBody.parse(await self._ask("POST", channel, "leave", EmptyBody().serialize()))

    async def policy(self, channel: str) -> PolicyAnswer:
        """The signed policy in force."""
        return PolicyAnswer.parse(await self._ask("GET", channel, "policy"))

    async def streams(self, channel: str) -> tuple[StreamEntry, ...]:
        """The directory of live streams."""
        return (await self.directory(channel)).streams

    async def directory(self, channel: str) -> StreamsAnswer:
        """Live streams, and the channel's repair nodes."""
        return StreamsAnswer.parse(await self._ask("GET", channel, "streams"))

    async def put_stream(self, channel: str, stream: bytes, update: StreamUpdate) -> None:
        """Enter a stream of this device (id of 16 bytes) into the directory, or bring it up to date
        (SC-5).
        """
        answer = await self._ask(
            "PUT", channel, f"streams/{stream.hex()}", update.serialize(), action="publish"
        )
        EmptyBody.parse(answer)

    async def members(self, channel: str) -> tuple[MemberEntry, ...]:
        """Those that joined and are still allowed."""
        return MembersAnswer.parse(await self._ask("GET", channel, "members")).members

    async def admission(self, channel: str, device: str) -> AdmissionAnswer:
        """Since when a device is a member (SC-42); it is written as the policy does.

        Raises: NotAllowedError: it is none.
        """
        return AdmissionAnswer.parse(await self._ask("GET", channel, f"members/{quote(device, safe='')}"))

    async def put_repair_node(self, channel: str, update: RepairNodeUpdate) -> None:
        """Say where this repair node listens (SC-40)."""
        EmptyBody.parse(await self._ask("PUT", channel, "repair-node", update.serialize(), action="repair"))

    async def crl(self) -> CrlAnswer:
        """The CRL in force."""
        return CrlAnswer.parse(await self._ask("GET", None, "crl"))

    async def channels(self) -> ChannelsAnswer:
        """The channels whose policy lists this device, and what is in force (SC-32)."""
        return ChannelsAnswer.parse(await self._ask("GET", None, "channels"))

    async def await_channels(self, known: bytes) -> tuple[ChannelsAnswer, bytes]:
        """The same, as soon as it is not what is known; at the latest after 25 s (SC-33).

        `known`: SHA-256 of the latest answer, zeros without one. Returns: the answer, and its SHA-256.
        """
        body = ChannelsRequest(known=known).serialize()
        answer = await self._ask("POST", None, "channels", body, answer_seconds=POLL_SECONDS + ANSWER_SECONDS)
        return ChannelsAnswer.parse(answer), hashlib.sha256(answer).digest()

    async def put_endpoint(self, endpoint: tuple[str, int] | None) -> None:
        """Say where this device takes messages of its peers; None: nowhere (SC-34)."""
        body = EndpointBody(endpoint=endpoint).serialize()
        EmptyBody.parse(await self._ask("PUT", None, "endpoint", body))

    async def endpoint(self, device: str) -> tuple[str, int] | None:
        """Where a device takes messages, written as policies of the key server's site write it (SC-34).

        Raises: PeerError: no policy lists both.
        """
        try:
            answer = await self._connection.request("GET", f"/v1/endpoints/{quote(device, safe='')}")
        except RefusalError as error:
            if error.code == Refusal.NOT_ALLOWED.code:
                raise PeerError(device) from error
            raise _meaning(error, "", self._connection.name, "take part") from error
        return EndpointBody.parse(answer).endpoint

    async def bundle(self, version: int) -> BundleAnswer:
        """A version of the trust bundle, as signed (SC-19).

        Raises: UnknownVersionError: there is no such version, or no bundle at all.
        """
        return BundleAnswer.parse(await self._ask("GET", None, f"bundles/{version}"))

    async def report(self, report: Report) -> None:
        """Say what this device holds (SC-21).

        Raises: UnknownVersionError: the authority has another bundle of that number, or none.
        """
        EmptyBody.parse(await self._ask("POST", None, "report", report.serialize()))

    @property
    def shown(self) -> tuple[bytes, ...]:
        """The chain (DER) of the key server that was judged last; empty before the first connection."""
        return self._connection.shown

    async def time(self) -> int:
        """The key server's clock, in microseconds."""
        return TimeAnswer.parse(await self._ask("GET", None, "time")).time

    async def exchange(
        self, method: str, path: str, body: bytes | None, *, answer_seconds: float
    ) -> tuple[int, bytes]:
        """Send a request of the engine's; return status and body as they come."""
        return await self._connection.exchange(method, path, body, answer_seconds=answer_seconds)

    def reload(self, identity: TlsIdentity) -> None:
        """Go on with a renewed certificate."""
        self._connection.reload(identity)

    async def close(self) -> None:
        """End every connection."""
        await self._connection.close()

    async def _ask(
        self,
        method: str,
        channel: str | None,
        what: str,
        body: bytes | None = None,
        *,
        action: str = "take part",
        answer_seconds: float = ANSWER_SECONDS,
    ) -> bytes:
        path = f"/v1/{what}" if channel is None else f"/v1/channels/{quote(channel, safe='')}/{what}"
        try:
            return await self._connection.request(method, path, body, answer_seconds=answer_seconds)
        except RefusalError as error:
            raise _meaning(error, channel or "", self._connection.name, action) from error


class PeerClient:
    """The requests of a subscriber to one publisher (or another source of repair).

    Errors as those of KeyServerClient.
    """

    def __init__(
        self,
        identity: TlsIdentity,
        *,
        host: str,
        port: int,
        device: str,
        site_id: bytes | None = None,
        crl: CurrentCrl = lambda: None,
        clock: Clock = system_time,
    ) -> None:
        """Ask the peer at `host`:`port`, which has to be `device`.

        Args:
            identity: this device.
            host: name or address, from the directory.
            port: from the directory.
            device: the name that the peer's certificate has to bear.
            site_id: its site; None: ours.
            crl: the CRL of this moment.
            clock: microseconds since the epoch.
        """
        self._device = device
        self._connection = Connection(
            identity,
            f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
            role=Role.DEVICE,
            expected_name=device,
            expected_site=site_id or identity.site_id,
            crl=crl,
            clock=clock,
            max_answer=MAX_PEER_ANSWER,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def repair(
        self, channel: bytes, stream: bytes, ranges: tuple[tuple[int, int], ...]
    ) -> RepairAnswer:
        """Ask for packets again; `ranges` hold first and last sequence, at most 64 of them (SC-8)."""
        body = RepairRequest(channel=channel, stream=stream, ranges=ranges).serialize()
        return RepairAnswer.parse(await self._ask("/v1/repair", body, channel))

    async def report_files(self, report: FileReport) -> None:
        """Say which files are here, and what of others is missing."""
        EmptyBody.parse(await self._ask("/v1/files", report.serialize(), report.channel))

    async def post(self, messages: Sequence[PostedMessage]) -> int:
        """Post messages to the peer's inbox; returns how many of the first it has on its disk (SC-36).

        Raises: PeerError: its policies do not list both; RefusalError: `inbox-full`, `too-many-requests`.
        """
        body = InboxRequest(messages=tuple(messages)).serialize()
        try:
            answer = InboxAnswer.parse(await self._connection.request("POST", "/v1/inbox", body))
        except RefusalError as error:
            if error.code == Refusal.NOT_ALLOWED.code:
                raise PeerError(self._device) from error
            raise _meaning(error, "", self._connection.name, "send messages") from error
        if answer.stored > len(messages):
            raise NetworkError(f"{self._connection.url} has {answer.stored} of {len(messages)} messages")
        return answer.stored

    async def exchange(
        self, method: str, path: str, body: bytes | None, *, answer_seconds: float
    ) -> tuple[int, bytes]:
        """Send a request of the engine's; return status and body as they come."""
        return await self._connection.exchange(method, path, body, answer_seconds=answer_seconds)

    def reload(self, identity: TlsIdentity) -> None:
        """Go on with a renewed certificate."""
        self._connection.reload(identity)

    async def close(self) -> None:
        """End every connection."""
        await self._connection.close()

    async def _ask(self, path: str, body: bytes, channel: bytes) -> bytes:
        try:
            return await self._connection.request("POST", path, body)
        except RefusalError as error:
            raise _meaning(error, channel.hex(), self._connection.name, "subscribe") from error


def _meaning(error: RefusalError, channel: str, device: str, action: str) -> SealcastError:
    """What a refusal means to the caller; the refusal itself where there is nothing better."""
    match error.code:
        case "unknown-channel":
            return UnknownChannelError(channel)
        case "not-allowed":
            return NotAllowedError(channel, device=device, action=action)
        case "revoked":
            return CertificateError(
                f"device {device!r} is revoked",
                reason="revoked",
                cure="enrol it anew with a token if that was a mistake",
            )
        case "not-authenticated":
            return CertificateError(
                f"{error}",
                reason="not-authenticated",
                cure="renew the certificate, or enrol again with a token",
            )
        case "unknown-version":
            return UnknownVersionError(f"{error}")
        case "unknown-stream":
            return ChannelError(error.detail, channel=channel, cure="join the channel again")
        case _:
            return error
