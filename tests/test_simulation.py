"""Random scenarios, many seeds: whatever happens, and in whatever order, the oracles hold.

SEALCAST_SEEDS sets how many seeds (2,000 by default, about a minute), SEALCAST_FIRST_SEED where they begin.
To look at a failing one: SEALCAST_FIRST_SEED=4711 SEALCAST_SEEDS=1 pytest tests/test_simulation.py
"""

import os
import random
from collections.abc import Callable

import pytest

from sealcast.endpoint.subscriber import Delivery
from sealcast.testing import (
    MILLISECOND,
    SECOND,
    BurstLoss,
    ChannelOptions,
    Faults,
    ManualClock,
    SideChannelFaults,
    Simulation,
    Site,
    verify,
    verify_deliveries,
)

FIRST_SEED = int(os.environ.get("SEALCAST_FIRST_SEED", "1"))
SEED_COUNT = int(os.environ.get("SEALCAST_SEEDS", "1000"))
CHUNK = 100
"""Seeds in one test: few enough to see progress, enough that pytest costs nothing."""

RETENTION = 8 * SECOND
"""Longer than every partition here, so that a loss is the exception; short, so that it is told soon."""


def random_faults(draw: random.Random) -> Faults:
    """How a link is: good, or bad in one to six ways."""
    if draw.random() < 0.3:
        return Faults()
    burst = BurstLoss(begin=draw.uniform(0, 0.03), mean_length=draw.randint(2, 12))
    return Faults(
        delay=draw.randint(0, 20) * MILLISECOND,
        jitter=draw.choice([0, 0, 5 * MILLISECOND]),
        loss=draw.choice([0.0, 0.02, 0.1, 0.3]),
        burst=burst if draw.random() < 0.3 else None,
        reorder=draw.choice([0.0, 0.1, 0.25]),
        reorder_delay=draw.choice([10, 100, 700]) * MILLISECOND,
        duplicate=draw.choice([0.0, 0.0, 0.2]),
        corruption=draw.choice([0.0, 0.0, 0.05, 0.3]),
    )


def random_delivery(draw: random.Random, unordered: float) -> Delivery:
    return "unordered" if draw.random() < unordered else "reliable"


def happenings(sim: Simulation, draw: random.Random) -> list[Callable[[], object]]:
    """What may happen to a simulation at any moment."""
    publisher, subscriber = sim.publisher("monitor"), sim.subscriber("b")

    def restart_publisher() -> None:
        publisher.restart()
        sim.run_until(lambda: publisher.is_ready, 1)

    def grow() -> None:
        if "late" not in sim.subscribers:
            sim.add_subscriber("late", delivery=random_delivery(draw, 0.3), faults=random_faults(draw))

    def remove() -> None:
        if sim.key_server.is_up and "leaver" not in sim.removed:
            sim.remove("leaver")

    def outage() -> None:
        if sim.key_server.is_up:
            sim.outage(draw.uniform(0.1, 2))

    def trouble() -> None:
        sim.side_channel.faults = SideChannelFaults(
            jitter=10 * MILLISECOND, failure=draw.choice([0.0, 0.2]), lost_answer=draw.choice([0.0, 0.2])
        )

    return [
        lambda: publisher.send_numbered(draw.randint(1, 40), draw.choice([20, 300, 1100, 4000])),
        lambda: publisher.send_every(draw.randint(2, 20) * MILLISECOND, draw.randint(1, 40)),
        lambda: publisher.send_numbered(1, 60_000),
        lambda: sim.partition(draw.choice(["a", "b", "monitor", "keys"]), seconds=draw.uniform(0.1, 3)),
        lambda: sim.network.set_faults(random_faults(draw), [draw.choice(["a", "b"])]),
        lambda: sim.renew("monitor", revoke_old=sim.key_server.is_up and draw.random() < 0.3),
        restart_publisher,
        subscriber.restart,
        grow,
        remove,
        outage,
        trouble,
    ]


def mixed(seed: int) -> Simulation:
    """A random scenario, its faults ended and everything that is due waited for."""
    draw = random.Random(seed)
    options = ChannelOptions(
        suite=draw.choice([1, 2]),
        slot_length=draw.choice([SECOND, 3 * SECOND, 3600 * SECOND]),
        slots_ahead=draw.choice([3, 8]),
        retention=RETENTION,
        rate=draw.choice([20_000_000, 1_000_000_000]),
    )
    sim = Simulation(seed, publishers=["monitor"], subscribers=["a", "leaver"], options=options)
    sim.add_subscriber("b", delivery=random_delivery(draw, 0.2))
    sim.settle()
    for name in ("a", "b"):
        sim.network.set_faults(random_faults(draw), [name])
    actions = happenings(sim, draw)
    sim.publisher("monitor").send_numbered(5)
    for _ in range(draw.randint(3, 10)):
        # Traffic is what most happenings are about.
        draw.choice(actions if draw.random() < 0.6 else actions[:3])()
        sim.run(draw.choice([0.0, 0.01, 0.2, 1.0]))
    verify_deliveries(sim)
    sim.calm()
    sim.run_until(lambda: sim.publisher("monitor").is_ready, 40)
    sim.publisher("monitor").send_numbered(2)
    # A gap of what nobody holds any more is told when retention is over.
    verify(sim, seconds=40, allow_gaps=True)
    return sim


@pytest.mark.timeout(0)
@pytest.mark.parametrize("first", range(FIRST_SEED, FIRST_SEED + SEED_COUNT, CHUNK))
def test_invariant_7_whatever_happens_a_loss_is_mended_or_told(first: int) -> None:
    """Among the other oracles: O8 is this invariant."""
    for seed in range(first, min(first + CHUNK, FIRST_SEED + SEED_COUNT)):
        mixed(seed)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_same_seed_gives_the_same_simulation(seed: int) -> None:
    assert mixed(seed).digest() == mixed(seed).digest()


def test_another_seed_gives_another_simulation() -> None:
    assert mixed(1).digest() != mixed(2).digest()


def test_a_site_follows_from_its_seed() -> None:
    one, same, other = Site(1), Site(1), Site(2)
    assert (one.root, one.ca, one.crl, one.key_server.certificate) == (
        same.root,
        same.ca,
        same.crl,
        same.key_server.certificate,
    )
    assert one.site_id != other.site_id
    assert one.issue_device("bed12", 10**15).certificate == same.issue_device("bed12", 10**15).certificate


def test_a_clock_moves_only_by_hand() -> None:
    clock = ManualClock()
    before = clock()
    assert clock() == before
    assert clock.advance(5 * SECOND) == clock() == before + 5 * SECOND
