"""The library for Windows under Wine, beside the scenarios: what its own tests say, and a key of CNG."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.sdk.languages import ROOT, SDK, make

WINDOWS = SDK / "windows"


def run(*words: str | Path) -> str:
    make(SDK / "c", "windows")
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_key_of_cng_signs(tmp_path: Path) -> None:
    program = ROOT / "target/windows/cng.exe"
    assert run(WINDOWS / "wine", program, tmp_path / "certificate.pem") == "the key signed\n"


@pytest.mark.parametrize("name", ["publish", "subscribe"])
def test_an_example_compiles(name: str, tmp_path: Path) -> None:
    flags = ["-std=c11", "-Wall", "-Wextra", "-pedantic", "-Werror", f"-I{SDK}/c/include"]
    source = SDK / f"c/examples/{name}.c"
    run("x86_64-w64-mingw32-gcc", *flags, "-c", source, "-o", tmp_path / "example.o")


def test_what_the_crates_test_holds() -> None:
    out = run("make", "--directory", WINDOWS, "test")
    passed = [int(count) for count in re.findall(r"test result: ok. (\d+) passed; 0 failed", out)]
    assert len(passed) == 2
    assert min(passed) > 10
