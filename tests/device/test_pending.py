"""A first enrolment that an operator has to approve: one key and one request, over every restart (SC-24)."""

import json
import os
from pathlib import Path

import pytest

from sealcast import cli
from sealcast.device import DeviceIdentity, PendingRequest, cancel, renew_async
from sealcast.device.folder import PENDING
from sealcast.errors import EnrolmentError, NetworkError, SealcastError, StorageError, TokenError
from tests.device.conftest import Authority, entries, make_folder
from tests.device.test_command import run


@pytest.fixture
def waiting_authority(authority: Authority) -> Authority:
    """One that answers 202 until `pending_seconds` is None again."""
    authority.service.pending_seconds = 7
    return authority


async def wait(authority: Authority, folder: Path, **changes: object) -> PendingRequest:
    """Enrol, and be told to come again."""
    with pytest.raises(EnrolmentError) as caught:
        await authority.enroll(folder, **changes)  # type: ignore[arg-type]
    assert caught.value.retry_after == 7
    found = PendingRequest.read(folder)
    assert found is not None
    return found


async def test_the_same_request_is_sent_again(waiting_authority: Authority, folder: Path) -> None:
    service = waiting_authority.service
    token = service.token("monitor-1")
    first = await wait(waiting_authority, folder, token=token)
    again = await wait(waiting_authority, folder, token=token)
    assert first.csr == again.csr
    service.pending_seconds = None
    identity = await waiting_authority.enroll(folder, token=token)
    assert service.asked == [first.csr] * 3
    assert identity.signer.public_key == first.signer.public_key
    assert PendingRequest.read(folder) is None
    assert entries(folder) == ["credentials", "current"]


async def test_a_lost_answer_leaves_the_key_that_was_shown(authority: Authority, folder: Path) -> None:
    """Whether the authority heard of it is not known: it may be waiting there."""
    authority.service.failure = RuntimeError("no answer")
    with pytest.raises(NetworkError):
        await authority.enroll(folder)
    authority.service.failure = None
    found = PendingRequest.read(folder)
    assert found is not None
    identity = await authority.enroll(folder)
    assert identity.signer.public_key == found.signer.public_key
    assert authority.service.asked == [found.csr] * 2


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"token": "wrong"}, TokenError),
        ({"authority_url": "https://127.0.0.1:1"}, NetworkError),
        ({"roots": [b"garbage"]}, SealcastError),
    ],
)
async def test_a_failure_does_not_lose_what_waits(
    waiting_authority: Authority, folder: Path, changes: dict[str, object], kind: type[SealcastError]
) -> None:
    before = await wait(waiting_authority, folder)
    waiting_authority.service.pending_seconds = None
    with pytest.raises(kind):
        await waiting_authority.enroll(folder, **changes)  # type: ignore[arg-type]
    identity = await waiting_authority.enroll(folder)
    assert identity.signer.public_key == before.signer.public_key


async def test_it_is_the_request_of_one_device(waiting_authority: Authority, folder: Path) -> None:
    await wait(waiting_authority, folder)
    heard = len(waiting_authority.service.asked)
    for changes in ({"name": "monitor-2"}, {"label": "other"}):
        with pytest.raises(StorageError, match=r"'monitor-1' to .* is not decided yet") as caught:
            await waiting_authority.enroll(folder, **changes)
        assert "--cancel" in caught.value.cure
    assert len(waiting_authority.service.asked) == heard


async def test_a_device_that_waits_for_another_certificate_goes_on_with_its_own(
    authority: Authority, folder: Path
) -> None:
    identity = await authority.enroll(folder)
    authority.service.pending_seconds = 7
    found = await wait(authority, folder)
    assert DeviceIdentity.open(folder).serial == identity.serial
    renewed = await renew_async(folder)
    assert renewed.signer.public_key != found.signer.public_key
    authority.service.pending_seconds = None
    assert (await authority.enroll(folder)).signer.public_key == found.signer.public_key


async def test_what_has_been_answered_waits_no_more(waiting_authority: Authority, folder: Path) -> None:
    """As when a crash comes between the two renames; also when a renewal is the next that happens."""
    await wait(waiting_authority, folder)
    copy = folder.with_name("copy")
    (folder / PENDING).rename(copy)
    waiting_authority.service.pending_seconds = None
    identity = await waiting_authority.enroll(folder)
    for file in copy.iterdir():
        data = identity.key_file.read_bytes() if file.name == "key.pem" else file.read_bytes()
        file.write_bytes(data)
    copy.rename(folder / PENDING)
    assert PendingRequest.read(folder) is None
    await renew_async(folder)
    assert entries(folder) == ["credentials", "current"]


async def test_it_is_shown_and_dropped_by_commands(
    waiting_authority: Authority, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = await wait(waiting_authority, folder)
    assert await run("device", "show", str(folder), "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["name"], shown["authority"]) == ("monitor-1", waiting_authority.url)
    assert len(shown["waiting_key_sha256"]) == 64
    assert await run("device", "show", str(folder)) == 0
    assert "waits since" in capsys.readouterr().out
    for words in (("device", "renew", str(folder)), ("subscribe", str(folder), "ward/ecg")):
        assert await run(*words) == 8
        assert "its request is not decided" in capsys.readouterr().err
    # What was said before need not be said again.
    token = waiting_authority.service.token("monitor-1")
    assert await run("device", "enroll", str(folder), "--token", token) == 4
    assert "run it again" in capsys.readouterr().err
    waiting_authority.service.pending_seconds = None
    assert await run("device", "enroll", str(folder), "--token", token) == 0
    assert DeviceIdentity.open(folder).signer.public_key == first.signer.public_key


async def test_what_is_dropped_is_gone(waiting_authority: Authority, folder: Path) -> None:
    first = await wait(waiting_authority, folder)
    assert await run("device", "enroll", str(folder), "--cancel") == 0
    assert entries(folder) == []
    with pytest.raises(StorageError, match="no request waits here"):
        cancel(folder)
    assert cli.main(["device", "enroll", str(folder), "--token", "x"]) == 2
    second = await wait(waiting_authority, folder)
    assert second.signer.public_key != first.signer.public_key


@pytest.mark.parametrize("name", ["request.json", "key.pem", "roots.pem"])
async def test_a_damaged_request_is_named_and_can_be_dropped(
    waiting_authority: Authority, folder: Path, name: str
) -> None:
    await wait(waiting_authority, folder)
    (folder / PENDING / name).write_bytes(b"{}")
    with pytest.raises(SealcastError, match=r"makes no sense|PEM") as caught:
        await waiting_authority.enroll(folder)
    assert "--cancel" in caught.value.cure
    cancel(folder)
    await wait(waiting_authority, folder)


async def test_a_full_disk_leaves_no_half_of_it(
    waiting_authority: Authority, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, count, failing = os.fsync, 0, 0

    def full(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count == failing:
            raise OSError(28, "No space left on device")
        real(descriptor)

    make_folder(folder)
    monkeypatch.setattr(os, "fsync", full)
    await wait(waiting_authority, folder)
    steps = count
    cancel(folder)
    heard = len(waiting_authority.service.asked)
    assert steps >= 6
    for step in range(1, steps + 1):
        count, failing = 0, step
        with pytest.raises(StorageError, match="No space left"):
            await waiting_authority.enroll(folder)
        assert entries(folder) == []
    assert len(waiting_authority.service.asked) == heard
