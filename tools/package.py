"""Builds Sealcast's packages into dist/: `make packages`, or `python tools/package.py WHAT...`.

    wheel    the Python package for this platform        sdist   its sources
    native   libsealcast for this platform, in dist/native/PLATFORM, for java and nuget
    java     jar, sources, documentation, pom            nuget   Sealcast.VERSION.nupkg
    c        library, headers, pkg-config and CMake files for this platform (Linux)
    try-wheel   installs the wheel into an empty environment, and starts it

java and nuget take every platform that is in dist/native: a workflow gathers them there from its machines.
`--built` takes what cargo and make have already built of libsealcast, and does not start cargo.
"""

from __future__ import annotations

import argparse
import gzip
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent
RELEASE = ROOT / "target" / "release"
JAVA = ROOT / "sdk" / "java"
CSHARP = ROOT / "sdk" / "csharp"
VERSION: str = tomllib.loads((ROOT / "Cargo.toml").read_text("utf-8"))["workspace"]["package"]["version"]
DATE = (1980, 1, 1, 0, 0, 0)
"""Of what is in an archive: the same contents make the same archive."""


@dataclass(frozen=True, slots=True)
class Platform:
    """What libsealcast is called where."""

    library: str
    nuget: str
    """NuGet's runtime identifier."""


PLATFORMS = {
    "linux-x86-64": Platform("libsealcast.so", "linux-x64"),
    "linux-aarch64": Platform("libsealcast.so", "linux-arm64"),
    "win32-x86-64": Platform("sealcast.dll", "win-x64"),
    "win32-aarch64": Platform("sealcast.dll", "win-arm64"),
    "darwin-x86-64": Platform("libsealcast.dylib", "osx-x64"),
    "darwin-aarch64": Platform("libsealcast.dylib", "osx-arm64"),
}
"""By the names that JNA gives them, by which the jar looks (sdk/java, Bundled.java)."""


@dataclass(frozen=True, slots=True)
class Build:
    """Where packages go, and whether libsealcast is built already."""

    dist: Path
    built: bool
    environment: Path | None
    """Of try-wheel, to keep; none: it goes."""

    @property
    def native(self) -> Path:
        """A folder for each platform's libsealcast."""
        return self.dist / "native"

    def libraries(self) -> list[tuple[str, Path]]:
        """The platforms that libsealcast is there for."""
        all_of_them = [(name, self.native / name / each.library) for name, each in PLATFORMS.items()]
        found = [(name, library) for name, library in all_of_them if library.exists()]
        if not found:
            raise SystemExit(f"package.py: no libsealcast in {self.native}: say `native` first")
        return found


def this_platform() -> str:
    processor = {"amd64": "x86-64", "x86_64": "x86-64", "arm64": "aarch64"}
    machine = platform.machine().lower()
    name = f"{sys.platform}-{processor.get(machine, machine)}"
    if name not in PLATFORMS:
        raise SystemExit(f"package.py: there are no packages for {name}: only for {', '.join(PLATFORMS)}")
    return name


def run(*words: str | Path, folder: Path = ROOT) -> None:
    print("+", *words, flush=True)
    subprocess.run([str(word) for word in words], cwd=folder, check=True)


def write_zip(
    archive: Path, members: Iterable[tuple[str, Path | str]], mode: Literal["w", "a"] = "w"
) -> None:
    """Write files, or texts, under their names."""
    with zipfile.ZipFile(archive, mode) as target:
        for name, source in members:
            info = zipfile.ZipInfo(name, DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o100644 << 16
            target.writestr(info, source if isinstance(source, str) else source.read_bytes())
    print(archive)


def tree(folder: Path, prefix: str = "") -> list[tuple[str, Path | str]]:
    """All files below a folder, by the names that they are to have."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return [(prefix + file.relative_to(folder).as_posix(), file) for file in files]


def wheel(build: Build) -> None:
    # As the Makefile sets it: cargo compiles PyO3 anew when it changes.
    os.environ.setdefault("PYO3_PYTHON", sys.executable)
    words = ["--release", "--locked", "--interpreter", sys.executable]
    run(sys.executable, "-m", "maturin", "build", *words, "--out", build.dist)


def sdist(build: Build) -> None:
    run(sys.executable, "-m", "maturin", "sdist", "--out", build.dist)


def native(build: Build) -> None:
    if not build.built:
        run("cargo", "build", "--release", "--locked", "-p", "sealcast-capi")
    name = this_platform()
    library = build.native / name / PLATFORMS[name].library
    library.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(RELEASE / library.name, library)
    if sys.platform != "win32":  # Where the debugging information is a file of its own.
        run("strip", "-x", library)


def java(build: Build) -> None:
    run("make", "-C", JAVA, "jar", "doc", "pom")
    stem = f"sealcast-{VERSION}"
    legal: list[tuple[str, Path | str]] = [("META-INF/LICENSE", ROOT / "LICENSE")]
    jar = build.dist / f"{stem}.jar"
    shutil.copyfile(JAVA / "build" / "sealcast.jar", jar)
    native_members = [(f"io/sealcast/native/{name}/{file.name}", file) for name, file in build.libraries()]
    write_zip(jar, [*legal, *native_members], mode="a")
    later = tree(JAVA / "src/main/java22", "META-INF/versions/22/")
    write_zip(build.dist / f"{stem}-sources.jar", [*legal, *tree(JAVA / "src/main/java"), *later])
    write_zip(build.dist / f"{stem}-javadoc.jar", [*legal, *tree(JAVA / "build/doc")])
    shutil.copyfile(JAVA / "build" / "sealcast.pom", build.dist / f"{stem}.pom")


def assembly() -> tuple[str, Path]:
    """Compile Sealcast.dll; its framework as NuGet calls it, and the folder where it is.

    Mono's compiler writes the names of .NET Framework's assemblies, which Mono has too: what it makes is not
    for netstandard2.0, whatever it is called.
    """
    if shutil.which("dotnet"):
        folder = CSHARP / "build" / "dotnet"
        run("dotnet", "build", CSHARP / "Sealcast.csproj", "--configuration", "Release", "--output", folder)
        return "netstandard2.0", folder
    run("make", "-C", CSHARP, "build/Sealcast.dll")
    return "net472", CSHARP / "build"


NUSPEC = """<?xml version="1.0" encoding="utf-8"?>
<package xmlns="http://schemas.microsoft.com/packaging/2013/05/nuspec.xsd">
  <metadata>
    <id>Sealcast</id>
    <version>{version}</version>
    <authors>Sealcast</authors>
    <description>Secure, reliable multicast. With libsealcast for {platforms}.</description>
    <license type="expression">Apache-2.0</license>
    <readme>README.md</readme>
    <tags>multicast security encryption</tags>
    <dependencies>
      <group targetFramework="{framework}" />
    </dependencies>
  </metadata>
</package>
"""
RELATIONSHIPS = """<?xml version="1.0" encoding="utf-8"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
  <Relationship Id="R1" Target="/Sealcast.nuspec"
    Type="http://schemas.microsoft.com/packaging/2010/07/manifest" />
</Relationships>
"""


def content_types(names: Sequence[str]) -> str:
    """OPC (ECMA-376 part 2) wants the type of every part, by the ending of its name or by all of it."""
    binary = 'ContentType="application/octet-stream"'
    endings = {name.rpartition(".")[2] for name in names if "." in name}
    defaults = [f'  <Default Extension="{ending}" {binary} />\n' for ending in sorted(endings)]
    others = [f'  <Override PartName="/{name}" {binary} />\n' for name in names if "." not in name]
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">\n'
        '  <Default Extension="rels"\n'
        '    ContentType="application/vnd.openxmlformats-package.relationships+xml" />\n'
        f"{''.join(defaults + others)}</Types>\n"
    )


def nuget(build: Build) -> None:
    found = build.libraries()
    framework, folder = assembly()
    listed = ", ".join(PLATFORMS[name].nuget for name, _ in found)
    long_name = {"netstandard2.0": ".NETStandard2.0", "net472": ".NETFramework4.7.2"}[framework]
    parts: list[tuple[str, Path | str]] = [
        ("Sealcast.nuspec", NUSPEC.format(version=VERSION, platforms=listed, framework=long_name)),
        ("README.md", CSHARP / "README.md"),
        ("LICENSE", ROOT / "LICENSE"),
        *((f"lib/{framework}/{name}", folder / name) for name in ("Sealcast.dll", "Sealcast.xml")),
        *((f"runtimes/{PLATFORMS[name].nuget}/native/{library.name}", library) for name, library in found),
    ]
    here = build.native / this_platform()
    if sys.platform == "linux" and here.exists():
        # HTTPS for Mono, with the system's libcurl and OpenSSL.
        run("make", "-C", CSHARP, "build/libsealcast-curl.so", f"SEALCAST_LIB_DIR={here}")
        curl = CSHARP / "build" / "libsealcast-curl.so"
        parts.append((f"runtimes/{PLATFORMS[here.name].nuget}/native/{curl.name}", curl))
    types = content_types([name for name, _ in parts])
    head: list[tuple[str, Path | str]] = [("[Content_Types].xml", types), ("_rels/.rels", RELATIONSHIPS)]
    write_zip(build.dist / f"Sealcast.{VERSION}.nupkg", [*head, *parts])


def c(build: Build) -> None:
    if sys.platform != "linux":
        raise SystemExit("package.py: sdk/c is packed on Linux alone; elsewhere: dist/native, sdk/c/include")
    if not build.built:
        run("cargo", "build", "--release", "--locked", "-p", "sealcast-capi")
    stem = f"sealcast-c-{VERSION}-{this_platform()}"
    with tempfile.TemporaryDirectory() as folder:
        run("make", "-C", ROOT / "sdk/c", "install", "PREFIX=", f"DESTDIR={folder}")
        files = [*tree(Path(folder)), ("LICENSE", ROOT / "LICENSE")]
        files += [(name, ROOT / "sdk/c" / name) for name in ("README.md", "CONVENTIONS.md")]
        with (
            (build.dist / f"{stem}.tar.gz").open("wb") as target,
            gzip.GzipFile("", "wb", fileobj=target, mtime=0) as compressed,
            tarfile.open(fileobj=compressed, mode="w") as archive,
        ):
            for name, source in files:
                member = archive.gettarinfo(str(source), f"{stem}/{name}")
                member.uid = member.gid = member.mtime = 0
                member.uname = member.gname = ""
                with Path(source).open("rb") as data:
                    archive.addfile(member, data)


def try_wheel(build: Build) -> None:
    """Install the wheel, and by their hashes what it needs, into an empty environment; start it elsewhere."""
    (made,) = build.dist.glob(f"sealcast-{VERSION}-*.whl")
    with tempfile.TemporaryDirectory() as name:
        elsewhere = Path(name)
        environment = build.environment or elsewhere / "environment"
        venv.create(environment, with_pip=True)
        programs = environment / ("Scripts" if sys.platform == "win32" else "bin")
        pip = [str(programs / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        requirements = ROOT / "requirements" / "runtime.txt"
        run(*pip, "--require-hashes", "-r", requirements, folder=elsewhere)
        run(*pip, "--no-index", "--no-deps", made, folder=elsewhere)
        run(programs / "sealcast", "--version", folder=elsewhere)


WHAT: dict[str, Callable[[Build], None]] = {
    "wheel": wheel,
    "sdist": sdist,
    "native": native,
    "java": java,
    "nuget": nuget,
    "c": c,
    "try-wheel": try_wheel,
}


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="+", choices=WHAT)
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="where packages go; default: dist")
    parser.add_argument("--environment", type=Path, help="folder of try-wheel's environment, which is kept")
    parser.add_argument("--built", action="store_true", help="do not start cargo for libsealcast")
    return parser


def main() -> int:
    given = arguments().parse_args()
    build = Build(given.dist.resolve(), given.built, given.environment)
    build.dist.mkdir(parents=True, exist_ok=True)
    for what in given.what:
        WHAT[what](build)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(f"package.py: {error}")
