"""An authority of its own for each test, and an end for every process that a test started."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import Processes
from tests.e2e.site import Site
from tests.e2e.ward import Ward, make_ward


@pytest.fixture
def processes(request: pytest.FixtureRequest) -> Iterator[Processes]:
    started = Processes(installed=request.node.get_closest_marker("installed") is not None)
    try:
        yield started
    finally:
        started.end()


@pytest.fixture
def site(tmp_path: Path, processes: Processes) -> Site:
    return Site.start(tmp_path, processes)


@pytest.fixture(scope="session")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    """On hosts of their own; for all tests that only stream over it."""
    with make_ward(tmp_path_factory.mktemp("ward")) as made:
        yield made
