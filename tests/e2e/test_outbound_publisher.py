"""A publisher that takes no connections: what multicast loses comes back through a repair node. SC-50.

It takes long for two ends that are waited for: the node's, with its start anew, and the publisher's. Of files
it is told by the node who has them, too.
"""

from __future__ import annotations

import json
import random
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
        subscriber = site.subscribe(
            display, channel, "--listen", address["display"], "--count", str(len(LINES))
        )
        publisher = processes.start(
            "publish", monitor, channel.name,
            "--no-listen", "--send-to", f"{group}:{port}", "--linger", "4s", "--json",
            stdin=subprocess.PIPE,
        )  # fmt: skip
        # Both are told of a node that comes later than they (SC-45).
        node = processes.start(*node_words)
        node.wait_line("keeping", errors=True)
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


def test_a_file_comes_whole_from_a_sender_that_does_not_listen(
    site: Site, processes: Processes, tmp_path: Path
) -> None:
    """The receiver loses a tenth, and says by way of the node what it has."""
    source = tmp_path / "scan.bin"
    source.write_bytes(random.Random(3).randbytes(2 << 20))
    monitor, display, keeper = site.enrol("monitor", "display", "keeper")
    channel = site.add_channel("icu3/scans", "--rate", "40Mbit/s", publish="monitor")
    group, port = free_group(), free_port()
    exits = {name: ("127.0.0.1", free_port()) for name in ("display", "keeper")}
    address = {name: f"{host}:{at}" for name, (host, at) in exits.items()}

    def send(*words: str) -> Process:
        return processes.start(
            "send", monitor, channel.name, source,
            "--no-listen", "--send-to", f"{group}:{port}", "--linger", "20s", "--json", *words,
        )  # fmt: skip

    with Switch((group, port), exits, seed=6, faults=Faults(delay=0, loss=0.1)) as switch:
        # Nobody could tell it that the file has come.
        refused = send().wait()
        assert refused.code == 3
        assert "has no repair node" in refused.err
        command("authority", "device", "set", site.folder, "keeper", "--role", "repair-node")
        node = processes.start(
            "repair-node", keeper, channel.name, "--listen", address["keeper"],
            "--serve", f"127.0.0.1:{free_port()}",
        )  # fmt: skip
        node.wait_line("keeping", errors=True)
        receiver = site.receive(
            display, channel, tmp_path / "inbox", "--listen", address["display"], "--count", "1"
        )
        sender = send()
        finished = sender.wait()
        assert finished.code == 0, finished.err
        sent = json.loads(finished.out.splitlines()[0])
        assert sent["receivers"] == ["display"]
        assert receiver.wait().code == 0
        assert (tmp_path / "inbox" / source.name).read_bytes() == source.read_bytes()
        assert switch.exits["display"].counters.lost > 50
    assert node.stop().code == 130
