"""A process: the removed subscriber tries every key it ever held, and every step derived from them.

    python -I attempt.py FOLDER REMOVED_AT

`FOLDER`: with the keepsakes, whose files may still grow. `REMOVED_AT`: µs, when the command that removed it
had returned. Works on until the end of standard input, then to the end of the files. Reports lines of JSON:

    {"heard", "packets", "clear", "old", "opened", "attempts", "keys", "blocks", "steps", "control_packets",
     "control_opened", "old_packets", "old_span"}                                  old_span: µs

`heard` is every datagram in the files, and the sum of `packets` (sealed, of a new generation: tried), `clear`
(of a new generation, nothing sealed in them: heartbeats) and `old` (of a generation that it was a member of).

A derivation of its own, in plain Python from spec/keys.md, on `cryptography` alone; nothing of Sealcast is
imported. On each sealed packet of a later generation than any it was given (data, credentials):

* every slot secret it holds with every step secret it holds and the four steps after each (a member derives
  no more, KM-9), both under the packet's epoch numbers and under the key's own;
* once for each block, whose packets share one key (KM-4): the slot secret that the header names, or the
  latest held before it, with every step up to 255.

As a control, the same code is given packets of the generation that it was a member of, and has to open them.
"""

import contextlib
import hmac
import json
import struct
import sys
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SECRETS_FILE = "secrets.json"
CONTROL_EVERY = 101
CONTROL_MOST = 300
"""Of the old generation's packets one in so many is tried, at most so many a channel."""

DATA, CREDENTIAL = 1, 4
_LAST_STEP = 255
_STEPS_AHEAD = 4
_BLOCKS_KEPT = 64
_POLL_SECONDS = 0.1

_HEADER = struct.Struct(">4sBB16s3sB4s16sQBBQ")
_HEADER_BYTES = 64
_SIGNATURE_AND_GATE_BYTES = 72
_NODE_BYTES = 16


@dataclass(frozen=True, slots=True)
class Packet:
    """What the header of a datagram says (spec/wire.md section 2)."""

    type: int
    stream: bytes
    slot: int
    step: int
    generation: int
    block: bytes
    index: int
    count: int
    time: int
    header: bytes
    body: bytes

    @property
    def epoch(self) -> bytes:
        """8 bytes, as in the header."""
        return self.header[22:30]

    @classmethod
    def parse(cls, datagram: bytes) -> "Packet":
        """Cut a datagram; ValueError if it is too short."""
        header = datagram[:_HEADER_BYTES]
        try:
            _, _, kind, stream, slot, step, generation, block, _, index, count, sealed = _HEADER.unpack(
                header
            )
        except struct.error as error:
            raise ValueError(str(error)) from None
        end = len(datagram) - _SIGNATURE_AND_GATE_BYTES - _NODE_BYTES * _depth(index, count)
        return cls(
            type=kind,
            stream=stream,
            slot=int.from_bytes(slot),
            step=step,
            generation=int.from_bytes(generation),
            block=block,
            index=index,
            count=count,
            time=sealed,
            header=header,
            body=datagram[_HEADER_BYTES:end],
        )


def _depth(index: int, count: int) -> int:
    """DP-9."""
    depth = 0
    while count > 1:
        if index % 2 or index != count - 1:
            depth += 1
        index, count = index // 2, (count + 1) // 2
    return depth


def kdf(key: bytes, label: bytes, context: bytes) -> bytes:
    """KM-2."""
    return hmac.digest(key, b"\x00\x00\x00\x01" + label + b"\x00" + context + b"\x00\x00\x01\x00", "sha256")


class Ring:
    """Everything that the removed subscriber holds of one channel, and what follows from it."""

    def __init__(
        self, channel: bytes, suite: int, slots: dict[int, bytes], steps: list[tuple[int, int, bytes]]
    ):
        self._channel = channel
        self._context = bytes((suite,)) + channel
        self._slots = slots
        self.last_generation = max((generation for generation, _, _ in steps), default=0)
        self._near, self._far = self._derive(steps)
        self.attempts = 0
        self.blocks = 0
        """That were tried with every step."""
        self._streams: dict[tuple[int, bytes, bytes], list[bytes]] = {}
        self._distant: dict[tuple[bytes, bytes], list[bytes]] = {}
        self._blocks: OrderedDict[bytes, list[AESGCM]] = OrderedDict()

    @property
    def keys(self) -> int:
        """Pairs of a slot secret and a step secret that each packet is tried with."""
        return len(self._slots) * len(self._near)

    @property
    def steps(self) -> int:
        """Step secrets that each block is tried with."""
        return len(self._far)

    def opens(self, packet: Packet, *, thoroughly: bool) -> bool:
        """Try all on a packet; `thoroughly`: with every step, unless that has been done for its block."""
        ciphers = self._blocks.get(packet.block)
        if ciphers is None:
            ciphers = [AESGCM(key) for key in self._block_keys(packet, self._stream_secrets(packet))]
            self._blocks[packet.block] = ciphers
            if len(self._blocks) > _BLOCKS_KEPT:
                self._blocks.popitem(last=False)
            if thoroughly:
                self.blocks += 1
                distant = self._block_keys(packet, self._distant_secrets(packet))
                if self._one_opens([AESGCM(key) for key in distant], packet):
                    return True
        return self._one_opens(ciphers, packet)

    def _one_opens(self, ciphers: list[AESGCM], packet: Packet) -> bool:
        nonce, associated = bytes(11) + packet.index.to_bytes(1), packet.header + self._channel
        for cipher in ciphers:
            self.attempts += 1
            try:
                cipher.decrypt(nonce, packet.body, associated)
            except InvalidTag:
                continue
            return True
        return False

    def _block_keys(self, packet: Packet, secrets: list[bytes]) -> list[bytes]:
        if packet.type == CREDENTIAL:
            return [kdf(secret, b"credential block", packet.stream + packet.block) for secret in secrets]
        return [kdf(secret, b"block", packet.block) for secret in secrets]

    def _stream_secrets(self, packet: Packet) -> list[bytes]:
        place = (packet.type, packet.epoch, packet.stream)
        if place not in self._streams:
            self._streams[place] = [
                self._stream_secret(packet, epoch, slot_secret, secret)
                for slot, slot_secret in self._slots.items()
                for generation, step, secret in self._near
                for epoch in {packet.epoch, slot.to_bytes(3) + step.to_bytes(1) + generation.to_bytes(4)}
            ]
        return self._streams[place]

    def _distant_secrets(self, packet: Packet) -> list[bytes]:
        place = (packet.epoch + packet.type.to_bytes(1), packet.stream)
        if place not in self._distant:
            slot = max((slot for slot in self._slots if slot <= packet.slot), default=min(self._slots))
            self._distant[place] = [
                self._stream_secret(packet, packet.epoch, self._slots[slot], secret) for secret in self._far
            ]
        return self._distant[place]

    def _stream_secret(self, packet: Packet, epoch: bytes, slot_secret: bytes, step_secret: bytes) -> bytes:
        """KM-3, then KM-4 for data or KM-6 for credentials."""
        suite, channel = self._context[:1], self._channel
        epoch_secret = kdf(slot_secret, b"epoch", suite + channel + epoch + step_secret)
        if packet.type == CREDENTIAL:
            return kdf(epoch_secret, b"credential", self._context)
        return kdf(epoch_secret, b"stream", self._context + packet.stream)

    def _derive(
        self, steps: list[tuple[int, int, bytes]]
    ) -> tuple[list[tuple[int, int, bytes]], list[bytes]]:
        """Return the steps held with the four after each, and all up to the last step (KM-3)."""
        near: dict[tuple[int, int], bytes] = {}
        far: dict[tuple[int, int], bytes] = {}
        for generation, held, given in sorted(steps):
            secret = given
            for step in range(held, _LAST_STEP + 1):
                if step > held:
                    context = self._channel + generation.to_bytes(4) + step.to_bytes(1)
                    secret = kdf(secret, b"step", context)
                far[generation, step] = secret
                if step <= held + _STEPS_AHEAD:
                    near[generation, step] = secret
        return [(*place, secret) for place, secret in near.items()], list(far.values())


class Attempt:
    """All that is tried, on one channel."""

    def __init__(self, ring: Ring, removed_at: int) -> None:
        self._ring = ring
        self._removed_at = removed_at
        self._old_seen = 0
        self.counts: Counter[str] = Counter()
        self.old_span = 0

    def take(self, datagram: bytes) -> None:
        """Try a datagram, or note that it is of the old generation."""
        packet = Packet.parse(datagram)
        self.counts["heard"] += 1
        is_sealed = packet.type in (DATA, CREDENTIAL)
        if packet.generation > self._ring.last_generation:
            self.counts["packets" if is_sealed else "clear"] += 1
            if is_sealed:
                self.counts["opened"] += self._ring.opens(packet, thoroughly=True)
            return
        self.counts["old"] += 1
        if packet.time > self._removed_at:
            self.counts["old_packets"] += 1
            self.old_span = max(self.old_span, packet.time - self._removed_at)
        if is_sealed:
            self._old_seen += 1
            if self._old_seen % CONTROL_EVERY == 0 and self.counts["control_packets"] < CONTROL_MOST:
                self.counts["control_packets"] += 1
                self.counts["control_opened"] += self._ring.opens(packet, thoroughly=False)

    def report(self) -> dict[str, int]:
        """The counts so far."""
        names = (
            *("heard", "packets", "clear", "old", "opened"),
            *("old_packets", "control_packets", "control_opened"),
        )
        return {name: self.counts[name] for name in names} | {
            "attempts": self._ring.attempts,
            "keys": self._ring.keys,
            "blocks": self._ring.blocks,
            "steps": self._ring.steps,
            "old_span": self.old_span,
        }


def read_ring(held: dict[str, object]) -> Ring:
    """Return what `secrets.json` says of one channel."""
    channel, suite, slots, steps = held["id"], held["suite"], held["slots"], held["steps"]
    if not (
        isinstance(channel, str)
        and isinstance(suite, int)
        and isinstance(slots, dict)
        and isinstance(steps, list)
    ):
        raise ValueError("not the secrets of a channel")
    return Ring(
        bytes.fromhex(channel),
        suite,
        {int(slot): bytes.fromhex(secret) for slot, secret in slots.items()},
        [(generation, step, bytes.fromhex(secret)) for generation, step, secret in steps],
    )


def datagrams(file: BinaryIO) -> Iterator[bytes]:
    """Iterate over the datagrams that are whole, and leave the file behind the last of them."""
    while True:
        start = file.tell()
        length = file.read(2)
        datagram = file.read(int.from_bytes(length)) if len(length) == 2 else b""
        if not datagram or len(datagram) < int.from_bytes(length):
            file.seek(start)
            return
        yield datagram


def main() -> None:
    """Try until told to end, and report."""
    folder, removed_at = Path(sys.argv[1]), int(sys.argv[2])
    secrets = json.loads((folder / SECRETS_FILE).read_text())
    attempts = [Attempt(read_ring(held), removed_at) for held in secrets.values()]
    files = [(folder / f"datagrams-{number}.bin").open("rb") for number in range(len(attempts))]
    ended = threading.Event()
    threading.Thread(target=_wait_for_end, args=(ended,), daemon=True).start()
    is_last = False
    while not is_last:
        # What is there when the end is said is still tried.
        is_last = ended.is_set()
        for attempt, file in zip(attempts, files, strict=True):
            for datagram in datagrams(file):
                attempt.take(datagram)
        say(attempts)
        if not is_last:
            time.sleep(_POLL_SECONDS)


def _wait_for_end(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


def say(attempts: list[Attempt]) -> None:
    """Write the sum over the channels (of keys, steps and span the most) as a line of JSON."""
    reports = [attempt.report() for attempt in attempts]
    total = {
        name: (max if name in ("keys", "steps", "old_span") else sum)(report[name] for report in reports)
        for name in reports[0]
    }
    sys.stdout.write(json.dumps(total) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # whoever wanted to know is gone
        main()
