"""The publisher's device certificate is renewed in mid-stream, under loss: the stream goes on, 0 lost."""

import pytest

from sealcast.endpoint.events import StreamClosed, StreamEnded, StreamStarted
from sealcast.testing import MILLISECOND, Faults, verify
from tests.scenarios.common import FAR, MONITOR, SEEDS, assert_nothing_lost, ward


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("revoke_after", [None, 5.0])
def test_the_stream_goes_on(seed: int, revoke_after: float | None) -> None:
    """Also when the old certificate is revoked once everyone has the new credential."""
    sim = ward(seed)
    sim.network.set_faults(Faults(loss=0.2), [FAR])
    publisher = sim.publisher(MONITOR)
    old = publisher.identity
    publisher.send_every(10 * MILLISECOND, 1000)
    sim.run(2)
    sim.renew(MONITOR)
    assert publisher.identity.certificate != old.certificate
    if revoke_after is not None:
        sim.run(revoke_after)
        sim.key_server.revoke_certificate(old)
    sim.run(10)
    late = sim.add_subscriber("late")
    sim.settle()
    publisher.send_numbered(10)
    verify(sim)
    assert_nothing_lost(sim)
    assert len(late.messages) == 10
    for subscriber in sim.subscribers.values():
        assert sum(isinstance(event, StreamStarted) for event in subscriber.events) == 1
        assert not any(isinstance(event, StreamClosed | StreamEnded) for event in subscriber.events)


@pytest.mark.parametrize("seed", SEEDS)
def test_revoking_the_old_certificate_at_once_loses_nothing_in_silence(seed: int) -> None:
    """Who judges by the new CRL before it has the new credential closes the stream, and says so."""
    sim = ward(seed)
    sim.network.set_faults(Faults(loss=0.2), [FAR])
    sim.publisher(MONITOR).send_every(10 * MILLISECOND, 500)
    sim.run(2)
    sim.renew(MONITOR, revoke_old=True)
    sim.run(10)
    sim.publisher(MONITOR).send_numbered(10)
    sim.calm()
    verify(sim, allow_gaps=True)
    for subscriber in sim.subscribers.values():
        assert [message.message_id for message in subscriber.messages][-10:] == list(range(500, 510))
