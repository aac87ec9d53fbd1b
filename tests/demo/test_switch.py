"""The switch: carries bytes, drops by its seed, knows nothing else."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sealcast.cli.demo import switch
from sealcast.cli.demo.plan import LOOPBACK, free_port

PACKETS = 2_000
GROUPS = {"in": "239.255.77.1", "left": "239.255.77.2", "right": "239.255.77.3"}


class Bench:
    """A running switch with one link to two subscribers."""

    def __init__(self, process: subprocess.Popen[str], ports: dict[str, int]) -> None:
        self._process = process
        self._ports = ports
        self.listeners = {name: listen(name, ports[name]) for name in ("left", "right")}

    def send(self, datagrams: list[bytes]) -> dict[str, list[bytes]]:
        """Send one by one, so that no buffer runs over; return what came out where."""
        sender = switch._sender(LOOPBACK)
        received: dict[str, list[bytes]] = {name: [] for name in self.listeners}
        with sender:
            for number, datagram in enumerate(datagrams, start=1):
                sender.sendto(datagram, (GROUPS["in"], self._ports["in"]))
                if number % 50 == 0:
                    while self.report()["link"]["received"] < number:
                        pass
                    self._drain(received)
        return received

    def report(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("{}\n")
        self._process.stdin.flush()
        report: dict[str, Any] = json.loads(self._process.stdout.readline())
        return report

    def end(self) -> dict[str, Any]:
        out, _ = self._process.communicate(timeout=10)
        report: dict[str, Any] = json.loads(out.splitlines()[-1])
        return report

    def _drain(self, received: dict[str, list[bytes]]) -> None:
        for name, listener in self.listeners.items():
            while True:
                try:
                    received[name].append(listener.recv(65_535))
                except BlockingIOError:
                    break


def listen(name: str, port: int) -> socket.socket:
    return switch._listen((GROUPS[name], port), LOOPBACK)


@contextmanager
def bench(*, seed: int, loss: float) -> Iterator[Bench]:
    ports = {name: free_port() for name in GROUPS}
    targets = {name: [GROUPS[name], ports[name]] for name in ("left", "right")}
    settings = {
        "seed": seed,
        "loss": loss,
        "interface": LOOPBACK,
        "links": {"link": {"from": [GROUPS["in"], ports["in"]], "to": targets}},
    }
    with subprocess.Popen(
        [sys.executable, "-I", "-S", switch.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(settings) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"ready": True}
        running = Bench(process, ports)
        try:
            yield running
        finally:
            process.kill()
            for listener in running.listeners.values():
                listener.close()


def packets() -> list[bytes]:
    return [number.to_bytes(4) * 5 for number in range(PACKETS)]


def outcome(seed: int) -> dict[str, list[bytes]]:
    with bench(seed=seed, loss=0.05) as running:
        received = running.send(packets())
        counters = running.end()["link"]
    assert counters["received"] == PACKETS
    for name, datagrams in received.items():
        assert counters["subscribers"][name] == {
            "forwarded": len(datagrams),
            "dropped": PACKETS - len(datagrams),
        }
    return received


def test_loss_is_independent_and_follows_from_the_seed() -> None:
    first, again, other = outcome(1), outcome(1), outcome(2)
    assert first == again
    assert first["left"] != other["left"]
    lost = {name: set(packets()) - set(datagrams) for name, datagrams in first.items()}
    assert all(0.03 * PACKETS < len(found) < 0.07 * PACKETS for found in lost.values())
    # Of two independent twentieths, one in four hundred is lost on both sides.
    assert len(lost["left"] & lost["right"]) < 0.01 * PACKETS


def test_bytes_pass_unchanged_and_in_order() -> None:
    datagrams = [bytes([length % 256]) * length for length in (0, 1, 63, 1_452, 9_000)] * 10
    with bench(seed=1, loss=0.0) as running:
        assert running.send(datagrams) == {"left": datagrams, "right": datagrams}


def test_nothing_of_sealcast_can_be_imported() -> None:
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", "import sealcast"], capture_output=True, check=False
    )
    assert found.returncode != 0
    assert "sealcast" not in "".join(
        line
        for line in Path(switch.__file__).read_text(encoding="utf-8").splitlines()
        if line.startswith(("import", "from"))
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells what it dropped")
def test_what_the_system_drops_before_the_switch_is_told() -> None:
    with bench(seed=1, loss=0.0) as running:
        assert running.report()["link"]["overrun"] == 0
