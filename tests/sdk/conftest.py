"""A site with a repair node for all scenarios, and peers in each language."""

from __future__ import annotations

import itertools
import shutil
import signal
import subprocess
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import pytest

from tests.e2e.processes import Process, Processes
from tests.e2e.site import Channel, Site, command
from tests.sdk import peer
from tests.sdk.languages import EVERYTHING, PYTHON, WITH_WINDOWS, peer_command

JOIN_SECONDS = 90.0
"""Before anything else valgrind reads what libsealcast has for debuggers."""

collect_ignore = [] if WITH_WINDOWS else ["test_windows.py"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only a soak runs: SEALCAST_SCENARIOS=all."""
    left_out = [] if EVERYTHING else [item for item in items if item.get_closest_marker("soak")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


class Stage:
    """A running site, and what a scenario puts on it."""

    def __init__(self, site: Site, processes: Processes) -> None:
        self.site = site
        self.processes = processes
        self._numbers = itertools.count()
        self._started: list[Process] = []

    def channel(self, *options: str, publish: str = "*", subscribe: str = "*") -> Channel:
        name = f"ward/{next(self._numbers)}"
        return self.site.add_channel(name, *options, publish=publish, subscribe=subscribe)

    def device(self) -> Path:
        return self.site.enrol(f"device-{next(self._numbers)}")[0]

    @cached_property
    def other(self) -> Site:
        """A site that has nothing to do with this one."""
        return Site.start(self.site.folder.parent / "other", self.processes)

    def misled(self) -> Path:
        """A device whose folder names the other site's key server."""
        device = self.device()
        settings = device / "credentials/1/device.toml"
        settings.write_text(settings.read_text().replace(self.site.keys_url, self.other.keys_url))
        return device

    def stranger(self) -> Path:
        """A device that shows a certificate of the other site."""
        device = self.device()
        (theirs,) = self.other.enrol(device.name)
        for name in ("credentials/1/key.pem", "credentials/1/certificate.pem"):
            shutil.copy(theirs / name, device / name)
        return device

    def repair_node(self, channel: Channel) -> Process:
        """Those who do not listen are mended by it."""
        folder = self.device()
        command("authority", "device", "set", self.site.folder, folder.name, "--role", "repair-node")
        node = self._take(self.processes.start("repair-node", folder, channel.name))
        node.wait_line("serving at", errors=True)
        return node

    def peer(self, language: str, role: str, device: Path, channel: Channel, *options: str) -> Process:
        """Start a peer, and wait until it has joined."""
        process = self.start(language, role, device, channel, *options)
        process.wait_line("^joined", seconds=JOIN_SECONDS)
        return process

    def start(self, language: str, role: str, device: Path, channel: Channel, *options: str) -> Process:
        words = [*peer_command(language), role, str(device), channel.name, *options]
        main = peer.main if language == PYTHON else None
        return self._take(self.processes.started(Process(words, stdin=subprocess.PIPE, main=main)))

    def _take(self, process: Process) -> Process:
        self._started.append(process)
        return process

    def clear(self) -> None:
        """End what a scenario has left."""
        while self._started:
            process = self._started.pop()
            if process.is_running:
                process.send_signal(signal.SIGTERM)
            process.end()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    processes = Processes()
    try:
        yield Stage(Site.start(tmp_path_factory.mktemp("sdk"), processes), processes)
    finally:
        processes.end()


@pytest.fixture
def stage(running: Stage) -> Iterator[Stage]:
    yield running
    running.clear()
