"""Devices that are asked for at a signer by several connections at once share a write of its ledger.

While one batch is written and signed, what comes in meanwhile makes the next: its serial numbers are on the
disk, all by one wait, before any of it is signed.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from sealcast.ca import DeviceRequest, IssuedCertificate, LocalIssuer
from sealcast.errors import SealcastError

MAX_BATCH = 256
"""Requests that share a write; one connection may ask for as many."""

Outcome = IssuedCertificate | SealcastError
_Asked = tuple[Sequence[DeviceRequest], asyncio.Future[Sequence[Outcome]]]


class DeviceBatches:
    """The devices that are asked for under one key."""

    def __init__(self, issuer: Callable[[], LocalIssuer], executor: Executor) -> None:
        """Take what signs, as it is then, and where that is waited for."""
        self._issuer = issuer
        self._executor = executor
        self._waiting: deque[_Asked] = deque()
        self._running: asyncio.Task[None] | None = None

    async def ask(self, requests: Sequence[DeviceRequest]) -> Sequence[Outcome]:
        """What became of each request. Raises: SealcastError: of all of them."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[Outcome]] = loop.create_future()
        self._waiting.append((requests, answer))
        if self._running is None:
            self._running = loop.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._certify(self._take())
        finally:
            self._running = None

    def _take(self) -> list[_Asked]:
        batch = [self._waiting.popleft()]
        count = len(batch[0][0])
        while self._waiting and count + len(self._waiting[0][0]) <= MAX_BATCH:
            batch.append(self._waiting.popleft())
            count += len(batch[-1][0])
        return batch

    async def _certify(self, batch: Sequence[_Asked]) -> None:
        requests = [request for asked, _ in batch for request in asked]
        try:
            outcomes = iter(
                await asyncio.get_running_loop().run_in_executor(
                    self._executor, lambda: self._issuer().issue_devices(requests, 0)
                )
            )
        except Exception as error:  # noqa: BLE001  # handed to everyone who waits
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        for asked, answer in batch:
            own = [next(outcomes) for _ in asked]
            if not answer.done():
                answer.set_result(own)
