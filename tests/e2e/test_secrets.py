"""Where a site's secrets are while it works: in their own files, and nowhere else."""

from __future__ import annotations

import base64
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from sealcast.authority.keystore import load_keys
from sealcast.authority.models import ChannelRow
from sealcast.authority.site import Site as StoredSite
from tests.e2e.datagrams import Recording
from tests.e2e.feed import Feed
from tests.e2e.processes import Process, Processes
from tests.e2e.site import Site


def spellings(secret: bytes) -> Iterator[bytes]:
    """The ways in which a secret could stand in a file or a line."""
    yield secret
    yield secret.hex().encode()
    yield repr(secret).encode()[2:-1]
    yield base64.b64encode(secret)[:-4]
    yield base64.urlsafe_b64encode(secret)[:-4]


def private_key(file: Path) -> list[bytes]:
    """What of a private key in PEM must not be seen: the number itself, and the lines of the file."""
    [pem] = re.findall(
        rb"-----BEGIN PRIVATE KEY-----\n.*?-----END PRIVATE KEY-----", file.read_bytes(), re.DOTALL
    )
    key = load_pem_private_key(pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    scalar = key.private_numbers().private_value.to_bytes(32, "big")
    return [*spellings(scalar), *pem.splitlines()[1:-1]]


def group_secrets(authority: Path) -> list[bytes]:
    """What the key server holds just now: the secrets of slots and of the generation."""
    site = StoredSite.open(authority)
    with site.storage.snapshot() as session:
        keys = [load_keys(session, row, site.vault) for row in session.query(ChannelRow)]
    held = [secret for one in keys for secret in (one.generation.secret, *one.slots.secrets.values())]
    return [spelling for secret in held for spelling in spellings(secret.reveal())]


def files_below(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def started(processes: Processes, *words: str | Path, stdin: int = subprocess.DEVNULL) -> Process:
    """A command that says as much as it can."""
    return processes.start("--debug", *words, stdin=stdin)


@pytest.mark.installed
def test_invariant_9_secrets_are_in_their_files_and_nowhere_else(site: Site, processes: Processes) -> None:
    site.stop()
    places = ("--listen", site.url.removeprefix("https://"), "--keys", site.keys_url.removeprefix("https://"))
    authority = started(processes, "authority", "serve", site.folder, *places)
    authority.wait_line("ready")
    channel = site.add_channel("icu3/vitals", "--slot", "2s", "--slots-ahead", "3")
    tokens = [site.token(name) for name in ("monitor", "display")]
    running = [authority]
    seen: set[bytes] = set()

    def note_arguments() -> None:
        seen.update(Path(f"/proc/{process.pid}/cmdline").read_bytes() for process in running)

    devices = []
    for name, token in zip(("monitor", "display"), tokens, strict=True):
        folder = site.devices / name
        where = ("--authority", site.url, "--keys", site.keys_url, "--root", site.root)
        device = started(
            processes, "device", "enroll", folder, *where, "--name", name, "--token", "-",
            stdin=subprocess.PIPE,
        )  # fmt: skip
        running.append(device)
        note_arguments()
        device.write(f"{token}\n".encode())
        device.close_input()
        assert device.wait().code == 0
        running.remove(device)
        devices.append(folder)
    monitor, display = devices
    secrets = group_secrets(site.folder)
    subscriber = started(processes, "subscribe", display, channel.name)
    subscriber.wait_line("joined channel", errors=True)
    with Recording(channel) as recording, Feed(site, monitor, channel, debug=True) as feed:
        running += [subscriber, feed.process]
        subscriber.wait_lines(300)
        for process in running:
            limits = Path(f"/proc/{process.pid}/limits").read_text()
            assert re.search(r"Max core file size +0 ", limits), f"{process.words} may leave a core dump"
        note_arguments()
        secrets += group_secrets(site.folder)
        assert started(processes, "device", "renew", monitor).wait().code == 0
        subscriber.wait_lines(len(subscriber.out) + 300)
        site.revoke("monitor")
        secrets += group_secrets(site.folder)
        feed.process.wait()
    subscriber.stop()
    authority.stop()

    of_devices = {folder: private_key(folder / "credentials" / "2" / "key.pem") for folder in [monitor]}
    of_devices[display] = private_key(display / "credentials" / "1" / "key.pem")
    of_site = [
        *private_key(site.folder / "ca.key"),
        *private_key(site.folder / "root.key"),
        *private_key(site.folder / "server.pem"),
        *spellings((site.folder / "storage.key").read_bytes()),
    ]
    needles = {*secrets, *of_site, *(part for parts in of_devices.values() for part in parts)}
    needles |= {token.encode() for token in tokens}
    assert len(needles) > 60

    told = "".join(line for process in processes.all for line in [*process.out, *process.err]).encode()
    assert b"joined channel" in told
    wire = b"".join(datagram.content for datagram in recording.datagrams)
    for what, content in (("output", told), ("arguments", b"".join(seen)), ("the group", wire)):
        assert len(content) > 100
        assert not [needle for needle in needles if needle in content], f"a secret in {what}"
    database = b"".join(path.read_bytes() for path in site.folder.glob("authority.db*"))
    assert b"icu3/vitals" in database
    assert not [needle for needle in needles if needle in database], "a secret in the database"
    # What the one side makes never gets to the other side's disk, nor from device to device.
    for folder, parts in of_devices.items():
        for path, content in {**files_below(site.folder), **files_below(site.devices)}.items():
            if folder not in path.parents:
                assert not [part for part in parts if part in content], f"a key of {folder.name} in {path}"
    for path, content in files_below(site.devices).items():
        assert not [part for part in (*of_site, *secrets) if part in content], (
            f"a secret of the site in {path}"
        )
