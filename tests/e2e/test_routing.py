"""`--send-to` and `--listen`: through a process in between that knows no packet format and loses some."""

from pathlib import Path

from sealcast.testing import Faults, Switch
from tests.e2e.processes import Processes
from tests.e2e.site import Site, free_group, free_port


def test_what_a_relay_loses_is_repaired(site: Site, processes: Processes, tmp_path: Path) -> None:
    monitor, display = site.enrol("monitor", "display")
    channel = site.add_channel("icu3/vitals", "--rate", "50Mbit/s")
    group, port, exit_port = free_group(), free_port(), free_port()
    source, output = tmp_path / "source", tmp_path / "output"
    source.write_text("".join(f"{number} {'x' * 500}\n" for number in range(4000)))
    faults = Faults(delay=0, loss=0.2)
    with Switch((group, port), {"display": ("127.0.0.1", exit_port)}, seed=5, faults=faults) as switch:
        subscriber = site.subscribe(
            display, channel, "--listen", f"127.0.0.1:{exit_port}", "--output", output, "--count", "4000"
        )
        publisher = processes.start(
            "publish", monitor, channel.name, source, "--send-to", f"{group}:{port}", "--linger", "20s"
        )
        finished = subscriber.wait()
        assert finished.code == 0, finished.err
        publisher.stop()
    assert output.read_bytes() == source.read_bytes()
    counters = switch.exits["display"].counters
    assert counters.lost > 100 < counters.sent - counters.lost
