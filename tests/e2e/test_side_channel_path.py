"""`--path side-channel`: the same messages in a process without multicast and UDP socket. SC-44, SC-45."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from tests.e2e.processes import Process
from tests.e2e.site import Site, command


def udp_sockets(process: Process) -> set[str]:
    """Inodes of the UDP sockets that a process holds."""
    folder = Path(f"/proc/{process.pid}")
    links = [str(path.readlink()) for path in (folder / "fd").iterdir()]
    own = {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:[")}
    tables = [(folder / "net" / kind).read_text().splitlines()[1:] for kind in ("udp", "udp6")]
    return own & {line.split()[9] for table in tables for line in table}


def test_messages_come_without_multicast_and_outlive_a_repair_node(site: Site) -> None:
    monitor, near, far, keeper = site.enrol("monitor", "near", "far", "keeper")
    command("authority", "device", "set", site.folder, "keeper", "--role", "repair-node")
    channel = site.add_channel("icu3/vitals", publish="monitor")
    node = site.processes.start("repair-node", keeper, channel.name)
    node.wait_line("keeping icu3/vitals", errors=True)
    without = site.subscribe(far, channel, "--path", "side-channel")
    by = site.subscribe(near, channel)
    lines = [f"pulse {number:05d}\n" for number in range(900)]
    first = site.processes.start("publish", monitor, channel.name, stdin=subprocess.PIPE)
    for line in lines[:300]:
        first.write(line.encode())
    assert without.wait_lines(300) == lines[:300]
    assert udp_sockets(by)
    assert not udp_sockets(without)
    # The node dies: the publisher itself is asked.
    node.send_signal(signal.SIGKILL)
    node.wait()
    for line in lines[300:600]:
        first.write(line.encode())
    assert without.wait_lines(600) == lines[:600]
    # And a publisher that comes later is heard of.
    first.close_input()
    assert first.wait().code == 0
    second = site.processes.start("publish", monitor, channel.name, stdin=subprocess.PIPE)
    second.write("".join(lines[600:]).encode())
    assert without.wait_lines(900) == lines
    assert by.wait_lines(900) == lines
    assert without.stop().code == 130
