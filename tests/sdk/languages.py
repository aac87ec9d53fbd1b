"""The languages that take part in the scenarios, and how each one's peer is built."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SDK = ROOT / "sdk"
LIBRARY = ROOT / "target" / "release" / "libsealcast.so"


@dataclass(frozen=True, slots=True)
class Language:
    """One SDK and its peer."""

    name: str
    needs: tuple[str, ...]
    """Programs."""
    target: tuple[str, ...]
    """Of the SDK's Makefile."""
    peer: str
    """Below the SDK's folder."""
    environment: tuple[tuple[str, str], ...] = ()
    under: tuple[str, ...] = ()
    """The program that runs it, and its options."""

    @property
    def folder(self) -> Path:
        return SDK / self.name.partition("-")[0]

    def command(self) -> list[str]:
        """Build the peer, and return how it is called."""
        missing = [program for program in self.needs if shutil.which(program) is None]
        if missing:
            pytest.skip(f"the peer in {self.name} needs {', '.join(missing)}")
        make(self.folder, *self.target)
        variables = (f"{name}={value}" for name, value in self.environment)
        return [*variables, *self.under, str(self.folder / self.peer)]


EVERYTHING = os.environ.get("SEALCAST_SCENARIOS") == "all"
"""Every scenario in every language, and in C under what finds faults of memory, too."""
SANITIZED = ("BUILD=build/sanitized", "CFLAGS=-O1 -g -fsanitize=address,undefined -fno-omit-frame-pointer")
"""Of the Makefile of C: under AddressSanitizer and UBSan."""
JDK_22 = next(iter(sorted(Path("/usr/lib/jvm").glob("*-2[2-9]*/bin/java"))), None)
"""For the foreign-function API; without one Java is tried by JNA alone."""

WITH_WINDOWS = os.environ.get("SEALCAST_WINDOWS") == "1"
"""Whether the C peer for Windows takes part, under Wine (sdk/windows): it takes minutes to build."""


def _languages() -> Iterator[Language]:
    c = Language("c", needs=("cc", "make"), target=("build/peer",), peer="build/peer")
    # A peer ends before it would be worth it to compile its classes well.
    briefly = (("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"),)
    java = Language("java", ("javac", "mvn", "make"), ("peer",), "build/peer", environment=briefly)
    yield c
    yield Language("cpp", needs=("c++", "make"), target=("peer",), peer="build/peer")
    yield java
    if JDK_22 is not None:
        yield replace(java, name="java-ffm", environment=(*briefly, ("JAVA", str(JDK_22))))
    yield Language("csharp", needs=("mcs", "mono", "cc", "make"), target=("peer",), peer="build/peer")
    if WITH_WINDOWS:
        yield Language("c-windows", needs=("make", "perl"), target=("windows",), peer="../windows/peer")
    if EVERYTHING:
        target, peer = (*SANITIZED, "build/sanitized/peer"), "build/sanitized/peer"
        yield replace(c, name="c-sanitized", target=target, peer=peer)
        valgrind = ("valgrind", "-q", "--exit-on-first-error=yes", "--error-exitcode=9")
        yield replace(c, name="c-valgrind", needs=(*c.needs, "valgrind"), under=valgrind)


LANGUAGES = {language.name: language for language in _languages()}
PYTHON = "python"


@cache
def library() -> Path:
    """The shared library of the workspace, built if it is not there."""
    if not LIBRARY.exists():
        build = ["cargo", "build", "--quiet", "--release", "--locked", "-p", "sealcast-capi"]
        subprocess.run(build, cwd=ROOT, check=True)
    return LIBRARY


@cache
def make(folder: Path, *targets: str) -> None:
    """Make targets of an SDK; one process at a time does."""
    library()
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(["make", *targets], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def peer_command(language: str) -> Sequence[str]:
    """How a language's peer is called; that of Python has a name alone, and is forked."""
    return [PYTHON] if language == PYTHON else ["env", *LANGUAGES[language].command()]
