"""Rotation in service by real processes: the operator's commands, two agents, a stream that runs."""

import json
import signal
from pathlib import Path

import pytest

from sealcast.authority.issuance import CA_FILE, CA_KEY_FILE
from sealcast.ca import FileSigner
from sealcast.ca.signer import public_key_of
from sealcast.pki.certificates import (
    issuer_key,
    key_identifier,
    parse_certificate,
    parse_pem_certificates,
)
from tests.e2e.feed import Feed
from tests.e2e.processes import Process, wait_until
from tests.e2e.site import Site, command

# A rotation is as long as its order: six steps, six commands, and agents that look each second.
pytestmark = pytest.mark.timeout(240)


def status(site: Site) -> dict[str, object]:
    last: dict[str, object] = json.loads(command("authority", "rotate", "status", site.folder, "--json"))[-1]
    return last


def reported(site: Site) -> bool:
    found = status(site)
    return found["version"] is not None and not found["missing"]


def issuer_of(device: Path) -> bytes | None:
    credentials = device / "credentials" / (device / "current").read_text().strip()
    certificate = parse_pem_certificates((credentials / "certificate.pem").read_bytes())[0]
    return issuer_key(parse_certificate(certificate))


def start_agents(site: Site, *devices: Path) -> list[Process]:
    agents = [
        site.processes.start("device", "run", device, "--interval", "1s", "--json") for device in devices
    ]
    for agent in agents:
        agent.wait_line('"bundle": 1')
    return agents


def test_invariant_6_server_site_and_root_are_rotated_while_a_stream_runs(site: Site, tmp_path: Path) -> None:
    """Nothing is lost, nobody is enrolled anew, and what went is gone."""
    monitor, display = site.enrol("monitor", "display")
    channel = site.add_channel("icu3/vitals", publish="monitor")
    agents = start_agents(site, monitor, display)
    first = parse_pem_certificates((site.folder / CA_FILE).read_bytes())[0]
    first_root = parse_pem_certificates(site.root.read_bytes())[0]
    subscriber = site.subscribe(display, channel)
    with Feed(site, monitor, channel) as feed:
        subscriber.wait_lines(50)

        def flows(count: int = 300) -> None:
            subscriber.wait_lines(len(subscriber.out) + count)

        command("authority", "rotate", "server", site.folder)
        flows()

        # The root's key lies in the folder: one command goes as far as the devices are.
        command("authority", "rotate", "site", site.folder, "--within", "1s")
        flows()
        wait_until(lambda: reported(site), "both have reported the bundle with both site CAs")
        command("authority", "rotate", "site", site.folder, "--within", "1s")
        assert status(site)["step"] == "reissue"
        flows()
        wait_until(lambda: not status(site)["old_devices"], "both use a certificate of the new site CA")
        command("authority", "rotate", "site", site.folder)
        assert status(site)["step"] == "done"
        (second,) = parse_pem_certificates((site.folder / CA_FILE).read_bytes())
        assert public_key_of(second) != public_key_of(first)
        assert FileSigner.open(site.folder / CA_KEY_FILE).public_key == public_key_of(second)
        assert not list(site.folder.glob("ca-*.key"))
        assert {issuer_of(monitor), issuer_of(display)} == {key_identifier(second)}
        flows()

        new = tmp_path / "new.pem", tmp_path / "new.key"
        command("root", "new", *new, "--name", "Owner", "--kind", "P-256")
        options = ("--new-root-cert", new[0], "--new-root-key", new[1])
        command("authority", "rotate", "root", site.folder, *options)
        wait_until(lambda: reported(site), "both have reported the bundle with both roots")
        flows()
        command("authority", "rotate", "root", site.folder, *options)
        assert status(site)["step"] == "done"
        (new_root,) = parse_pem_certificates(site.root.read_bytes())
        assert public_key_of(new_root) != public_key_of(first_root)
        flows(600)
        # A device of later knows only the new root.
        (newcomer,) = site.enrol("display-2")
        late = site.subscribe(newcomer, channel)
        late.wait_lines(20)
        site.stop()
        site.serve()
        flows(600)
        lines = feed.finish()
        subscriber.wait_lines(len(lines))
    assert subscriber.out == lines
    assert not any("lost" in line for line in subscriber.err)
    for agent in agents:
        assert agent.is_running


def test_fault_18_the_service_is_killed_at_each_step_while_a_stream_runs(site: Site, tmp_path: Path) -> None:
    """It starts again, the same command goes on from there, and nothing is lost."""
    monitor, display = site.enrol("monitor", "display")
    channel = site.add_channel("icu3/vitals", publish="monitor")
    start_agents(site, monitor, display)
    key = (site.folder / "root.key").rename(tmp_path / "root.key")
    csr, draft = tmp_path / "site.csr", tmp_path / "draft"
    old_root = tmp_path / "root.pem"
    old_root.write_bytes(site.root.read_bytes())
    by_root = ("--root-cert", old_root, "--root-key", key)
    subscriber = site.subscribe(display, channel)
    with Feed(site, monitor, channel) as feed:
        subscriber.wait_lines(50)

        def rotate(*options: str | Path, step: str) -> None:
            command("authority", "rotate", "site", site.folder, *options)
            site.stop(signal.SIGKILL)
            site.serve()
            assert status(site)["step"] == step
            subscriber.wait_lines(len(subscriber.out) + 200)

        rotate("--csr-out", csr, step="certificate")
        command("root", "sign-site", csr, *by_root, "--output", tmp_path / "site.pem")
        rotate("--certificate", tmp_path / "site.pem", "--bundle-out", draft, step="publish")
        rotate(*by_root, step="reports")
        wait_until(lambda: reported(site), "both have reported the bundle with both site CAs")
        rotate("--within", "1s", step="reissue")
        wait_until(lambda: not status(site)["old_devices"], "both use a certificate of the new site CA")
        rotate("--bundle-out", tmp_path / "without the old one", step="retire")
        rotate(*by_root, step="done")
        lines = feed.finish()
        subscriber.wait_lines(len(lines))
    assert subscriber.out == lines
    assert not any("lost" in line for line in subscriber.err)
