"""A repair node: a process that keeps the packets of channels for their members, and can open none of them.

node          the process: one keeper for each channel, one listener for all
  keeper      a channel: listens, verifies, keeps
  admissions  from when on a member may be served
  store       the folder of those that keep on disk
"""

from sealcast.repair.node import RepairNode

__all__ = ["RepairNode"]
