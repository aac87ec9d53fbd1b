"""Parity over real multicast: through a relay that loses packets, whole without a single request."""

import json
from pathlib import Path

from tests.e2e.processes import Processes
from tests.e2e.site import Channel, Site, free_group, free_port
from tests.e2e.test_routing import LossyRelay


def test_what_a_relay_loses_is_mended_by_parity(site: Site, processes: Processes, tmp_path: Path) -> None:
    monitor, display = site.enrol("monitor", "display")
    channel = site.add_channel("icu3/parity", "--rate", "20Mbit/s")
    entrance = Channel("entrance", free_group(), free_port())
    source, output = tmp_path / "source", tmp_path / "output"
    source.write_text("".join(f"{number} {'x' * 900}\n" for number in range(3000)))
    port = free_port()
    with LossyRelay(entrance, ("127.0.0.1", port), 0.05) as relay:
        subscriber = site.subscribe(
            display, channel, "--listen", f"127.0.0.1:{port}", "--output", output, "--count", "3000"
        )
        publisher = processes.start(
            "publish", monitor, channel.name, source,
            "--send-to", entrance.address, "--fec", "16+12", "--linger", "2s", "--json",
        )  # fmt: skip
        finished = subscriber.wait()
        assert finished.code == 0, finished.err
        published = publisher.wait()
    assert output.read_bytes() == source.read_bytes()
    assert relay.dropped > 100
    counters = json.loads(published.out)
    assert counters["parity"] > 2000
    assert counters["repairs_served"] == 0
