"""Two hosts on one wire: network namespaces joined by a veth pair, as root; else both ends on loopback.

veth hands what was sent as one buffer over unsegmented, so figures with UDP_SEGMENT show what the stack and
the system calls cost, not a wire. `segments(False)` has the kernel cut each buffer first, as a driver without
the offload does.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Self

from bench.children import ROOT

NEAR, FAR = "near", "far"
DEVICE = "wire0"
"""At both ends."""

_SIOCETHTOOL = 0x8946
_GSTRINGS, _GSSET_INFO, _SFEATURES = 0x1B, 0x37, 0x3B
_SS_FEATURES = 4
_STRING_BYTES = 32
_FEATURE = "tx-udp-segmentation"


class Wire:
    """The hosts `near` and `far`, for the length of the block."""

    def __init__(self) -> None:
        """Prepare; nothing is made before the block is entered."""
        self.is_real = os.geteuid() == 0 and Path("/usr/sbin/ip").exists()
        self._names = {host: f"sealcast-bench-{host}-{os.getpid()}" for host in (NEAR, FAR)}

    @property
    def address(self) -> str:
        """Of the near host."""
        return "10.137.0.1" if self.is_real else "127.0.0.1"

    @property
    def interface(self) -> str:
        """Of the data path, at both ends."""
        return DEVICE if self.is_real else "lo"

    def __enter__(self) -> Self:
        if self.is_real:
            try:
                self._make()
            except subprocess.CalledProcessError:
                # A container may be root and not be allowed to.
                self._remove()
                self.is_real = False
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_real:
            self._remove()

    def on(self, host: str) -> list[str]:
        """What stands before a command line that runs on a host."""
        return ["ip", "netns", "exec", self._names[host]] if self.is_real else []

    def namespace(self, host: str) -> str | None:
        """Return the file that a program enters a host by, if there are two."""
        return f"/run/netns/{self._names[host]}" if self.is_real else None

    def segments(self, is_offered: bool) -> bool:
        """Say whether the devices take buffers of many datagrams; return whether that could be said."""
        if not self.is_real:
            return False
        program = [sys.executable, "-m", "bench.wire", DEVICE, "on" if is_offered else "off"]
        for host in (NEAR, FAR):
            if subprocess.run([*self.on(host), *program], cwd=ROOT, check=False).returncode != 0:
                return False
        return True

    def lose(self, rule: str | None) -> None:
        """Drop the UDP datagrams that a rule of nftables picks at the far host; with None, drop none.

        Raises: CalledProcessError: the rule is none, or there is no nft. OSError: likewise.
        """
        nft = [*self.on(FAR), "nft"]
        subprocess.run([*nft, "flush", "ruleset"], capture_output=True, check=True)
        if rule is not None:
            hook = "type filter hook prerouting priority -300;"
            table = f"table ip wire {{\n chain loss {{\n {hook}\n meta l4proto udp {rule} drop\n }}\n}}\n"
            subprocess.run([*nft, "-f", "-"], input=table.encode(), capture_output=True, check=True)

    def _make(self) -> None:
        near, far = self._names[NEAR], self._names[FAR]
        for name in (near, far):
            _ip("netns", "add", name)
        _ip("link", "add", DEVICE, "netns", near, "type", "veth", "peer", "name", DEVICE, "netns", far)
        for place, name in enumerate((near, far), 1):
            inside = ("-n", name)
            _ip(*inside, "address", "add", f"10.137.0.{place}/24", "dev", DEVICE)
            for device in (DEVICE, "lo"):
                _ip(*inside, "link", "set", device, "up")
            _ip(*inside, "route", "add", "224.0.0.0/4", "dev", DEVICE)

    def _remove(self) -> None:
        for name in self._names.values():
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], capture_output=True, check=True)


def set_feature(device: str, is_on: bool) -> None:
    """Switch the segmentation of UDP by a device on or off. Raises: OSError: it cannot be."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:

        def ask(request: bytes) -> bytes:
            buffer = array.array("B", request)
            address, _ = buffer.buffer_info()
            fcntl.ioctl(control, _SIOCETHTOOL, struct.pack("16sP8x", device.encode(), address))
            return buffer.tobytes()

        count = struct.unpack_from("I", ask(struct.pack("IIQI", _GSSET_INFO, 0, 1 << _SS_FEATURES, 0)), 16)[0]
        names = ask(struct.pack("III", _GSTRINGS, _SS_FEATURES, count) + bytes(count * _STRING_BYTES))[12:]
        listed = [
            names[at : at + _STRING_BYTES].rstrip(b"\0").decode()
            for at in range(0, len(names), _STRING_BYTES)
        ]
        if _FEATURE not in listed:
            raise OSError(f"{device} has no {_FEATURE}")
        place, words = listed.index(_FEATURE), -(-count // 32)
        blocks = [
            (1 << place % 32, (1 << place % 32) * is_on) if at == place // 32 else (0, 0)
            for at in range(words)
        ]
        ask(struct.pack("II", _SFEATURES, words) + b"".join(struct.pack("II", *block) for block in blocks))


if __name__ == "__main__":
    set_feature(sys.argv[1], sys.argv[2] == "on")
