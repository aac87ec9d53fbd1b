"""Over a network of its own: a veth pair in a namespace, with IPv6 addresses and the options of a route."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import Finished, Processes
from tests.e2e.site import Site, command, free_port

NEAR, FAR = "near", "far"
_LINES = b"".join(b"line %d\n" % number for number in range(2_000))
_SET_UP = f"""set -e
ip link set lo up
ip link add {NEAR} type veth peer name {FAR}
for end in {NEAR} {FAR}; do ip link set $end up; done
ip address add fd00:5ea1::1/64 dev {NEAR} nodad
ip address add fd00:5ea1::2/64 dev {FAR} nodad
ip address add 10.94.0.1/24 dev {NEAR}
ip address add 10.94.0.2/24 dev {FAR}
# Both ends are this one host's, which by itself would not believe a packet of its own from outside.
cd /proc/sys/net/ipv4/conf
for end in all {FAR}; do echo 1 > $end/accept_local; echo 0 > $end/rp_filter; done
echo ready
exec cat
"""

pytestmark = pytest.mark.needs_program("ip", "unshare")


@pytest.fixture(scope="module")
def inside() -> Iterator[int]:
    """A process in the namespace."""
    holder = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", _SET_UP]
    with subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == "ready\n"
        yield shell.pid


class Network:
    """An authority at `[::1]` of the namespace, and what a test does in it."""

    def __init__(self, folder: Path, processes: Processes, inside: int) -> None:
        self.processes, self.inside = processes, inside
        self.site = Site(folder / "authority", processes, folder / "devices")
        command("authority", "init", self.site.folder, "--site", "Ward")
        authority = processes.start(
            "authority", "serve", self.site.folder, "--listen", "[::1]:0", "--json", inside=inside
        )
        listening = json.loads(authority.wait_line("authority"))
        self.site.url, self.site.keys_url = listening["authority"], listening["keys"]

    def enrol(self, name: str) -> Path:
        folder = self.site.devices / name
        enrolled = self.processes.start(
            "device", "enroll", folder, "--authority", self.site.url, "--keys", self.site.keys_url,
            "--root", self.site.root, "--name", name, "--token", self.site.token(name), inside=self.inside,
        ).wait()  # fmt: skip
        assert enrolled.code == 0, enrolled.err
        return folder

    def add_channel(self, group: str) -> None:
        command(
            "authority", "channel", "add", self.site.folder, "waves",
            "--group", group, "--port", str(free_port()), "--publish", "*", "--subscribe", "*",
        )  # fmt: skip

    def stream(self, publish: list[str], subscribe: list[str]) -> Finished:
        """Send lines from one end to the other; return what became of the subscriber."""
        display, monitor = self.enrol("display"), self.enrol("monitor")
        count = str(_LINES.count(b"\n"))
        taken = ("--interface", FAR, "--count", count, *subscribe)
        subscriber = self.processes.start("subscribe", display, "waves", *taken, inside=self.inside)
        subscriber.wait_line("joined channel", errors=True)
        publisher = self.processes.start(
            "publish",
            monitor,
            "waves",
            "--interface",
            NEAR,
            *publish,
            stdin=subprocess.PIPE,
            inside=self.inside,
        )
        publisher.write(_LINES)
        publisher.close_input()
        published = publisher.wait()
        assert published.code == 0, published.err
        return subscriber.wait()


@pytest.mark.parametrize("group", ["ff15::5ea1:1", "ff02::5ea1:2"])
def test_ipv6_end_to_end(tmp_path: Path, processes: Processes, inside: int, group: str) -> None:
    network = Network(tmp_path, processes, inside)
    network.add_channel(group)
    finished = network.stream(["--dscp", "46"], [])
    assert (finished.code, finished.out.encode()) == (0, _LINES), finished.err


@pytest.mark.parametrize(("group", "source"), [("232.94.0.1", "10.94.0.1"), ("ff35::5ea1:1", "fd00:5ea1::1")])
def test_from_one_source(tmp_path: Path, processes: Processes, inside: int, group: str, source: str) -> None:
    """IGMPv3 and MLDv2: the kernel itself lets nothing else through."""
    network = Network(tmp_path, processes, inside)
    network.add_channel(group)
    finished = network.stream([], ["--source", source])
    assert (finished.code, finished.out.encode()) == (0, _LINES), finished.err


def test_a_source_that_is_none_is_named(tmp_path: Path, processes: Processes, inside: int) -> None:
    network = Network(tmp_path, processes, inside)
    network.add_channel("232.94.0.2")
    display = network.enrol("display")
    for source, cure in (("nobody", "for example"), ("fd00:5ea1::1", "group's family")):
        words = ("subscribe", display, "waves", "--interface", FAR, "--source", source)
        finished = processes.start(*words, inside=inside).wait()
        assert finished.code in (2, 3), finished.err
        assert source in finished.err
        assert cure in finished.err


def test_a_stream_of_which_no_packet_goes_out_fails_and_says_why(
    tmp_path: Path, processes: Processes, inside: int
) -> None:
    """The loopback interface has no route to groups of IPv6."""
    network = Network(tmp_path, processes, inside)
    network.add_channel("ff15::5ea1:3")
    (message := tmp_path / "message").write_text("m\n")
    words = ("publish", network.enrol("monitor"), "waves", message, "--interface", "lo", "--linger", "0s")
    finished = processes.start(*words, inside=inside).wait()
    assert finished.code == 7, finished.err
    assert "packets could be sent on lo: it has no route to the group (choose" in finished.err
