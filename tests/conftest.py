"""What every test folder shares: the rule for tests that drive a program of somebody else."""

import os
import shutil

import pytest


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip `needs_program` tests whose program is missing; under CI=true fail, so that none goes unseen."""
    for marker in item.iter_markers("needs_program"):
        missing = [name for name in marker.args if shutil.which(name) is None]
        if not missing:
            continue
        reason = f"missing program: {', '.join(missing)} (tools/install_test_clients.sh installs it)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
