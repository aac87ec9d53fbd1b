"""What happens when: starts every process, watches, renews, removes, ends them, and gathers the evidence."""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path
from typing import Any

from sealcast.cli.demo.children import Child, Children, Report, isolated_command, module_command
from sealcast.cli.demo.evidence import Evidence, hash_file, read_evidence
from sealcast.cli.demo.plan import (
    CHANNELS,
    LOOPBACK,
    MEMBERS,
    PUBLISHER,
    REMOVED,
    SAMPLE_BYTES,
    SUBSCRIBERS,
    Plan,
)
from sealcast.cli.demo.site import open_site, renew, revoke
from sealcast.cli.demo.table import Board, Display
from sealcast.errors import IncompleteError
from sealcast.pki.times import system_time

_READY_SECONDS = 30.0
_EXTRA_SECONDS = 25.0
"""How much longer than planned a stream may take, on a busy machine; then it is judged as it stands."""
_END_SECONDS = 8.0
_ATTEMPT_SECONDS = 25.0
_SHOW_SECONDS = 0.5
_CHUNK_BYTES = 1 << 20


async def perform(plan: Plan, display: Display) -> Evidence:
    """Run the whole of it. Nothing is left running, whatever happens. Raises: SealcastError."""
    board = Board(sample_count=plan.ecg.stat().st_size // SAMPLE_BYTES, file_size=plan.scale.file_bytes)
    logs = plan.folder / "logs"
    logs.mkdir()
    with display:
        async with Children(logs) as children:
            performance = _Performance(plan, children, board, display)
            ticker = asyncio.create_task(performance.tick())
            try:
                return await performance.run()
            finally:
                ticker.cancel()
                display.show(board)


class _Performance:
    """One run, in the order of its methods."""

    def __init__(self, plan: Plan, children: Children, board: Board, display: Display) -> None:
        self._plan = plan
        self._children = children
        self._board = board
        self._display = display
        self._changed = asyncio.Event()
        self._ready: set[str] = set()
        self._done: dict[str, set[str]] = {name: set() for name in SUBSCRIBERS}
        self._directory: dict[str, str] = {}
        self._acknowledged = False
        self._attempted: Report = {}
        self._switch_report: Report = {}
        self._processes: dict[str, Child] = {}
        self._switch: Child | None = None

    async def run(self) -> Evidence:
        """Do everything; return the evidence."""
        plan, scale = self._plan, self._plan.scale
        self._phase("making an authority, enrolling four devices")
        making = asyncio.to_thread(make_file, plan.file, plan.seed, scale.file_bytes)
        digest, site = await asyncio.gather(making, open_site(plan, self._children))
        self._note("authority serves, two channels, four devices enrolled over EST")
        self._phase("starting switch, subscribers, publisher")
        switch = await self._start_processes()
        serial_before = site.publisher_serial
        self._note(f"streaming; the publisher's certificate is {serial_before[:6]}…")
        self._phase("streaming")
        deadline = time.monotonic() + scale.stream_seconds + _EXTRA_SECONDS
        self._processes[PUBLISHER].order({"do": "start"})

        renewal = asyncio.create_task(self._renew(deadline))
        try:
            await self._until(lambda: self._progress() >= scale.removal_at, deadline)
            await revoke(plan, self._children, REMOVED)
        except BaseException:
            renewal.cancel()
            raise
        removed_at = system_time()
        self._board.rows[REMOVED].state = "removed"
        self._note(f"{REMOVED} removed; it keeps listening, and tries every key it has held")
        attempt = await self._children.start(
            "attempt",
            isolated_command("attempt.py", plan.notes(REMOVED), str(removed_at), sees_libraries=True),
        )
        attempt.listen(self._attempt_reported)

        serial_after = await renewal
        await self._until(lambda: self._is_all_here(serial_after), deadline)
        self._note("everyone who is a member has everything" if self._acknowledged else "out of time")
        self._phase("ending")
        await self._end(switch, attempt)
        self._phase("done")
        return await asyncio.to_thread(
            read_evidence,
            plan,
            file_sha256=digest,
            switch=self._switch_report,
            folder_serials=(serial_before, serial_after),
            removed_at=removed_at,
            attempted=self._attempted,
        )

    async def _renew(self, deadline: float) -> str:
        """Renew in time, whatever else goes on; return the serial of the new certificate."""
        await self._until(lambda: self._progress() >= self._plan.scale.renewal_at, deadline)
        serial = await renew(self._plan, self._children)
        self._note(f"the publisher's certificate is renewed: {serial[:6]}…")
        return serial

    async def tick(self) -> None:
        """Ask the switch, and redraw."""
        while True:
            if self._switch is not None:
                self._switch.order({"do": "report"})
            self._display.show(self._board)
            await asyncio.sleep(_SHOW_SECONDS)

    # -- beginning and end -----------------------------------------------------------------------------------

    async def _start_processes(self) -> Child:
        path = self._plan.save()
        switch = await self._children.start("switch", isolated_command("switch.py"))
        switch.order(_switch_settings(self._plan))
        await switch.line()
        switch.listen(self._switch_reported)
        self._switch = switch
        watching, keeping = MEMBERS[0], REMOVED
        for name in SUBSCRIBERS:
            options = [*(["--watch"] if name == watching else []), *(["--keep"] if name == keeping else [])]
            child = await self._children.start(name, module_command("subscriber", path, name, *options))
            child.listen(lambda report, name=name: self._reported(name, report))  # type: ignore[misc]
            self._processes[name] = child
        publisher = await self._children.start(PUBLISHER, module_command("publisher", path))
        publisher.listen(self._publisher_reported)
        self._processes[PUBLISHER] = publisher
        everyone = {PUBLISHER, *SUBSCRIBERS}
        await self._until(lambda: self._ready == everyone, time.monotonic() + _READY_SECONDS)
        if missing := everyone - self._ready:
            raise IncompleteError(
                f"not ready within {_READY_SECONDS:.0f} s: {', '.join(sorted(missing))}",
                cure="run again with --keep and see the logs",
            )
        return switch

    async def _end(self, switch: Child, attempt: Child) -> None:
        """End them in the order in which nothing is cut short."""
        await self._processes[PUBLISHER].end(_END_SECONDS)
        ends = [self._processes[name].end(_END_SECONDS) for name in SUBSCRIBERS]
        if not all(await asyncio.gather(*ends)):
            raise IncompleteError("a subscriber does not end", cure="run again with --keep and see the logs")
        self._note("publisher and subscribers have ended")
        # All that was heard is on the disk now.
        self._phase(f"{REMOVED} tries its last keys")
        if not await attempt.end(_ATTEMPT_SECONDS):
            raise IncompleteError(f"{REMOVED} is not through with its attempts", cure="run again, alone")
        self._switch = None
        if not await switch.end(_END_SECONDS):
            raise IncompleteError("the switch does not end")
        (self._plan.folder / "switch.json").write_text(json.dumps(self._switch_report, indent=2))
        (self._plan.folder / "attempt.json").write_text(json.dumps(self._attempted, indent=2))

    # -- what the processes report ---------------------------------------------------------------------------

    def _reported(self, name: str, report: Report) -> None:
        row = self._board.rows[name]
        match report:
            case {"ready": True}:
                self._ready.add(name)
                row.state = "joined"
            case {"status": status}:
                row.take(status)
                if members := status["members"]:
                    self._board.members = members
            case {"directory": directory}:
                self._directory = directory
            case {"done": str(channel)}:
                self._done[name].add(channel)
                if len(self._done[name]) == len(CHANNELS):
                    row.state = "complete"
        self._changed.set()

    def _publisher_reported(self, report: Report) -> None:
        if len(report.get("ready", ())) == len(CHANNELS):
            self._ready.add(PUBLISHER)
        self._acknowledged = self._acknowledged or "acknowledged" in report
        self._changed.set()

    def _switch_reported(self, report: Report) -> None:
        self._switch_report = report
        self._board.take_switch(report)

    def _attempt_reported(self, report: Report) -> None:
        self._attempted = report

    # -- waiting ---------------------------------------------------------------------------------------------

    def _progress(self) -> float:
        """Part of both channels that the slowest member has."""
        rows = [self._board.rows[name] for name in MEMBERS]
        ecg = min(row.samples for row in rows) / self._board.sample_count
        return min(ecg, min(row.file_bytes for row in rows) / self._board.file_size)

    def _is_all_here(self, serial: str) -> bool:
        told = set(self._directory.values()) == {serial}
        return self._acknowledged and self._progress() >= 1.0 and told

    async def _until(self, is_so: Any, deadline: float) -> None:
        """Wait until it is so, or the deadline. Raises: IncompleteError if a process has ended."""
        while not is_so() and (left := deadline - time.monotonic()) > 0:
            self._changed.clear()
            self._children.check()
            try:
                async with asyncio.timeout(min(left, _SHOW_SECONDS)):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def _phase(self, text: str) -> None:
        self._board.phase = text
        self._display.show(self._board)

    def _note(self, text: str) -> None:
        self._board.notes.append(f"{time.monotonic() - self._board.started:4.0f} s {text}")


def make_file(path: Path, seed: int, size: int) -> str:
    """Write the file that is sent, from the seed; return its SHA-256 in hexadecimal."""
    generator = random.Random(f"{seed}/file")  # noqa: S311 - no secret
    with path.open("wb") as file:
        for start in range(0, size, _CHUNK_BYTES):
            file.write(generator.randbytes(min(_CHUNK_BYTES, size - start)))
    return hash_file(path)


def _switch_settings(plan: Plan) -> Report:
    links = {
        channel: {
            "from": plan.sent_to[channel],
            "to": {name: plan.heard_on[name][channel] for name in SUBSCRIBERS},
        }
        for channel in CHANNELS
    }
    return {"seed": plan.seed, "loss": plan.scale.loss, "interface": LOOPBACK, "links": links}
