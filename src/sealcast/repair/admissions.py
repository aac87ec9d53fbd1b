"""From when on each member may be served packets, as the key server says; kept for a while.

An admission only ever moves forward, and what is kept here stands for somebody who was a member then: an
answer of some minutes ago gives nobody what it was not entitled to.

Spec: spec/side-channel.md SC-42.
"""

import time
from collections import OrderedDict

from sealcast.errors import NotAllowedError, SealcastError
from sealcast.sidechannel.client import KeyServerClient
from sealcast.sidechannel.refusals import Refusal, RefusedError
from sealcast.sidechannel.server import Admission

KEPT_SECONDS = 600.0
MAX_KEPT = 65_536
"""Members; of one that has not asked for longest nothing is kept."""


class Admissions:
    """The admissions to one channel."""

    def __init__(self, channel: str) -> None:
        """Know nothing yet."""
        self._channel = channel
        self._known: OrderedDict[str, tuple[Admission, float]] = OrderedDict()

    async def of(self, device: str, key_server: KeyServerClient) -> Admission:
        """The admission of a device, written as the policy does; `key_server` is asked for what is not known.

        Raises: RefusedError: it is no member, or the key server is away and it has never asked before.
        """
        known = self._known.get(device)
        if known is not None and time.monotonic() - known[1] < KEPT_SECONDS:
            self._known.move_to_end(device)
            return known[0]
        try:
            answer = await key_server.admission(self._channel, device)
        except NotAllowedError:
            self._known.pop(device, None)
            raise RefusedError(Refusal.NOT_ALLOWED, f"{device!r} has not joined") from None
        except SealcastError as error:
            if known is not None:
                return known[0]
            raise RefusedError(Refusal.INTERNAL, f"the key server cannot be asked: {error}") from None
        admission = answer.generation, answer.step, answer.joined
        self._known[device] = admission, time.monotonic()
        if len(self._known) > MAX_KEPT:
            self._known.popitem(last=False)
        return admission
