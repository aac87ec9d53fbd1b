"""What an authority does by itself, in time: slots, policies, CRL, its own certificate."""

import asyncio
import logging

from sealcast.authority import ends
from sealcast.authority.service import Authority
from sealcast.errors import SealcastError
from sealcast.pki.ends import warnings

_log = logging.getLogger("sealcast.authority")

UPKEEP_SECONDS = 30.0
"""How often due dates are looked at. All of them leave hours to spare, so this is not a matter of
precision.
"""

WARN_SECONDS = 24 * 3600.0
"""How often the log says what ends soon."""

RETRY_SECONDS = 1.0
"""After a failure, for example of a full disk."""

TELL_SECONDS = (10.0, 60.0, 600.0, 3600.0)
"""How long the log keeps silent after each line about a failure that lasts; the last goes on."""


class Outage:
    """Tells of a failure that lasts: at once, then at growing distance, and when it is over."""

    def __init__(self) -> None:
        self._failures = 0
        self._told = 0
        self._silent_until = 0.0

    def failed(self, error: Exception, now: float) -> None:
        """`now`: seconds, of a clock that is never set."""
        self._failures += 1
        if now < self._silent_until:
            return
        again = "" if self._failures == 1 else f" ({self._failures} times by now)"
        self._silent_until = now + TELL_SECONDS[min(self._told, len(TELL_SECONDS) - 1)]
        self._told += 1
        if isinstance(error, SealcastError):
            _log.error("upkeep failed, it will be tried again%s: %s", again, error)
        else:
            _log.error("upkeep failed, it will be tried again%s", again, exc_info=error)

    def worked(self) -> None:
        """All that was due has been done."""
        if self._failures:
            _log.warning("upkeep works again, after %d failures", self._failures)
            self._failures = self._told = 0
            self._silent_until = 0.0


async def maintain(authority: Authority) -> None:
    """Keep `authority` going until cancelled; a failure is logged and tried again."""
    outage = Outage()
    due = authority.clock() + round(UPKEEP_SECONDS * 1e6)
    warned: int | None = None
    while True:
        now = authority.clock()
        turns = [channel.keys.next_turn(now) for channel in authority.all_channels()]
        # The wall clock may be set meanwhile: never sleep for longer than the upkeep takes to come round.
        wait = max(0.0, min(UPKEEP_SECONDS, (min([*turns, due]) - now) / 1e6))
        authority.channels_changed.clear()
        try:
            async with asyncio.timeout(wait):
                await authority.channels_changed.wait()
        except TimeoutError:
            pass
        try:
            now = authority.clock()
            if any(turn <= now for turn in turns):
                await authority.turn_slots()
            if now >= due or due - now > UPKEEP_SECONDS * 1e6:
                await authority.renew_objects()
                await authority.keep_audit_head()
                if authority.identity.is_due(now):
                    await authority.renew_certificate()
                if warned is None or abs(now - warned) >= WARN_SECONDS * 1e6:
                    warned = now
                    await warn_of_ends(authority)
                due = now + round(UPKEEP_SECONDS * 1e6)
        except Exception as error:  # noqa: BLE001  # slots must go on turning whatever else is wrong
            outage.failed(error, asyncio.get_running_loop().time())
            await asyncio.sleep(RETRY_SECONDS)
        else:
            outage.worked()


async def warn_of_ends(authority: Authority) -> None:
    """Say in the log what ends soon of all that the site needs, the root and the site CA included."""
    now = authority.clock()
    found = await authority.read(lambda session: ends.site_ends(session, authority.site, now))
    for line in warnings(found, now):
        _log.warning("%s", line)
