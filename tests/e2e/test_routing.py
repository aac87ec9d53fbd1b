"""`--send-to` and `--listen`: through a process in between that knows no packet format and loses some."""

import random
import socket
import threading
from pathlib import Path

from tests.e2e.processes import Processes
from tests.e2e.site import Channel, Site, free_group, free_port, listen


class LossyRelay:
    """Hands on what is sent to one group to an address, less some."""

    def __init__(self, source: Channel, destination: tuple[str, int], loss: float) -> None:
        self.dropped = 0
        self.passed = 0
        self._loss = loss
        self._draw = random.Random(5)
        self._destination = destination
        self._in = listen(source)
        self._in.settimeout(0.1)
        self._out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._relay)

    def __enter__(self) -> "LossyRelay":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._in.close()
        self._out.close()

    def _relay(self) -> None:
        while not self._stop.is_set():
            try:
                datagram = self._in.recv(65_536)
            except TimeoutError:
                continue
            if self._draw.random() < self._loss:
                self.dropped += 1
            else:
                self.passed += 1
                self._out.sendto(datagram, self._destination)


def test_what_a_relay_loses_is_repaired(site: Site, processes: Processes, tmp_path: Path) -> None:
    monitor, display = site.enrol("monitor", "display")
    channel = site.add_channel("icu3/vitals", "--rate", "50Mbit/s")
    entrance = Channel("entrance", free_group(), free_port())
    source, output = tmp_path / "source", tmp_path / "output"
    source.write_text("".join(f"{number} {'x' * 500}\n" for number in range(4000)))
    port = free_port()
    with LossyRelay(entrance, ("127.0.0.1", port), 0.2) as relay:
        subscriber = site.subscribe(
            display, channel, "--listen", f"127.0.0.1:{port}", "--output", output, "--count", "4000"
        )
        publisher = processes.start(
            "publish", monitor, channel.name, source, "--send-to", entrance.address, "--linger", "20s"
        )
        finished = subscriber.wait()
        assert finished.code == 0, finished.err
        publisher.stop()
    assert output.read_bytes() == source.read_bytes()
    assert relay.dropped > 100 < relay.passed
