"""Programs of others: from the distribution's packages, and built from the sources of this folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
_PATIENCE_SECONDS = 600


class MissingError(Exception):
    """A rival cannot be had here; the text says why."""


def install(packages: Sequence[str], proofs: Sequence[str]) -> None:
    """Install Debian packages unless every file of `proofs` is there. Raises: MissingError."""
    if all(Path(proof).exists() for proof in proofs):
        return
    wanted = " ".join(packages)
    if shutil.which("apt-get") is None:
        raise MissingError(f"no apt-get here for {wanted}")
    if os.geteuid() != 0:
        raise MissingError(f"not root; `sudo apt-get install {wanted}`")
    install = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    # The lists of packages may be absent, in containers for one.
    for command in (install, ["apt-get", "update"], install):
        _run(command)
        if all(Path(proof).exists() for proof in proofs):
            return
    raise MissingError(f"apt-get could not install {wanted}")


def build(command: Sequence[str], folder: Path) -> None:
    """Run a compiler in `folder`. Raises: MissingError: it is not there or refuses."""
    if shutil.which(command[0]) is None:
        raise MissingError(f"no {command[0]} here")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MissingError(f"{command[0]} failed: {done.stderr.strip()[-300:]}")


def took(folder: Path, file: Path) -> bool:
    """Empty a folder of what arrived; return whether it was one file as long as this one."""
    sizes = []
    for arrived in folder.iterdir():
        sizes.append(arrived.stat().st_size)
        arrived.unlink()
    return sizes == [file.stat().st_size]


def _run(command: Sequence[str]) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        subprocess.run(command, env=environment, capture_output=True, timeout=_PATIENCE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingError(f"{command[0]}: {error}") from None
