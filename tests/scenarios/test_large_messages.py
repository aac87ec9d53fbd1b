"""Messages of 1 MiB and 16 MiB in parts under loss, small ones before, between and after them (DP-25)."""

import pytest

from sealcast.testing import Faults, verify
from tests.scenarios.common import FAR, MONITOR, SEEDS, assert_nothing_lost, ward

MEBIBYTE = 1 << 20


@pytest.mark.parametrize("seed", SEEDS)
def test_one_mebibyte(seed: int) -> None:
    sim = ward(seed)
    sim.network.set_faults(Faults(loss=0.1), [FAR])
    publisher = sim.publisher(MONITOR)
    for size in (10, MEBIBYTE, 20, MEBIBYTE, MEBIBYTE, 30):
        publisher.send_numbered(1, size)
    sim.run(1)
    publisher.send_numbered(1, 40)
    verify(sim)
    assert_nothing_lost(sim)
    assert len(sim.subscriber(FAR).messages) == 7


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_sixteen_mebibytes(seed: int) -> None:
    sim = ward(seed)
    sim.network.set_faults(Faults(loss=0.05), [FAR])
    publisher = sim.publisher(MONITOR)
    publisher.send(bytes(16 * MEBIBYTE), "image")
    publisher.send_numbered(5, 100)
    verify(sim)
    assert_nothing_lost(sim)
    # What was sent after the large one overtakes it: it is not held up.
    assert [len(message.data) for message in sim.subscriber(FAR).messages] == 5 * [100] + [16 * MEBIBYTE]


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_messages_of_a_topic_keep_their_order(seed: int) -> None:
    sim = ward(seed)
    sim.network.set_faults(Faults(loss=0.1), [FAR])
    publisher = sim.publisher(MONITOR)
    for number, size in enumerate((MEBIBYTE, 100, MEBIBYTE, 200)):
        publisher.send(bytes([number]) * size, "image")
    publisher.send(b"beside", "alarm")
    verify(sim)
    assert_nothing_lost(sim)
    assert [message.message_id for message in sim.subscriber(FAR).messages] == [4, 0, 1, 2, 3]
