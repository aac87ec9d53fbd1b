"""Virtual time: a clock that only tests move, and what is to happen when.

Times are microseconds since 1970-01-01T00:00:00Z (spec/README.md), durations microseconds.
"""

import heapq
from collections.abc import Callable

SECOND = 1_000_000
"""Microseconds."""

START = 1_767_225_600 * SECOND
"""2026-01-01T00:00:00Z: where a new clock stands."""

MAX_ACTIONS_AT_ONE_MOMENT = 200_000
"""More than this without time passing means that two parts of a simulation only answer each other."""


class ManualClock:
    """A clock for everything that takes one as an argument; call it for the time.

    clock = ManualClock()
    clock.advance(5 * SECOND)
    assert clock() == START + 5 * SECOND
    """

    def __init__(self, now: int = START) -> None:
        """Stand at `now`, in microseconds."""
        self._now = now

    def __call__(self) -> int:
        return self._now

    @property
    def now(self) -> int:
        """Microseconds."""
        return self._now

    def advance(self, duration: int) -> int:
        """Move by `duration` microseconds, also backwards (a clock that is set back); return the new time."""
        self._now += duration
        return self._now

    def set(self, now: int) -> None:
        """Stand at `now`."""
        self._now = now


class Timeline:
    """Actions in the order of their times; those of one time in the order in which they were given.

    Drive it so: `advance(limit)` until it returns False; time is at `limit` then.
    """

    def __init__(self, clock: ManualClock) -> None:
        """Move `clock`; nobody else may."""
        self._clock = clock
        self._actions: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self._at_once = 0

    @property
    def now(self) -> int:
        """Microseconds."""
        return self._clock.now

    def at(self, moment: int, action: Callable[[], None]) -> None:
        """Let `action` happen at `moment`, or now if that is past."""
        self._order += 1
        heapq.heappush(self._actions, (max(moment, self._clock.now), self._order, action))

    def after(self, delay: int, action: Callable[[], None]) -> None:
        """Let `action` happen `delay` microseconds from now."""
        self.at(self._clock.now + delay, action)

    def advance(self, limit: int) -> bool:
        """Go to the next moment at which something happens and let it happen; not beyond `limit`.

        Returns:
            False when nothing was left before `limit`; the clock is at `limit` then.
        """
        if not self._actions or self._actions[0][0] > limit:
            self._clock.set(max(limit, self._clock.now))
            return False
        moment = self._actions[0][0]
        if moment > self._clock.now:
            self._at_once = 0
        self._clock.set(moment)
        while self._actions and self._actions[0][0] == moment:
            self._at_once += 1
            if self._at_once > MAX_ACTIONS_AT_ONE_MOMENT:
                raise RuntimeError(f"time stands still at {(moment - START) / SECOND:.6f} s")
            _, _, action = heapq.heappop(self._actions)
            action()
        return True
