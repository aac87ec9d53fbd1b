"""A program: sends what an outsider or a member may send to a channel's group, at a rate.

    python -m tests.e2e.attacker KIND DEVICE CHANNEL GROUP PORT ADDRESS RATE SECONDS

It listens to the group first, at ADDRESS of this host, until it has seen a data packet and a parity packet;
for a KIND of a member it joins the channel by DEVICE, too. Standard output: `ready`, then how many datagrams
it has sent, once the seconds are over.

    junk             random bytes                             (outsider)
    good-header      a real header, a body of random bytes    (outsider)
    unknown-epochs   a real packet, epochs ahead of ours      (outsider)
    stream-ids       a real packet, random stream ids         (outsider)
    bad-parity       real parity, its body changed            (outsider)
    bad-signatures   fresh blocks, right gate, no signature   (member)
    pollution        parity with the right gate, no signature (member)
"""

from __future__ import annotations

import asyncio
import ctypes
import random
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from sealcast import _core
from sealcast.device import DeviceIdentity
from sealcast.keys import MemberRole
from sealcast.sidechannel import KeyServerClient
from tests.insider import Insider
from tests.reference.wire import Datagram

DATA, PARITY = 1, 2
AT_ONCE = 64
"""Datagrams of one system call."""
POOL = 20_000
"""Different datagrams that are made; a longer flood repeats them."""
SUITE = 3
GATE_BYTES, BODY_BYTES = 8, 100


class Flood:
    """Makes datagrams of each kind out of genuine ones."""

    def __init__(self, data: bytes, parity: bytes, insider: Insider | None) -> None:
        self.data, self.parity, self._insider = data, parity, insider
        self._draw = random.Random(1)

    def junk(self) -> bytes:
        return self._draw.randbytes(BODY_BYTES)

    def good_header(self) -> bytes:
        return self.data[:64] + self._draw.randbytes(BODY_BYTES + 80)

    def unknown_epochs(self) -> bytes:
        slot = int.from_bytes(self.data[22:25]) + self._draw.randrange(2, 1000)
        generation = int.from_bytes(self.data[26:30]) + self._draw.randrange(1, 1000)
        return self.data[:22] + slot.to_bytes(3) + self.data[25:26] + generation.to_bytes(4) + self.data[30:]

    def stream_ids(self) -> bytes:
        return self.data[:6] + self._draw.randbytes(16) + self.data[22:]

    def bad_parity(self) -> bytes:
        return self.parity[:80] + self._draw.randbytes(40) + self.parity[120:]

    def bad_signatures(self) -> bytes:
        return self._gated(self.data)

    def pollution(self) -> bytes:
        return self._gated(self.parity)

    def _gated(self, like: bytes) -> bytes:
        """A block that nobody has signed, of this moment, with the gate tag of a member."""
        assert self._insider is not None
        packet, draw = Datagram.parse(like), self._draw
        header = replace(packet.header, block_id=draw.randbytes(16))
        body = packet.body[:-16] + draw.randbytes(16)
        forged = replace(packet, header=header, body=body, signature=draw.randbytes(64))
        return self._insider.gated_anew(forged)


def listen(group: str, port: int, address: str) -> Iterator[bytes]:
    """What is sent to a group."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        plain.bind((group, port))
        membership = socket.inet_aton(group) + socket.inet_aton(address)
        plain.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        while True:
            yield plain.recv(65_535)


def join(device: DeviceIdentity, channel: str) -> Insider:
    """Take a member's keys."""

    async def ask() -> Insider:
        async with KeyServerClient(device) as client:
            answer = await client.join(channel, MemberRole.SUBSCRIBE)
        channel_id = _core.channel_id(device.site_id, channel)
        return Insider(suite=SUITE, channel_id=channel_id, answers=[answer.keys], seed=1)

    return asyncio.run(ask())


class _Slice(ctypes.Structure):
    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """`msghdr` of Linux."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("name_length", ctypes.c_uint),
        ("slices", ctypes.POINTER(_Slice)),
        ("slice_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """`mmsghdr`."""

    _fields_ = (("header", _Header), ("sent", ctypes.c_uint))


class Sender:
    """Sends many datagrams in one system call, which Python by itself does not."""

    def __init__(self, datagrams: Sequence[bytes], group: str, port: int, address: str) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
        self._name = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton(group))
        self._slices = (_Slice * len(datagrams))(*[_Slice(data, len(data)) for data in datagrams])
        self._messages = (_Message * len(datagrams))()
        for message, place in zip(self._messages, self._slices, strict=True):
            header = message.header
            header.name, header.name_length = self._name, len(self._name)
            header.slices, header.slice_count = ctypes.pointer(place), 1
        self._next = 0
        self._sendmmsg = ctypes.CDLL(None, use_errno=True).sendmmsg

    def send(self, count: int) -> int:
        """Send the next ones, at most `count`; return how many went out."""
        count = min(count, len(self._messages) - self._next)
        sent = self._sendmmsg(self._socket.fileno(), ctypes.byref(self._messages[self._next]), count, 0)
        if sent < 0:
            raise OSError(ctypes.get_errno(), "sendmmsg")
        self._next = (self._next + int(sent)) % len(self._messages)
        return int(sent)


def flood(sender: Sender, rate: int, seconds: float) -> int:
    """Send for so long; return how many were sent."""
    began = time.monotonic()
    sent = 0
    while (passed := time.monotonic() - began) < seconds:
        if sent > passed * rate:
            time.sleep(AT_ONCE / rate)
        else:
            sent += sender.send(AT_ONCE)
    return sent


def main(kind: str, folder: str, channel: str, group: str, port: int, address: str, *amount: str) -> None:
    rate, seconds = int(amount[0]), float(amount[1])
    insider = None
    if kind in ("bad-signatures", "pollution"):
        insider = join(DeviceIdentity.open(Path(folder)), channel)
    genuine: dict[int, bytes] = {}
    for datagram in listen(group, port, address):
        genuine.setdefault(datagram[5], datagram)
        if {DATA, PARITY} <= genuine.keys():
            break
    maker = Flood(genuine[DATA], genuine[PARITY], insider)
    make: Callable[[], bytes] = getattr(maker, kind.replace("-", "_"))
    datagrams = [make() for _ in range(min(POOL, int(rate * seconds)))]
    sender = Sender(datagrams, group, port, address)
    print("ready", flush=True)
    print(flood(sender, rate, seconds), flush=True)


if __name__ == "__main__":
    _, kind, folder, channel, group, port, address, *amount = sys.argv
    main(kind, folder, channel, group, int(port), address, *amount)
