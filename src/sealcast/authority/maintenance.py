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


async def maintain(authority: Authority) -> None:
    """Keep `authority` going until cancelled; a failure is logged and tried again."""
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
        except SealcastError as error:
            _log.error("upkeep failed, it will be tried again: %s", error)
            await asyncio.sleep(RETRY_SECONDS)
        except Exception:  # noqa: BLE001  # slots must go on turning whatever else is wrong
            _log.exception("upkeep failed, it will be tried again")
            await asyncio.sleep(RETRY_SECONDS)


async def warn_of_ends(authority: Authority) -> None:
    """Say in the log what ends soon of all that the site needs, the root and the site CA included."""
    now = authority.clock()
    found = await authority.read(lambda session: ends.site_ends(session, authority.site, now))
    for line in warnings(found, now):
        _log.warning("%s", line)
