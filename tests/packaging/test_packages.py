"""The packages, as whoever has nothing but them: put into empty folders, used with no way to the sources."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.processes import Process, Processes
from tests.e2e.site import Channel, Site
from tests.sdk.languages import JDK_22, ROOT, SDK, library

pytestmark = pytest.mark.timeout(240)

TOOL = ROOT / "tools" / "package.py"
HERE = Path(__file__).parent
EMPTY = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
"""An environment that names no folder of this checkout."""


def run(*words: str | Path, folder: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env=EMPTY | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def build(dist: Path, *what: str, **environment: str) -> None:
    """Make packages of what is built."""
    words = [sys.executable, str(TOOL), "--built", "--dist", str(dist), *what]
    done = subprocess.run(
        words, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{what}: {done.stdout}{done.stderr}"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Other tests run make there, too."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Ward:
    """A site whose one publisher is this checkout's: what a package receives comes from outside."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        site = Site.start(folder, processes)
        self.channel: Channel = site.add_channel("ward/ecg")
        self.publisher_folder, self.device = site.enrol("bedside", "station")
        self._processes = processes

    def hears(self, *words: str | Path, environment: dict[str, str] | None = None) -> None:
        """Start a package's example of a subscriber, and have it print a message."""
        command = ["env", "-i", *(f"{name}={value}" for name, value in (EMPTY | (environment or {})).items())]
        command += [*map(str, words), str(self.device), self.channel.name]
        hearing = self._processes.started(Process(command))
        hearing.wait_line("joined channel", errors=True)
        speaking = self._processes.start(
            "publish", self.publisher_folder, self.channel.name, stdin=subprocess.PIPE
        )
        speaking.write(b"72 bpm\n")
        hearing.wait_line("^bedside: 72 bpm$")
        hearing.end()
        speaking.end()


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    processes = Processes()
    try:
        yield Ward(tmp_path / "site", processes)
    finally:
        processes.end()


def test_the_wheel_in_an_empty_environment(tmp_path: Path) -> None:
    """An authority, two devices, a message: all by the program that was installed."""
    subprocess.run(["make", "--silent", ".venv/.wheels"], cwd=ROOT, check=True)
    environment = tmp_path / "environment"
    build(tmp_path / "dist", "wheel")
    keep = ["--environment", str(environment)]
    build(tmp_path / "dist", "try-wheel", *keep, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(ROOT / ".venv/.wheels"))
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    where = run(environment / "bin/python", "-c", "import sealcast; print(sealcast.__file__)", folder=folder)
    assert Path(where.strip()).is_relative_to(environment)
    story = (HERE / "first_message.sh").read_text()
    out = run("/bin/sh", "-c", story, folder=folder, environment={"PATH": f"{environment}/bin:/usr/bin:/bin"})
    assert out.splitlines()[-1] == "hello, ward"


@pytest.mark.needs_program("javac", "mvn")
def test_the_jar_with_jna_alone_beside_it(ward: Ward, tmp_path: Path) -> None:
    """The same jar by JNA and by foreign functions; its library is nowhere else."""
    library()
    with alone(SDK / "java"):
        build(tmp_path / "dist", "native", "java")
        jna = shutil.copy(next((SDK / "java/build/lib").glob("jna-*.jar")), tmp_path)
    (pom,) = (tmp_path / "dist").glob("*.pom")
    run("mvn", "--offline", "-q", "-B", "-f", pom, "validate", folder=tmp_path)
    (jar,) = {*(tmp_path / "dist").glob("*.jar")} - {*(tmp_path / "dist").glob("*-*-*.jar")}
    classes = tmp_path / "classes"
    example = SDK / "java/examples/Subscribe.java"
    run("javac", "--release", "17", "-cp", jar, "-d", classes, example, folder=tmp_path)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    options = [f"-Djava.io.tmpdir={temporary}", "-cp"]
    ward.hears("java", *options, f"{jar}:{jna}:{classes}", "Subscribe")
    if JDK_22 is not None:
        ward.hears(JDK_22, "--enable-native-access=ALL-UNNAMED", *options, f"{jar}:{classes}", "Subscribe")
    left = [file.name for file in temporary.rglob("*") if file.name.startswith(("sealcast", "libsealcast"))]
    assert left == []


@pytest.mark.needs_program("javac", "mvn")
@pytest.mark.parametrize(
    ("named", "told"),
    [
        (None, r"libsealcast.so is neither in the jar (native/linux-"),
        ("/nowhere/libsealcast.so", "/nowhere/libsealcast.so cannot be loaded: set the system property "),
    ],
)
def test_a_jar_without_the_library_tells_where_it_looked(
    named: str | None, told: str, tmp_path: Path
) -> None:
    with alone(SDK / "java"):
        subprocess.run(["make", "--silent", "jar"], cwd=SDK / "java", check=True)
        path = f"{SDK}/java/build/sealcast.jar:{next((SDK / 'java/build/lib').glob('jna-*.jar'))}"
        environment = EMPTY if named is None else EMPTY | {"SEALCAST_LIBRARY": named}
        done = subprocess.run(
            ["java", "-cp", path, str(HERE / "Version.java")],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert told in done.stderr
    assert "sealcast.library, or SEALCAST_LIBRARY in the environment, to its path" in done.stderr


@pytest.mark.needs_program("mcs", "mono")
def test_the_nuget_package_beside_a_program(ward: Ward, tmp_path: Path) -> None:
    """Read as OPC by Mono's System.IO.Packaging; then as NuGet lays it beside a program of Linux."""
    library()
    with alone(SDK / "csharp"):
        build(tmp_path / "dist", "native", "nuget")
    (package,) = (tmp_path / "dist").glob("Sealcast.*.nupkg")
    reader = tmp_path / "reader.exe"
    run("mcs", "-r:WindowsBase", f"-out:{reader}", HERE / "ReadPackage.cs", folder=tmp_path)
    out = run("mono", reader, package, folder=tmp_path)
    assert out.splitlines()[0] == "Sealcast"
    with zipfile.ZipFile(package) as archive:
        parts = {name for name in archive.namelist() if not name.startswith(("[", "_rels"))}
        assert {line.removeprefix("/") for line in out.splitlines()[1:]} - {"_rels/.rels"} == parts
        beside = [name for name in parts if name.startswith(("lib/", "runtimes/linux-x64/"))]
        assert {Path(name).name for name in beside} > {"Sealcast.dll", "Sealcast.xml", "libsealcast.so"}
        program = tmp_path / "program"
        program.mkdir()
        for name in beside:
            (program / Path(name).name).write_bytes(archive.read(name))
    example = [SDK / "csharp/examples" / name for name in ("Subscribe.cs", "Interrupt.cs")]
    run("mcs", f"-r:{program}/Sealcast.dll", f"-out:{program}/Subscribe.exe", *example, folder=tmp_path)
    ward.hears("mono", program / "Subscribe.exe")


@pytest.mark.needs_program("cc", "pkg-config")
def test_the_c_package_in_an_empty_prefix(ward: Ward, tmp_path: Path) -> None:
    library()
    with alone(SDK / "c"):
        build(tmp_path / "dist", "c")
    (package,) = (tmp_path / "dist").glob("sealcast-c-*.tar.gz")
    with tarfile.open(package) as archive:
        archive.extractall(tmp_path, filter="data")
        links = [member.name.rpartition("/")[2] for member in archive if member.issym()]
    assert links == ["libsealcast.so"]
    prefix = tmp_path / package.name.removesuffix(".tar.gz")
    search = {"PKG_CONFIG_PATH": str(prefix / "lib/pkgconfig")}
    flags = run("pkg-config", "--cflags", "--libs", "sealcast-curl", folder=tmp_path, environment=search)
    source, program = SDK / "c/examples/subscribe.c", tmp_path / "subscribe"
    run("cc", source, *flags.split(), "-o", program, folder=tmp_path)
    ward.hears(program, environment={"LD_LIBRARY_PATH": str(prefix / "lib")})
