"""Everything that a test of Sealcast, or of what is built on it, needs and a product does not.

    sim = Simulation(seed=7, publishers=["monitor"], subscribers=["bed12", "desk"])
    sim.network.set_faults(Faults(loss=0.05))
    sim.publisher("monitor").send(b"72 bpm")
    sim.run(2)
    assert [message.data for message in sim.subscriber("desk").messages] == [b"72 bpm"]

simulation        a channel in virtual time, from one seed
  publisher       drives a SendEngine             subscriber   drives a ReceiveEngine
  hosts           what both share, and the record of what was sent
  key_server      `sealcast.keys` behind the requests of spec/side-channel.md
  side_channel    requests that take time and fail
  network         who is reached, partitions; a tap
  site            a throw-away root, site CA, devices, CRL
  clock           virtual time
impairment        loss, bursts, reordering, duplicates, corruption: what a link does to datagrams
switch            the same over real sockets
oracles           what must hold in every simulation

Product code never imports this package.
"""

from sealcast.testing.clock import MAX_ACTIONS_AT_ONE_MOMENT, SECOND, START, ManualClock, Timeline
from sealcast.testing.hosts import Delivered, Sent, StreamRecord
from sealcast.testing.impairment import MILLISECOND, NO_FAULTS, BurstLoss, Faults, flip_bits
from sealcast.testing.key_server import ChannelOptions, SimulatedKeyServer
from sealcast.testing.network import Network, Sighting
from sealcast.testing.oracles import Loss, OracleError, due, losses, verify, verify_deliveries
from sealcast.testing.publisher import SimulatedPublisher
from sealcast.testing.side_channel import SideChannel, SideChannelFaults
from sealcast.testing.simulation import Simulation
from sealcast.testing.site import SeededSigner, Site, SiteCertificate
from sealcast.testing.subscriber import SimulatedSubscriber
from sealcast.testing.switch import Switch

__all__ = [
    "MAX_ACTIONS_AT_ONE_MOMENT",
    "MILLISECOND",
    "NO_FAULTS",
    "SECOND",
    "START",
    "BurstLoss",
    "ChannelOptions",
    "Delivered",
    "Faults",
    "Loss",
    "ManualClock",
    "Network",
    "OracleError",
    "SeededSigner",
    "Sent",
    "SideChannel",
    "SideChannelFaults",
    "Sighting",
    "SimulatedKeyServer",
    "SimulatedPublisher",
    "SimulatedSubscriber",
    "Simulation",
    "Site",
    "SiteCertificate",
    "StreamRecord",
    "Switch",
    "Timeline",
    "due",
    "flip_bits",
    "losses",
    "verify",
    "verify_deliveries",
]
