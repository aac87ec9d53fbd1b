"""The C interface: its header, wrong calls, leaks, and what is installed."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sealcast.device import DeviceIdentity
from tests.e2e.processes import Process, wait_until
from tests.e2e.site import command
from tests.sdk.conftest import Stage
from tests.sdk.languages import SANITIZED, SDK, library, make

C = SDK / "c"
STRICT = ["-Wall", "-Wextra", "-pedantic", "-Werror"]
PROGRAM = (
    '#include "sealcast_curl.h"\nint main(void) { return sealcast_abi_version() != SEALCAST_ABI_VERSION; }\n'
)
OPENINGS = 100_000
JOINS = int(os.environ.get("SEALCAST_JOINS", "10"))
"""Of a subscriber and a publisher; of 100 and more memory has to stay as it is, too."""
SEEDS = int(os.environ.get("SEALCAST_CALLS", "3"))
"""Of random calls, 50,000 each; a third as many of those of threads."""
RACES = ("BUILD=build/threads", "CFLAGS=-O1 -g -fsanitize=thread")
"""Of the Makefile of C: under ThreadSanitizer."""


def run(*words: str | Path, folder: Path | None = None, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("dialect", ["c99", "c11", "c17", "c++17", "c++20"])
def test_the_headers_compile_in_every_dialect(dialect: str, tmp_path: Path) -> None:
    compiler, ending = ("c++", "cpp") if "+" in dialect else ("cc", "c")
    source = tmp_path / f"program.{ending}"
    source.write_text(PROGRAM)
    run(compiler, f"-std={dialect}", *STRICT, "-I", C / "include", "-c", source, "-o", tmp_path / "program.o")


def test_https_compiles_with_the_least_libcurl(tmp_path: Path) -> None:
    """With the header of today as of 7.81: without the name that is newer."""
    header = tmp_path / "older.h"
    header.write_text(
        "#include <curl/curl.h>\n#undef LIBCURL_VERSION_NUM\n#define LIBCURL_VERSION_NUM 0x075100\n"
        "#pragma GCC poison CURLOPT_PROTOCOLS_STR\n"
    )
    words = ["-std=c11", "-D_POSIX_C_SOURCE=200809L", *STRICT, "-Wno-deprecated-declarations"]
    run("cc", *words, "-include", header, "-I", C / "include", "-fsyntax-only", C / "src/sealcast_curl.c")


def test_the_subscriber_of_the_readme(stage: Stage, tmp_path: Path) -> None:
    """As it stands there: what it does with a message of a MiB, too."""
    (source,) = re.findall(r"```c\n(.*?)```", (C / "README.md").read_text(), re.DOTALL)
    (tmp_path / "program.c").write_text(source)
    make(C, "examples")  # as the README has it: what it is linked with, and the library by its SONAME
    own = [tmp_path / "program.c", C / "build/sealcast_curl.o"]
    place = library().parent
    libraries: list[str | Path] = [
        "-L",
        place,
        f"-Wl,-rpath,{place}",
        "-lsealcast",
        "-lcurl",
        "-lssl",
        "-lcrypto",
    ]
    run("cc", "-std=c99", *STRICT, "-I", C / "include", *own, *libraries, "-o", tmp_path / "program")
    (tmp_path / "station").symlink_to(stage.device())
    channel, sender = stage.site.add_channel("ward/ecg", "--rate", "200Mbit/s"), stage.device()
    words = ["env", f"--chdir={tmp_path}", str(tmp_path / "program")]
    hearing = stage.processes.started(Process(words))
    speaking = stage.peer("python", "publish", sender, channel)

    def is_heard() -> bool:
        assert hearing.is_running, f"ended: {hearing}"
        speaking.write(b"send - beat\n")
        return bool(hearing.out)

    wait_until(is_heard, "a beat")
    text = "x" * (1 << 20)
    speaking.write(f"send - {text}\n".encode())
    assert hearing.wait_line("x$") == f"{sender.name}: {text}\n"


def test_the_library_shows_its_own_names_alone() -> None:
    names = [line.split() for line in run("nm", "-D", "--defined-only", library()).splitlines()]
    assert {words[2].partition("@")[0] for words in names} >= {"sealcast_version", "sealcast_subscriber_new"}
    assert [words[2] for words in names if not words[2].startswith("sealcast_")] == []


@pytest.mark.timeout(240)
def test_wrong_calls_give_a_status_and_nothing_leaks(stage: Stage) -> None:
    """Freed handles, NULL, sizes, threads, callbacks; and as many openings as a day of a busy host has."""
    make(C, "build/misuse")
    out = run(C / "build/misuse", stage.device(), str(OPENINGS))
    assert out.startswith(f"{OPENINGS} openings, ")
    assert out.endswith("\n0 failures\n")


def test_https_wrong_calls_refusals_and_joins(stage: Stage) -> None:
    """No file and no thread is left of what has joined."""
    folder, *options = ("build",) if JOINS >= 100 else ("build/sanitized", *SANITIZED)
    make(C, *options, f"{folder}/https")
    channel, device = stage.channel(), stage.device()
    out = run(C / folder / "https", device, channel.name, str(JOINS), stage.stranger(), stage.site.url)
    assert out.endswith("\n0 failures\n")


def test_the_engine_alone_on_a_host_with_clock_and_datagrams(stage: Stage) -> None:
    """No socket and no thread of the library; every third datagram is lost."""
    make(C, *SANITIZED, "build/sanitized/host")
    channel = stage.channel()
    out = run(C / "build/sanitized/host", stage.device(), stage.device(), channel.name, "30")
    assert out.startswith("30 messages")
    assert out.endswith("\n0 failures\n")


def test_wrong_calls_under_the_address_sanitizer(stage: Stage) -> None:
    make(C, *SANITIZED, "build/sanitized/misuse")
    assert run(C / "build/sanitized/misuse", stage.device(), "20").endswith("\n0 failures\n")


@pytest.mark.parametrize("seed", range(SEEDS))
def test_calls_at_random_under_the_address_sanitizer(stage: Stage, seed: int) -> None:
    make(C, *SANITIZED, "build/sanitized/random_calls")
    out = run(C / "build/sanitized/random_calls", stage.device(), str(seed), "50000")
    assert {"ok", "timeout", "invalid-handle", "wrong-size"} <= set(out.split())


@pytest.mark.parametrize("seed", range(SEEDS // 3))
def test_calls_at_random_of_threads_on_what_has_joined(stage: Stage, seed: int) -> None:
    """Every other seed is looked at for races, of what C does alone. Both devices are renewed meanwhile."""
    sanitized = (SANITIZED, RACES)[seed % 2]
    program = f"{sanitized[0].removeprefix('BUILD=')}/random_calls"
    make(C, *sanitized, program)
    channel, sender, receiver = stage.channel(), stage.device(), stage.device()
    stage.repair_node(channel)
    words = [str(C / program), str(sender), str(seed), "3000", str(receiver), channel.name]
    process = Process(words, environment={"TSAN_OPTIONS": "ignore_noninstrumented_modules=1"})
    stage.processes.started(process).wait_line("^joined")
    for device in (sender, receiver):
        command("device", "renew", device)
    finished = process.wait()
    assert finished.code == 0, finished.err
    assert "panicked" not in finished.err
    assert {"ok", "closed", "in-use", "unknown-request"} <= set(finished.out.split())


@pytest.mark.needs_program("valgrind")
def test_wrong_calls_under_valgrind(stage: Stage, installed: Path, tmp_path: Path) -> None:
    """Against the library as it is installed: without names it is loaded twice as fast."""
    program = tmp_path / "misuse"
    flags: list[str | Path] = [
        "-I",
        installed / "include",
        "-L",
        installed / "lib",
        f"-Wl,-rpath,{installed}/lib",
    ]
    source = C / "tests/misuse.c"
    run("cc", "-g", "-D_POSIX_C_SOURCE=200809L", source, *flags, "-lsealcast", "-lpthread", "-o", program)
    words = ["valgrind", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite", "-q"]
    run(*words, program, stage.device(), "2")


@pytest.mark.parametrize("role", ["publish", "subscribe"])
def test_a_stream_under_the_address_sanitizer(stage: Stage, role: str) -> None:
    make(C, *SANITIZED, "build/sanitized/peer")
    peer = str(C / "build/sanitized/peer")
    channel, sender, receiver = stage.channel(), stage.device(), stage.device()

    def start(which: str, device: Path) -> Process:
        if which != role:
            return stage.peer("python", which, device, channel)
        process = Process([peer, which, str(device), channel.name], stdin=subprocess.PIPE)
        stage.processes.started(process).wait_line("^joined")
        return process

    hearing, speaking = start("subscribe", receiver), start("publish", sender)
    speaking.write(b"".join(b"send - %d\n" % number for number in range(2000)))
    hearing.wait_line(r"^message \S+ - 1999$")
    speaking.write(b"finish\n")
    speaking.wait_line("^finished")
    hearing.write(b"leave\n")
    speaking.close_input()
    for process in (hearing, speaking):
        finished = process.wait()
        assert finished.code == 0, finished.err


def example(stage: Stage, name: str, device: Path, channel: str) -> Process:
    make(C, "examples")
    words = [str(C / "build" / name), str(device), channel]
    return stage.processes.started(Process(words, stdin=subprocess.PIPE))


def test_an_example_does_not_wait_for_ever_to_join(stage: Stage) -> None:
    """Where the key server takes connections and says nothing: ten seconds, or until it is interrupted."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute.settimeout(30)
        device = stage.device()
        settings = device / "credentials/1/device.toml"
        url = f"https://127.0.0.1:{mute.getsockname()[1]}"
        settings.write_text(settings.read_text().replace(stage.site.keys_url, url))
        for name in ("subscribe", "publish"):
            hasty = example(stage, name, device, "ward/ecg")
            with mute.accept()[0]:
                assert hasty.stop(seconds=5).code == 130
        for patient in [example(stage, name, device, "ward/ecg") for name in ("subscribe", "publish")]:
            finished = patient.wait()
            assert finished.code == 7
            assert "unreachable: nobody answers" in finished.err


def test_an_example_sends_a_line_whole_or_says_so(stage: Stage) -> None:
    channel, sender = stage.channel("--rate", "200Mbit/s"), stage.device()
    hearing = example(stage, "subscribe", stage.device(), channel.name)
    hearing.wait_line("^joined", errors=True)
    speaking = example(stage, "publish", sender, channel.name)
    lines = [b"short", b"x" * (1 << 20), b"", b"the last"]
    speaking.write(b"\n".join([*lines, b"y" * ((16 << 20) + 1), b"never"]))
    speaking.close_input()
    finished = speaking.wait()
    assert finished.code == 2
    assert "line 5 is not sent" in finished.err
    assert "too-long: the message is longer than 16777216 bytes" in finished.err
    hearing.wait_line(f"^{sender.name}: the last$")
    assert hearing.out == [f"{sender.name}: {line.decode()}\n" for line in lines]
    assert hearing.stop(signal.SIGTERM).code == 130


def assert_signs(stage: Stage, uris: Callable[[Path], str]) -> None:
    """Keys are taken out of the folders of two devices, which go on by what `uris` tells of each."""
    make(C, "build/peer")
    channel, sender, receiver = stage.channel(), stage.device(), stage.device()
    kept = {device: uris(*device.glob("credentials/*/key.pem")) for device in (sender, receiver)}

    def start(role: str, device: Path, *options: str) -> Process:
        words = [str(C / "build/peer"), role, str(device), channel.name, *options]
        return stage.processes.started(Process(words, stdin=subprocess.PIPE))

    assert "there is no key" in start("subscribe", receiver).wait_line("^error signing ")
    hearing = start("subscribe", receiver, "--key", kept[receiver])
    hearing.wait_line("^joined")
    speaking = start("publish", sender, "--key", kept[sender])
    speaking.wait_line("^joined")
    speaking.write(b"send - signed elsewhere\n")
    hearing.wait_line("^message .* signed elsewhere$")


def test_the_device_key_may_lie_elsewhere(stage: Stage, tmp_path: Path) -> None:
    """Held by OpenSSL, which finds it by a URI: it signs for TLS and for the stream."""

    def uri(key: Path) -> str:
        return f"file:{key.rename(tmp_path / f'{key.parents[2].name}.pem')}"

    assert_signs(stage, uri)


def test_a_key_that_does_not_sign_is_left_alone(stage: Stage) -> None:
    """A token may count its failures. Whoever publishes is told, and what was signed goes on."""
    make(C, *SANITIZED, "build/sanitized/signing")
    device = stage.device()
    process = Process([str(C / "build/sanitized/signing"), str(device), stage.channel().name])
    stage.processes.started(process).wait_line("^renew$")
    command("device", "renew", device)
    process.wait_line("^0 failures$")


def test_a_key_elsewhere_is_shown_with_the_present_certificate(stage: Stage) -> None:
    """That of a renewal, too."""
    make(C, *SANITIZED, "build/sanitized/openssl_key")
    device = stage.device()
    words = [str(C / "build/sanitized/openssl_key"), str(device)]
    program = stage.processes.started(Process(words, stdin=subprocess.PIPE))
    shown = []
    for count in (1, 2):
        present = DeviceIdentity.open(device)
        program.write(f"file:{present.key_file}\n".encode())
        assert int(program.wait_lines(count)[-1], 0) == present.serial
        shown.append(present.serial)
        command("device", "renew", device)
    assert shown[0] != shown[1]
    program.close_input()
    finished = program.wait()
    assert finished.code == 0, finished.err


@pytest.mark.needs_program("softhsm2-util")
def test_the_device_key_may_lie_in_a_token(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of PKCS#11, from which nobody can read it."""
    settings = tmp_path / "softhsm2.conf"
    settings.write_text(f"directories.tokendir = {tmp_path}\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(settings))
    monkeypatch.setenv("PKCS11_MODULE_PATH", "/usr/lib/softhsm/libsofthsm2.so")
    monkeypatch.setenv("OPENSSL_CONF", os.devnull)
    run("softhsm2-util", "--init-token", "--free", "--label", "ward", "--pin", "1234", "--so-pin", "5678")

    def uri(key: Path) -> str:
        device = key.parents[2].name
        names = ["--token", "ward", "--label", device, "--id", device.encode().hex()]
        run("softhsm2-util", "--import", key, *names, "--pin", "1234")
        key.unlink()
        return f"pkcs11:token=ward;object={device};type=private?pin-value=1234"

    assert_signs(stage, uri)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prefix that the library was installed below."""
    library()
    make(C, "build/sealcast_curl.o")
    prefix = tmp_path_factory.mktemp("prefix") / "usr"
    run("make", "install", f"PREFIX={prefix}", folder=C)
    return prefix


def dynamic(file: Path) -> set[tuple[str, str]]:
    """What a library is called, and what a program needs: (SONAME, name), (NEEDED, name)."""
    found = re.findall(r"\((SONAME|NEEDED)\).*\[(.*)\]", run("readelf", "--dynamic", file))
    return {(kind, name) for kind, name in found if kind == "SONAME" or "sealcast" in name}


def test_a_program_finds_the_interface_that_it_was_made_for(installed: Path) -> None:
    """The library's SONAME has the interface's number, and is the name of the file that is installed."""
    header = (C / "include/sealcast.h").read_text()
    (version,) = re.findall(r"#define SEALCAST_ABI_VERSION (\d+)", header)
    soname = f"libsealcast.so.{version}"
    real, link = installed / "lib" / soname, installed / "lib/libsealcast.so"
    assert not real.is_symlink()
    assert link.readlink() == Path(soname)
    assert dynamic(library()) == dynamic(real) == {("SONAME", soname)}
    make(C, "build/host")
    assert dynamic(C / "build/host") == {("NEEDED", soname)}


@pytest.mark.needs_program("pkg-config")
def test_what_is_installed_is_found_by_pkg_config(installed: Path, tmp_path: Path) -> None:
    source = tmp_path / "program.c"
    source.write_text(PROGRAM)
    search = {"PKG_CONFIG_PATH": str(installed / "lib/pkgconfig"), "PATH": "/usr/bin:/bin"}
    flags = run("pkg-config", "--cflags", "--libs", "sealcast-curl", environment=search).split()
    run("cc", *STRICT, source, *flags, f"-Wl,-rpath,{installed}/lib", "-o", tmp_path / "shared")
    run(tmp_path / "shared")
    static = run("pkg-config", "--static", "--libs-only-l", "sealcast", environment=search).split()
    parts: list[str | Path] = [
        installed / "lib/libsealcast.a",
        *(flag for flag in static if flag != "-lsealcast"),
    ]
    run("cc", *STRICT, "-I", installed / "include", source, *parts, "-o", tmp_path / "static")
    run(tmp_path / "static")


@pytest.mark.needs_program("cmake")
def test_what_is_installed_is_found_by_cmake(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "program.c").write_text(PROGRAM)
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(host C)\nfind_package(sealcast 0.1 REQUIRED)\n"
        "add_executable(host program.c)\ntarget_link_libraries(host sealcast::curl)\n"
    )
    run("cmake", "-S", tmp_path, "-B", tmp_path / "cmake", f"-DCMAKE_PREFIX_PATH={installed}")
    run("cmake", "--build", tmp_path / "cmake")
    run(tmp_path / "cmake/host")


@pytest.mark.needs_program("cmake", "c++")
def test_the_sources_of_cpp_are_taken_by_cmake(tmp_path: Path) -> None:
    """With a library as cargo leaves it: without the file of its SONAME."""
    target = tmp_path / "release"
    target.mkdir()
    (target / library().name).symlink_to(library())
    (tmp_path / "program.cpp").write_text(PROGRAM)
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(host C CXX)\n"
        f"add_subdirectory({SDK}/cpp cpp)\n"
        "add_executable(host program.cpp)\ntarget_link_libraries(host sealcast::https)\n"
    )
    run("cmake", "-S", tmp_path, "-B", tmp_path / "cmake", f"-DSEALCAST_LIB_DIR={target}")
    run("cmake", "--build", tmp_path / "cmake")
    run(tmp_path / "cmake/host")
