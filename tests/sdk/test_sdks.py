"""What the SDKs say of faults, and what they bring beside their libraries."""

from __future__ import annotations

import re
import signal
import socket
import struct
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.processes import Process
from tests.sdk.conftest import Stage
from tests.sdk.languages import LANGUAGES, SDK, library, make

UNPLUGGED = "the token is unplugged"
"""What the keys of the programs below say when they are to sign."""
CUT = "(Empty reply from server|.*received no bytes|.*reset)"
"""The connection of who is not admitted ends after the handshake, without a word."""
NEGATIVE = [
    "mtu is -1",
    "maxBlock is -2",
    "ttl is -3",
    "dscp is -4",
    "retain is -5",
    "sources is -6",
    "parities is -7",
]
NOBODY = r"nobody answers at https://127.0.0.1:\d+, or was not believed: "


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_join_waits_for_a_key_server_that_comes_back(stage: Stage, language: str) -> None:
    """The first request fails at once, and the join has 20 seconds."""
    device, channel = stage.device(), stage.channel()
    address = urlsplit(stage.site.keys_url)
    stage.site.stop(signal.SIGKILL)
    try:
        with socket.create_server((address.hostname or "", address.port or 0)) as door:
            door.settimeout(30)
            peer = stage.start(language, "subscribe", device, channel)
            first, _ = door.accept()
            first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            first.close()
    finally:
        stage.site.serve()
    peer.wait_line("^joined")


@pytest.mark.parametrize("language", ["python", *LANGUAGES])
def test_a_key_of_another_certificate_is_told_at_opening(stage: Stage, language: str) -> None:
    device, other = stage.device(), stage.device()
    (key,), (others,) = (folder.glob("credentials/*/key.pem") for folder in (device, other))
    key.write_bytes(others.read_bytes())
    peer = stage.start(language, "subscribe", device, stage.channel())
    status = "key" if language == "python" else "signing"
    told = peer.wait_line(rf"^error {status} .*key\.pem: is not the key of the certificate beside it")
    assert str(key) in told.replace("\\", "/"), "with either system's separators"
    assert peer.wait().code == 5


@pytest.mark.parametrize("role", ["subscribe", "publish"])
@pytest.mark.parametrize("language", ["python", *LANGUAGES])
def test_a_join_ends_where_the_key_server_is_not_believed(stage: Stage, language: str, role: str) -> None:
    """At once: it is another one's, and waiting makes it no other. The join has 20 seconds."""
    peer = stage.start(language, role, stage.misled(), stage.channel())
    url = re.escape(stage.other.keys_url)
    status = "tls" if language == "python" else "certificate"
    peer.wait_line(f"^error {status} {url}: the peer's certificate is refused: ", seconds=10)
    assert peer.wait().code == 5


def failures(language: str, stage: Stage) -> str:
    """What the SDK's program says that fails in several ways."""
    sdk = LANGUAGES[language]
    sdk.command()
    make(sdk.folder, "build/failures")
    words = [str(stage.device()), stage.channel().name, str(stage.stranger())]
    done = run(str(sdk.folder / "build/failures"), *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        (
            "java",
            [
                *(f"^negative: invalid-argument: {value}: it cannot be negative$" for value in NEGATIVE),
                f"^nobody listens: unreachable: {NOBODY}127.0.0.1:1: nobody takes connections there$",
                f"^not admitted: unreachable: {NOBODY}{CUT}",
                f"^nobody signs: unreachable: {NOBODY}127.0.0.1:.*{UNPLUGGED}",
                f"^nobody signs: of java.io.IOException: {UNPLUGGED}$",
                f"^another key signs: unreachable: {NOBODY}.*the signer gave no signature by the key ",
            ],
        ),
        (
            "csharp",
            [
                f"^nobody listens: unreachable: SealcastException: {NOBODY}127.0.0.1:1: Connection refused$",
                '^no such port: invalid-argument: SealcastException: no key server at "https://127.0.0.1:99999"',
                "^answered before: nothing fails$",
                "^as many as there are: nothing fails$",
                f"^no TLS 1.3: unreachable: SealcastException: {NOBODY}127.0.0.1:\\d+: Authentication failed",
                f"^nobody listens to libcurl: unreachable: SealcastException: {NOBODY}.* 127.0.0.1 port 1 ",
                f"^not admitted: unreachable: SealcastException: {NOBODY}{CUT}",
                f"^no SSL_CTX: unreachable: SealcastException: {NOBODY}.*: {UNPLUGGED}$",
                f"^no SSL_CTX: of IOException: {UNPLUGGED}$",
                f"^nobody signs: signing: SealcastException: the device key did not sign: {UNPLUGGED}$",
                f"^nobody signs: of IOException: {UNPLUGGED}$",
                "^another key signs: signing: SealcastException: .* gave no signature by the key ",
                "^no identity: ArgumentNullException: .*identity",
                "^no options: ArgumentNullException: .*options",
            ],
        ),
    ],
    ids=["java", "csharp"],
)
def test_a_failure_says_what_it_comes_of(stage: Stage, language: str, expected: list[str]) -> None:
    """The network's word, and what a key that is elsewhere has thrown."""
    out = failures(language, stage)
    assert [pattern for pattern in expected if not re.search(pattern, out, re.MULTILINE)] == [], out


@pytest.mark.needs_program("jcmd")
def test_java_keeps_no_text_of_the_key(stage: Stage, tmp_path: Path) -> None:
    """Neither what is in use nor what waits for the garbage collector."""
    device = stage.device()
    (key,) = device.glob("credentials/*/key.pem")
    body = key.read_bytes().splitlines()[1]
    peer = stage.peer("java", "subscribe", device, stage.channel())
    dump = tmp_path / "heap"
    assert run("jcmd", str(peer.pid), "GC.heap_dump", "-all", str(dump)).returncode == 0
    heap = dump.read_bytes()
    assert b"BEGIN PRIVATE KEY" in heap
    assert body[-16:] not in heap


LIBRARIES = ["c", "cpp", "java", "csharp"]
in_each = pytest.mark.parametrize("language", LIBRARIES)


def java(program: str, *places: Path) -> list[str]:
    """How a class of Java is called that uses the package."""
    build = SDK / "java/build"
    path = ":".join(str(place) for place in (build / "sealcast.jar", *build.glob("lib/jna-*.jar"), *places))
    return ["env", f"SEALCAST_LIBRARY={library()}", "java", "-cp", path, program]


def example(language: str, name: str) -> list[str]:
    """Build the examples of an SDK, and return how one is called."""
    sdk = LANGUAGES[language]
    sdk.command()
    make(sdk.folder, "examples")
    build = sdk.folder / "build"
    return java(name.capitalize(), build / "examples") if language == "java" else [str(build / name)]


def assert_tells(words: list[str], usage: str, *arguments: str) -> None:
    """Called without arguments it says how it is called, and with a folder without a device what fails."""
    called = run(*words)
    assert (called.returncode, called.stdout) == (2, "")
    assert re.fullmatch(rf"usage: \S+ {usage}\n", called.stderr)
    failed = run(*words, *arguments)
    assert (failed.returncode, failed.stdout) == (4, "")
    assert "no-device: " in failed.stderr


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


@in_each
@pytest.mark.parametrize("name", ["subscribe", "publish"])
def test_an_example_says_what_is_wrong(language: str, name: str, tmp_path: Path) -> None:
    usage = r"FOLDER CHANNEL \[INTERFACE\]"
    assert_tells(example(language, name), usage, str(tmp_path), "ward/ecg")


@in_each
def test_an_example_says_farewell_when_it_is_interrupted(stage: Stage, language: str) -> None:
    """Without a terminal, where its input goes on."""
    channel, sender = stage.channel(), stage.device()
    staying = stage.peer("python", "subscribe", stage.device(), channel)
    hearing = start(stage, [*example(language, "subscribe"), str(stage.device()), channel.name])
    hearing.wait_line("^joined channel", errors=True)
    speaking = start(stage, [*example(language, "publish"), str(sender), channel.name])
    speaking.wait_line("^publishing on channel", errors=True)
    speaking.write(b"last words\n")
    hearing.wait_line(f"^{sender.name}: last words$")
    for process in (speaking, hearing):
        process.send_signal(signal.SIGINT)
        assert process.wait().code == 130
    staying.wait_line(f"^event stream-ended .* {sender.name}$")


@pytest.mark.parametrize("language", ["cpp", "java", "csharp"])
def test_an_example_that_nobody_answers_ends_in_failure(stage: Stage, language: str) -> None:
    """After its time with the exit code of the network, and at once where it is interrupted."""
    device = stage.device()
    words = [[*example(language, name), str(device), "ward/ecg"] for name in ("subscribe", "publish")]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        settings = device / "credentials/1/device.toml"
        port = silent.getsockname()[1]
        settings.write_text(settings.read_text().replace(stage.site.keys_url, f"https://127.0.0.1:{port}"))
        for called in words:
            joining = start(stage, called)
            silent.accept()[0].close()
            # When it asks again it waits for the join.
            with silent.accept()[0]:
                joining.send_signal(signal.SIGINT)
                ended = joining.wait(5)
            assert (ended.code in {130, -signal.SIGINT}, ended.out, ended.err) == (True, "", "")
        for process in [start(stage, called) for called in words]:
            ended = process.wait()
            assert (ended.code, ended.out) == (7, ""), ended.err


PROGRAM = """
#include <iostream>
#include <sealcast_https.hpp>
int main() { std::cout << sealcast::Identity::open("nowhere").why().name(); }
"""


@pytest.mark.needs_program("c++", "pkg-config")
def test_what_is_installed_serves_cpp(tmp_path: Path) -> None:
    make(SDK / "c", "build/sealcast_curl.o")
    prefix, program = tmp_path / "usr", tmp_path / "program.cpp"
    installed = run("make", "-C", str(SDK / "c"), "install", f"PREFIX={prefix}")
    assert installed.returncode == 0, installed.stderr
    program.write_text(PROGRAM)
    search = f"PKG_CONFIG_PATH={prefix / 'lib/pkgconfig'}"
    flags = run("env", search, "pkg-config", "--cflags", "--libs", "sealcast-curl").stdout.split()
    made = tmp_path / "program"
    built = run("c++", "-std=c++17", str(program), *flags, f"-Wl,-rpath,{prefix}/lib", "-o", str(made))
    assert built.returncode == 0, built.stderr
    assert run(str(made)).stdout == "no-device"


@pytest.mark.needs_program("c++")
def test_threads_of_cpp_end_with_their_https(stage: Stage) -> None:
    assert_passes(stage, "threads")


@pytest.mark.needs_program("c++")
def test_values_of_cpp_stay_whole(stage: Stage) -> None:
    """Where they move, and where C would cut them."""
    assert_passes(stage, "values")


def assert_passes(stage: Stage, name: str) -> None:
    """A test program of C++."""
    make(SDK / "cpp", f"build/{name}")
    done = run(str(SDK / "cpp/build" / name), str(stage.device()), stage.channel().name)
    assert done.returncode == 0, done.stdout


def test_the_headers_of_cpp_stand_alone() -> None:
    """With exceptions and without."""
    make(SDK / "cpp", "check")


@pytest.mark.soak  # Its compiler is 70 MB.
@pytest.mark.needs_program("javac", "mvn")
def test_kotlin_takes_the_package_of_java(tmp_path: Path) -> None:
    build = SDK / "java/build"
    make(SDK / "java", "kotlin")
    words = java("SubscribeKt", *build.glob("kotlin-lib/kotlin-stdlib-*.jar"), build / "kotlin")
    assert_tells(words, "FOLDER CHANNEL SECONDS", str(tmp_path), "ward/ecg", "1")


@pytest.mark.soak
@pytest.mark.needs_program("javac", "mvn")
def test_the_documentation_of_java_is_whole() -> None:
    make(SDK / "java", "doc")


@pytest.mark.soak
@pytest.mark.needs_program("doxygen")
@pytest.mark.parametrize("language", ["c", "cpp", "csharp"])
def test_the_documentation_is_whole(language: str) -> None:
    make(SDK / language, "doc")


def start(stage: Stage, words: list[str]) -> Process:
    return stage.processes.started(Process(words, stdin=subprocess.PIPE))
