"""Roots come and go while a stream runs: invariant 6, and invariant 8 across a restart."""

import json
from pathlib import Path

from sealcast.device.floors import Floors, raise_floors
from sealcast.pki.names import channel_id
from tests.e2e.feed import Feed
from tests.e2e.processes import wait_until
from tests.e2e.site import Site, command


def sign_next(site: Site, folder: Path, *changes: str | Path, root: tuple[Path, Path]) -> None:
    """Draft, sign and import a version of the trust bundle, as an operator does."""
    before, draft = folder / "before", folder / "draft"
    before.unlink(missing_ok=True)
    draft.unlink(missing_ok=True)
    command("authority", "bundle", "export", site.folder, "--output", before)
    command("authority", "bundle", "draft", site.folder, "--output", draft, *changes)
    certificate, key = root
    command(
        "root", "sign-bundle", draft, "--predecessor", before, "--root-cert", certificate, "--root-key", key
    )
    command("authority", "bundle", "import", site.folder, draft)


def progress(site: Site) -> tuple[int, int]:
    found = json.loads(command("authority", "bundle", "progress", site.folder, "--json"))
    return found["version"], found["reported"]


def test_a_root_is_added_while_a_stream_runs(site: Site, tmp_path: Path) -> None:
    monitor, display = site.enrol("monitor", "display")
    channel = site.add_channel("icu3/vitals", publish="monitor")
    agents = [
        site.processes.start("device", "run", device, "--interval", "1s", "--json")
        for device in (monitor, display)
    ]
    for agent in agents:
        agent.wait_line('"bundle": 1')
    new = tmp_path / "new.pem", tmp_path / "new.key"
    command("root", "new", *new, "--name", "Owner", "--kind", "P-256")
    subscriber = site.subscribe(display, channel)
    with Feed(site, monitor, channel) as feed:
        subscriber.wait_lines(50)
        sign_next(site, tmp_path, "--add-root", new[0], root=(site.root, site.folder / "root.key"))
        for agent in agents:
            agent.wait_line('"bundle": 2')
        wait_until(lambda: progress(site) == (2, 2), "both have reported")
        subscriber.wait_lines(len(subscriber.out) + 500)
        # Renewed under the new bundle, as every certificate is in time.
        command("device", "renew", monitor)
        subscriber.wait_lines(len(subscriber.out) + 500)
        lines = feed.finish()
        subscriber.wait_lines(len(lines))
    assert subscriber.out == lines
    assert not any("lost" in line for line in subscriber.err)
    # The new root signs, too, and alone.
    sign_next(site, tmp_path, "--threshold", "2", root=new)
    assert progress(site)[0] == 3


def test_b7_what_was_seen_outlives_a_restart(site: Site) -> None:
    """An authority that serves an older policy than this device has seen is not followed."""
    monitor, display = site.enrol("monitor", "display")
    channel = site.add_channel("icu3/vitals", publish="monitor")
    subscriber = site.subscribe(display, channel)
    with Feed(site, monitor, channel) as feed:
        subscriber.wait_lines(10)
        feed.finish()
    subscriber.stop()
    site_id = bytes.fromhex(json.loads(command("device", "show", display, "--json"))["site"])
    identifier = channel_id(site_id, channel.name)
    seen = raise_floors(display, identifier, Floors())
    assert min(seen) >= 1, "the subscriber has stored what it saw"
    for later in (
        seen._replace(policy_version=seen.policy_version + 1),
        seen._replace(crl_number=seen.crl_number + 1),
        seen._replace(generation=seen.generation + 1),
    ):
        (display / "floors" / identifier.hex()).unlink()
        assert raise_floors(display, identifier, later) == later
        finished = site.processes.run("subscribe", display, channel.name)
        assert finished.code == 7, finished.err
        assert "known" in finished.err or "Backwards" in finished.err, finished.err
