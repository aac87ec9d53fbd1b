"""One other side of the side channel: requests to it, over connections on which its identity was judged.

Spec: spec/side-channel.md section 1.
"""

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress
from weakref import WeakSet

import aiohttp

from sealcast.errors import CertificateError, NetworkError, UnreachableError
from sealcast.pki.names import Role
from sealcast.pki.validator import VerifiedPeer
from sealcast.sidechannel.fields import MalformedMessageError
from sealcast.sidechannel.messages import CONTENT_TYPE, MAX_ANSWER, POLL_SECONDS
from sealcast.sidechannel.refusals import ErrorAnswer
from sealcast.sidechannel.tls import Clock, CurrentCrl, TlsIdentity, judging_context, verdict_of

CONNECT_SECONDS = 5.0
"""A key server or peer on the same site that does not shake hands within this is taken for gone."""

ANSWER_SECONDS = 15.0
"""For every request but the poll, whose answer may take POLL_SECONDS longer."""

_CLOSING_TURNS = 10
"""Of the loop, in which a socket that is shut down has come to its end; twice as many as it takes."""


class Connection:
    """Requests to one other side, over connections that are kept open and that its identity was judged on."""

    def __init__(
        self,
        identity: TlsIdentity,
        url: str,
        *,
        role: Role,
        expected_name: str | None,
        expected_site: bytes,
        crl: CurrentCrl,
        clock: Clock,
        max_answer: int = MAX_ANSWER,
    ) -> None:
        self._max_answer = max_answer
        self.url = url.rstrip("/")
        self.name = identity.name
        self._identity = identity
        self._role = role
        self._expected_name = expected_name
        self._expected_site = expected_site
        self._crl = crl
        self._clock = clock
        self.shown: tuple[bytes, ...] = ()
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._retiring: dict[asyncio.Task[None], aiohttp.ClientSession] = {}

    async def request(
        self, method: str, path: str, body: bytes | None = None, *, answer_seconds: float = ANSWER_SECONDS
    ) -> bytes:
        """Send one request; return the body of its answer.

        Raises:
            UnreachableError, CertificateError, NetworkError, RefusalError.
        """
        status, answer = await self.exchange(method, path, body, answer_seconds=answer_seconds)
        if status != 200:
            raise _refusal(self.url, status, answer)
        return answer

    async def exchange(
        self, method: str, path: str, body: bytes | None = None, *, answer_seconds: float = ANSWER_SECONDS
    ) -> tuple[int, bytes]:
        """Send one request, and once more if a kept connection had just been closed by the other side.

        Returns: status and body, whatever they are.

        Raises:
            UnreachableError, CertificateError, NetworkError.
        """
        for attempt in (1, 2):
            try:
                return await self._request(method, path, body, answer_seconds)
            except aiohttp.ServerDisconnectedError as error:
                if attempt == 2:
                    raise UnreachableError(self.url, "it closes the connection", is_busy=True) from error
            except TimeoutError as error:
                raise UnreachableError(self.url, "no answer in time", is_busy=True) from error
            except aiohttp.ClientError as error:
                if (verdict := verdict_of(error)) is not None:
                    raise _naming(self.url, verdict) from error
                is_busy = isinstance(getattr(error, "os_error", None), ConnectionResetError)
                raise UnreachableError(self.url, _reason(error), is_busy=is_busy) from error
        raise AssertionError("not reached")

    def reload(self, identity: TlsIdentity) -> None:
        """Open new connections with what `identity` holds now; what is under way ends as it began."""
        self._identity = identity
        old, self._session = self._session, None
        if old is not None:
            task = asyncio.get_running_loop().create_task(_close_later(old))
            self._retiring[task] = old
            task.add_done_callback(self._retiring.pop)

    async def close(self) -> None:
        """End every connection, for good: who is asking gets an UnreachableError."""
        self._is_closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        for task, old in tuple(self._retiring.items()):
            task.cancel()
            await old.close()
        await self._sockets_closed()

    async def _sockets_closed(self) -> None:
        """Wait for the loop to close what was ended: this may be its last turn.

        TLS of a request that was cancelled would wait for a last word of the other side.
        """
        for each in tuple(self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for _ in range(_CLOSING_TURNS):
            await asyncio.sleep(0)
            if all(each.fileno() < 0 for each in tuple(self._sockets)):
                return

    def _new_socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        made = socket.socket(*address[:3])
        self._sockets.add(made)
        return made

    async def _request(
        self, method: str, path: str, body: bytes | None, answer_seconds: float
    ) -> tuple[int, bytes]:
        if self._is_closed:
            raise UnreachableError(self.url, "the connection to it has been closed")
        if self._session is None or self._session.closed:
            self._session = self._new_session()
        timeout = aiohttp.ClientTimeout(total=answer_seconds + CONNECT_SECONDS, sock_connect=CONNECT_SECONDS)
        async with self._session.request(
            method,
            self.url + path,
            data=body,
            headers={"Content-Type": CONTENT_TYPE} if body is not None else None,
            timeout=timeout,
            allow_redirects=False,
        ) as response:
            answer = bytearray()
            async for chunk in response.content.iter_any():
                answer += chunk
                if len(answer) > self._max_answer:
                    raise NetworkError(f"{self.url}: the answer has more than {self._max_answer} bytes")
            return response.status, bytes(answer)

    def _new_session(self) -> aiohttp.ClientSession:
        validator = self._identity.validator()

        def verify(chain: Sequence[bytes]) -> VerifiedPeer:
            try:
                return validator.verify_peer(chain, self._role, self._clock(), self._crl())
            except CertificateError as error:
                if self._role is not Role.KEY_SERVER or error.reason != "revocation-unknown":
                    raise
                # Only the key server has the list that is missing here; what it answers is judged by that
                # list, before any of it is taken (TR-9).
                return validator.verify_peer(chain, self._role, self._clock())

        def judge(chain: Sequence[bytes]) -> VerifiedPeer:
            peer = verify(chain)
            if peer.site_id != self._expected_site or self._expected_name not in (None, peer.name):
                raise CertificateError(
                    f"{self.url} is {peer.identity.uri}, and not who was asked for", reason="wrong-identity"
                )
            self.shown = tuple(chain)
            return peer

        context = judging_context(self._identity.ssl_context_client(), judge)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=16, socket_factory=self._new_socket),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
            auto_decompress=False,
        )


class RefusalError(NetworkError):
    """The other side refused. `code`: of registry.md."""

    def __init__(self, url: str, status: int, code: str, detail: str) -> None:
        super().__init__(f"{url} refuses: {detail or code}")
        self.status = status
        self.code = code
        self.detail = detail


_REASONS_OF_PEERS = {"expired": "time", "not-yet-valid": "time", "revoked": "peer-revoked"}
"""Where the same word about our own certificate means something else."""


def _naming(url: str, verdict: CertificateError) -> CertificateError:
    """The verdict, with whom it is about."""
    # Its certificate, not ours: the clock of one of both is wrong, or it is about to renew.
    reason = _REASONS_OF_PEERS.get(verdict.reason, verdict.reason)
    problem = verdict.problem if url in verdict.problem else f"{url}: {verdict.problem}"
    return CertificateError(problem, reason=reason, cure=verdict.cure)


def _refusal(url: str, status: int, body: bytes) -> RefusalError:
    try:
        answer = ErrorAnswer.parse(body)
    except MalformedMessageError:
        return RefusalError(url, status, "", f"HTTP status {status}")
    # The detail goes to logs and terminals of ours: nothing but printable text is taken over.
    detail = "".join(character if character.isprintable() else "?" for character in answer.detail)
    return RefusalError(url, status, answer.error, detail)


def _reason(error: aiohttp.ClientError) -> str:
    wrapped = getattr(error, "os_error", None)
    if isinstance(wrapped, OSError) and wrapped.strerror:
        return wrapped.strerror
    return str(error) or type(error).__name__


async def _close_later(session: aiohttp.ClientSession) -> None:
    # As long as the longest request that may still be under way on it.
    await asyncio.sleep(POLL_SECONDS + ANSWER_SECONDS + CONNECT_SECONDS)
    await session.close()
