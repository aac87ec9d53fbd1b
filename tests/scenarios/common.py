"""What the scenarios share: the seeds, a stream of mixed load, and what must not have happened."""

import os

from sealcast.endpoint.events import Gap, MessageLost
from sealcast.testing import MILLISECOND, ChannelOptions, Faults, Simulation, verify

FIRST_SEED = int(os.environ.get("SEALCAST_FIRST_SEED", "1"))
SEEDS = range(FIRST_SEED, FIRST_SEED + int(os.environ.get("SEALCAST_SCENARIO_SEEDS", "5")))
"""More in a soak: SEALCAST_SCENARIO_SEEDS=1000."""

MONITOR, FAR, NEAR = "monitor", "far", "near"


def ward(seed: int, *, options: ChannelOptions | None = None) -> Simulation:
    """One publisher, two subscribers, all joined, on a network that works."""
    return Simulation(seed, publishers=[MONITOR], subscribers=[FAR, NEAR], options=options)


def mixed_load(sim: Simulation, name: str = MONITOR) -> None:
    """Publish for two seconds: single messages, blocks of several sizes, parts of packets, a quiet end."""
    publisher = sim.publisher(name)
    for count in (1, 5, 64, 200, 3):
        publisher.send_numbered(count, 900)
        sim.run(0.05)
    publisher.send_every(10 * MILLISECOND, 100, 300)
    sim.run(1.5)
    publisher.send_numbered(2, 5000)
    sim.run(0.2)
    publisher.send_numbered(1, 10)


def over_link(seed: int, faults: Faults) -> Simulation:
    """Mixed load over `faults` to one subscriber and over a good line to another; everything must arrive.

    The faults do not end: what is mended is mended on the bad line.
    """
    sim = ward(seed)
    sim.network.set_faults(faults, [FAR])
    mixed_load(sim)
    verify(sim)
    assert_nothing_lost(sim)
    return sim


def assert_nothing_lost(sim: Simulation) -> None:
    """Nobody was told of a loss."""
    for subscriber in sim.subscribers.values():
        told = [event for event in subscriber.events if isinstance(event, Gap | MessageLost)]
        assert not told, f"seed {sim.seed}, {subscriber.name}: {told}"
