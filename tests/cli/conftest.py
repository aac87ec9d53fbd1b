"""One site for the tests of a module, and an end for every process that a test started."""

from collections.abc import Iterator

import pytest

from tests.e2e.processes import Processes
from tests.e2e.site import Site


@pytest.fixture
def processes(request: pytest.FixtureRequest) -> Iterator[Processes]:
    started = Processes(installed=request.node.get_closest_marker("installed") is not None)
    try:
        yield started
    finally:
        started.end()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    started = Processes()
    try:
        yield Site.start(tmp_path_factory.mktemp("site"), started)
    finally:
        started.end()
