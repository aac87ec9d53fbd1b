"""Requests that wait for more of a stream, in virtual time: what `sealcast.sidechannel.followers` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sealcast.sidechannel.fields import SEQUENCE_LIMIT
from sealcast.sidechannel.follow_messages import HOLD_SECONDS, FollowRequest
from sealcast.testing.clock import SECOND, Timeline

Reach = Callable[[bytes], tuple[int, bool] | None]
"""`(stream)`: one above the highest sequence that there is, and whether it has ended; None: unknown."""


def open_range(asked: FollowRequest) -> tuple[tuple[int, int], ...]:
    """What a request is for: all that there is from its first sequence on."""
    return ((asked.first, SEQUENCE_LIMIT - 1),)


@dataclass(slots=True, eq=False)
class _Waiting:
    asked: FollowRequest
    answer: Callable[[], None]


class Following:
    """The requests that wait at one host."""

    def __init__(self, timeline: Timeline) -> None:
        """Nobody waits yet."""
        self._timeline = timeline
        self._waiting: list[_Waiting] = []

    def take(self, asked: FollowRequest, answer: Callable[[], None], reach: Reach) -> None:
        """Let a request wait until there is something for it, for as long as it is held; then `answer`."""
        waiting = _Waiting(asked, answer)
        self._waiting.append(waiting)
        self._timeline.after(int(HOLD_SECONDS * SECOND), lambda: self._end(waiting))
        self.look(reach)

    def look(self, reach: Reach) -> None:
        """Answer those for whom there is something."""
        for waiting in tuple(self._waiting):
            found = reach(waiting.asked.stream)
            if found is None or found[0] > waiting.asked.first or found[1]:
                self._end(waiting)

    def end(self) -> None:
        """Nobody is held any longer: the host has ended."""
        for waiting in tuple(self._waiting):
            self._end(waiting)

    def _end(self, waiting: _Waiting) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
            waiting.answer()
