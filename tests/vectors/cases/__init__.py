"""What is in vectors/: a module a subject, a function a file; `FILES` is the table of contents."""

from collections.abc import Callable

from tests.vectors.cases import (
    bodies,
    datagram,
    delivery,
    frames,
    names,
    parity,
    requests,
    schedule,
    signature,
    tree,
    trust,
)
from tests.vectors.cases.writing import VectorFile

FILES: dict[str, Callable[[], VectorFile]] = {
    "channel_id": names.channel_id,
    "stream_id": names.stream_id,
    "kdf": schedule.kdf,
    "slot": schedule.slot,
    "key_schedule": schedule.key_schedule,
    "commitments": schedule.commitments,
    "block_id": schedule.block_id,
    "block_tree": tree.block_tree,
    "block_path": tree.block_path,
    "ed25519": signature.ed25519_verdict,
    "statement": signature.statement,
    "datagram": datagram.datagram,
    "heartbeat": bodies.heartbeat,
    "beacon": bodies.beacon,
    "varint": frames.varint,
    "frames": frames.frames,
    "delivery": delivery.delivery,
    "parity": parity.parity,
    "credential": trust.credential,
    "bundle": trust.bundle,
    "policy": trust.policy,
    "side_channel": requests.side_channel,
}
