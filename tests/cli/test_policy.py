"""`sealcast policy`: what it prints, its exit codes, one line for each mistake; service or not."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from sealcast.authority.site import init_site
from sealcast.cli import main
from sealcast.cli.policy import EXIT_DIFFERENT
from sealcast.pki.times import system_time
from tests.e2e.processes import Processes

SOURCE = """\
[channel."ward/ecg"]
group = "239.192.1.1"
port = 5000
publish = ["monitor-*"]
subscribe = ["*"]
"""


class Command:
    """`sealcast …` in this process; what it printed and returned."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *words: object) -> int:
        code = main([str(word) for word in words])
        self.out, self.err = self._capsys.readouterr()
        return code


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    init_site(tmp_path / "authority", site_name="Ward", root=None, hosts=(), now=system_time())
    return tmp_path / "authority"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "policy.toml").write_text(SOURCE)
    return tmp_path / "policy.toml"


def test_from_file_to_explanation(run: Command, folder: Path, file: Path) -> None:
    assert run("policy", "check", file) == 0
    assert run.out == f"{file}: 1 channel, no error\n"
    assert run("policy", "diff", folder, file) == EXIT_DIFFERENT
    told = run.out
    assert "new channel ward/ecg\n" in told
    assert "  + publish rule monitor-*\n" in told
    assert run("policy", "apply", folder, file) == 0
    assert run.out == told, "apply says what diff has said"
    assert run("policy", "diff", folder, file) == 0
    assert run.out == "no change\n"
    file.write_text(SOURCE.replace("5000", "5001") + 'deny = ["display-*"]\n')
    assert run("policy", "diff", folder, file, "--json") == EXIT_DIFFERENT
    (channel,) = json.loads(run.out)["channels"]
    assert channel["settings"] == {"port": ["5000", "5001"]}
    assert channel["rules"]["deny"] == {"added": ["display-*"], "removed": []}
    assert run("policy", "explain", folder, "monitor-1", "ward/ecg") == 0
    assert "publish   no: no device of this name is enrolled" in run.out
    assert run("policy", "explain", folder, "monitor-1", "ward/ecg", "--json") == 0
    assert json.loads(run.out)["version"] == 1


def test_what_is_shown_changes_nothing(run: Command, folder: Path, file: Path) -> None:
    """Channels made by either command are one store."""
    options = ("--group", "239.192.1.2", "--port", "5000", "--publish", "a*", "--subscribe", "role:*")
    assert run("authority", "channel", "add", folder, "ward/bp", *options, "--slot", "90s") == 0
    assert run("policy", "apply", folder, file) == 0
    assert "ward/bp is not in the file" in run.err
    assert run("policy", "show", folder) == 0
    assert '[channel."ward/bp"]' in run.out
    file.write_text(run.out)
    assert run("policy", "apply", folder, file) == 0
    assert (run.out, run.err.count("not in the file")) == ("no change\n", 0)
    assert run("authority", "channel", "set", folder, "ward/ecg", "--publish", "role:x") == 0
    assert run("policy", "diff", folder, file) == EXIT_DIFFERENT
    assert "  - publish rule role:x\n" in run.out


def test_a_running_service_applies_it(run: Command, folder: Path, file: Path, processes: Processes) -> None:
    service = processes.start("authority", "serve", folder, "--listen", "127.0.0.1:0", "--json")
    service.wait_line("authority")
    file.write_text(SOURCE + "".join(f"# {'x' * 100}\n" for _ in range(20_000)))
    assert run("policy", "apply", folder, file, "--json") == 0, run.err
    assert json.loads(run.out)["channels"][0]["name"] == "ward/ecg"
    assert run("policy", "diff", folder, file) == 0
    file.write_text(SOURCE + "suite = 2\n")
    assert run("policy", "apply", folder, file) == 6
    assert "suite 3 for good" in run.err
    assert run("authority", "device", "set", folder, "nobody", "--role", "x") == 2
    assert "'nobody'" in run.err
    assert service.is_running


def test_every_problem_is_listed(run: Command, file: Path) -> None:
    file.write_text(SOURCE.replace("5000", "0").replace("239.192.1.1", "224.0.0.1") + "colour = 1\n")
    assert run("policy", "check", file) == 3
    lines = run.out.splitlines()
    assert [line.split(":")[2] for line in lines] == ["2", "3", "6"]
    assert all(line.startswith("error: ") for line in lines)
    assert run.err == f"sealcast: error: {file}: 3 errors (correct the file)\n"
    assert run("policy", "check", file, "--json") == 3
    assert [problem["line"] for problem in json.loads(run.out)["problems"]] == [2, 3, 6]


def test_a_warning_is_no_error(run: Command, file: Path) -> None:
    file.write_text(SOURCE.replace("5000", "50"))
    assert run("policy", "check", file) == 0
    assert re.match(rf"warning: {file}:3: .*50 needs privileges", run.out)


@pytest.mark.parametrize(
    ("words", "code", "value"),
    [
        (("diff", "DIR", "BAD"), 3, "bad.toml:1"),
        (("apply", "DIR", "BAD"), 3, "bad.toml:1"),
        (("check", "NONE"), 8, "none.toml"),
        (("diff", "DIR", "NONE"), 8, "none.toml"),
        (("diff", "NONE", "GOOD"), 8, "no authority"),
        (("apply", "NONE", "GOOD"), 8, "no authority"),
        (("show", "NONE"), 8, "no authority"),
        (("explain", "DIR", "a", "none"), 6, "'none'"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_with_value_and_cure(
    run: Command, folder: Path, file: Path, tmp_path: Path, words: tuple[str, ...], code: int, value: str
) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("colour = 1\n")
    places = {"DIR": folder, "GOOD": file, "BAD": bad, "NONE": tmp_path / "none.toml"}
    assert run("policy", *(places.get(word, word) for word in words)) == code
    assert run.out == ""
    assert re.fullmatch(r"sealcast: error: [^\n]+ \([^\n]+\)\n", run.err), run.err
    assert value in run.err


def test_standard_input_is_a_file_too(processes: Processes) -> None:
    process = processes.start("policy", "check", "-", stdin=subprocess.PIPE)
    process.write(SOURCE.encode())
    process.close_input()
    finished = process.wait()
    assert (finished.code, finished.out) == (0, "-: 1 channel, no error\n")
