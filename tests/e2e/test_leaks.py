"""H5: no secret is in a log, a database, an argument, a crash text or a packet; invariant 9."""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from sqlalchemy import select, text

from sealcast.authority.issuance import CA_KEY_FILE
from sealcast.authority.keystore import load_keys
from sealcast.authority.models import ChannelRow
from sealcast.authority.site import open_storage
from sealcast.authority.vault import KEY_FILE, Vault
from sealcast.ca import FileSigner, PassphraseSource
from tests.e2e.processes import Process, Processes
from tests.e2e.site import Channel, free_group, free_port

_ALL_PROTOCOLS = 0x0003


class Capture:
    """Every packet on loopback while the block lasts, as anybody with a tap sees it."""

    def __init__(self) -> None:
        self.bytes = bytearray()
        self._stop = threading.Event()
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        self._socket.bind(("lo", 0))
        self._socket.settimeout(0.1)
        self._thread = threading.Thread(target=self._record)

    def __enter__(self) -> Capture:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def _record(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                self.bytes += self._socket.recv(1 << 17)


class Known:
    """The secrets, by what they are."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def add(self, what: str, value: bytes) -> None:
        self.values[what] = value

    def in_text(self, where: bytes, *, without: tuple[str, ...] = ()) -> list[str]:
        """Which of them are there, in any of their usual forms."""
        return [
            what
            for what, value in self.values.items()
            if not what.startswith(without) and any(form in where for form in forms(value))
        ]


def forms(value: bytes) -> tuple[bytes, ...]:
    """A secret as it is, and as a careless line of a log would write it."""
    return (
        value,
        value.hex().encode(),
        value.hex().upper().encode(),
        base64.b64encode(value).rstrip(b"="),
        base64.urlsafe_b64encode(value).rstrip(b"="),
        repr(value)[2:-1].encode(),
    )


def scalar(signer: FileSigner) -> bytes:
    """The private number of a P-256 key."""
    key = load_pem_private_key(signer.to_pem(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key.private_numbers().private_value.to_bytes(32, "big")


@pytest.fixture
def capture() -> Iterator[Capture]:
    try:
        tap = Capture()
    except PermissionError:
        pytest.skip("needs CAP_NET_RAW to see packets")
    with tap:
        yield tap


class Estate:
    """A service and a signer of it, with passphrases, all at --debug; every process and its arguments."""

    def __init__(self, parent: Path, processes: Processes) -> None:
        self.folder, self.devices = parent / "authority", parent / "devices"
        self.started: list[Process] = []
        self.arguments: list[bytes] = []
        self.phrases = {name: secrets.token_hex(16) for name in ("ca", "root", "storage")}
        self._processes = processes

    def environment(self, *names: str) -> dict[str, str]:
        return {f"SEALCAST_{name.upper()}_PASSPHRASE": self.phrases[name] for name in names}

    def start(
        self, *words: str | Path, phrases: tuple[str, ...] = (), stdin: int = subprocess.DEVNULL
    ) -> Process:
        process = self._processes.start(
            "--debug", *words, environment=self.environment(*phrases), stdin=stdin
        )
        self.started.append(process)
        self.arguments.append(Path(f"/proc/{process.pid}/cmdline").read_bytes())
        return process

    def run(self, *words: str | Path, phrases: tuple[str, ...] = (), code: int = 0) -> str:
        ended = self.start(*words, phrases=phrases).wait()
        assert ended.code == code, ended.err
        return ended.out

    def enrol(self, name: str, token: str, listening: dict[str, str], code: int = 0) -> Path:
        process = self.start(
            "device", "enroll", self.devices / name, "--authority", listening["authority"],
            "--keys", listening["keys"], "--root", self.folder / "root.pem", "--name", name, "--token", "-",
            stdin=subprocess.PIPE,
        )  # fmt: skip
        process.write(token.encode() + b"\n")
        process.close_input()
        ended = process.wait()
        assert ended.code == code, ended.err
        return self.devices / name


@pytest.mark.installed
@pytest.mark.timeout(600)
def test_h5_no_secret_leaks(tmp_path: Path, processes: Processes, capture: Capture) -> None:
    """H5: an enrolment, a join, messages, a renewal and a removal; then all that can be seen is searched."""
    estate, known = Estate(tmp_path, processes), Known()
    estate.run("authority", "init", estate.folder, "--site", "Ward", phrases=("ca", "root", "storage"))
    signer = estate.start("authority", "serve", estate.folder, "--roles", "signer", phrases=("ca",))
    signer.wait_line("ready: signer")
    service = estate.start(
        "authority", "serve", estate.folder, "--roles", "est,keys,directory", "--listen", "127.0.0.1:0",
        "--json", phrases=("storage",),
    )  # fmt: skip
    listening = json.loads(service.wait_line("authority"))
    channel = Channel("ward/ecg", free_group(), free_port())
    estate.run(
        "authority", "channel", "add", estate.folder, channel.name, "--group", channel.group, "--port",
        str(channel.port), "--publish", "monitor", "--subscribe", "display-*",
    )  # fmt: skip

    tokens = {
        name: estate.run("authority", "token", estate.folder, "--device", name).strip()
        for name in ("monitor", "display-1", "display-2", "late")
    }
    monitor, display, other = (
        estate.enrol(name, tokens[name], listening) for name in ("monitor", "display-1", "display-2")
    )
    add_slots(estate, known, "before")
    message = f"pulse {secrets.token_hex(16)}"
    add_device_keys(known, monitor, display, other)
    subscriber = estate.start("subscribe", display, channel.name)
    subscriber.wait_line("joined channel", errors=True)
    publisher = estate.start("publish", monitor, channel.name, stdin=subprocess.PIPE)
    publisher.write(f"{message}\n".encode())
    subscriber.wait_line(message)
    estate.run("device", "renew", monitor)
    add_device_keys(known, monitor)
    estate.run("authority", "device", "revoke", estate.folder, "display-2")
    add_slots(estate, known, "after")
    publisher.write(f"{message} again\n".encode())
    subscriber.wait_line(f"{message} again")

    # A crash text: the database refuses to store, in the middle of an enrolment.
    with open_storage(estate.folder).transaction() as session:
        session.execute(
            text("CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no room'); END")
        )
    ended = estate.start(
        "device", "enroll", estate.devices / "late", "--authority", listening["authority"], "--root",
        estate.folder / "root.pem", "--name", "late", "--token", "-", stdin=subprocess.PIPE,
    )  # fmt: skip
    ended.write(tokens["late"].encode() + b"\n")
    ended.close_input()
    assert ended.wait().code != 0
    service.wait_line("Traceback", errors=True)
    # And a wrong passphrase, which ends a start.
    bad = {"SEALCAST_CA_PASSPHRASE": secrets.token_hex(16)}
    known.add("wrong passphrase", bad["SEALCAST_CA_PASSPHRASE"].encode())
    refused = processes.start(
        "--debug", "authority", "key", "passwd", estate.folder, "--key", "ca", "--remove", environment=bad
    )
    estate.started.append(refused)
    assert refused.wait().code == 5

    for what, value in estate.phrases.items():
        known.add(f"passphrase {what}", value.encode())
    for name, token in tokens.items():
        known.add(f"token {name}", token.encode())
    add_ca_keys(estate, known)
    known.add("message", message.encode())
    assert len(known.values) > 15

    for process in (service, signer):
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert "Max core file size        0 " in limits, "a core would hold all of it"
    publisher.close_input()
    assert publisher.wait().code == 0
    subscriber.stop()
    live = [process for process in (service, signer) if process.is_running]
    stored = contents(estate.folder)
    for process in live:
        process.stop()

    assert b"display-1" in stored, "this is not the database"
    assert known.in_text(stored) == []
    assert known.in_text(contents(estate.folder)) == []
    assert not list(tmp_path.rglob("core*"))
    arguments = b"\x00".join(estate.arguments)
    assert b"--roles" in arguments
    assert known.in_text(arguments) == []
    for process in estate.started:
        # Two commands are there to say such a thing on their standard output, and say it nowhere else.
        shows = {"token": "token ", "subscribe": "message"}
        meant = tuple(what for word, what in shows.items() if word in process.words)
        out, err = "".join(process.out).encode(), "".join(process.err).encode()
        assert known.in_text(err) == [], process.words
        assert known.in_text(out, without=meant) == [], process.words
        assert bool(known.in_text(out)) is bool(meant), "the search finds what is there"
    assert len(capture.bytes) > 100_000
    assert socket.inet_aton(channel.group) in capture.bytes, "the channel's packets are not there"
    assert known.in_text(bytes(capture.bytes)) == []


def add_slots(estate: Estate, known: Known, when: str) -> None:
    """The secrets that the key server has now, opened as it does."""
    source = PassphraseSource(environment=estate.environment("storage"), prompt=None)
    vault = Vault.load(estate.folder / KEY_FILE, source)
    with open_storage(estate.folder).snapshot() as session:
        keys = load_keys(session, session.scalars(select(ChannelRow)).one(), vault)
    known.add(f"generation {when}", keys.generation.secret.reveal())
    for number, secret in keys.slots.secrets.items():
        known.add(f"slot {number}", secret.reveal())


def add_device_keys(known: Known, *devices: Path) -> None:
    for folder in devices:
        for path in sorted((folder / "credentials").rglob("key.pem")):
            known.add(f"device key {path.relative_to(folder.parent)}", scalar(FileSigner.open(path)))


def add_ca_keys(estate: Estate, known: Known) -> None:
    source = PassphraseSource(environment=estate.environment("ca", "root"), prompt=None)
    for name, file in (("ca", CA_KEY_FILE), ("root", "root.key")):
        signer = FileSigner.open(estate.folder / file, name=name, passphrases=source)
        known.add(f"{name} key", scalar(signer))
        known.add(f"{name} key, PEM", signer.to_pem().splitlines()[1])


def contents(folder: Path) -> bytes:
    """Everything in the folder: database, ledger, their logs, and the keys, which are encrypted."""
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file())
