"""Publishers that do not listen, as a repair node asks them: by the answers to requests of theirs that wait.

The same answers bring them what receivers tell of their files.

Spec: spec/side-channel.md SC-50.
"""

import asyncio
import itertools
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from sealcast.errors import UnreachableError
from sealcast.sidechannel.messages import RepairAnswer, RepairRequest
from sealcast.sidechannel.refusals import Refusal, RefusedError
from sealcast.sidechannel.wanted_messages import (
    HOLD_SECONDS,
    MAX_REPORT_BYTES,
    MAX_REPORTS,
    PassedReport,
    WantedAnswer,
)

MAX_STREAMS = 1024
"""Whose publishers ask what is wanted."""

MAX_KEPT_BYTES = 16 << 20
"""Reports on files, of all streams of a channel, that their publishers have not taken yet."""

_TOLD_BYTES = 1 << 20
"""Reports of one answer."""

_RETRY_SECONDS = 5
_GONE_SECONDS = 2 * HOLD_SECONDS
"""A publisher that has not asked for so long does not ask here any more."""


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
    asked_at: float = 0.0
    reports: dict[str, PassedReport] = field(default_factory=dict)
    """The latest of each device, until the publisher has it."""
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def is_there(self, now: float) -> bool:
        """Whether its publisher asks here."""
        return self.waiting > 0 or now - self.asked_at < _GONE_SECONDS

    def told(self) -> tuple[PassedReport, ...]:
        """As many of the oldest reports as one answer takes."""
        room, told = _TOLD_BYTES, []
        for report in itertools.islice(self.reports.values(), MAX_REPORTS):
            room -= len(report.report)
            if room < 0:
                break
            told.append(report)
        return tuple(told)


class Outbound:
    """What is wanted of each stream of a channel, and the one request of its publisher that waits."""

    def __init__(self, publisher_of: Callable[[bytes], str | None]) -> None:
        """Nobody waits yet; `publisher_of`: the device whose stream it is, as the policy writes it."""
        self.publisher_of = publisher_of
        self._streams: dict[bytes, _Stream] = {}
        # Another start has other marks: what is taken is the report that was told.
        self._marks = itertools.count(secrets.randbits(62))

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

    def report(self, stream_id: bytes, device: str, report: bytes) -> bool:
        """Keep what a device tells of a stream's files, until its publisher has it; the latest counts.

        Returns: False where the publisher does not ask here.

        Raises: RefusedError: it is too long, or too many publishers have not taken theirs.
        """
        now = asyncio.get_running_loop().time()
        stream = self._streams.get(stream_id)
        if stream is None or not stream.is_there(now):
            return False
        if len(report) > MAX_REPORT_BYTES:
            raise RefusedError(Refusal.TOO_LARGE, f"a report on files of {len(report)} bytes")
        kept = {**stream.reports}
        kept.pop(device, None)
        if self._kept_bytes(stream_id, now) + _bytes_of(kept) + len(report) > MAX_KEPT_BYTES:
            raise RefusedError(
                Refusal.TOO_MANY_REQUESTS, "too many reports on files wait", retry_after=_RETRY_SECONDS
            )
        stream.reports = {**kept, device: PassedReport(mark=next(self._marks), device=device, report=report)}
        stream.news.set()
        return True

    def _kept_bytes(self, but: bytes, now: float) -> int:
        """What waits for the publishers of other streams; nothing waits for one that has gone."""
        total = 0
        for stream_id, stream in self._streams.items():
            if not stream.is_there(now):
                stream.reports = {}
            if stream_id != but:
                total += _bytes_of(stream.reports)
        return total

    async def take(
        self, stream_id: bytes, number: int, brought: RepairAnswer, taken: Collection[int] = ()
    ) -> WantedAnswer:
        """Take what a publisher brings, and wait until something is wanted of it, for a while.

        `taken`: marks of reports that it has. Raises: RefusedError: there are too many publishers.
        """
        stream = self._stream(stream_id)
        stream.reports = {
            device: report for device, report in stream.reports.items() if report.mark not in taken
        }
        answer = stream.answer
        if number == stream.number and answer is not None and not answer.done():
            answer.set_result(brought)
            stream.answer = stream.wanted = None
        # One waits at a time: an earlier one may hang on a line that has broken.
        stream.latest += 1
        own = stream.latest
        stream.news.set()
        stream.waiting += 1
        stream.asked_at = asyncio.get_running_loop().time()
        until = stream.asked_at + HOLD_SECONDS
        try:
            while stream.latest == own:
                told = stream.told()
                if (wanted := stream.wanted) is not None or told:
                    stream.wanted = None
                    return replace(wanted or WantedAnswer(number=0), reports=told)
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


def _bytes_of(reports: dict[str, PassedReport]) -> int:
    return sum(len(each.report) for each in reports.values())
