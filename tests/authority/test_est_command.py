"""`sealcast authority est|approval|maker`, with a service running and without."""

import json
import re
import socket
from pathlib import Path

import pytest

from sealcast.authority.approvals import Credential, ask
from sealcast.authority.site import ROOT_FILE, Site
from sealcast.cli import main
from sealcast.pki.times import system_time
from tests.authority.maker import Maker
from tests.authority.test_command import Command, serving


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def wait_in_line(folder: Path, device: str, number: int = 1) -> None:
    """Requests without a credential, as the listener stores them."""
    with Site.open(folder).storage.transaction() as session:
        for index in range(number):
            ask(
                session,
                device=device,
                key_hash=bytes([index]) * 32,
                generated=False,
                credential=Credential.NONE,
                credential_id=b"",
                detail="",
                now=system_time(),
            )


class TestSettings:
    def test_what_is_not_named_stays(self, command: Command, folder: Path) -> None:
        assert command("est", "show", folder, "--json") == 0
        before = json.loads(command.out)
        assert command("est", "set", folder, "--label", "ward", "--label", "icu", "--server-keygen") == 0
        assert command("est", "set", folder, "--linking") == 0
        assert command("est", "show", folder, "--json") == 0
        assert json.loads(command.out) == before | {
            "labels": ["ward", "icu"], "server_keygen": True, "linking_required": True,
        }  # fmt: skip
        assert command("est", "set", folder, "--label", "-", "--no-server-keygen", "--no-linking") == 0
        assert command("est", "show", folder, "--json") == 0
        assert json.loads(command.out) == before
        assert command("est", "show", folder) == 0
        assert re.search(r"^server keygen +off$", command.out, re.MULTILINE)
        assert re.search(r"^recovery grace +30d$", command.out, re.MULTILINE)

    def test_the_grace_for_recovery(self, command: Command, folder: Path) -> None:
        assert command("est", "set", folder, "--recovery-grace", "0") == 0
        assert command("est", "show", folder) == 0
        assert re.search(r"^recovery grace +0 \(never\)$", command.out, re.MULTILINE)
        assert command("est", "set", folder, "--recovery-grace", "12h") == 0
        assert command("est", "show", folder, "--json") == 0
        assert json.loads(command.out)["recovery_grace_us"] == 12 * 3600 * 1_000_000
        assert command("est", "set", folder, "--recovery-grace", "-1d") == 2


class TestApprovals:
    def test_list_approve_deny(self, command: Command, folder: Path) -> None:
        wait_in_line(folder, "monitor-1", 2)
        assert command("approval", "list", folder, "--json") == 0
        first, second = json.loads(command.out)
        assert (first["device"], first["known"], first["state"]) == ("monitor-1", "new", "pending")
        assert command("approval", "list", folder) == 0
        assert first["key_sha256"] in command.out
        assert command("approval", "approve", folder, first["id"]) == 0
        assert "monitor-1" in command.out
        assert command("approval", "deny", folder, second["id"], "--reason", "not ours") == 0
        assert command("approval", "list", folder, "--json") == 0
        assert json.loads(command.out) == []
        assert command("approval", "list", folder, "--all", "--json") == 0
        assert [(row["state"], row["reason"]) for row in json.loads(command.out)] == [
            ("approved", ""),
            ("denied", "not ours"),
        ]


class TestMakers:
    def test_add_list_remove(self, command: Command, folder: Path, tmp_path: Path) -> None:
        maker = Maker("Acme")
        file, crl = tmp_path / "acme.pem", tmp_path / "acme.crl"
        file.write_bytes(maker.pem)
        crl.write_text(maker.crl(7))
        assert command("maker", "add", folder, file, "--name", "serial-number", "--crl", crl) == 0
        fingerprint = command.out.strip()
        assert command("maker", "list", folder, "--json") == 0
        [row] = json.loads(command.out)
        assert (row["fingerprint"], row["name"], row["crls"]) == (fingerprint, "serial-number", 1)
        assert "Acme root" in row["subject"]
        assert command("maker", "list", folder) == 0
        assert "serial-number" in command.out
        assert command("maker", "remove", folder, file) == 0
        assert command("maker", "add", folder, file) == 0
        assert command("maker", "remove", folder, fingerprint) == 0
        assert command("maker", "list", folder, "--json") == 0
        assert json.loads(command.out) == []


@pytest.mark.parametrize(
    ("arguments", "code", "value"),
    [
        (("est", "set", "DIR"), 2, "nothing to change"),
        (("est", "set", "DIR", "--label", "cacerts"), 2, "'cacerts'"),
        (("est", "set", "DIR", "--label", "a/b"), 2, "'a/b'"),
        (("est", "show", "NEW"), 8, "no authority's folder"),
        (("approval", "approve", "DIR", "7"), 2, "request 7"),
        (("approval", "approve", "DIR", "0"), 2, "0"),
        (("approval", "deny", "DIR", "7"), 2, "request 7"),
        (("approval", "deny", "DIR", "7", "--reason", "a\nb"), 2, "reason"),
        (("maker", "add", "DIR", "NONE"), 8, "none.pem"),
        (("maker", "add", "DIR", "JUNK"), 5, "junk.pem"),
        (("maker", "add", "DIR", "MAKER", "--name", "colour"), 2, "'colour'"),
        (("maker", "add", "DIR", "MAKER", "--crl", "JUNK"), 5, "junk.pem"),
        (("maker", "add", "DIR", "TWO"), 5, "two.pem"),
        (("maker", "remove", "DIR", "MAKER"), 2, "no maker"),
        (("maker", "remove", "DIR", "0" * 64), 2, "0" * 64),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_a_mistake_is_one_line_with_value_and_cure(
    command: Command, folder: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, value: str
) -> None:
    files = {name.upper(): tmp_path / f"{name}.pem" for name in ("none", "junk", "maker", "two")}
    files["JUNK"].write_text("junk")
    files["MAKER"].write_bytes(Maker().pem)
    files["TWO"].write_bytes(Maker().pem + Maker().pem)
    places = {"DIR": folder, "NEW": tmp_path / "new", **files}
    assert command(*(places.get(argument, argument) for argument in arguments)) == code
    assert command.out == ""
    assert re.fullmatch(r"sealcast: error: [^\n]+ \([^\n]+\)\n", command.err), command.err
    assert value in command.err


@pytest.mark.timeout(120)
def test_beside_a_running_service_they_take_effect_at_once(
    command: Command, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A maker is admitted, its device waits, is approved, and has its certificate: all by the commands."""
    maker = Maker()
    (tmp_path / "acme.pem").write_bytes(maker.pem)
    chain, key = maker.idevid(tmp_path)
    with serving(folder) as (_, urls):
        enroll = [
            "device", "enroll", str(tmp_path / "device"), "--authority", urls["authority"], "--keys",
            urls["keys"], "--root", str(folder / ROOT_FILE), "--name", "pump-1", "--maker-cert", str(chain),
            "--maker-key", str(key), "--label", "ward",
        ]  # fmt: skip
        assert command("maker", "add", folder, tmp_path / "acme.pem") == 0
        assert command("est", "set", folder, "--label", "ward") == 0
        assert main(enroll) == 4
        command.drain()
        assert "not decided yet" in command.err
        assert command("approval", "list", folder, "--json") == 0
        [row] = json.loads(command.out)
        assert (row["device"], row["credential"]) == ("pump-1", "maker")
        assert command("approval", "deny", folder, row["id"], "--reason", "not this one") == 0
        assert main(enroll) == 4
        command.drain()
        assert "the operator has denied it: not this one" in command.err
        # A device that starts afresh makes a new key, so it is another request.
        assert main(["device", "enroll", str(tmp_path / "device"), "--cancel"]) == 0
        assert main(enroll) == 4
        command.drain()
        assert "not decided yet" in command.err


def test_credentials_of_a_device_belong_together(command: Command, tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        base = [
            "device", "enroll", str(tmp_path / "device"), "--authority",
            f"https://127.0.0.1:{nobody.getsockname()[1]}", "--root", str(tmp_path / "root.pem"),
            "--name", "a",
        ]  # fmt: skip
        for more in ([], ["--maker-cert", "x"], ["--token", "t", "--maker-cert", "x", "--maker-key", "y"]):
            assert main([*base, *more]) == 2
            command.drain()
            assert re.fullmatch(r"sealcast: error: [^\n]+ \([^\n]+\)\n", command.err), command.err
