"""Joins of one channel, gathered for a moment: all who wait share one transaction and one step (SC-6)."""

import asyncio
from collections.abc import Awaitable, Callable

from sealcast.keys import JoinBatch, MemberKey, MemberRole

JOIN_MOMENT_SECONDS = 0.05
"""Joins that arrive within it share one step: nobody notices the wait, and a whole ward that is switched on
costs a handful of steps.
"""


class JoinGathering:
    """Gathers joins, and has them admitted together."""

    def __init__(
        self, admit: Callable[[tuple[MemberKey, ...]], Awaitable[None]], clock: Callable[[], int]
    ) -> None:
        """Prepare.

        Args:
            admit: stores a batch and puts it in force.
            clock: microseconds since the epoch.
        """
        self._admit = admit
        self._clock = clock
        self._batch = JoinBatch(round(JOIN_MOMENT_SECONDS * 1e6))
        self._flush: asyncio.Task[None] | None = None

    async def join(self, device: str, role: MemberRole) -> None:
        """Ask for admission; returns when that is decided, stored and in force."""
        self._batch.add(device, role, self._clock())
        if self._flush is None:
            self._flush = asyncio.get_running_loop().create_task(self._admit_all())
        # Shielded: one client that hangs up must not cancel the others' join.
        await asyncio.shield(self._flush)

    async def _admit_all(self) -> None:
        await asyncio.sleep(JOIN_MOMENT_SECONDS)
        self._flush = None
        await self._admit(self._batch.take())
