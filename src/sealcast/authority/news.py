"""Devices that wait for another CRL or policy than they know (SC-33).

A change wakes all who wait; whoever it does not concern goes on waiting. The answers are made one after the
other, with other work in between: there may be ten thousand who wait.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable

from sealcast.sidechannel.refusals import Refusal, RefusedError

MAX_WAITING_PER_DEVICE = 16
"""A device has one or two processes that wait; more would only hold memory."""


class _Change:
    """A change: that it has come, whom it concerns, and the one after it."""

    def __init__(self) -> None:
        self.has_come = asyncio.Event()
        self.concerns: Callable[[str], bool] = lambda _: True
        self.following: _Change | None = None


class DocumentNews:
    """Wakes those who wait. Lives on the event loop."""

    def __init__(self) -> None:
        self._next = _Change()
        self._waiting: Counter[str] = Counter()
        self._one_by_one = asyncio.Lock()
        self._has_ended = False

    def end(self) -> None:
        """Let nobody wait any more."""
        self._has_ended = True
        self.tell()

    def tell(self, concerns: Callable[[str], bool] | None = None) -> None:
        """Something has changed; for which devices, as far as that is known."""
        # Those that wait hold this change, and come from it to the next ones.
        change, self._next = self._next, _Change()
        change.following = self._next
        change.concerns = concerns or change.concerns
        change.has_come.set()

    async def wait(self, device: str, answer: Callable[[], bytes], known: bytes, seconds: float) -> bytes:
        """Wait until the answer for a device has another SHA-256 than `known`; at most so many seconds.

        Returns: the answer as it is then.

        Raises: RefusedError: the device waits too often at once.
        """
        if hashlib.sha256(body := answer()).digest() != known:
            return body
        if self._waiting[device] >= MAX_WAITING_PER_DEVICE:
            raise RefusedError(Refusal.TOO_MANY_REQUESTS, f"{MAX_WAITING_PER_DEVICE} requests wait already")
        self._waiting[device] += 1
        change: _Change | None = self._next
        try:
            async with asyncio.timeout(seconds):
                while change is not None and hashlib.sha256(body).digest() == known and not self._has_ended:
                    await change.has_come.wait()
                    if not change.concerns(device):
                        change = change.following
                        continue
                    async with self._one_by_one:
                        body, change = answer(), self._next
        except TimeoutError:
            pass
        finally:
            self._waiting[device] -= 1
            if not self._waiting[device]:
                del self._waiting[device]
        return body
