"""What it means when the system takes no packet for a group, and what mends it."""

import errno
import os

from sealcast.errors import NetworkError

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


def meaning(number: int) -> tuple[str, str]:
    """What a number of the system means here, and what to do."""
    for numbers, problem, cure in _MEANINGS:
        if number in numbers:
            return problem, cure
    return os.strerror(number) if number else "no reason is given", "see whether the interface works"


def nothing_sent(channel: str, interface: str, refused: int, number: int) -> NetworkError:
    """The error of a stream of which not one packet went out."""
    problem, cure = meaning(number)
    return NetworkError(
        f"channel {channel!r}: none of {refused} packets could be sent on {interface}: {problem}", cure=cure
    )
