"""What subscribers report of their losses, and what publishers make of it. SC-49, DP-46."""

from __future__ import annotations

from sealcast.pki.fec import Fec
from sealcast.testing import MILLISECOND, ChannelOptions, Faults, Simulation, verify
from tests.scenarios.common import MONITOR, assert_nothing_lost

BEDS = [f"bed{number:02d}" for number in range(20)]


def ward_of_twenty(seed: int, *, seconds: int = 100, fec: Fec = "off") -> Simulation:
    """A publisher that sends fifty packets a second, and twenty subscribers."""
    sim = Simulation(seed, options=ChannelOptions(rate=20_000_000, fec=fec))
    sim.add_publisher(MONITOR)
    sim.settle()
    for name in BEDS:
        sim.add_subscriber(name)
    sim.settle()
    sim.run(2)
    sim.publisher(MONITOR).send_every(20 * MILLISECOND, 50 * seconds, 100)
    return sim


def pace(sim: Simulation) -> int:
    return sim.publisher(MONITOR).engine.pace


def test_one_dead_slow_subscriber_of_twenty_does_not_lower_the_rate() -> None:
    sim = ward_of_twenty(1)
    sim.network.set_faults(Faults(loss=0.9), BEDS[:1])
    for _ in range(10):
        sim.run(2)
        assert pace(sim) == 1000
    assert sim.publisher(MONITOR).reports > 20
    # Nor does one that is gone.
    sim.subscriber(BEDS[1]).crash()
    sim.run(10)
    assert pace(sim) == 1000


def test_half_of_them_losing_a_fifth_lower_it_and_it_comes_back() -> None:
    sim = ward_of_twenty(2)
    sim.network.set_faults(Faults(loss=0.2), BEDS[:10])
    assert sim.run_until(lambda: pace(sim) < 600, 20.0)
    sim.run(10)
    assert pace(sim) >= 125
    sim.network.set_faults(Faults(), BEDS[:10])
    assert sim.run_until(lambda: pace(sim) == 1000, 60.0)
    sim.run(3)
    verify(sim)
    assert_nothing_lost(sim)


def test_a_twentieth_is_for_parity_and_repair() -> None:
    """Losses as a radio has them slow nobody down; adaptive parity, which the policy asks for, grows."""
    sim = ward_of_twenty(3, fec="auto")
    sim.network.set_faults(Faults(loss=0.05))
    sim.run(10)
    engine = sim.publisher(MONITOR).engine
    before = engine.counters()
    sim.run(10)
    after = engine.counters()
    parity = after["parity"] - before["parity"]
    assert parity > 0.15 * (after["packets"] - before["packets"] - parity)
    assert pace(sim) == 1000
    assert sum(subscriber.engine.counters()["rebuilt"] for subscriber in sim.subscribers.values()) > 300


def test_reports_are_few_and_idle_streams_cost_none() -> None:
    sim = ward_of_twenty(4, seconds=30)
    sim.run(10)
    before = sim.publisher(MONITOR).reports
    sim.run(18)
    assert 0 < sim.publisher(MONITOR).reports - before <= 18 * 12
    sim.run(10)
    before = sim.publisher(MONITOR).reports
    sim.run(30)
    assert sim.publisher(MONITOR).reports == before
