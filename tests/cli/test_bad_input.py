"""Bad input, case by case: one line on standard error with the value and the cure, the documented exit code,
no traceback, nothing half-written.

The words of a case name things of the fixture `world` in braces.
"""

import hashlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sealcast.ca import FileSigner, KeySigner, SiteCa
from sealcast.device import DeviceIdentity
from sealcast.pki.certificates import certificates_pem, parse_pem_certificates
from sealcast.pki.times import system_time
from tests.e2e.processes import Processes
from tests.e2e.site import Site, command, free_group


class Case(NamedTuple):
    """What is typed, the exit code, and what the line has to say."""

    name: str
    words: str
    code: int
    says: str


ADD = "authority channel add {authority} new --group 239.255.1.1 --port 5000 --publish * --subscribe *"
ENROLL = "device enroll {new} --authority {url} --root {root} --name new"

CASES = [
    # -- channels -------------------------------------------------------------------------------------------
    Case("unknown channel to subscribe", "subscribe {device} nowhere", 6, "unknown channel 'nowhere'"),
    Case("unknown channel to publish", "publish {device} nowhere", 6, "unknown channel 'nowhere'"),
    Case("unknown channel to send", "send {device} nowhere {file}", 6, "unknown channel 'nowhere'"),
    Case("unknown channel to receive", "receive {device} nowhere --output {folder}", 6, "'nowhere'"),
    Case("not allowed to publish", "publish {device} listen-only", 6, "'monitor' may not publish on"),
    Case("not allowed to send", "send {device} listen-only {file}", 6, "'monitor' may not publish on"),
    Case("not allowed to subscribe", "subscribe {device} talk-only", 6, "'monitor' may not subscribe on"),
    Case("not allowed to receive", "receive {device} talk-only --output {folder}", 6, "may not subscribe"),
    Case("no channel name", "subscribe {device} a,b", 2, "not a channel name: 'a,b'"),
    Case("channel that exists", ADD.replace(" new ", " all ", 1), 6, "'all' exists already"),
    Case("members of an unknown channel", "authority channel set {authority} x --publish y", 6, "'x'"),
    # -- certificates ---------------------------------------------------------------------------------------
    Case("expired certificate, subscribe", "subscribe {expired} all", 5, "expired"),
    Case("expired certificate, publish", "publish {expired} all", 5, "expired"),
    Case("expired certificate, renew", "device renew {expired}", 5, "'monitor' has expired"),
    Case("device of another site", "subscribe {foreign} all", 5, "{keys_url}"),
    Case("device of another site that trusts us", "subscribe {foreign_trusting} all", 5, "{keys_url}"),
    Case("key of another certificate", "device show {wrong_key}", 5, "is not the key of"),
    Case("revoked device", "subscribe {revoked} all", 5, "'gone' is revoked"),
    Case("revoked device renews", "device renew {revoked}", 4, "revoked"),
    # -- enrolment ------------------------------------------------------------------------------------------
    Case("wrong root (F11)", ENROLL.replace("{root}", "{other_root}") + " --token {token}", 5, "{url}"),
    Case("used token", ENROLL.replace("name new", "name monitor") + " --token {used_token}", 4, "token"),
    Case("wrong token", ENROLL + " --token wrong", 4, "the token does not admit"),
    Case("token of another device", ENROLL + " --token {other_token}", 4, "the token does not admit"),
    Case("empty token", ENROLL + " --token ''", 2, "the token is empty"),
    Case("no token", ENROLL, 2, "--token"),
    Case("no root file", ENROLL.replace("{root}", "{absent}") + " --token x", 8, "{absent}"),
    Case("root file of something else", ENROLL.replace("{root}", "{file}") + " --token x", 5, "{file}"),
    Case("unreachable authority", ENROLL.replace("{url}", "https://127.0.0.1:1") + " --token x", 7, ":1"),
    Case("unknown host", ENROLL.replace("{url}", "https://no.invalid:1") + " --token x", 7, "no.invalid"),
    Case("no TLS", ENROLL.replace("{url}", "http://127.0.0.1:1") + " --token x", 3, "'http://127.0.0.1:1'"),
    Case("device's folder in use", ENROLL.replace("{new}", "{etc}") + " --token x", 8, "{etc}"),
    Case("other device's folder", ENROLL.replace("{new}", "{device}") + " --token x", 8, "'monitor'"),
    Case("bad device name", ENROLL.replace("name new", "name a/b") + " --token x", 2, "'a/b'"),
    Case("folder in a file", ENROLL.replace("{new}", "{file}/x") + " --token x", 8, "{file}/x"),
    # -- reachability ---------------------------------------------------------------------------------------
    Case("unreachable key server, subscribe", "subscribe {stranded} all", 7, "https://127.0.0.1:1"),
    Case("unreachable key server, publish", "publish {stranded} all", 7, "https://127.0.0.1:1"),
    Case("unreachable authority, renew", "device renew {stranded}", 7, "https://127.0.0.1:1"),
    # -- interfaces and addresses ---------------------------------------------------------------------------
    Case("unknown interface, subscribe", "subscribe {device} all --interface none0", 3, "'none0'"),
    Case("unknown interface, publish", "publish {device} all --interface none0", 3, "'none0'"),
    Case("no interface given, subscribe", "subscribe {remote} all", 3, "(name one with --interface: lo "),
    Case("no interface given, publish", "publish {remote} all", 3, "(name one with --interface: lo "),
    Case("no such path", "subscribe {device} all --path pigeon", 2, "pigeon"),
    Case(
        "interface without multicast",
        "subscribe {device} all --path side-channel --interface lo",
        2,
        "interface 'lo' with path 'side-channel'",
    ),
    Case(
        "source without multicast",
        "subscribe {device} all --path side-channel --source 192.0.2.7",
        2,
        "source '192.0.2.7' with path 'side-channel'",
    ),
    Case("data port in use", "subscribe {device} taken", 3, "{taken} is in use"),
    Case("address of another machine", "subscribe {device} all --listen 192.0.2.99:9", 3, "192.0.2.99:9"),
    Case("no ADDR:PORT to listen", "subscribe {device} all --listen nonsense", 2, "'nonsense'"),
    Case("host name to listen", "receive {device} all --output {folder} --listen a:1", 2, "'a:1'"),
    Case("no ADDR:PORT to send to", "publish {device} all --send-to 239.1.1.1", 2, "'239.1.1.1'"),
    Case("port beyond all", "send {device} all {file} --send-to 239.1.1.1:65536", 2, "'239.1.1.1:65536'"),
    Case("no group to send to", "publish {device} all --send-to 127.0.0.1:9", 3, "127.0.0.1:9"),
    Case("port in use", "authority serve {idle} --listen {listen}", 3, "{listen}: the port is in use"),
    Case(
        "keys port in use",
        "authority serve {idle} --listen 127.0.0.1:0 --keys {listen}",
        3,
        "{listen}: the port is in use",
    ),
    Case("no port for keys", "authority serve {idle} --listen 127.0.0.1:65535", 3, "65535"),
    Case("no HOST:PORT", "authority serve {idle} --listen nonsense", 2, "'nonsense'"),
    Case("no port number", "authority serve {idle} --listen 127.0.0.1:x", 2, "'127.0.0.1:x'"),
    Case("address not here", "authority serve {idle} --listen 192.0.2.99:0", 3, "192.0.2.99:0"),
    # -- files ----------------------------------------------------------------------------------------------
    Case("no file to publish", "publish {device} all {absent}", 8, "{absent}"),
    Case("folder to publish", "publish {device} all {folder}", 8, "{folder}"),
    Case("file that cannot be read", "publish {device} all /proc/self/mem", 8, "/proc/self/mem"),
    Case("no file to send", "send {device} all {file} {absent}", 8, "{absent}"),
    Case("below a file to send", "send {device} all {file}/x", 8, "{file}/x"),
    Case("device to send", "send {device} all /dev/zero", 8, "/dev/zero: is not a regular file"),
    Case("pipe to send", "send {device} all {pipe}", 8, "{pipe}: is not a regular file"),
    Case("no folder to receive into", "receive {device} all --output {absent}", 8, "{absent}"),
    Case("file to receive into", "receive {device} all --output {file}", 2, "{file} is no folder"),
    Case("output in no folder", "subscribe {device} all --output {absent}/x", 8, "{absent}/x"),
    Case("output is a folder", "subscribe {device} all --output {folder}", 8, "{folder}"),
    # -- folders of devices and authorities -----------------------------------------------------------------
    Case("no device, subscribe", "subscribe {absent} all", 8, "{absent}: holds no device"),
    Case("authority's folder as device's", "publish {idle} all", 8, "{idle}: holds no device"),
    Case("file as device's folder", "send {file} all {file}", 8, "{file}"),
    Case("device's folder is damaged", "device show {damaged}", 8, "{damaged}"),
    Case("no authority", "authority serve {absent}", 8, "{absent}: is no authority's folder"),
    Case("device's folder as authority's", "authority token {device} --device x", 8, "{device}"),
    Case("list of no authority", "authority device list {absent}", 8, "{absent}"),
    Case("channels of no authority", "authority channel list {file}", 8, "{file}"),
    Case("served already", "authority serve {authority}", 8, "{authority}: is being served"),
    Case("init where something is", "authority init {etc} --site S", 8, "{etc}: is not an empty folder"),
    Case("init again", "authority init {idle} --site S", 8, "{idle}: is not an empty folder"),
    Case("init over a file", "authority init {file} --site S", 8, "{file}"),
    Case("init below a file", "authority init {file}/x --site S", 8, "{file}/x"),
    Case("half a root", "authority init {new} --site S --root-cert {root}", 2, "--root-key"),
    Case("no root", "authority init {new} --site S --root-cert {file} --root-key {file}", 5, "{file}"),
    Case(
        "no key of a root",
        "authority init {new} --site S --root-cert {root} --root-key {file}",
        5,
        "{file}: holds no",
    ),
    Case("bad host name", "authority init {new} --site S --host-name a_b", 2, "'a_b'"),
    Case("host name of nothing", "authority init {new} --site S --host-name ''", 2, "address: ''"),
    Case("bad site name", "authority init {new} --site ''", 2, "''"),
    Case("garbage for a database", "authority serve {garbage} --listen 127.0.0.1:0", 8, "authority.db"),
    Case("garbage, token", "authority token {garbage} --device x", 8, "{garbage}/authority.db"),
    Case("garbage, list", "authority device list {garbage}", 8, "{garbage}/authority.db"),
    Case("truncated database", "authority serve {truncated} --listen 127.0.0.1:0", 8, "authority.db"),
    Case("truncated database, list", "authority channel list {truncated}", 8, "authority.db"),
    Case("no database", "authority serve {without} --listen 127.0.0.1:0", 8, "there is no database"),
    Case("no key of the database", "authority serve {keyless} --listen 127.0.0.1:0", 8, "storage.key"),
    Case("key that others may read", "authority serve {open} --listen 127.0.0.1:0", 8, "0644"),
    # -- values ---------------------------------------------------------------------------------------------
    Case("bad rate", ADD + " --rate fast", 2, "'fast'"),
    Case("endless rate", ADD + " --rate " + "9" * 400, 2, "not a rate: '999"),
    Case("rate beyond all", ADD + " --rate 9999999Tbit/s", 2, "'9999999Tbit/s'"),
    Case(
        "rate below all use",
        ADD + " --rate 1bit/s",
        2,
        "'1bit/s' is out of range (use 64kbit/s to 100Gbit/s)",
    ),
    Case("rate that nothing reaches", ADD + " --rate 999999Gbit/s", 2, "'999999Gbit/s' is out of range"),
    Case("no rate at all", ADD + " --rate 0", 2, "not a rate: '0'"),
    Case("bad duration", ADD + " --slot soon", 2, "'soon'"),
    Case("duration beyond all", ADD + " --retention 999999999d", 2, "'999999999d'"),
    Case("slot too short", ADD + " --slot 1ms", 2, "too short"),
    Case("bad size", ADD + " --retention-bytes many", 2, "'many'"),
    Case("too many slots ahead", ADD + " --slots-ahead 31", 2, "31"),
    Case("no bytes for a member", "repair-node {device} all --member-bytes 1", 2, "in a second: 1 (use 1000"),
    Case("no requests of a member", "repair-node {device} all --member-requests 0", 2, "in a second: 0"),
    Case("nothing kept", "repair-node {device} all --keep 1k", 2, "keep_bytes is 1024"),
    Case("store that is a file", "repair-node {device} all --store {file}", 8, "File exists"),
    Case(
        "store of another use", "repair-node {device} all --store {device}", 8, "not a repair node's folder"
    ),
    Case("bad parity", ADD + " --fec 8", 2, "fec is '8' (use K+M"),
    Case("parity beyond a group", ADD + " --fec 65+2", 2, "'65+2'"),
    Case("bad suite", ADD + " --suite 9", 2, "unknown suite 9"),
    Case("no group", ADD.replace("239.255.1.1", "nonsense"), 2, "'nonsense'"),
    Case("unicast for a group", ADD.replace("239.255.1.1", "10.0.0.1"), 2, "'10.0.0.1'"),
    Case("reserved group", ADD.replace("239.255.1.1", "224.0.0.1"), 2, "224.0.0.1"),
    Case("no port", ADD.replace("5000", "0"), 2, "not a UDP port: 0"),
    Case("port of words", ADD.replace("5000", "http"), 2, "--port"),
    Case("bad glob", ADD.replace("--publish *", "--publish a/b"), 2, "'a/b'"),
    Case("bad new channel", ADD.replace(" new ", " a,b ", 1), 2, "not a channel name: 'a,b'"),
    Case("bad device for a token", "authority token {authority} --device a/b", 2, "'a/b'"),
    Case("bad life of a token", "authority token {authority} --device a --ttl never", 2, "'never'"),
    Case("unknown device to revoke", "authority device revoke {authority} nobody", 2, "'nobody'"),
    Case("nothing to set", "authority channel set {authority} all", 2, "nothing to change"),
    Case("bad linger", "send {device} all {file} --linger soon", 2, "'soon'"),
    Case("no linger to send", "send {device} all {file} --linger 0s", 2, "'0s'"),
    Case("bad instance", "publish {device} all --instance a,b", 2, "not an instance name: 'a,b'"),
    Case("topic too long", "publish {device} all {file} --topic " + "t" * 256, 2, "255"),
    Case("hidden file to send", "send {device} all {folder}/.hidden", 2, "'.hidden'"),
    Case("two files of one name", "send {device} all {file} {folder}/file", 2, "{file} and {folder}/file"),
    Case("count of none", "subscribe {device} all --count 0", 2, "--count"),
    Case("count of words", "receive {device} all --output {folder} --count x", 2, "--count"),
    Case("unknown option", "publish {device} all --nonsense", 2, "--nonsense"),
    Case("unknown command", "nonsense", 2, "'nonsense'"),
    Case("nothing to send", "send {device} all", 2, "PATH"),
]


@dataclass
class World:
    """Everything that the cases name, and what is in the way."""

    names: dict[str, str]
    root: Path


_KEPT = ("floors", "crls")


def tree(root: Path) -> dict[str, str]:
    """Every file below `root`, and the hash of its content, but for what any start or join writes anew."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.suffix in (".db-wal", ".db-shm") or path.name in ("lock", "audit.head", *_KEPT):
            continue
        if path.parent.name in _KEPT:
            continue
        is_steady = path.is_file() and path.name != "authority.db"
        found[str(path.relative_to(root))] = (
            hashlib.sha256(path.read_bytes()).hexdigest() if is_steady else ""
        )
    return found


@pytest.fixture(scope="module")
def world(site: Site) -> Iterator[World]:
    folder = site.folder.parent
    taken = make_channels(site)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other_program:
        other_program.bind(("0.0.0.0", taken))  # noqa: S104 - does not share, as a program of another kind
        yield World({**make_devices(site), **make_folders(site), "taken": f":{taken}"}, folder)


def make_channels(site: Site) -> int:
    site.enrol("monitor", "gone")
    site.add_channel("all")
    site.add_channel("listen-only", publish="nobody")
    site.add_channel("talk-only", subscribe="nobody")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("0.0.0.0", 0))  # noqa: S104
        port = int(probe.getsockname()[1])
    command(
        "authority", "channel", "add", site.folder, "taken", "--group", free_group(), "--port", str(port),
        "--publish", "*", "--subscribe", "*",
    )  # fmt: skip
    return port


def make_devices(site: Site) -> dict[str, str]:
    site.revoke("gone")
    names = {"device": site.devices / "monitor", "revoked": site.devices / "gone"}
    for name in ("expired", "foreign", "foreign_trusting", "wrong_key", "stranded", "remote", "damaged"):
        names[name] = site.devices / name
    ours = DeviceIdentity.open(names["device"])

    def copy(name: str) -> DeviceIdentity:
        shutil.copytree(names["device"], names[name])
        return DeviceIdentity.open(names[name])

    [site_ca] = parse_pem_certificates((site.folder / "ca.pem").read_bytes())
    issuer = SiteCa(site_ca, FileSigner.open(site.folder / "ca.key"))
    expired = copy("expired")
    signer = KeySigner.generate()
    issued = issuer.issue_device(signer.make_csr("monitor"), "monitor", system_time())
    expired.key_file.write_bytes(signer.to_pem())
    short = ended(issued.der, (site.folder / "ca.key").read_bytes())
    expired.certificate_file.write_bytes(certificates_pem([short, site_ca]))

    copy("wrong_key").key_file.write_bytes(KeySigner.generate().to_pem())
    copy("damaged").certificate_file.write_bytes(b"nonsense")
    for name, change in (
        ("stranded", (r"https://127.0.0.1:\d+", "https://127.0.0.1:1")),
        # Reaches this machine, and does not look like its loopback.
        ("remote", (r"keys = .*", f'keys = "{site.keys_url.replace("127.0.0.1", "0.0.0.0")}"')),  # noqa: S104
    ):
        settings = copy(name).credentials / "device.toml"
        settings.write_text(re.sub(*change, settings.read_text()))

    other = site.folder.parent / "other"
    command("authority", "init", other, "--site", "Other")
    [other_ca] = parse_pem_certificates((other / "ca.pem").read_bytes())
    other_issuer = SiteCa(other_ca, FileSigner.open(other / "ca.key"))
    for name in ("foreign", "foreign_trusting"):
        shutil.copytree(names["device"], names[name])
        credentials = names[name] / "credentials" / "1"
        signer = KeySigner.generate()
        issued = other_issuer.issue_device(signer.make_csr("monitor"), "monitor", system_time())
        (credentials / "key.pem").write_bytes(signer.to_pem())
        (credentials / "certificate.pem").write_bytes(certificates_pem([issued.der, other_ca]))
        settings = credentials / "device.toml"
        site_id = other_issuer.site_id.hex()
        settings.write_text(settings.read_text().replace(ours.site_id.hex(), site_id))
        roots, issuers = (credentials / "roots.pem"), (credentials / "issuers.pem")
        old_roots, old_issuers = roots.read_bytes(), issuers.read_bytes()
        roots.write_bytes((other / "root.pem").read_bytes())
        issuers.write_bytes((other / "ca.pem").read_bytes())
        if name == "foreign_trusting":
            roots.write_bytes(roots.read_bytes() + old_roots)
            issuers.write_bytes(issuers.read_bytes() + old_issuers)
    return {
        **{name: str(path) for name, path in names.items()},
        "other_root": str(other / "root.pem"),
        "token": site.token("new"),
        "other_token": site.token("other"),
        "used_token": use_token(site),
    }


def ended(certificate: bytes, ca_key: bytes) -> bytes:
    """The same certificate, but that its life ended a moment ago."""
    whole = x509.load_der_x509_certificate(certificate)
    key = serialization.load_pem_private_key(ca_key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    builder = x509.CertificateBuilder(
        issuer_name=whole.issuer,
        subject_name=whole.subject,
        public_key=whole.public_key(),
        serial_number=whole.serial_number,
        not_valid_before=whole.not_valid_before_utc,
        not_valid_after=datetime.now(UTC) - timedelta(seconds=2),
        extensions=list(whole.extensions),
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def use_token(site: Site) -> str:
    token = site.token("monitor")
    command(
        "device", "enroll", site.folder.parent / "used", "--authority", site.url, "--keys", site.keys_url,
        "--root", site.root, "--name", "monitor", "--token", token,
    )  # fmt: skip
    return token


def make_folders(site: Site) -> dict[str, str]:
    parent = site.folder.parent
    names = {name: parent / name for name in ("idle", "garbage", "truncated", "without", "keyless", "open")}
    command("authority", "init", names["idle"], "--site", "Idle")
    for name, folder in names.items():
        if name != "idle":
            shutil.copytree(names["idle"], folder)
    (names["garbage"] / "authority.db").write_bytes(b"garbage" * 1000)
    os.truncate(names["truncated"] / "authority.db", 9000)
    (names["without"] / "authority.db").unlink()
    (names["keyless"] / "storage.key").unlink()
    (names["open"] / "server.pem").chmod(0o644)
    for name in ("folder", "etc"):
        names[name] = parent / name
        names[name].mkdir()
    (names["etc"] / "hosts").write_text("something of somebody else")
    names["file"] = parent / "file"
    names["file"].write_text("a line\n")
    names["pipe"] = parent / "pipe"
    os.mkfifo(names["pipe"])
    return {
        **{name: str(path) for name, path in names.items()},
        "absent": str(parent / "absent"),
        "new": str(parent / "new"),
        "authority": str(site.folder),
        "root": str(site.root),
        "url": site.url,
        "keys_url": site.keys_url,
        "listen": site.url.removeprefix("https://"),
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_one_line_with_value_and_cure(case: Case, world: World, processes: Processes) -> None:
    words = [word.format(**world.names).replace("''", "") for word in case.words.split()]
    before = tree(world.root)
    finished = processes.run(*words)
    assert finished.code == case.code, finished.err
    assert finished.err.count("\n") == 1, finished.err
    assert re.fullmatch(r"sealcast: error: .+ \(.+\)\n", finished.err), finished.err
    assert case.says.format(**world.names) in finished.err
    assert finished.out == ""
    assert tree(world.root) == before, "nothing is left behind"


def test_an_interface_without_multicast(site: Site, processes: Processes) -> None:
    """As a tunnel is; made here, as no machine is sure to have one."""
    name = f"seal{os.getpid() % 10**8}"

    def ip(*words: str) -> bool:
        return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0

    if shutil.which("ip") is None or not ip("tuntap", "add", "dev", name, "mode", "tun"):
        pytest.skip("making an interface needs root; rust/net tests the refusal itself")
    try:
        assert ip("link", "set", name, "multicast", "off")
        assert ip("link", "set", name, "up")
        [device] = site.enrol("tunneller")
        channel = site.add_channel("tunnel")
        for words in (("subscribe",), ("publish",)):
            finished = processes.run(*words, device, channel.name, "--interface", name)
            assert finished.code == 3, finished.err
            assert re.fullmatch(r"sealcast: error: .+ \(.+\)\n", finished.err)
            assert f"interface {name} does not do multicast" in finished.err
    finally:
        ip("link", "del", name)


def test_the_names_of_cases_differ() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
