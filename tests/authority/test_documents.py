"""What a device keeps of CRL and policies, at a real authority (TR-29, SC-32).

They are fetched, judged, never go backwards, and are at hand while it is away.
"""

import asyncio
import json
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from sealcast import cli
from sealcast.authority.quantities import Address
from sealcast.device import DeviceIdentity
from sealcast.device.agent import AgentStatus, DeviceAgent
from sealcast.device.documents import Documents, take_crl, take_policy
from sealcast.device.floors import raise_crl_numbers, read_crl_numbers, read_floors
from sealcast.device.folder import CRLS, FLOORS, POLICIES
from sealcast.device.trust import sync_trust
from sealcast.endpoint import Subscriber
from sealcast.errors import CertificateError, NetworkError, StorageError
from sealcast.pki.certificates import parse_certificate
from sealcast.pki.names import channel_id
from tests.authority.conftest import Site, make_site, serving
from tests.authority.conftest import settings as channel_settings
from tests.authority.test_other_sites import crl_of, list_other

ECG = "ward/ecg"


async def look(identity: DeviceIdentity) -> AgentStatus:
    async with DeviceAgent(identity.path) as agent:
        return await agent.look()


def copy(folder: Path, name: str) -> Path:
    return Path(shutil.copytree(folder, folder.with_name(name)))


async def test_the_agent_holds_the_crl_and_the_policies_of_its_channels(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    await site.add_channel(ECG)
    await site.add_channel("ward/secret", publish=("nobody",), subscribe=("nobody",))
    identity = await site.enrol("monitor-1")
    async with DeviceAgent(identity.path) as agent:
        first = await agent.look()
        assert first.documents_changed
        assert first.documents.crl is not None
        assert first.documents.crl.document == site.authority.crl.der
        assert [(each.channel, each.version) for each in first.documents.policies] == [(ECG, 2)]
        assert not (await agent.look()).documents_changed
        await site.enrol("monitor-2")
        await site.authority.revoke_device("monitor-2")
        await site.authority.add_channel(channel_settings("ward/spo2"))
        second = await agent.look()
    assert second.documents.crl is not None
    assert second.documents.crl.number == site.authority.crl.number > first.documents.crl.number
    versions = dict(site.authority.channels_of("monitor-1"))
    assert {each.channel: each.version for each in second.documents.policies} == versions
    # What it may not use any more it does not keep, and a version that it has seen stays known.
    await site.authority.set_members("ward/spo2", ("nobody",), ("nobody",))
    third = await look(identity)
    assert [each.channel for each in third.documents.policies] == [ECG]
    assert (
        read_floors(identity.path, channel_id(identity.site_id, "ward/spo2")).policy_version
        == versions["ward/spo2"]
    )

    assert cli.main(["device", "show", str(identity.path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["crl"].startswith(f"{site.authority.crl.number} until ")
    assert [text.split(" until ")[0] for text in shown["policies"]] == [f"{ECG} {versions[ECG]}"]
    assert cli.main(["device", "show", str(identity.path)]) == 0
    assert "policies" in capsys.readouterr().out


async def test_of_channels_a_device_hears_only_of_its_own(site: Site) -> None:
    """SC-32."""
    await site.add_channel(ECG)
    await site.add_channel("ward/secret", publish=("nobody",), subscribe=("nobody",))
    client = await site.client(await site.enrol("monitor-1"))
    told = await client.channels()
    assert told.channels == ((ECG, 2),)
    assert told.crl == (site.authority.crl.number, site.authority.crl.digest)
    await site.authority.revoke_device("monitor-1")
    with pytest.raises(CertificateError, match="revoked"):
        await client.channels()


async def test_they_are_at_hand_while_the_authority_is_away(folder: Path, tmp_path: Path) -> None:
    async with serving(folder, tmp_path / "devices") as site:
        await site.add_channel(ECG)
        identity = await site.enrol("monitor-1")
        held = (await look(identity)).documents
    assert held.crl is not None
    assert Documents.read(identity.path, identity.site_id) == held
    with pytest.raises(NetworkError):
        await look(identity)
    assert Documents.read(identity.path, identity.site_id) == held
    # Keys are in no folder: a start waits for the authority, however fresh the rest is.
    with pytest.raises(NetworkError):
        async with Subscriber(identity, ECG):
            pass


async def test_a_key_server_that_the_held_crl_names_is_not_spoken_to(site: Site) -> None:
    """Before a join there is the list of the last run to judge it by."""
    await site.add_channel(ECG)
    identity = await site.enrol("monitor-1")
    held = (await look(identity)).documents.crl
    assert held is not None
    serial = parse_certificate(site.authority.identity.chain[0]).serial_number
    take_crl(identity.path, identity.site_id, crl_of(site, held.number + 1, serial), identity.issuers)
    with pytest.raises(CertificateError, match="revoked") as caught:
        await look(identity)
    # It is not this device that is: the agent goes on asking.
    assert caught.value.reason == "peer-revoked"
    with pytest.raises(CertificateError, match="revoked") as caught:
        async with Subscriber(identity, ECG):
            pass
    assert caught.value.reason == "peer-revoked"


@pytest.mark.parametrize("what", ["policy", "CRL"])
async def test_b7_an_older_policy_or_crl_that_the_authority_offers_is_refused(
    folder: Path, tmp_path: Path, what: str
) -> None:
    """By an authority that lags, as a copy of its folder from before a change; at the agent, and at a join by
    who has not been on the channel before.
    """
    async with serving(folder, tmp_path / "devices") as site:
        await site.add_channel(ECG)
        identity = await site.enrol("monitor-1")
        await site.enrol("gone")
        places = address_of(site.listening.authority), address_of(site.listening.keys)
    old = await asyncio.to_thread(copy, folder, "old")
    async with serving(folder, tmp_path / "devices", places) as site:
        if what == "CRL":
            await site.authority.revoke_device("gone")
        else:
            await site.authority.set_members(ECG, ("nobody",), None)
        held = (await look(identity)).documents
    async with serving(old, tmp_path / "devices", places):
        status = await look(identity)
        assert status.documents == held
        assert status.refusal is not None
        assert status.refusal.reason == "backwards"
        assert "older than" in str(status.refusal)
        assert cli.main(["device", "show", str(identity.path)]) == 0
        with pytest.raises(NetworkError, match="older than"):
            async with Subscriber(identity, ECG):
                pass
    async with serving(folder, tmp_path / "devices", places):
        assert (await look(identity)).refusal is None
        async with Subscriber(identity, ECG):
            pass


def address_of(url: str) -> Address:
    host, _, port = url.removeprefix("https://").rpartition(":")
    return Address(host=host, port=int(port))


async def test_b7_the_numbers_of_all_sites_are_known_after_a_restart(folder: Path, tmp_path: Path) -> None:
    """The own list goes on while that of another site goes back: by what a subscriber alone has stored."""
    async with AsyncExitStack() as stack:
        lab = await stack.enter_async_context(serving(make_site(tmp_path / "lab"), tmp_path / "lab-devices"))
        async with serving(folder, tmp_path / "devices") as site:
            await list_other(site, lab)
            await site.add_channel(ECG)
            identity = await site.enrol("monitor-1")
            identity = await sync_trust(identity.path, await site.client(identity))
            await site.authority.import_crl(lab.authority.crl.own)
            places = address_of(site.listening.authority), address_of(site.listening.keys)
        old = await asyncio.to_thread(copy, folder, "old")
        await lab.enrol("monitor-7")
        await lab.authority.revoke_device("monitor-7")
        async with serving(folder, tmp_path / "devices", places) as site:
            await site.authority.import_crl(lab.authority.crl.own)
            async with Subscriber(identity, ECG):
                pass
        numbers = sorted(read_crl_numbers(identity.path).values())
        assert numbers == sorted((site.authority.crl.number, lab.authority.crl.number))
    async with serving(old, tmp_path / "devices", places) as site:
        await site.enrol("gone")
        for _ in range(3):
            await site.authority.revoke_device("gone")
            await site.enrol("gone")
        assert site.authority.crl.number > max(numbers)
        for held in (True, False):
            # What is known does not depend on the document that was held.
            if not held:
                (identity.path / CRLS / identity.site_id.hex()).unlink()
            with pytest.raises(NetworkError, match="older than"):
                async with Subscriber(identity, ECG):
                    pass
            assert (await look(identity)).refusal is not None
    assert sorted(read_crl_numbers(identity.path).values()) == numbers


async def test_what_no_site_ca_has_signed_is_not_stored(site: Site, tmp_path: Path) -> None:
    await site.add_channel(ECG)
    identity = await site.enrol("monitor-1")
    await look(identity)
    before = Documents.read(identity.path, identity.site_id)
    numbers = read_crl_numbers(identity.path)
    assert before.crl is not None
    path, site_id, authorities = identity.path, identity.site_id, identity.issuers
    foreign = make_site(tmp_path / "foreign")
    async with serving(foreign, tmp_path / "devices") as other:
        foreign_crl = other.authority.crl.der
    forged = bytes([*before.crl.document[:-1], before.crl.document[-1] ^ 1])
    for document, reason in (
        (foreign_crl, "unknown-issuer"),
        (forged, "signature"),
        (before.crl.document + forged, "signature"),
        (b"\x30\x00", "malformed"),
    ):
        with pytest.raises(CertificateError) as caught:
            take_crl(path, site_id, document, authorities)
        assert caught.value.reason == reason
    # One of a stranger beside it vouches for nobody, and its number is not kept.
    await asyncio.to_thread(take_crl, path, site_id, before.crl.document + foreign_crl, authorities)
    assert read_crl_numbers(path) == numbers
    (policy,) = before.policies
    for changes, reason in (
        ({"channel": "ward/other"}, "name"),
        ({"issuer": site.roots[0]}, "signature"),
        ({"signed": policy.signed[:-1]}, "malformed"),
        ({"now": policy.next_update}, "stale"),
    ):
        given = {"channel": ECG, "signed": policy.signed, "issuer": policy.issuer, "now": site.clock()}
        with pytest.raises(CertificateError) as caught:
            take_policy(path, site_id, wall=site.clock(), **(given | changes))  # type: ignore[arg-type]
        assert caught.value.reason == reason
    assert Documents.read(path, site_id).policies == before.policies


async def test_a_damaged_file_is_fetched_anew(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    await site.add_channel(ECG)
    identity = await site.enrol("monitor-1")
    held = (await look(identity)).documents
    for file in (*(identity.path / POLICIES).glob("?" * 64), *(identity.path / CRLS).glob("?" * 32)):
        file.write_bytes(file.read_bytes()[:-40])
    damaged = Documents.read(identity.path, identity.site_id)
    assert (damaged.crl, damaged.policies) == (None, ())
    assert caplog.text.count("fetched anew") == 2, caplog.text
    assert (await look(identity)).documents == held
    (identity.path / FLOORS / "crls").write_bytes(b"\x81\x01")
    with pytest.raises(StorageError, match="damaged") as caught:
        read_crl_numbers(identity.path)
    assert "remove this file to forget what was seen" in caught.value.cure


def test_numbers_of_issuers_only_rise_and_are_bounded(tmp_path: Path) -> None:
    one, two = bytes(32), b"\x01" * 32
    raise_crl_numbers(tmp_path, {one: 5})
    raise_crl_numbers(tmp_path, {one: 4, two: 2**63})
    assert read_crl_numbers(tmp_path) == {one: 5, two: 2**63}
    raise_crl_numbers(tmp_path, {number.to_bytes(32): number for number in range(2, 3000)})
    found = read_crl_numbers(tmp_path)
    assert (len(found), found[one], found[two]) == (1024, 5, 2**63)
