"""With CI=true every kind of skip is a failure (tests/conftest.py)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SKIPPED = """
import pytest

@pytest.mark.skip(reason="by marker")
def test_1(): ...

@pytest.mark.skipif(True, reason="by condition")
def test_2(): ...

@pytest.mark.needs_program("no-such-program")
def test_3(): ...

def test_4():
    pytest.skip("in the test")

@pytest.fixture
def missing():
    pytest.skip("in a fixture")

def test_5(missing): ...
"""
RUN = """
import pytest

@pytest.mark.xfail(reason="known", strict=True)
def test_6():
    assert False

def test_7(): ...
"""


@pytest.mark.parametrize(
    ("ci", "told"),
    [("true", "1 failed, 1 passed, 1 xfailed, 5 errors"), ("false", "1 passed, 6 skipped, 1 xfailed")],
)
def test_a_skip_fails_in_ci(tmp_path: Path, ci: str, told: str) -> None:
    (tmp_path / "test_each.py").write_text(SKIPPED)
    (tmp_path / "test_run.py").write_text(RUN)
    (tmp_path / "test_whole.py").write_text("import pytest\npytest.skip('all', allow_module_level=True)\n")
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider"),
            *("-c", str(ROOT / "pyproject.toml"), "--continue-on-collection-errors", str(tmp_path)),
        ],
        cwd=ROOT,
        env={**os.environ, "CI": ci, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.stdout.splitlines()[-1].startswith(told), finished.stdout
