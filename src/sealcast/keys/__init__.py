"""The key server's logic: epochs, membership, beacons. No HTTP, no database, no clock, no randomness of its
own.

server       one channel: stored keys, changes to them, replies
  beacon     what is said to be current
  membership who holds the keys
  epochs     slots, generations, steps
    secret   32 bytes with a redacted repr
"""

from sealcast.keys.beacon import (
    COUNTER_RESERVE,
    BeaconCounter,
    BeaconSealer,
    ObjectVersion,
    SealedBeacon,
    SignedVersions,
)
from sealcast.keys.epochs import Generation, NumbersExhaustedError, Slots
from sealcast.keys.membership import (
    LISTED_ROLES,
    JoinBatch,
    Member,
    MemberKey,
    MemberRole,
    Membership,
)
from sealcast.keys.secret import Secret
from sealcast.keys.server import ChannelKeys, GateGrant, GatesReply, KeyServer, KeysReply

__all__ = [
    "COUNTER_RESERVE",
    "LISTED_ROLES",
    "BeaconCounter",
    "BeaconSealer",
    "ChannelKeys",
    "GateGrant",
    "GatesReply",
    "Generation",
    "JoinBatch",
    "KeyServer",
    "KeysReply",
    "Member",
    "MemberKey",
    "MemberRole",
    "Membership",
    "NumbersExhaustedError",
    "ObjectVersion",
    "SealedBeacon",
    "Secret",
    "SignedVersions",
    "Slots",
]
