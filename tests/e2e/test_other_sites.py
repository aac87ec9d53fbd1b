"""A device of another site on a channel, by the commands that an operator types (docs/other-sites.md)."""

import asyncio
import json
import ssl
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from sealcast.device.agent import DeviceAgent
from tests.e2e.feed import Feed
from tests.e2e.processes import Processes, wait_until
from tests.e2e.site import Site, command
from tests.e2e.test_trust import sign_next


@pytest.fixture
def lab(tmp_path: Path, processes: Processes) -> Site:
    return Site.start(tmp_path / "lab", processes)


def site_of(device: Path) -> str:
    """The id of a device's own site."""
    return str(json.loads(command("device", "show", device, "--json"))["site"])


async def follow(device: Path) -> None:
    """Bring the device its site's trust bundle, as its agent does."""
    async with DeviceAgent(device) as agent:
        await agent.look()


def crl_of(site: Site) -> bytes:
    """The site's CRL, as anybody may have it (SC-31)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = HTTPSConnection(site.url.removeprefix("https://"), context=context, timeout=10.0)
    try:
        connection.request("GET", "/.well-known/sealcast/crl")
        return connection.getresponse().read()
    finally:
        connection.close()


def know(site: Site, other: Site, folder: Path) -> None:
    """List another owner's site in a site's trust bundle."""
    folder.mkdir()
    added = ("--add-site-root", other.root, "--add-ca", other.folder / "ca.pem")
    sign_next(site, folder, *added, root=(site.root, site.folder / "root.key"))


# Two authorities and their devices: a dozen processes and commands.
@pytest.mark.timeout(150)
def test_a_device_of_another_site_reads_until_that_site_revokes_it(
    site: Site, lab: Site, tmp_path: Path
) -> None:
    know(site, lab, tmp_path / "at-ward")
    know(lab, site, tmp_path / "at-lab")
    (monitor,), (central,) = site.enrol("monitor"), lab.enrol("central")
    for device in (monitor, central):
        asyncio.run(follow(device))
    channel = site.add_channel("icu3/vitals", publish="monitor", subscribe=f"site:{site_of(central)}/central")
    at_ward = ("--site", site_of(monitor), "--keys", site.keys_url)
    # Nobody is let in of whose site there is no list.
    refused = site.processes.run("subscribe", central, channel.name, *at_ward)
    assert refused.code == 5, refused.err
    assert "crl list" in refused.err
    command("authority", "crl", "source", site.folder, site_of(central), "--from", lab.url)

    def fetched() -> bool:
        listed = json.loads(command("authority", "crl", "list", site.folder, "--json"))
        return any("number" in row for row in listed)

    wait_until(fetched, "the list has been fetched")
    subscriber = site.subscribe(central, channel, *at_ward)
    with Feed(site, monitor, channel) as feed:
        subscriber.wait_lines(100)
        lab.revoke("central")
        # Carried by hand it is there at once; else with the next look of the authority.
        crl = tmp_path / "lab.crl"
        crl.write_bytes(crl_of(lab))
        command("authority", "crl", "import", site.folder, crl)
        assert subscriber.wait(10.0).code == 5, subscriber.err
        feed.finish()
