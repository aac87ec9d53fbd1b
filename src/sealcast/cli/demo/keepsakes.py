"""What the subscriber that will be removed keeps for itself: the secrets it is given, the datagrams it hears.

Its engine does neither; a thief who has taken the device apart could. The secrets come from the device's own
requests to the key server, the datagrams from a second socket on the engine's groups. `attempt` works on
both.

    secrets.json       {channel: {"id": hex, "suite": n, "slots": {slot: hex},
                       "steps": [[generation, step, hex], …]}}, readable by the owner alone
    datagrams-N.bin    for channel N of the plan: length (2, big-endian) ‖ datagram, over and over
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Any, BinaryIO

from sealcast import _core, system
from sealcast.cli.demo.journal import Journal
from sealcast.cli.demo.plan import CHANNELS, LOOPBACK, Address, Plan
from sealcast.device import DeviceIdentity
from sealcast.errors import SealcastError
from sealcast.sidechannel.client import KeyServerClient
from sealcast.sidechannel.messages import KeysAnswer

SECRETS_FILE = "secrets.json"
SUITE = 3
"""AES-256-GCM, what a channel has that nobody chose another for."""

_ASK_SECONDS = 1.0
_FLUSH_SECONDS = 0.1
_AT_ONCE = 128
_LARGEST_DATAGRAM = 65_535
_RECEIVE_BUFFER_BYTES = 4 << 20


def datagrams_file(channel: str) -> str:
    """Name of the file with the datagrams of a channel."""
    return f"datagrams-{CHANNELS.index(channel)}.bin"


class Keepsakes:
    """Gathers until it is cancelled."""

    def __init__(self, plan: Plan, name: str, identity: DeviceIdentity, journal: Journal) -> None:
        self._identity = identity
        self._journal = journal
        self._folder = plan.notes(name)
        self._groups = plan.heard_on[name]
        self._held: dict[str, dict[str, Any]] = {
            channel: {
                "id": _core.channel_id(identity.site_id, channel).hex(),
                "suite": SUITE,
                "slots": {},
                "steps": [],
            }
            for channel in CHANNELS
        }
        self._given = dict.fromkeys(CHANNELS, True)

    async def gather(self) -> None:
        """Listen on both groups, and ask for keys again and again."""
        with contextlib.ExitStack() as stack:
            taps = [
                stack.enter_context(contextlib.closing(_Tap(self._folder / datagrams_file(channel), group)))
                for channel, group in self._groups.items()
            ]
            async with KeyServerClient(self._identity) as key_server, asyncio.TaskGroup() as group:
                group.create_task(_flush(taps))
                group.create_task(self._ask(key_server))

    async def _ask(self, key_server: KeyServerClient) -> None:
        while True:
            for channel in CHANNELS:
                try:
                    self._take(channel, await key_server.keys(channel))
                except SealcastError as error:
                    self._note(channel, given=False, why=str(error))
                else:
                    self._note(channel, given=True, why="")
            self._save()
            await asyncio.sleep(_ASK_SECONDS)

    def _take(self, channel: str, answer: KeysAnswer) -> None:
        held = self._held[channel]
        held["slots"].update({str(slot): secret.reveal().hex() for slot, secret in answer.slots})
        step = [answer.generation, answer.step, answer.secret.reveal().hex()]
        if step not in held["steps"]:
            held["steps"].append(step)

    def _note(self, channel: str, *, given: bool, why: str) -> None:
        if given != self._given[channel]:
            self._given[channel] = given
            self._journal.write(keys=channel, given=given, why=why)

    def _save(self) -> None:
        path = self._folder / SECRETS_FILE
        partial = path.with_suffix(".tmp")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(self._held, file)
        partial.replace(path)


class _Tap:
    """A second socket on a group, into a file."""

    def __init__(self, path: Path, group: Address) -> None:
        self.file: BinaryIO = path.open("wb")
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        system.share_port(self._socket)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        self._socket.bind(group)
        membership = socket.inet_aton(group[0]) + socket.inet_aton(LOOPBACK)
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self._readable)

    def _readable(self) -> bool:
        """Take some; return whether there may be more."""
        for _ in range(_AT_ONCE):
            try:
                datagram = self._socket.recv(_LARGEST_DATAGRAM)
            except BlockingIOError:
                return False
            self.file.write(len(datagram).to_bytes(2) + datagram)
        return True

    def close(self) -> None:
        """Take what has come, and listen no more."""
        asyncio.get_running_loop().remove_reader(self._socket)
        while self._readable():
            pass
        self._socket.close()
        self.file.close()


async def _flush(taps: list[_Tap]) -> None:
    while True:
        await asyncio.sleep(_FLUSH_SECONDS)
        for tap in taps:
            tap.file.flush()
