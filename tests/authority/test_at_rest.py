"""No secret lies in clear in the database, whatever has been going on."""

from collections.abc import Iterator
from pathlib import Path

from sealcast.ca import FileSigner
from sealcast.keys import Secret
from tests.authority.conftest import SECOND, Site

ECG = "ward/ecg"


def contents(folder: Path) -> bytes:
    """Database, write-ahead log, shared memory."""
    return b"".join(path.read_bytes() for path in sorted(folder.glob("authority.db*")))


def live_secrets(site: Site) -> Iterator[Secret]:
    for channel in site.authority.all_channels():
        yield channel.keys.generation.secret
        yield from channel.keys.slots.secrets.values()


async def test_invariant_9_no_secret_lies_in_clear_in_the_database(site: Site) -> None:
    token = await site.token("monitor-1")
    await site.add_channel(slot=60 * SECOND, slots_ahead=3)
    await site.enrol("monitor-1", token)
    secrets = {secret.reveal() for secret in live_secrets(site)}
    clients = [await site.member(f"display-{number}", ECG) for number in range(3)]
    for number, client in enumerate(clients):
        site.clock.ahead += 60 * SECOND
        await site.authority.turn_slots()
        keys = await client.keys(ECG)
        secrets |= {keys.secret.reveal(), *(secret.reveal() for _, secret in keys.slots)}
        await site.authority.revoke_device(f"display-{number}")
        secrets |= {secret.reveal() for secret in live_secrets(site)}
    stored = contents(site.folder)
    assert len(secrets) > 10
    assert b"monitor-1" in stored, "this is not the database"
    for secret in secrets:
        assert secret not in stored
        assert secret.hex().encode() not in stored
    assert token.encode() not in stored
    assert (site.folder / "storage.key").read_bytes() not in stored
    for name in ("ca.key", "root.key", "server.pem"):
        key = FileSigner.open(site.folder / name).to_pem().splitlines()[1]
        assert key not in stored


async def test_what_the_service_says_of_itself_shows_no_secret(site: Site) -> None:
    await site.add_channel()
    await site.member("display-1", ECG)
    channel = site.authority.all_channels()[0]
    text = repr([channel.keys, site.authority.site, site.authority.identity])
    for secret in live_secrets(site):
        assert repr(secret.reveal()) not in text
        assert secret.reveal().hex() not in text
