"""Devices that wait for another CRL or policy than they know (SC-33).

Each change wakes all who wait; whoever it does not concern goes on waiting.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable

from sealcast.sidechannel.refusals import Refusal, RefusedError

MAX_WAITING_PER_DEVICE = 16
"""A device has one or two processes that wait; more would only hold memory."""


class DocumentNews:
    """Wakes those who wait. Lives on the event loop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._waiting: Counter[str] = Counter()
        self._has_ended = False

    def end(self) -> None:
        """Let nobody wait any more."""
        self._has_ended = True
        self.tell()

    def tell(self) -> None:
        """Something has changed."""
        # Those that wait hold the old event; whoever asks from now on waits for the next change.
        event, self._event = self._event, asyncio.Event()
        event.set()

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
        try:
            async with asyncio.timeout(seconds):
                while hashlib.sha256(body).digest() == known and not self._has_ended:
                    await self._event.wait()
                    body = answer()
        except TimeoutError:
            pass
        finally:
            self._waiting[device] -= 1
            if not self._waiting[device]:
                del self._waiting[device]
        return body
