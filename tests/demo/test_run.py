"""The demo itself, shorter, in processes on the loopback interface; and what is left of it when ended."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sealcast.cli.demo.command import find_recording
from sealcast.cli.demo.evidence import Evidence
from sealcast.cli.demo.plan import Plan, Scale
from sealcast.cli.demo.run import perform
from sealcast.cli.demo.table import Silence
from sealcast.cli.demo.verdict import judge
from tests.e2e.processes import wait_until

SHORT = Scale(
    stream_seconds=16.0,
    file_bytes=48 << 20,
    slot_seconds=2.0,
    slots_ahead=14,
    renewal_at=0.2,
    removal_at=0.35,
)
PATIENCE_SECONDS = 30.0

needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")


@pytest.mark.timeout(150)
def test_every_claim_holds(tmp_path: Path) -> None:
    before = children_of(os.getpid())
    plan = Plan.make(tmp_path, seed=3, scale=SHORT, ecg=find_recording())
    evidence: Evidence = asyncio.run(perform(plan, Silence()))
    claims = judge(evidence)
    assert all(claim.holds for claim in claims), [claim for claim in claims if not claim.holds]
    assert children_of(os.getpid()) == before


@needs_proc
@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    ("number", "code", "moment", "leaves_folder"),
    [
        (signal.SIGINT, 130, "demo.publisher", False),
        (signal.SIGTERM, 143, "authority serve", False),
        (signal.SIGKILL, -9, "demo.publisher", True),
    ],
)
def test_nothing_is_left_running(
    tmp_path: Path, number: signal.Signals, code: int, moment: str, leaves_folder: bool
) -> None:
    command = [sys.executable, "-c", "import sys; from sealcast.cli import main; sys.exit(main())", "demo"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as demo:
        # The publisher is the last to be started: all others run by then.
        wait_until(lambda: find_child(demo.pid, moment) is not None, f"{moment} runs", PATIENCE_SECONDS)
        children = children_of(demo.pid)
        demo.send_signal(number)
        demo.communicate(timeout=PATIENCE_SECONDS)
    assert demo.returncode == code
    wait_until(
        lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), "all have ended", PATIENCE_SECONDS
    )
    assert any(tmp_path.iterdir()) == leaves_folder


@needs_proc
@pytest.mark.timeout(90)
def test_a_process_that_dies_is_named_in_one_line(tmp_path: Path) -> None:
    main = "import sys; from sealcast.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", main, "demo", "--json"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
    ) as demo:
        wait_until(lambda: find_child(demo.pid, "demo.publisher") is not None, "it runs", PATIENCE_SECONDS)
        victim = find_child(demo.pid, "plan.json recorder")
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        verdict, errors = demo.communicate(timeout=PATIENCE_SECONDS)
    assert demo.returncode == 9
    assert json.loads(verdict)["holds"] is False
    [claim] = json.loads(verdict)["claims"]
    assert claim["holds"] is False
    assert claim["figure"].startswith("recorder has ended before its time")
    assert errors.startswith("sealcast: error: recorder has ended before its time")
    assert len(errors.splitlines()) == 1
    assert not any(tmp_path.iterdir())


def test_json_help_and_a_folder_that_is_there_already(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; from sealcast.cli import main; sys.exit(main())", "demo"]
    refused = subprocess.run(
        [*command, "--json", "--keep", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 8
    assert len(refused.stderr.splitlines()) == 1
    helped = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert all(option in helped.stdout for option in ("--seed", "--json", "--keep"))


def test_the_plan_is_the_same_for_every_process(tmp_path: Path) -> None:
    plan = Plan.make(tmp_path, seed=3, scale=SHORT, ecg=find_recording())
    assert Plan.load(plan.save()) == plan
    addresses = [plan.sent_to, *plan.heard_on.values()]
    assert len({tuple(address) for channels in addresses for address in channels.values()}) == 8
    assert json.loads(plan.save().read_text())["seed"] == 3


def children_of(parent: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        # A thread may end between being listed and being read.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += [int(pid) for pid in task.read_text().split()]
    return found


def find_child(parent: int, words: str) -> int | None:
    return next((pid for pid in children_of(parent) if words in command_of(pid)), None)


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
