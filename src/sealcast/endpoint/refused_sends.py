"""What it means when the system takes no packet for a group, and what mends it."""

import asyncio
import errno
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

from sealcast.errors import NetworkError

log = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0
_MEANINGS = (
    ((errno.EMSGSIZE,), "they do not fit its MTU any more", "say --mtu"),
    (
        (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL),
        "it has no route to the group",
        "choose another interface, or add a route",
    ),
    ((errno.ENETDOWN, errno.ENODEV, errno.ENXIO), "it is down", "bring it up"),
    ((errno.EPERM, errno.EACCES), "a firewall forbids it", "allow UDP to the group"),
    ((errno.ENOBUFS, errno.ENOMEM), "its queue is full", "lower the channel's rate"),
)


@dataclass(frozen=True, slots=True)
class Sends:
    """What became of the packets of one driver."""

    interface: str
    sent: int
    refused: int
    number: int
    """The system's, of the last refusal."""

    def meaning(self) -> tuple[str, str]:
        """What that number means here, and what to do."""
        for numbers, problem, cure in _MEANINGS:
            if self.number in numbers:
                return problem, cure
        problem = os.strerror(self.number) if self.number else "no reason is given"
        return problem, "see whether the interface works"

    def check_any(self, channel: str) -> None:
        """Raises: NetworkError: packets were refused, and not one went out."""
        if self.refused and not self.sent:
            problem, cure = self.meaning()
            what = f"none of {self.refused} packets could be sent on {self.interface}"
            raise NetworkError(f"channel {channel!r}: {what}: {problem}", cure=cure)


async def tell_of_refusals(channel: str, look: Callable[[], Sends]) -> None:
    """Tell when the system begins to refuse packets, as on an interface whose MTU has become too small.

    `look`: what became of those of the present driver.
    """
    known, is_told = 0, False
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        sends = look()
        # Another driver counts anew.
        if sends.refused > known and not is_told:
            log.warning(
                "channel %s: the system refuses packets on %s (%d so far), which come by repair alone: "
                "%s (%s)",
                channel,
                sends.interface,
                sends.refused,
                *sends.meaning(),
            )
        known, is_told = sends.refused, sends.refused > known
