"""Commands as processes of their own that are forked from one which has imported everything.

A command that only says what is wrong would spend nearly all of its time on imports, and there are many.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.processes import Finished

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(
    ["sealcast.cli", "sealcast.endpoint", "sealcast.authority.app", "sealcast.authority.control"]
)


def run(words: Sequence[str], folder: Path, seconds: float = 60) -> Finished:
    """Run `sealcast` with these words to its end; what it writes goes through files in `folder`."""
    out, err = folder / "out", folder / "err"
    process = _forks.Process(target=_main, args=(list(words), str(out), str(err)))
    process.start()
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"still running: sealcast {' '.join(words)}")
    return Finished(process.exitcode, out.read_text(), err.read_text())


def _main(words: list[str], out: str, err: str) -> None:
    from sealcast import cli

    for number, name in ((0, os.devnull), (1, out), (2, err)):
        opened = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.environ["COLUMNS"] = "200"
    sys.argv = ["sealcast", *words]
    sys.exit(cli.main())
