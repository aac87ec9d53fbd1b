"""Hosts on one switch: network namespaces of a user's own, joined by a bridge that snoops on IGMP."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Self

SUBNET = "10.95.0"
INTERFACE = "eth0"
"""Of every host."""
QUERY_SECONDS = 2.0
"""How often the switch asks who listens to which group."""

_SWITCH = f"""set -e
ip link set lo up
ip link add br0 type bridge mcast_snooping 1 mcast_querier 1 mcast_query_interval {int(QUERY_SECONDS * 100)} \
  mcast_query_response_interval 100 mcast_startup_query_interval 100 mcast_last_member_interval 10
ip address add {SUBNET}.254/24 dev br0
ip link set br0 up
echo ready
exec cat
"""
_HOST = "echo ready; exec cat"
_ENTER = ("--user", "--net", "--preserve-credentials")


class Hosts:
    """The switch and its hosts, while the block lasts; they are numbered from 1 on."""

    def __init__(self, *names: str) -> None:
        """Prepare; nothing is made before the block is entered."""
        self.names = names
        self._switch: subprocess.Popen[str] | None = None
        self._hosts: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> Self:
        try:
            self._switch = _hold(["unshare", "--user", "--map-root-user", "--net"], _SWITCH)
            for name in self.names:
                self._add(name)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def address(self, name: str) -> str:
        return f"{SUBNET}.{self.names.index(name) + 1}"

    def on(self, name: str) -> list[str]:
        """What stands before a command line that runs on a host."""
        return ["nsenter", "--target", str(self._hosts[name].pid), *_ENTER]

    def process(self, name: str) -> int:
        """A process on a host."""
        return self._hosts[name].pid

    def run(self, name: str, *words: str) -> str:
        """Run a program on a host to its end; return what it says."""
        return _run([*self.on(name), *words])

    def switch(self, *words: str) -> str:
        """Run a program on the switch; the port of a host has the host's name."""
        assert self._switch is not None
        return _run(["nsenter", "--target", str(self._switch.pid), *_ENTER, *words])

    def _add(self, name: str) -> None:
        assert self._switch is not None
        host = _hold(["nsenter", "--target", str(self._switch.pid), *_ENTER, "unshare", "--net"], _HOST)
        self._hosts[name] = host
        self.switch(
            "ip", "link", "add", name, "type", "veth", "peer", "name", INTERFACE, "netns", str(host.pid)
        )
        self.switch("ip", "link", "set", name, "master", "br0", "up")
        self.run(name, "ip", "link", "set", "lo", "up")
        self.run(name, "ip", "address", "add", f"{self.address(name)}/24", "dev", INTERFACE)
        self.run(name, "ip", "link", "set", INTERFACE, "up")

    def _end(self) -> None:
        for holder in (*self._hosts.values(), *([self._switch] if self._switch is not None else [])):
            holder.communicate()


def _hold(under: Sequence[str], script: str) -> subprocess.Popen[str]:
    """Keep a namespace there until its standard input ends."""
    words = [*under, "sh", "-c", script]
    holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "ready\n"
    return holder


def _run(words: Sequence[str]) -> str:
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    assert found.returncode == 0, f"{' '.join(words)}: {found.stderr}"
    return found.stdout
