"""What one device may take of a source of repair: so much a second, with some saved up (SC-43).

Every member is entitled to repair, and none to all of it: a device whose losses are its own fault gets them
at a pace that leaves the others theirs. The key server bounds its members' requests by the same.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from sealcast.errors import UsageError

REFUSED_SECONDS = 1.0
"""After which a refusal is answered: it says to come back no sooner, and who does not listen has a connection
that stands still meanwhile.
"""

TURN_SECONDS = 0.005
AT_ONCE = 50
"""Beyond so many at once, the requests of a device are taken at this distance at least, whatever the number
of its connections: between them there is time for those of others.
"""

MAX_DEVICES = 65_536
"""Whose account is kept; of one that has not asked for longest nothing is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """The bounds of one device. What is saved up is four seconds' worth."""

    bytes_per_second: int = 32 << 20
    requests_per_second: int = 100

    SAVED_SECONDS = 4.0

    def __post_init__(self) -> None:
        for what, value, least, most in (
            ("bytes of a member in a second", self.bytes_per_second, 1000, 1 << 40),
            ("requests of a member in a second", self.requests_per_second, 1, 1_000_000),
        ):
            if not least <= value <= most:
                raise UsageError(f"{what}: {value}", cure=f"use {least} to {most}")


@dataclass(slots=True)
class _Account:
    requests: float
    bytes: float
    at: float
    free_at: float
    """When the request after all those that have come would be taken, had none come at once."""


class Accounts:
    """What is left to each device."""

    def __init__(self, quota: Quota, clock: Callable[[], float] = time.monotonic) -> None:
        """Give everyone the same; `clock` counts seconds."""
        self._quota = quota
        self._clock = clock
        self._accounts: OrderedDict[str, _Account] = OrderedDict()

    def charge_request(self, device: str) -> int | None:
        """Count a request of `device`.

        Returns:
            None, or the seconds after which it may ask again: then the request is to be refused.
        """
        quota, account = self._quota, self._account(device)
        short = max(
            (1 - account.requests) / quota.requests_per_second, -account.bytes / quota.bytes_per_second
        )
        if short > 0:
            return max(1, math.ceil(short))
        account.requests -= 1
        return None

    async def admit(self, device: str) -> int | None:
        """Count a request of `device` and wait for its turn.

        Returns: as `charge_request`, after a pause that makes refusals cost next to nothing.
        """
        if (seconds := self.charge_request(device)) is not None:
            await asyncio.sleep(REFUSED_SECONDS)
            return seconds
        account, now = self._account(device), self._clock()
        early = account.free_at - now - AT_ONCE * TURN_SECONDS
        account.free_at = max(account.free_at, now) + TURN_SECONDS
        if early > 0:
            await asyncio.sleep(early)
        return None

    def overdrawn(self, device: str) -> int | None:
        """Return the seconds after which `device` is served again, or None if it is now."""
        short = -self._account(device).bytes / self._quota.bytes_per_second
        return max(1, math.ceil(short)) if short > 0 else None

    def charge_bytes(self, device: str, count: int) -> None:
        """Count what was served; an account may be overdrawn by one answer."""
        self._account(device).bytes -= count

    def _account(self, device: str) -> _Account:
        quota, now = self._quota, self._clock()
        most = quota.requests_per_second * quota.SAVED_SECONDS, quota.bytes_per_second * quota.SAVED_SECONDS
        account = self._accounts.get(device)
        if account is None:
            account = self._accounts[device] = _Account(*most, now, now)
            if len(self._accounts) > MAX_DEVICES:
                self._accounts.popitem(last=False)
            return account
        self._accounts.move_to_end(device)
        passed, account.at = max(0.0, now - account.at), now
        account.requests = min(most[0], account.requests + passed * quota.requests_per_second)
        account.bytes = min(most[1], account.bytes + passed * quota.bytes_per_second)
        return account
