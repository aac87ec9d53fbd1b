"""Those who follow a stream over the side channel: each waits for more of it, and is given it at once.

A request that waits holds no packet: what it is given is read when there is something, from what is retained
anyway. Whoever reads slowly asks later, and further back; only what is on the way to it is in memory.

Spec: spec/side-channel.md SC-44.
"""

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from sealcast.sidechannel.messages import CONTENT_TYPE
from sealcast.sidechannel.refusals import Refusal, RefusedError

log = logging.getLogger(__name__)

GATHER_SECONDS = 0.01
"""One follower gets an answer at most so often, unless it lags: what comes meanwhile comes together."""

LAG = 256
"""Whoever is so many packets behind is given what there is."""

MAX_FOLLOWERS = 4096
MAX_FOLLOWERS_PER_DEVICE = 128
"""Requests that wait at once: a device has one for each stream, and for a moment two after a broken line."""

MAX_CARRIED = 64 << 20
MAX_CARRIED_PER_DEVICE = 8 << 20
"""Bytes of answers that are on the way; one is always."""

SLICE = 64 << 10
SLICE_SECONDS = 10.0
"""Whoever takes a slice of an answer no faster is let go of, and asks anew."""

_RETRY_SECONDS = 1


class FreshEngine(Protocol):
    """An engine that tells when there is more to serve."""

    def take_fresh(self, goes_on: bool) -> list[bytes]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowSource:
    """What is served to followers."""

    reach: Callable[[bytes, bytes], tuple[int, bool] | None]
    """`(channel id, stream id)`: one above the highest sequence that there is, and whether the stream has
    ended; None: the stream is not ours.
    """
    await_fresh: Callable[[bytes], None]
    """`(channel id)`: from now on it is told when there is more, by `Followers.take_fresh`."""


class Followers:
    """Requests that wait for more of a stream, of all members."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nobody waits yet; `clock` counts seconds."""
        self._clock = clock
        self._waiting: Counter[str] = Counter()
        self._carried: Counter[str] = Counter()
        self._news: dict[bytes, asyncio.Event] = {}
        # When a device was last given something of a stream.
        self._given: OrderedDict[tuple[str, bytes], float] = OrderedDict()
        self._has_ended = False

    def take_fresh(self, engine: FreshEngine) -> None:
        """Wake those who wait for what an engine has more of."""
        self.tell(engine.take_fresh(bool(self._news)))

    def tell(self, streams: Iterable[bytes]) -> None:
        """There is more of these streams."""
        for stream in streams:
            if (news := self._news.pop(stream, None)) is not None:
                news.set()

    def end(self) -> None:
        """Let nobody wait any more."""
        self._has_ended = True
        self.tell(tuple(self._news))

    @property
    def has_ended(self) -> bool:
        """Whether nobody is to wait any more."""
        return self._has_ended

    @contextmanager
    def place(self, device: str) -> Iterator[None]:
        """Be one of those who wait. Raises: RefusedError: there are too many."""
        if self._waiting[device] >= MAX_FOLLOWERS_PER_DEVICE or self._waiting.total() >= MAX_FOLLOWERS:
            raise RefusedError(
                Refusal.TOO_MANY_REQUESTS, "too many requests wait already", retry_after=_RETRY_SECONDS
            )
        self._waiting[device] += 1
        try:
            yield
        finally:
            _take_off(self._waiting, device, 1)

    def news(self, stream: bytes) -> asyncio.Event:
        """What is set when there is more of a stream; to be taken before one looks whether there is."""
        return self._news.setdefault(stream, asyncio.Event())

    def pause(self, device: str, stream: bytes) -> float:
        """Seconds for which a device is given nothing more of a stream, so that what comes is gathered."""
        given = self._given.get((device, stream))
        return 0.0 if given is None else max(0.0, given + GATHER_SECONDS - self._clock())

    def note_given(self, device: str, stream: bytes) -> None:
        """A device has been given something of a stream."""
        self._given[device, stream] = self._clock()
        self._given.move_to_end((device, stream))
        if len(self._given) > MAX_FOLLOWERS:
            self._given.popitem(last=False)

    async def carry(self, request: web.Request, device: str, body: bytes) -> web.StreamResponse:
        """Send an answer no faster than it is taken.

        Raises: RefusedError: too much is on the way already.
        """
        own, total = self._carried[device], self._carried.total()
        if (own and own + len(body) > MAX_CARRIED_PER_DEVICE) or (total and total + len(body) > MAX_CARRIED):
            raise RefusedError(
                Refusal.TOO_MANY_REQUESTS, "too much is on the way already", retry_after=_RETRY_SECONDS
            )
        self._carried[device] += len(body)
        try:
            return await _send(request, body)
        finally:
            _take_off(self._carried, device, len(body))


async def _send(request: web.Request, body: bytes) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_type = CONTENT_TYPE
    response.content_length = len(body)
    try:
        await response.prepare(request)
        for start in range(0, len(body), SLICE):
            async with asyncio.timeout(SLICE_SECONDS):
                await response.write(body[start : start + SLICE])
        await response.write_eof()
    except TimeoutError:
        log.debug("%s takes an answer too slowly", request.remote)
        if request.transport is not None:
            request.transport.abort()
    except ConnectionError:
        log.debug("%s has gone before its answer", request.remote)
    return response


def _take_off(counts: Counter[str], key: str, count: int) -> None:
    counts[key] -= count
    if counts[key] <= 0:
        del counts[key]
