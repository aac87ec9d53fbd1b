"""What must hold in every simulation, whatever the network did.

| oracle | what must hold |
|---|---|
| O1 | nothing is delivered that was not sent: sender, place and bytes are the publisher's |
| O2 | each message at most once, over all starts of a subscriber |
| O3 | per stream in the order of completion, per topic in that of sending (but for mode `unordered`) |
| O4 | once the faults have ended, every member has what was sent since its admission |
| O8 | what it does not have is told, in its place: a gap, or the message by its number |

A removed device, besides, is given nothing sealed under the generation that shut it out (invariant 5).
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

from sealcast._core import Message
from sealcast.endpoint.events import Gap, MessageLost
from sealcast.testing.clock import SECOND, START
from sealcast.testing.hosts import Membership, StreamRecord
from sealcast.testing.simulation import Simulation
from sealcast.testing.subscriber import SimulatedSubscriber

_LOOK_SECONDS = 0.05
"""How often `verify` looks whether everything is here; looking costs more than a step of time."""


class OracleError(AssertionError):
    """An oracle does not hold; the text names seed, subscriber and message."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A message that a subscriber should have and does not."""

    subscriber: str
    stream_id: bytes
    message_id: int
    is_told: bool


def verify(sim: Simulation, *, seconds: float = 60.0, allow_gaps: bool = False) -> None:
    """Wait until everyone has everything, then check every oracle.

    Args:
        sim: the simulation; its faults have ended.
        seconds: how long the subscribers may take (O4).
        allow_gaps: accept losses that were told. Streams that crashed may always lack their end: nobody is
            left who could repair it, but it has to be told once a successor is known.

    Raises:
        OracleError: one does not hold.
    """

    def is_open(loss: Loss) -> bool:
        return not loss.is_told or (not allow_gaps and sim.streams[loss.stream_id].crashed is None)

    end = sim.now + round(seconds * SECOND)
    while sim.now < end and any(is_open(loss) for loss in losses(sim)):
        sim.run(min(_LOOK_SECONDS, (end - sim.now) / SECOND))
    verify_deliveries(sim)
    for loss in filter(is_open, losses(sim)):
        record = sim.streams[loss.stream_id]
        what = f"message {loss.message_id} of {record.publisher} ({loss.stream_id.hex()[:8]})"
        if not loss.is_told:
            raise _error(sim, loss.subscriber, f"O8: {what} is missing, and nothing was told")
        raise _error(sim, loss.subscriber, f"O4: {what} is lost")


def verify_deliveries(sim: Simulation) -> None:
    """Check O1, O2, O3 and that the removed were given nothing new. At any time, faults or not."""
    for subscriber in sim.subscribers.values():
        _verify_truth(sim, subscriber)
        _verify_order(sim, subscriber)


def losses(sim: Simulation) -> Iterable[Loss]:
    """What the subscribers that run, and are members, should have by now and do not."""
    for subscriber in sim.subscribers.values():
        if not subscriber.is_up or not subscriber.has_joined or subscriber.name in sim.removed:
            continue
        for record in sim.streams.values():
            if record.publisher not in sim.removed:
                yield from _losses_of(subscriber, record, sim.subscribers.values())


def due(subscriber: SimulatedSubscriber, record: StreamRecord) -> range:
    """Ids of the messages of a stream that the present start of a subscriber has to get.

    Those queued once it had been admitted and the publisher sealed under that admission or a later one
    (DP-34); a message that a crash left in the queue was never sent.
    """
    _, joined, admission = subscriber.joins[_first_join(subscriber)]
    switched = record.switched(admission)
    if switched is None:
        return range(0)
    first = bisect_left(record.sent, max(joined, switched), key=lambda sent: sent.time)
    return range(first, record.count)


def _first_join(subscriber: SimulatedSubscriber) -> int:
    return next(index for index, (start, _, _) in enumerate(subscriber.joins) if start == subscriber.starts)


def _losses_of(
    subscriber: SimulatedSubscriber, record: StreamRecord, everyone: Iterable[SimulatedSubscriber]
) -> Iterable[Loss]:
    wanted = due(subscriber, record)
    if not wanted:
        return
    got = {
        message.message_id: message.sequence
        for message in subscriber.messages
        if message.stream_id == record.stream_id
    }
    if len(got) >= len(wanted) and all(message_id in got for message_id in wanted):
        return
    places: dict[int, int] = {}
    for other in everyone:
        for message in other.messages:
            if message.stream_id == record.stream_id:
                # Unordered, it may be a part in the middle that completed it.
                places[message.message_id] = max(message.sequence, places.get(message.message_id, 0))
    items = [happened.item for happened in subscriber.history if happened.start == subscriber.starts]
    gaps = [item for item in items if isinstance(item, Gap) and item.stream_id == record.stream_id]
    told = {
        item.message_id
        for item in items
        if isinstance(item, MessageLost) and item.stream_id == record.stream_id
    }
    for message_id in wanted:
        if message_id not in got:
            # It stands above the message before it, and not above the one after it; or where others got it.
            low = max((places[i] for i in places if i < message_id), default=0)
            high = min((places[i] for i in places if i >= message_id), default=2**62)
            is_told = message_id in told or any(
                gap.first <= high and (gap.last is None or gap.last >= low) for gap in gaps
            )
            yield Loss(subscriber.name, record.stream_id, message_id, is_told)


def _verify_truth(sim: Simulation, subscriber: SimulatedSubscriber) -> None:
    seen: set[tuple[bytes, int]] = set()
    for message in subscriber.messages:
        key = (bytes(message.stream_id), message.message_id)
        record = sim.streams.get(key[0])
        if record is None or message.message_id >= record.count:
            raise _error(sim, subscriber.name, f"O1: message {key} was never sent")
        sent = record.sent[message.message_id]
        if (message.data, message.topic, message.publisher, message.instance, message.site_id) != (
            sent.data,
            sent.topic,
            record.publisher,
            record.instance,
            sim.site.site_id,
        ):
            raise _error(sim, subscriber.name, f"O1: message {key} is not as it was sent")
        if key in seen:
            raise _error(sim, subscriber.name, f"O2: message {key} was delivered twice")
        seen.add(key)


def _verify_order(sim: Simulation, subscriber: SimulatedSubscriber) -> None:
    joins = subscriber.joins
    if subscriber.is_from_start:
        # It never leaves: a crash ends no admission (KM-10).
        admissions = {start: joins[0][2] for start, _, _ in joins}
    else:
        admissions = {start: admission for start, _, admission in reversed(joins)}
    shut_out = sim.removed.get(subscriber.name)
    place: dict[tuple[int, bytes], int] = {}
    last: dict[tuple[int, bytes, str | None], int] = {}
    for happened in subscriber.history:
        message = happened.item
        if not isinstance(message, Message):
            continue
        membership: Membership = message.epoch[1:]
        if membership < admissions[happened.start]:
            raise _error(sim, subscriber.name, f"DP-34: {membership} is from before its admission")
        if shut_out is not None and membership[0] >= shut_out:
            raise _error(sim, subscriber.name, f"invariant 5: opened generation {membership[0]}")
        key = (happened.start, bytes(message.stream_id))
        if subscriber.delivery == "unordered":
            continue
        # What is large may be overtaken by what was sent after it, but for messages of its topic;
        # those without one keep their order among themselves (DP-25).
        before = last.get((*key, message.topic), -1)
        if message.sequence < place.get(key, 0) or message.message_id <= before:
            raise _error(sim, subscriber.name, f"O3: message {message.message_id} after {before}")
        place[key], last[*key, message.topic] = message.sequence, message.message_id


def _error(sim: Simulation, subscriber: str, text: str) -> OracleError:
    return OracleError(f"seed {sim.seed}, {subscriber}, {(sim.now - START) / 1e6:.3f} s: {text}")
