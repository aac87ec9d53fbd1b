"""A restart and a restore: numbers only move forward, members stay, nothing is handed out
twice.
"""

import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from cryptography import x509
from sqlalchemy import update

from sealcast.authority.app import running
from sealcast.authority.models import SiteRow
from sealcast.authority.site import SERVER_FILE, exclusive
from sealcast.authority.site import Site as StoredSite
from sealcast.device import DeviceIdentity
from sealcast.errors import StorageError
from sealcast.keys import MemberRole
from sealcast.pki.crl import crl_number, split_crls
from sealcast.pki.policy import Policy
from sealcast.sidechannel import KeyServerClient
from tests.authority.conftest import LOOPBACK, Clock, Site, beacon_counter
from tests.management import manage

ECG = "ward/ecg"


async def start(folder: Path, devices: Path, stack: AsyncExitStack) -> Site:
    clock = Clock()
    stack.enter_context(exclusive(folder))
    authority, listening = await stack.enter_async_context(running(folder, listen=LOOPBACK, clock=clock))
    return Site(folder, devices, authority, listening, clock, stack)


class At:
    """A device that is told another key server: the port changes with each start here."""

    def __init__(self, identity: DeviceIdentity, url: str) -> None:
        self._identity, self.keys_url = identity, url

    def __getattr__(self, name: str) -> object:
        return getattr(self._identity, name)


async def client(site: Site, identity: DeviceIdentity) -> KeyServerClient:
    return await site.client(At(identity, site.listening.keys))  # type: ignore[arg-type]


async def test_invariant_8_numbers_go_on_after_a_restart(folder: Path, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        site = await start(folder, tmp_path, stack)
        await site.add_channel()
        identity = await site.enrol("display-1")
        before = (await (await client(site, identity)).join(ECG, MemberRole.SUBSCRIBE)).keys
        number = crl_number(site.authority.crl.der)
    async with AsyncExitStack() as stack:
        site = await start(folder, tmp_path, stack)
        after = await (await client(site, identity)).keys(ECG)
        assert (after.generation, after.step, after.secret) == (before.generation, before.step, before.secret)
        assert dict(after.slots) == dict(before.slots)
        assert beacon_counter(after.beacon) > beacon_counter(before.beacon)
        assert crl_number(site.authority.crl.der) >= number
        # DP-2: the control stream's key is made at each start. Its id stands at offset 6.
        assert after.beacon[6:22] != before.beacon[6:22]


async def test_invariant_8_a_counter_that_a_crash_could_have_used_is_passed_over(
    folder: Path, tmp_path: Path
) -> None:
    """The folder is copied while the service runs: what a power cut would leave."""
    async with AsyncExitStack() as stack:
        site = await start(folder, tmp_path, stack)
        await site.add_channel()
        identity = await site.enrol("display-1")
        member = await client(site, identity)
        await member.join(ECG, MemberRole.SUBSCRIBE)
        crashed = tmp_path / "crashed"
        shutil.copytree(folder, crashed, ignore=shutil.ignore_patterns("control.sock"))
        before = max([beacon_counter((await member.keys(ECG)).beacon) for _ in range(50)])
    async with AsyncExitStack() as stack:
        site = await start(crashed, tmp_path, stack)
        keys = await (await client(site, identity)).keys(ECG)
        assert beacon_counter(keys.beacon) > before


async def test_invariant_8_every_number_jumps_once_after_a_restore(folder: Path, tmp_path: Path) -> None:
    """Generation, policy, CRL, beacon counter."""
    async with AsyncExitStack() as stack:
        site = await start(folder, tmp_path, stack)
        await site.add_channel()
        identity = await site.enrol("display-1")
        joined = await (await client(site, identity)).join(ECG, MemberRole.SUBSCRIBE)
        version = Policy.parse(joined.policy, None).version
    with StoredSite.open(folder).storage.transaction() as session:
        session.execute(update(SiteRow).values(restored=True))
    for _ in range(2):
        async with AsyncExitStack() as stack:
            site = await start(folder, tmp_path, stack)
            member = await client(site, identity)
            keys = await member.keys(ECG)
            assert (keys.generation, keys.step) == (1 + 2**16, 0)
            assert beacon_counter(keys.beacon) > beacon_counter(joined.keys.beacon) + 2**32
            assert Policy.parse((await member.policy(ECG)).policy, None).version == version + 1 + 2**16
            assert crl_number((await member.crl()).crl) == crl_number(joined.crl) + 1 + 2**16


async def test_a_lost_certificate_of_the_key_server_is_made_anew_and_devices_go_on(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncExitStack() as stack:
        site = await start(folder, tmp_path / "devices", stack)
        await site.add_channel(ECG)
        identity = await site.enrol("monitor-1")
        before = site.authority.identity.chain[0]
    (folder / SERVER_FILE).unlink()
    with pytest.raises(StorageError) as missing:
        StoredSite.open(folder).key_server()
    assert "start the service, which makes another" in missing.value.cure
    async with AsyncExitStack() as stack:
        site = await start(folder, tmp_path / "devices", stack)
        assert site.authority.identity.chain[0] != before
        client = await site.client(At(identity, site.listening.keys))  # type: ignore[arg-type]
        await client.join(ECG, MemberRole.SUBSCRIBE)
        entries = await manage(site.authority, "GET", "/v1/audit", query={"limit": 1000})
        assert "remake server certificate" in [entry["action"] for entry in entries["items"]]
        # What is not known to be in other hands is not revoked.
        (crl,) = split_crls(site.authority.crl.der)
        assert len(x509.load_der_x509_crl(crl)) == 0
        made = (folder / SERVER_FILE).read_bytes()
    assert f"{folder / SERVER_FILE} was not there" in caplog.text
    async with AsyncExitStack() as stack:
        await start(folder, tmp_path / "devices", stack)
    assert (folder / SERVER_FILE).read_bytes() == made
