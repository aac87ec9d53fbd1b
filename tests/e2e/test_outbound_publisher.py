"""A publisher that takes no connections: what multicast loses comes back through a repair node. SC-50.

It takes long for two ends that are waited for: the node's, with its start anew, and the publisher's.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

from sealcast.testing import Faults, Switch
from tests.e2e.processes import Process, Processes
from tests.e2e.site import Site, command, free_group, free_port

LINES = [f"{number:04d} {'x' * 700}\n" for number in range(1200)]


def listens(process: Process) -> bool:
    """Whether a process has a TCP socket that takes connections."""
    sockets = set()
    for entry in Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            found = re.fullmatch(r"socket:\[(\d+)\]", str(entry.readlink()))
        except OSError:
            continue  # closed meanwhile
        if found:
            sockets.add(found[1])
    tables = [Path("/proc/net/tcp").read_text(), Path("/proc/net/tcp6").read_text()]
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    return any(row[3] == "0A" and row[9] in sockets for row in rows)


def test_what_is_lost_comes_from_a_publisher_that_does_not_listen(site: Site, processes: Processes) -> None:
    monitor, display, keeper = site.enrol("monitor", "display", "keeper")
    command("authority", "device", "set", site.folder, "keeper", "--role", "repair-node")
    channel = site.add_channel("icu3/outbound", "--rate", "8Mbit/s", publish="monitor")
    group, port, serve = free_group(), free_port(), f"127.0.0.1:{free_port()}"
    exits = {name: ("127.0.0.1", free_port()) for name in ("display", "keeper")}
    address = {name: f"{host}:{at}" for name, (host, at) in exits.items()}
    node_words = (
        "repair-node", keeper, channel.name, "--listen", address["keeper"], "--serve", serve,
    )  # fmt: skip
    with Switch((group, port), exits, seed=5, faults=Faults(delay=0, loss=0.1)) as switch:
        node = processes.start(*node_words)
        node.wait_line("keeping", errors=True)
        subscriber = site.subscribe(
            display, channel, "--listen", address["display"], "--count", str(len(LINES))
        )
        publisher = processes.start(
            "publish", monitor, channel.name,
            "--no-listen", "--send-to", f"{group}:{port}", "--linger", "4s", "--json",
            stdin=subprocess.PIPE,
        )  # fmt: skip
        publisher.write("".join(LINES[:600]).encode())
        subscriber.wait_lines(600)
        assert not listens(publisher)
        assert listens(node)
        # Whoever takes its place is asked what it wants, too.
        node.send_signal(signal.SIGKILL)
        node.wait()
        node = processes.start(*node_words)
        node.wait_line("keeping", errors=True)
        publisher.write("".join(LINES[600:]).encode())
        publisher.close_input()
        finished = subscriber.wait()
        assert (finished.code, finished.out.splitlines(keepends=True)) == (0, LINES), finished.err
        counters = json.loads(publisher.wait().out)
        assert switch.exits["keeper"].counters.lost > 20
    assert counters["repairs_served"] > 20
    assert node.stop().code == 130
