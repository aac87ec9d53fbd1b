"""Parity over real multicast, as the channel's policy has it: what a relay loses comes from parity.

That not a single request is made is shown in virtual time (`scenario_fec.rs`): here a publisher that a busy
machine stops within a group for longer than a receiver waits is rightly asked.
"""

import json
from pathlib import Path

from sealcast.testing import Faults, Switch
from tests.e2e.processes import Processes
from tests.e2e.site import Site, free_group, free_port


def test_what_a_relay_loses_is_mended_by_parity(site: Site, processes: Processes, tmp_path: Path) -> None:
    monitor, display = site.enrol("monitor", "display")
    channel = site.add_channel("icu3/parity", "--rate", "20Mbit/s", "--fec", "16+12")
    group, port, exit_port = free_group(), free_port(), free_port()
    source, output = tmp_path / "source", tmp_path / "output"
    source.write_text("".join(f"{number} {'x' * 900}\n" for number in range(3000)))
    faults = Faults(delay=0, loss=0.05)
    with Switch((group, port), {"display": ("127.0.0.1", exit_port)}, seed=9, faults=faults) as switch:
        subscriber = site.subscribe(
            display, channel, "--listen", f"127.0.0.1:{exit_port}", "--output", output, "--count", "3000"
        )
        publisher = processes.start(
            "publish", monitor, channel.name, source,
            "--send-to", f"{group}:{port}", "--linger", "2s", "--json",
        )  # fmt: skip
        finished = subscriber.wait()
        assert finished.code == 0, finished.err
        published = publisher.wait()
    assert output.read_bytes() == source.read_bytes()
    lost = switch.exits["display"].counters.lost
    assert lost > 100
    counters = json.loads(published.out)
    assert counters["parity"] > 2000
    assert counters["repairs_served"] < lost // 20
