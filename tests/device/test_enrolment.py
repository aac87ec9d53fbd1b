"""Enrolment and renewal against a real EST server: whole, or as it was."""

import asyncio
import os
from pathlib import Path

import pytest

from sealcast.ca.signer import public_key_of
from sealcast.device import DeviceIdentity, default_keys_url, enroll, renew, renew_async
from sealcast.device.folder import RENEWAL_KEY
from sealcast.errors import (
    CertificateError,
    ConfigError,
    EnrolmentError,
    SealcastError,
    StorageError,
    TokenError,
    UnreachableError,
    UsageError,
)
from sealcast.est import EnrolmentRequest
from sealcast.pki.names import Role
from sealcast.pki.times import system_time
from tests.device.conftest import Authority, entries, leftovers, make_folder
from tests.est.site import DAY, Site, TokenService, serving


async def test_an_enrolled_device_knows_itself(authority: Authority, folder: Path) -> None:
    identity = await authority.enroll(folder)
    assert identity.chain == DeviceIdentity.open(folder).chain
    assert identity.name == "monitor-1"
    assert identity.site_id == authority.site.site_id
    assert identity.chain == (authority.service.issued[0].der, authority.site.issuer.certificate)
    assert identity.roots == (authority.site.root_der,)
    assert identity.issuers == (authority.site.issuer.certificate,)
    assert identity.authority_url == authority.url
    assert identity.keys_url == default_keys_url(authority.url)
    assert public_key_of(identity.certificate) == identity.signer.public_key
    verified = identity.validator().verify_peer(identity.chain, Role.DEVICE, system_time())
    assert verified.name == "monitor-1"
    assert verified.not_after == identity.not_after


async def test_the_key_is_for_its_owner_alone(authority: Authority, folder: Path) -> None:
    identity = await authority.enroll(folder)
    assert identity.path.stat().st_mode & 0o777 == 0o700
    assert identity.key_file.stat().st_mode & 0o777 == 0o600
    files = [path for path in identity.path.rglob("*") if path.is_file()]
    assert [path for path in files if b"PRIVATE KEY" in path.read_bytes()] == [identity.key_file]


async def test_a_renewal_has_a_new_key(authority: Authority, folder: Path) -> None:
    first = await authority.enroll(folder, keys_url="https://keys.example.org:9000")
    second = await renew_async(folder)
    assert second.name == first.name
    assert second.site_id == first.site_id
    assert second.keys_url == first.keys_url == "https://keys.example.org:9000"
    assert second.serial != first.serial
    assert second.signer.public_key != first.signer.public_key
    assert DeviceIdentity.open(folder).chain == second.chain
    # Those who have just read the old number still find what it names.
    assert first.key_file.exists()
    third = await renew_async(folder)
    assert not first.key_file.exists()
    assert second.key_file.exists()
    assert entries(folder) == ["credentials", "current"]
    assert third.credentials.name == "3"


async def test_an_enrolled_device_may_enrol_again(authority: Authority, folder: Path) -> None:
    first = await authority.enroll(folder)
    second = await authority.enroll(folder)
    assert second.serial != first.serial


async def test_one_folder_is_one_device(authority: Authority, folder: Path) -> None:
    first = await authority.enroll(folder)
    with pytest.raises(StorageError, match="monitor-1"):
        await authority.enroll(folder, "monitor-2")
    assert len(authority.service.tokens) == 1
    assert DeviceIdentity.open(folder).chain == first.chain


async def test_a_folder_of_something_else_is_left_alone(authority: Authority, folder: Path) -> None:
    make_folder(folder)
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"thesis\.txt"):
        await authority.enroll(folder)
    assert entries(folder) == ["thesis.txt"]


async def test_what_else_lies_in_a_devices_folder_is_let_be(authority: Authority, folder: Path) -> None:
    first = await authority.enroll(folder)
    (folder / "notes.txt").write_text("mine")
    assert (await renew_async(folder)).serial != first.serial
    await authority.enroll(folder)
    assert entries(folder) == ["credentials", "current", "notes.txt"]


async def test_a_device_off_for_long_needs_a_token(authority: Authority, folder: Path) -> None:
    identity = await authority.enroll(folder)
    with pytest.raises(CertificateError, match="expired") as caught:
        await renew_async(folder, now=identity.not_after)
    assert "token" in caught.value.cure


async def test_a_revoked_device_is_not_renewed(authority: Authority, folder: Path) -> None:
    identity = await authority.enroll(folder)
    authority.service.revoke(identity.certificate)
    with pytest.raises(EnrolmentError, match="revoked"):
        await renew_async(folder)
    assert DeviceIdentity.open(folder).chain == identity.chain


async def test_f11_an_impostor_leaves_nothing(authority: Authority, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "impostor").mkdir()
    impostor = TokenService(Site(tmp_path / "impostor"))
    async with serving(impostor) as url:
        with pytest.raises(CertificateError, match="refused"):
            await authority.enroll(folder, authority_url=url)
    assert entries(folder) is None


async def test_f11_no_root_no_trust(authority: Authority, folder: Path) -> None:
    with pytest.raises(ConfigError, match="no root"):
        await authority.enroll(folder, roots=[])
    assert entries(folder) is None


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"token": "wrong"}, TokenError),
        ({"token": ""}, UsageError),
        ({"name": "no name"}, UsageError),
        ({"authority_url": "http://127.0.0.1:1"}, ConfigError),
        ({"authority_url": "https://127.0.0.1:1"}, UnreachableError),
        ({"keys_url": "127.0.0.1:1"}, ConfigError),
        ({"roots": [b"garbage"]}, CertificateError),
        ({"now": 1}, CertificateError),
    ],
)
async def test_a_refused_enrolment_leaves_nothing(
    authority: Authority, folder: Path, changes: dict[str, object], kind: type[SealcastError], existing: bool
) -> None:
    if existing:
        make_folder(folder)
    with pytest.raises(kind) as caught:
        await authority.enroll(folder, **changes)  # type: ignore[arg-type]
    assert caught.value.cure
    assert entries(folder) == ([] if existing else None)


async def test_a_certificate_for_another_device_is_not_taken(authority: Authority, folder: Path) -> None:
    """A server gone wrong issues for another name, or for another key."""
    original = authority.service.enroll

    async def wrong_key(request: EnrolmentRequest) -> bytes:
        await original(request)
        return authority.site.device(request.name or "").der

    authority.service.enroll = wrong_key  # type: ignore[method-assign]
    with pytest.raises(CertificateError, match="another key"):
        await authority.enroll(folder)
    assert entries(folder) is None


async def test_two_writers_take_turns(authority: Authority, folder: Path) -> None:
    await authority.enroll(folder)
    results = await asyncio.gather(*(renew_async(folder) for _ in range(4)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, BaseException)]
    assert all(isinstance(error, StorageError) and "another process" in str(error) for error in refused)
    assert len(refused) < 4
    DeviceIdentity.open(folder)


async def test_a_full_disk_leaves_the_old_device(
    authority: Authority, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each synchronisation fails once, so each step of the change is the one that fails."""
    identity = await authority.enroll(folder)
    real = os.fsync
    count = failing = 0

    def full(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count == failing:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    await renew_async(folder)
    steps = count
    assert steps >= 8
    for step in range(1, steps + 1):
        count, failing = 0, step
        # The key of the try before would be used again, and not be written.
        (folder / RENEWAL_KEY).unlink(missing_ok=True)
        with pytest.raises(StorageError, match="No space left"):
            await renew_async(folder)
        assert DeviceIdentity.open(folder).name == identity.name
        assert not leftovers(folder)
    failing = 0
    await renew_async(folder)


def test_the_same_without_an_event_loop(tmp_path: Path) -> None:
    """`enroll` and `renew` run a loop of their own; the server runs in a thread."""
    import threading

    (tmp_path / "site").mkdir()
    service = TokenService(Site(tmp_path / "site"))
    started, ended = threading.Event(), asyncio.Event()
    state: dict[str, object] = {}

    async def serve() -> None:
        async with serving(service) as url:
            state.update(url=url, loop=asyncio.get_running_loop())
            started.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    started.wait()
    try:
        first = enroll(
            tmp_path / "device",
            authority_url=str(state["url"]),
            roots=[service.site.root_der],
            name="monitor-1",
            token=service.token("monitor-1"),
        )
        assert renew(tmp_path / "device").serial != first.serial
    finally:
        state["loop"].call_soon_threadsafe(ended.set)  # type: ignore[attr-defined]
        thread.join()


@pytest.mark.parametrize(
    ("authority_url", "keys_url"),
    [
        ("https://a:8443", "https://a:8444"),
        ("https://[::1]:8443", "https://[::1]:8444"),
        ("https://a:443", "https://a:444"),
    ],
)
def test_the_key_server_is_on_the_next_port(authority_url: str, keys_url: str) -> None:
    assert default_keys_url(authority_url) == keys_url


def test_there_may_be_no_next_port() -> None:
    with pytest.raises(ConfigError):
        default_keys_url("https://a:65535")


async def test_renewal_is_due_at_two_thirds_of_life(authority: Authority, folder: Path) -> None:
    identity = await authority.enroll(folder)
    due = identity.renewal_time()
    assert due == DeviceIdentity.open(folder).renewal_time()
    assert identity.not_before + 56 * DAY < due <= identity.not_before + 61 * DAY
