"""Publishers that do not listen, as a repair node asks them: by the answers to requests of theirs that wait.

Spec: spec/side-channel.md SC-50.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from sealcast.errors import UnreachableError
from sealcast.sidechannel.messages import RepairAnswer, RepairRequest
from sealcast.sidechannel.refusals import Refusal, RefusedError
from sealcast.sidechannel.wanted_messages import HOLD_SECONDS, WantedAnswer

MAX_STREAMS = 1024
"""Whose publishers ask what is wanted."""

_RETRY_SECONDS = 5


@dataclass(slots=True)
class _Stream:
    number: int = 0
    """Of what was wanted last."""
    wanted: WantedAnswer | None = None
    """What its publisher has not been told yet."""
    answer: asyncio.Future[RepairAnswer] | None = None
    """Where what is wanted is awaited."""
    latest: int = 0
    """The request that waits, counted."""
    waiting: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)


class Outbound:
    """What is wanted of each stream of a channel, and the one request of its publisher that waits."""

    def __init__(self, publisher_of: Callable[[bytes], str | None]) -> None:
        """Nobody waits yet; `publisher_of`: the device whose stream it is, as the policy writes it."""
        self.publisher_of = publisher_of
        self._streams: dict[bytes, _Stream] = {}

    async def ask(self, request: RepairRequest) -> RepairAnswer:
        """Want packets of a stream, and wait for them; the caller bounds for how long.

        Raises: UnreachableError: its publisher does not ask here, or others are wanted of it by now.
        """
        stream = self._streams.get(request.stream)
        if stream is None:
            raise UnreachableError(f"stream {request.stream.hex()}", "its publisher does not ask here")
        if stream.answer is not None and not stream.answer.done():
            stream.answer.set_exception(
                UnreachableError(f"stream {request.stream.hex()}", "other packets are wanted")
            )
        stream.number += 1
        stream.wanted = WantedAnswer(number=stream.number, ranges=request.ranges)
        answer: asyncio.Future[RepairAnswer] = asyncio.get_running_loop().create_future()
        stream.answer = answer
        stream.news.set()
        try:
            return await answer
        finally:
            if stream.answer is answer:
                stream.answer = stream.wanted = None

    async def take(self, stream_id: bytes, number: int, brought: RepairAnswer) -> WantedAnswer:
        """Take what a publisher brings, and wait until something is wanted of it, for a while.

        Raises: RefusedError: there are too many publishers.
        """
        stream = self._stream(stream_id)
        answer = stream.answer
        if number == stream.number and answer is not None and not answer.done():
            answer.set_result(brought)
            stream.answer = stream.wanted = None
        # One waits at a time: an earlier one may hang on a line that has broken.
        stream.latest += 1
        own = stream.latest
        stream.news.set()
        stream.waiting += 1
        until = asyncio.get_running_loop().time() + HOLD_SECONDS
        try:
            while stream.latest == own:
                if (wanted := stream.wanted) is not None:
                    stream.wanted = None
                    return wanted
                stream.news = asyncio.Event()
                async with asyncio.timeout_at(until):
                    await stream.news.wait()
        except TimeoutError:
            pass
        finally:
            stream.waiting -= 1
        return WantedAnswer(number=0)

    def end(self) -> None:
        """Let nobody wait any more."""
        for stream in self._streams.values():
            stream.latest += 1
            stream.news.set()

    def _stream(self, stream_id: bytes) -> _Stream:
        if stream_id not in self._streams and len(self._streams) >= MAX_STREAMS:
            idle = [
                one for one, stream in self._streams.items() if not stream.waiting and stream.answer is None
            ]
            for one in idle:
                del self._streams[one]
            if not idle:
                raise RefusedError(
                    Refusal.TOO_MANY_REQUESTS, "too many publishers ask", retry_after=_RETRY_SECONDS
                )
        return self._streams.setdefault(stream_id, _Stream())
