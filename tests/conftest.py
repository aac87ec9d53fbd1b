"""What every test folder shares: programs of others, CI skips nothing, every certificate is linted."""

import os
import shutil
import signal
from collections.abc import Generator, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest

from sealcast.ca import observing
from tests.linting import Collected, verdict

IS_CI = os.environ.get("CI") == "true"

_MEMORY = Path("/dev/shm")  # noqa: S108 (pytest makes a private folder in it)
_MEMORY_BYTES = 4 << 30


def pytest_configure() -> None:
    """Put the tests' folders into memory where there is room: most of them wait for a disk else.

    Ctrl-C gets back its meaning, which is lost on what a shell starts in the background.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with suppress(OSError):
        if shutil.disk_usage(_MEMORY).free > _MEMORY_BYTES and os.access(_MEMORY, os.W_OK):
            os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Keep the cycle collector from what was imported, which is most of what there is."""
    import_module("tests.frozen")


@pytest.fixture(scope="session", autouse=True)
def every_certificate_is_linted() -> Iterator[None]:
    """Lint what all tests together have issued; a finding is an error of the last one."""
    collected = Collected()
    with observing(collected.add):
        yield
    problems = verdict(collected)
    assert not problems, f"pkilint disagrees with certificates that were issued:\n{problems}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip `needs_program` tests whose program is missing."""
    for marker in item.iter_markers("needs_program"):
        if missing := [name for name in marker.args if shutil.which(name) is None]:
            pytest.skip(f"missing program: {', '.join(missing)} (tools/install_test_clients.sh installs it)")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With CI=true a test that is skipped has failed, whatever skipped it, so that none goes unseen."""
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for whole files that are skipped."""
    report = yield
    _fail_if_skipped(report)
    return report


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    # An expected failure is reported as skipped too; that test has run.
    if IS_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason}; with CI=true no test may be skipped"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures that tests record (`record_property("figure", …)`), whichever process ran them."""
    for report in terminalreporter.stats.get("passed", []):
        for name, figure in report.user_properties:
            if name == "figure":
                terminalreporter.write_line(str(figure))
