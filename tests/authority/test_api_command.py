"""`sealcast authority` over the network, `sealcast admin`, and the commands that only the API has."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sealcast.authority.remote import RemoteManagement
from sealcast.authority.site import ROOT_FILE, ROOT_KEY_FILE
from sealcast.cli import main
from sealcast.errors import ConfigError
from tests.authority.conftest import make_site
from tests.authority.test_command import CHANNEL, Command, command, enrol, serving  # noqa: F401


@dataclass
class Remote:
    """A running authority, and `sealcast authority …` as an admin elsewhere gives it."""

    command: Command
    folder: Path
    urls: dict[str, str]
    admins: Path

    def __call__(self, *words: object, admin: str = "olga") -> int:
        return self.command(*words, "--url", self.urls["manage"], "--admin", self.admins / admin)

    def enrol_admin(self, name: str, role: str) -> None:
        assert self.command("admin", "add", self.folder, name, "--role", role) == 0
        token = self.command.out.strip()
        assert main(["admin", *self.enrolment(name, token)]) == 0
        self.command.drain()

    def enrolment(self, name: str, token: str) -> list[str]:
        return [
            *("enroll", str(self.admins / name), "--authority", self.urls["authority"], "--name", name),
            *("--root", str(self.folder / ROOT_FILE), "--token", token),
        ]


@pytest.fixture
def remote(command: Command, folder: Path, tmp_path: Path) -> Iterator[Remote]:  # noqa: F811
    with serving(folder) as (_, urls):
        remote = Remote(command, folder, urls, tmp_path / "admins")
        remote.enrol_admin("olga", "security-officer")
        yield remote


def test_every_command_works_from_another_machine(remote: Remote, tmp_path: Path) -> None:
    """The same words, outputs and codes as on the spot, without the folder."""
    assert remote("channel", "add", "ward/ecg", *CHANNEL, "--slot", "30m") == 0
    assert remote("channel", "set", "ward/ecg", "--subscribe", "display-*") == 0
    assert remote("token", "--device", "monitor-1") == 0
    assert re.fullmatch(r"[a-z2-7]{32}\n", remote.command.out)
    assert enrol(tmp_path / "monitor-1", remote.folder, remote.urls, remote.command.out.strip()) == 0
    remote.command.drain()
    for words in (
        ("channel", "list"),
        ("device", "list"),
        ("device", "list", "--name", "monitor-*", "--state", "enrolled"),
        ("device", "show", "monitor-1"),
        ("tokens", "list"),
        ("admin", "list"),
    ):
        for more in ((), ("--json",)):
            assert remote(*words, *more) == 0, remote.command.err
            there = remote.command.out
            assert there
            assert remote.command(*words[:2], remote.folder, *words[2:], *more) == 0
            assert remote.command.out == there
    assert remote("device", "revoke", "monitor-1") == 0
    assert remote.command.out == "monitor-1 is revoked\n"
    assert remote("device", "revoke", "monitor-1") == 0
    assert remote.command.out == "monitor-1 was revoked before\n"
    assert remote("status", "--json") == 0
    assert json.loads(remote.command.out)["revoked_devices"] == 1
    assert remote("status") == 0
    assert "running since" in remote.command.out


def test_a_mistake_reads_as_it_does_on_the_spot(remote: Remote) -> None:
    for words, code, says in (
        (("device", "revoke", "nobody"), 2, "unknown device 'nobody'"),
        (("device", "show", "nobody"), 2, "unknown device 'nobody'"),
        (("channel", "set", "none", "--publish", "a"), 6, "unknown channel 'none'"),
        (("channel", "add", "/x", *CHANNEL), 2, "'/x'"),
        (("token", "--device", "../x"), 2, "'../x'"),
        (("tokens", "revoke", "0123456789abcdef"), 2, "unknown token '0123456789abcdef'"),
        (("admin", "role", "nobody", "--role", "viewer"), 2, "unknown admin 'nobody'"),
        (("admin", "add", "olga", "--role", "viewer"), 2, "'olga' exists already"),
        (("admin", "add", "otto", "--role", "king"), 2, "'king'"),
        (("audit", "verify", "--head", "x"), 2, "'x'"),
    ):
        assert remote(*words) == code, words
        assert says in remote.command.err
        assert re.fullmatch(r"sealcast: error: [^\n]+ \([^\n]+\)\n", remote.command.err), remote.command.err
        assert remote.command.out == ""


def test_roles_hold_over_the_network(remote: Remote) -> None:
    remote.enrol_admin("vera", "viewer")
    assert remote("device", "list", admin="vera") == 0
    assert remote("token", "--device", "a", admin="vera") == 6
    assert "admin:vera is viewer; this needs operator" in remote.command.err
    assert remote("admin", "role", "vera", "--role", "operator") == 0
    assert remote("token", "--device", "a", admin="vera") == 0
    assert remote("admin", "revoke", "vera") == 0
    assert remote("device", "list", admin="vera") == 5
    assert "no admin of this site, or was revoked" in remote.command.err or "revoked" in remote.command.err
    assert remote("admin", "token", "vera") == 0
    token = remote.command.out.strip()
    assert main(["admin", *remote.enrolment("vera", token)]) == 0
    remote.command.drain()
    assert remote("device", "list", admin="vera") == 0


def test_an_admin_renews_its_own_certificate(remote: Remote) -> None:
    folder = str(remote.admins / "olga")
    assert main(["admin", "show", folder, "--json"]) == 0
    remote.command.drain()
    before = json.loads(remote.command.out)
    assert main(["admin", "renew", folder, "--json"]) == 0
    remote.command.drain()
    after = json.loads(remote.command.out)
    assert before["serial"] != after["serial"]
    assert remote("device", "list") == 0
    # A device's folder is no admin's, and the other way round.
    assert main(["device", "show", folder]) == 8
    remote.command.drain()
    assert "holds the admin 'olga', no device" in remote.command.err


def test_the_private_key_stays_where_it_was_made(remote: Remote) -> None:
    key = next((remote.admins / "olga").rglob("key.pem")).read_bytes()
    assert key not in b"".join(path.read_bytes() for path in remote.folder.iterdir() if path.is_file())


def test_what_is_not_there_or_not_ours_is_told(
    remote: Remote,
    tmp_path: Path,
    command: Command,  # noqa: F811
) -> None:
    url, admin = remote.urls["manage"], remote.admins / "olga"
    assert command("status", "--url", url) == 2
    assert "--admin" in command.err
    assert command("status", remote.folder, "--admin", admin) == 2
    assert command("status", "--url", "http://localhost:1", "--admin", admin) == 3
    assert command("status", "--url", "https://localhost:1", "--admin", admin) == 7
    assert command("status", "--url", url, "--admin", tmp_path / "nobody") == 8
    assert "sealcast admin enroll" in command.err
    assert command("status", "--url", remote.urls["authority"], "--admin", admin) == 7, "EST is no such API"
    other = make_site(
        tmp_path / "other", root=(remote.folder / ROOT_FILE, remote.folder / ROOT_KEY_FILE), site_name="Other"
    )
    with serving(other) as (_, urls):
        assert command("status", "--url", urls["manage"], "--admin", admin) == 5, "a site under the same root"


@pytest.mark.parametrize("url", ["https://h", "https://h:x", "h:1", "https://h:1/v1", "https://:1"])
def test_what_is_no_url(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        RemoteManagement(url, tmp_path)


def test_without_a_listener_there_is_the_socket(command: Command, folder: Path) -> None:  # noqa: F811
    with serving(folder, "--manage", "none") as (_, urls):
        assert "manage" not in urls
        assert command("status", folder, "--json") == 0
        assert set(json.loads(command.out)["listening"]) == {"authority", "keys"}


def test_the_log_from_the_command_line(command: Command, folder: Path) -> None:  # noqa: F811
    assert command("token", folder, "--device", "monitor-1") == 0
    assert command("device", "revoke", folder, "nobody") == 2
    assert command("audit", "list", folder) == 0
    assert "make token" in command.out
    assert "refused" in command.out
    assert command("audit", "list", folder, "--subject", "nobody", "--json") == 0
    [entry] = [json.loads(line) for line in command.out.splitlines()]
    assert (entry["action"], entry["outcome"]) == ("revoke device", "refused")
    assert command("audit", "verify", folder) == 0
    found = re.fullmatch(r"(\d+) entries hold; head (\d+:[0-9a-f]{64})\n", command.out)
    assert found is not None
    assert command("token", folder, "--device", "monitor-2") == 0
    assert command("audit", "verify", folder, "--head", found[2]) == 0
    assert command("audit", "verify", folder, "--head", f"1:{'0' * 64}") == 8
    assert "entry 1 does not fit" in command.err
    assert command("audit", "verify", folder, "--head", found[2], "--json") == 0
    assert json.loads(command.out)["holds"] is True


def test_the_document_can_be_had_without_an_authority(command: Command) -> None:  # noqa: F811
    assert command("openapi") == 0
    assert json.loads(command.out)["openapi"] == "3.1.0"
