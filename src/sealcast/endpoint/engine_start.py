"""What an engine is started with: whose channel it is, whom it trusts, and what this device has seen before.

Spec: spec/keys.md KM-19; spec/trust.md TR-27, TR-29.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypedDict

from sealcast import _core
from sealcast.device.documents import held_crl
from sealcast.device.floors import read_crl_numbers, read_floors, read_signed_time
from sealcast.device.identity import DeviceIdentity
from sealcast.endpoint.site import ChannelSite
from sealcast.pki.names import channel_id


class EngineStart(TypedDict):
    """The arguments that SendEngine and ReceiveEngine have in common."""

    site_id: bytes
    channel: str
    device_site_id: bytes
    device: str
    anchors: Sequence[_core.Anchor]
    issuers: Sequence[bytes]
    policy_version_floor: int
    crl_number_floor: int
    generation_floor: int
    signed_time: int
    crl: bytes | None
    crl_numbers: Sequence[tuple[bytes, int]]
    now: int
    jitter_seed: int


def engine_start(identity: DeviceIdentity, site: ChannelSite, channel: str) -> EngineStart:
    """Read from the device's folder what an engine must not go back behind. Raises: StorageError."""
    floors = read_floors(identity.path, channel_id(site.site_id, channel))
    held = held_crl(identity.path, site.site_id)
    return EngineStart(
        site_id=site.site_id,
        channel=channel,
        device_site_id=identity.site_id,
        device=identity.name,
        anchors=identity.anchors,
        issuers=identity.issuers,
        policy_version_floor=floors.policy_version,
        crl_number_floor=floors.crl_number,
        generation_floor=floors.generation,
        signed_time=read_signed_time(identity.path),
        crl=None if held is None else held.document,
        crl_numbers=tuple(read_crl_numbers(identity.path).items()),
        now=_core.steady_time(),
        jitter_seed=int.from_bytes(os.urandom(8)),
    )
