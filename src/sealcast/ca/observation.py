"""A seam for whoever wants to see every certificate that this process issues: a linter, a log.

Roots and site CAs tell it what they have signed, after signing; what an observer does or raises is its own
affair, and it should raise nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Observer = Callable[[bytes], None]
"""Is called with each DER certificate, in the thread that signed it."""

_observers: list[Observer] = []


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Call `observer` for each certificate that is issued while the block lasts."""
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


def announce(certificate: bytes) -> bytes:
    """Tell the observers of a DER certificate; returns it."""
    for observer in _observers:
        observer(certificate)
    return certificate
