"""Messages between peers at a real authority, over real TLS: SC-35 to SC-38, TR-30, TR-8."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import cbor2
import pytest

from sealcast import sync
from sealcast.authority.endpoints import put_endpoint
from sealcast.authority.quantities import Address
from sealcast.device import DeviceIdentity, renew_async
from sealcast.device.folder import MESSAGES
from sealcast.device.mailbox import Bounds
from sealcast.endpoint import Device, Inbox, Peer, PeerMessage
from sealcast.errors import (
    CertificateError,
    IncompleteError,
    NetworkError,
    PeerError,
    StorageError,
    UsageError,
)
from sealcast.pki.times import system_time
from sealcast.sidechannel import PeerClient
from sealcast.sidechannel.connection import RefusalError
from sealcast.sidechannel.peer_messages import MAX_MESSAGE_DATA, PostedMessage
from tests.authority.conftest import DAY, Site, serving

ECG = "ward/ecg"
MONITOR, DISPLAY = "monitor-1", "display-1"


@pytest.fixture
async def paired(site: Site) -> Site:
    """Two devices of one channel; one of them may only subscribe."""
    await site.add_channel(ECG)
    await site.enrol(MONITOR)
    await site.enrol(DISPLAY)
    return site


def device(site: Site, name: str) -> Device:
    return Device.open(site.devices / name)


async def take(inbox: Inbox, count: int) -> list[PeerMessage]:
    """So many messages, within a deadline."""
    taken: list[PeerMessage] = []
    async with asyncio.timeout(20):
        while len(taken) < count:
            taken += await inbox.recv_many(count - len(taken))
    return taken


async def eventually(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for what can only be asked for."""
    deadline = asyncio.get_running_loop().time() + 20
    while not await condition():
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.02)


async def post(site: Site, sender: str, inbox: Inbox, *messages: PostedMessage, to: str = DISPLAY) -> int:
    """One request to an inbox, as a sender makes it, whatever its own side thinks of it."""
    assert inbox.endpoint is not None
    host, port = inbox.endpoint
    identity = DeviceIdentity.open(site.devices / sender)
    crl = site.authority.crl.der
    async with PeerClient(identity, host=host, port=port, device=to, crl=lambda: crl) as client:
        return await client.post(messages)


def message(data: bytes = b"x", id: bytes | None = None) -> PostedMessage:
    return PostedMessage(id=id or os.urandom(16), topic=None, time=1, data=data)


async def test_messages_go_both_ways_in_order_with_their_topics(paired: Site) -> None:
    async with (
        device(paired, MONITOR).inbox() as at_monitor,
        device(paired, DISPLAY).inbox() as at_display,
        device(paired, MONITOR).peer(DISPLAY) as display,
        device(paired, DISPLAY).peer(MONITOR) as monitor,
    ):
        first = await display.send(b"0", topic="alarm")
        await display.send_many([b"%d" % number for number in range(1, 500)])
        await monitor.send(b"")
        received = await take(at_display, 500)
        assert [each.data for each in received] == [b"%d" % number for number in range(500)]
        assert (received[0].id, received[0].topic, received[1].topic) == (first, "alarm", None)
        assert {each.sender for each in received} == {MONITOR}
        [back] = await take(at_monitor, 1)
        assert (back.sender, back.data) == (DISPLAY, b"")
        await asyncio.wait_for(display.delivered(), 20)
        assert await display.waiting() == await monitor.waiting() == 0


async def test_a_peer_that_is_sent_to_outside_of_a_block_stays_open_until_the_device_is_closed(
    paired: Site,
) -> None:
    async with device(paired, DISPLAY).inbox() as inbox, device(paired, MONITOR) as monitor:
        for number in range(3):
            await monitor.peer(DISPLAY).send(b"%d" % number)
        assert [each.data for each in await take(inbox, 3)] == [b"0", b"1", b"2"]
        await asyncio.wait_for(monitor.peer(DISPLAY).delivered(), 20)
        with pytest.raises(PeerError):
            await monitor.peer("nobody", linger=0).send(b"x")


async def test_async_for_and_what_is_done_with(paired: Site) -> None:
    """A message is off the disk once the next one is asked for; after an error the last one comes again."""
    async with device(paired, MONITOR).peer(DISPLAY) as display:

        async def take_until(last: bytes, error: Exception | None = None) -> list[bytes]:
            seen = []
            async with device(paired, DISPLAY).inbox() as inbox, asyncio.timeout(20):
                async for each in inbox:
                    seen.append(each.data)
                    if each.data == last:
                        if error is not None:
                            raise error
                        break
            return seen

        await display.send_many([b"1", b"2", b"3"])
        with pytest.raises(RuntimeError):
            await take_until(b"2", RuntimeError("the application fails"))
        assert await take_until(b"3") == [b"2", b"3"]
        await display.send(b"4")
        assert await take_until(b"4") == [b"4"]


@pytest.mark.filterwarnings("ignore:Sending a large body")
async def test_the_largest_message_passes_and_a_byte_more_is_none(paired: Site) -> None:
    """SC-35, SC-2."""
    async with (
        device(paired, DISPLAY).inbox() as inbox,
        device(paired, MONITOR).peer(DISPLAY) as display,
    ):
        with pytest.raises(UsageError, match=f"message 1 of 2 has {MAX_MESSAGE_DATA + 1} bytes: none was"):
            await display.send_many([b"", bytes(MAX_MESSAGE_DATA + 1)])
        with pytest.raises(UsageError, match="topic"):
            await display.send(b"", topic="t" * 256)
        largest = os.urandom(MAX_MESSAGE_DATA)
        await display.send_many([largest] * 3, topic="t" * 255)
        received = await take(inbox, 3)
        assert all(each.data == largest for each in received)
        with pytest.raises(NetworkError, match="too large"):
            await post(paired, MONITOR, inbox, message(bytes(1 << 20)))


async def test_a_message_that_comes_again_is_stored_once(paired: Site) -> None:
    """SC-37: as after an acknowledgement that was lost; also after it was taken, and after a restart."""
    first, second = message(b"first"), message(b"second")
    display = device(paired, DISPLAY)
    async with display.inbox() as inbox:
        assert await post(paired, MONITOR, inbox, first) == 1
        assert await post(paired, MONITOR, inbox, first, second) == 2
        assert [each.data for each in await take(inbox, 2)] == [b"first", b"second"]
        assert await post(paired, MONITOR, inbox, second, first) == 2
    async with display.inbox() as inbox:
        assert await post(paired, MONITOR, inbox, first, second, second) == 3
        third = message(b"third")
        assert await post(paired, MONITOR, inbox, third) == 1
        assert [each.data for each in await take(inbox, 1)] == [b"third"]


async def test_d5_an_id_is_the_senders_own(paired: Site) -> None:
    """Whoever repeats another device's id keeps nobody's message out, and gets none of its own through as
    another's.
    """
    await paired.enrol("monitor-2")
    one = message(b"of monitor-1")
    async with device(paired, DISPLAY).inbox() as inbox:
        assert await post(paired, "monitor-2", inbox, message(b"of monitor-2", one.id)) == 1
        assert await post(paired, MONITOR, inbox, one) == 1
        received = await take(inbox, 2)
    assert [(each.sender, each.data) for each in received] == [
        ("monitor-2", b"of monitor-2"),
        (MONITOR, b"of monitor-1"),
    ]


_GOOD = [bytes(16), None, 1, b""]
ABSURD: dict[str, object] = {
    "none": [],
    "no list": 7,
    "no message": [7],
    "a field too few": [_GOOD[:3]],
    "a short id": [[bytes(15), *_GOOD[1:]]],
    "a long id": [[bytes(17), *_GOOD[1:]]],
    "a topic of numbers": [[bytes(16), 7, 1, b""]],
    "a long topic": [[bytes(16), "t" * 256, 1, b""]],
    "a topic of 256 bytes": [[bytes(16), "\u00e9" * 128, 1, b""]],
    "a time before all times": [[bytes(16), None, -1, b""]],
    "a time after all times": [[bytes(16), None, 2**63, b""]],
    "a time that is no integer": [[bytes(16), None, 1.5, b""]],
    "no bytes": [[bytes(16), None, 1, "text"]],
    "too many": [_GOOD] * 1025,
    "a good one before": [_GOOD, 7],
}


async def test_d5_absurd_fields_get_400_and_change_nothing(paired: Site) -> None:
    async with device(paired, DISPLAY).inbox() as inbox:
        assert inbox.endpoint is not None
        identity = DeviceIdentity.open(paired.devices / MONITOR)
        host, port = inbox.endpoint
        async with PeerClient(identity, host=host, port=port, device=DISPLAY) as client:
            bodies = {name: {"messages": messages} for name, messages in ABSURD.items()}
            for name, fields in {**bodies, "nothing": {}}.items():
                body = cbor2.dumps(fields, canonical=True)
                status, answer = await client.exchange("POST", "/v1/inbox", body, answer_seconds=10)
                assert (status, b"malformed-request" in answer) == (400, True), name
            assert await client.post([message(b"good")]) == 1
        assert [each.data for each in await take(inbox, 1)] == [b"good"]


class TestWhoMay:
    """TR-30: by one policy that lists both, asked for each message, on both sides."""

    async def test_whom_no_policy_pairs_is_refused_on_both_sides(self, paired: Site) -> None:
        await paired.add_channel("ward/other", publish=("other-*",), subscribe=("other-*",))
        await paired.enrol("other-1")
        async with device(paired, DISPLAY).inbox() as inbox, device(paired, "other-1").peer(DISPLAY) as peer:
            with pytest.raises(PeerError, match=f"no channel's policy lists both .*{DISPLAY}") as caught:
                await peer.send(b"x")
            assert caught.value.exit_code == 6
            assert await peer.waiting() == 0
            with pytest.raises(PeerError):
                await post(paired, "other-1", inbox, message())
        with pytest.raises(UsageError, match="this very device"):
            device(paired, DISPLAY).peer(DISPLAY)
        with pytest.raises(UsageError, match="not a device name"):
            device(paired, DISPLAY).peer("a b")

    async def test_who_loses_its_last_channel_loses_the_peer(self, paired: Site) -> None:
        async with (
            device(paired, DISPLAY).inbox() as inbox,
            device(paired, MONITOR).peer(DISPLAY, linger=0) as display,
        ):
            await display.send(b"before")
            await take(inbox, 1)
            await paired.authority.set_members(ECG, ("monitor-*",), ("nobody",))

            async def is_refused() -> bool:
                try:
                    await post(paired, MONITOR, inbox, message())
                except PeerError:
                    return True
                return False

            await eventually(is_refused, "the inbox hears of the policy")

            async def cannot_send() -> bool:
                try:
                    await display.send(b"after")
                except PeerError:
                    return True
                return False

            await eventually(cannot_send, "the sender hears of the policy")

    async def test_d10_a_revoked_sender_is_refused_at_once_on_an_open_connection(self, paired: Site) -> None:
        """Invariant 5: within moments of the revocation, and without another request to the authority."""
        async with (
            device(paired, DISPLAY).inbox() as inbox,
            device(paired, MONITOR).peer(DISPLAY, linger=0) as display,
        ):
            await display.send(b"before")
            await take(inbox, 1)
            await paired.authority.revoke_device(MONITOR)

            async def is_refused() -> bool:
                try:
                    await post(paired, MONITOR, inbox, message())
                except CertificateError as error:
                    return error.reason == "revoked"
                return False

            began = asyncio.get_running_loop().time()
            await eventually(is_refused, "the inbox hears of the revocation")
            assert asyncio.get_running_loop().time() - began < 5

    async def test_a_revoked_device_does_not_begin(self, paired: Site) -> None:
        sender = device(paired, MONITOR)
        await paired.authority.revoke_device(MONITOR)
        for end in (sender.peer(DISPLAY), sender.inbox()):
            with pytest.raises(CertificateError) as caught:
                async with end:
                    pass
            assert caught.value.reason == "revoked"

    async def test_a_revoked_receiver_is_not_sent_to(self, paired: Site) -> None:
        """Although it listens, and its own side does not know yet or does not care."""
        async with device(paired, DISPLAY).inbox() as inbox:
            place = inbox.endpoint
            assert place is not None
            await paired.authority.revoke_device(DISPLAY)
            async with device(paired, MONITOR).peer(DISPLAY, linger=0) as display:
                with pytest.raises(PeerError):
                    await display.send(b"secret")
            crl = paired.authority.crl.der
            identity = DeviceIdentity.open(paired.devices / MONITOR)
            async with PeerClient(
                identity, host=place[0], port=place[1], device=DISPLAY, crl=lambda: crl
            ) as client:
                with pytest.raises(CertificateError) as caught:
                    await client.post([message(b"secret")])
            assert caught.value.reason == "peer-revoked"

    async def test_past_next_update_nobody_is_let_in_or_sent_to(
        self, paired: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By policies and CRLs that are late nobody is judged (TR-15, TR-9)."""
        async with (
            device(paired, DISPLAY).inbox() as inbox,
            device(paired, MONITOR).peer(DISPLAY, linger=0) as display,
        ):
            await display.send(b"in time")
            await take(inbox, 1)
            monkeypatch.setattr("sealcast.endpoint.peer_site.system_time", lambda: system_time() + 5 * DAY)
            with pytest.raises(PeerError):
                await display.send(b"too late")
            with pytest.raises(CertificateError) as caught:
                await post(paired, MONITOR, inbox, message())
            assert caught.value.reason == "not-authenticated"

    async def test_whoever_listens_where_the_directory_says_has_to_be_the_peer(self, paired: Site) -> None:
        """TR-8: an authority that is broken into can lead messages astray, and nobody reads them."""
        await paired.enrol("monitor-2")
        async with device(paired, "monitor-2").inbox() as other:
            with paired.authority.site.storage.transaction() as session:
                put_endpoint(session, DISPLAY, other.endpoint, 1)
            async with device(paired, MONITOR).peer(DISPLAY) as display:
                await display.send(b"for display-1 alone")
                await eventually(lambda: _is_set(display), "it is not who was asked for")
                assert isinstance(display.failure, CertificateError)
                assert display.failure.reason == "wrong-identity"
                async with device(paired, DISPLAY).inbox() as inbox:
                    assert [each.data for each in await take(inbox, 1)] == [b"for display-1 alone"]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(other.recv(), 0.01)


class TestAbsence:
    """SC-38: whoever is away for a while misses nothing."""

    async def test_a_receiver_that_comes_later_gets_all(self, paired: Site) -> None:
        async with device(paired, MONITOR).peer(DISPLAY, linger=0) as display:
            await display.send_many([b"1", b"2"])
            await eventually(lambda: _is_set(display), "a try has failed")
            assert "takes no messages now" in str(display.failure)
            async with device(paired, DISPLAY).inbox() as inbox:
                assert [each.data for each in await take(inbox, 2)] == [b"1", b"2"]
                await asyncio.wait_for(display.delivered(), 20)
            await display.send(b"3")
            # At another port, and by the directory.
            async with device(paired, DISPLAY).inbox() as inbox:
                assert [each.data for each in await take(inbox, 1)] == [b"3"]

    async def test_what_was_queued_outlives_the_sender(self, paired: Site) -> None:
        async with device(paired, MONITOR).peer(DISPLAY, linger=0) as display:
            ids = await display.send_many([b"1", b"2"])
        async with device(paired, MONITOR).peer(DISPLAY) as display:
            assert await display.waiting() == 2
            ids.append(await display.send(b"3"))
            async with device(paired, DISPLAY).inbox() as inbox:
                received = await take(inbox, 3)
        assert [each.id for each in received] == ids

    async def test_it_goes_on_while_the_authority_is_away(self, folder: Path, tmp_path: Path) -> None:
        """By the policies, the CRL and the address that both have; also after a restart of both."""
        async with serving(folder, tmp_path / "devices") as site:
            await site.add_channel(ECG)
            for name in (MONITOR, DISPLAY):
                await site.enrol(name)
            async with device(site, DISPLAY).inbox() as inbox:
                place = inbox.endpoint
                async with device(site, MONITOR).peer(DISPLAY) as display:
                    await display.send(b"1")
                    await take(inbox, 1)
        async with (
            device(site, DISPLAY).inbox(listen=place) as inbox,
            device(site, MONITOR).peer(DISPLAY) as display,
        ):
            await display.send(b"2")
            assert [each.data for each in await take(inbox, 1)] == [b"2"]

    async def test_a_device_that_has_nothing_to_go_by_does_not_begin(
        self, folder: Path, tmp_path: Path
    ) -> None:
        async with serving(folder, tmp_path / "devices") as site:
            await site.add_channel(ECG)
            await site.enrol(MONITOR)
        with pytest.raises(NetworkError):
            async with device(site, MONITOR).inbox():
                pass

    async def test_an_authority_that_lost_where_we_are_is_told_again(
        self, folder: Path, tmp_path: Path
    ) -> None:
        async with AsyncExitStack() as stack:
            async with serving(folder, tmp_path / "devices") as site:
                await site.add_channel(ECG)
                for name in (MONITOR, DISPLAY):
                    await site.enrol(name)
                inbox = await stack.enter_async_context(device(site, DISPLAY).inbox())
                await (await site.client(DeviceIdentity.open(site.devices / DISPLAY))).put_endpoint(None)
                places = address_of(site.listening.authority), address_of(site.listening.keys)
            async with serving(folder, tmp_path / "devices", places) as site:
                client = await site.client(DeviceIdentity.open(site.devices / MONITOR))

                async def is_there() -> bool:
                    return await client.endpoint(DISPLAY) == inbox.endpoint

                await eventually(is_there, "it is told again")

    async def test_a_renewal_in_service_loses_nothing(self, paired: Site) -> None:
        async with (
            device(paired, DISPLAY).inbox() as inbox,
            device(paired, MONITOR).peer(DISPLAY) as display,
        ):
            for number, name in enumerate((DISPLAY, MONITOR)):
                await renew_async(paired.devices / name)
                await display.send(b"%d" % number)
                assert [each.data for each in await take(inbox, 1)] == [b"%d" % number]


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of 8 MiB, mounted on a folder."""
    words = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(words, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write until nothing more fits."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


async def _is_set(peer: Peer) -> bool:
    return peer.failure is not None


def address_of(url: str) -> Address:
    host, _, port = url.removeprefix("https://").rpartition(":")
    return Address(host=host, port=int(port))


class TestFull:
    """SC-36, SC-38."""

    async def test_a_full_inbox_is_tried_again_and_nothing_is_lost(self, paired: Site) -> None:
        sent = [b"%d" % number for number in range(50)]
        await paired.enrol("monitor-2")
        async with (
            device(paired, DISPLAY).inbox(bounds=Bounds(messages=40)) as inbox,
            device(paired, MONITOR).peer(DISPLAY) as display,
        ):
            await display.send_many(sent)
            await eventually(lambda: _is_set(display), "the inbox is full")
            assert isinstance(display.failure, RefusalError)
            assert (display.failure.status, display.failure.code) == (507, "inbox-full")
            # A quarter for each sender, so that another one has room.
            assert await display.waiting() == 40
            assert await post(paired, "monitor-2", inbox, message(b"of another")) == 1
            received = await take(inbox, 51)
            assert [each.data for each in received if each.sender == MONITOR] == sent

    async def test_a_full_disk_is_a_full_inbox(self, paired: Site) -> None:
        """And once there is room, all of it comes."""
        sent = [b"%d" % number + bytes(10_000) for number in range(100)]
        folder = paired.devices / DISPLAY / MESSAGES
        folder.mkdir()
        with small_disk(folder):
            async with (
                device(paired, DISPLAY).inbox() as inbox,
                device(paired, MONITOR).peer(DISPLAY) as display,
            ):
                filler = folder / "filler"
                fill(filler)
                await display.send_many(sent)
                await eventually(lambda: _is_set(display), "the disk is full")
                assert "inbox-full" in repr(vars(display.failure))
                filler.unlink()
                assert [each.data for each in await take(inbox, 100)] == sent

    async def test_a_full_outbox_says_so_and_takes_nothing_of_the_call(self, paired: Site) -> None:
        async with device(paired, MONITOR).peer(DISPLAY, linger=0, bounds=Bounds(messages=8)) as display:
            await display.send(b"1")
            with pytest.raises(
                StorageError, match="the outbox is full: 1 messages of 1 bytes wait"
            ) as caught:
                await display.send_many([b"2", b"3"])
            assert caught.value.exit_code == 8
            assert await display.waiting() == 1
            await display.send(b"2")

    async def test_what_has_waited_too_long_is_dropped_and_told_of(self, paired: Site) -> None:
        async with device(paired, MONITOR).peer(DISPLAY, linger=0, bounds=Bounds(age=1)) as display:
            await display.send(b"1")
            with pytest.raises(IncompleteError, match="1 messages for 'display-1' were dropped"):
                await asyncio.wait_for(display.delivered(), 20)


async def test_d7_a_peer_that_sends_no_body_holds_up_itself_alone(
    paired: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two requests of one device may be open, and so many of all; they end after a while."""
    monkeypatch.setattr("sealcast.sidechannel.inbox.BODY_SECONDS", 1.5)
    monkeypatch.setattr("sealcast.sidechannel.inbox.MAX_REQUESTS", 3)
    await paired.enrol("monitor-2")
    async with device(paired, DISPLAY).inbox() as inbox, AsyncExitStack() as stack:
        assert inbox.endpoint is not None
        slow = []
        for _ in range(2):
            reader, writer = await asyncio.open_connection(
                *inbox.endpoint, ssl=DeviceIdentity.open(paired.devices / MONITOR).ssl_context_client()
            )
            stack.callback(writer.close)
            writer.write(b"POST /v1/inbox HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n\xa1")
            await writer.drain()
            slow.append(reader)

        async def is_refused() -> bool:
            try:
                await post(paired, MONITOR, inbox, message())
            except NetworkError as error:
                return "requests of this device are open" in str(error)
            return False

        await eventually(is_refused, "both are open")
        assert await post(paired, "monitor-2", inbox, message()) == 1
        monkeypatch.setattr("sealcast.sidechannel.inbox.MAX_REQUESTS", 2)
        with pytest.raises(NetworkError, match="2 requests are open"):
            await post(paired, "monitor-2", inbox, message())
        for reader in slow:
            assert b" 400 " in await asyncio.wait_for(reader.readline(), 20)
        assert await post(paired, MONITOR, inbox, message()) == 1


class TestProcesses:
    """Two processes of a device, and one that is killed."""

    async def test_one_process_takes_what_comes_in(self, paired: Site) -> None:
        async with device(paired, DISPLAY).inbox():
            with pytest.raises(StorageError, match="another process takes the messages"):
                async with device(paired, DISPLAY).inbox():
                    pass

    async def test_one_delivers_and_another_may_queue(self, paired: Site) -> None:
        async with (
            device(paired, DISPLAY).inbox() as inbox,
            device(paired, MONITOR).peer(DISPLAY) as first,
            device(paired, MONITOR).peer(DISPLAY) as second,
        ):
            await first.send(b"1")
            await take(inbox, 1)
            await second.send(b"2")
            assert [each.data for each in await take(inbox, 1)] == [b"2"]
            await asyncio.wait_for(second.delivered(), 20)

    async def test_a_receiver_that_is_killed_after_it_has_stored_stores_nothing_twice(
        self, paired: Site
    ) -> None:
        """SC-36, SC-37: killed between the disk and the answer, at the second message."""
        async with (
            killed_after_storing(paired.devices / DISPLAY, 2),
            device(paired, MONITOR).peer(DISPLAY) as display,
        ):
            await display.send(b"1")
            await asyncio.wait_for(display.delivered(), 20)
            await display.send(b"2")
            await eventually(lambda: _is_set(display), "the receiver is gone")
            await display.send(b"3")
            async with device(paired, DISPLAY).inbox() as inbox:
                received = await take(inbox, 3)
                assert [each.data for each in received] == [b"1", b"2", b"3"]
                await asyncio.wait_for(display.delivered(), 20)
                await display.send(b"4")
                assert [each.data for each in await take(inbox, 1)] == [b"4"]

    async def test_a_sender_that_is_killed_before_it_notes_the_acknowledgement_sends_nothing_twice(
        self, paired: Site
    ) -> None:
        """SC-37, SC-38: what it had queued comes once, in order, from its next process."""
        async with device(paired, DISPLAY).inbox() as inbox:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _SENDER, str(paired.devices / MONITOR), DISPLAY
            )
            assert await asyncio.wait_for(process.wait(), 20) == -signal.SIGKILL
            async with device(paired, MONITOR).peer(DISPLAY) as display:
                assert await display.waiting() == 3
                await display.send(b"last")
                received = await take(inbox, 4)
                await asyncio.wait_for(display.delivered(), 20)
            assert [each.data for each in received] == [b"0", b"1", b"2", b"last"]
            assert await post(paired, MONITOR, inbox, message(b"and no more")) == 1
            assert [each.data for each in await take(inbox, 1)] == [b"and no more"]


_SENDER = """
import asyncio, os, signal, sys
from sealcast.device.mailbox import Mailbox
from sealcast.endpoint import Device

Mailbox.delivered = lambda *_: os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with Device.open(sys.argv[1]).peer(sys.argv[2], linger=60) as peer:
        await peer.send_many([b"0", b"1", b"2"])

asyncio.run(main())
"""

_RECEIVER = """
import asyncio, os, signal, sys
from sealcast.device.mailbox import Mailbox
from sealcast.endpoint import Device

store, left = Mailbox.store, int(sys.argv[2])

def store_and_die(*arguments):
    global left
    stored = store(*arguments)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return stored

Mailbox.store = store_and_die

async def main():
    async with Device.open(sys.argv[1]).inbox():
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@asynccontextmanager
async def killed_after_storing(folder: Path, times: int) -> AsyncIterator[None]:
    """A process that takes messages, and is killed when it has stored so often, before it answers."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _RECEIVER, str(folder), str(times), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        assert await asyncio.wait_for(process.stdout.readline(), 20) == b"ready\n"
        yield
        assert await asyncio.wait_for(process.wait(), 20) == -signal.SIGKILL
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_an_end_that_is_not_open_says_so(paired: Site) -> None:
    peer, inbox = device(paired, MONITOR).peer(DISPLAY, linger=0), device(paired, MONITOR).inbox()
    with pytest.raises(UsageError, match="is not open"):
        await inbox.recv()
    async with peer:
        with pytest.raises(UsageError, match="is open already"):
            await peer.__aenter__()
    async with inbox:
        with pytest.raises(UsageError, match="is open already"):
            await inbox.__aenter__()
    with pytest.raises(UsageError, match="a box of 3 messages"):
        Bounds(messages=3)


class TestBlocking:
    """The same names without an event loop."""

    def test_a_thread_sends_and_another_takes(self, folder: Path, tmp_path: Path) -> None:
        with blocking_site(folder, tmp_path) as devices:
            monitor, display = [sync.Device.open(devices / name) for name in (MONITOR, DISPLAY)]
            with display.inbox() as inbox, monitor.peer(DISPLAY) as peer:
                with pytest.raises(TimeoutError):
                    inbox.recv(timeout=0.01)
                id = peer.send(b"1", topic="t")
                peer.send_many([b"2", b"3"])
                first = inbox.recv(timeout=20)
                assert (first.id, first.topic, first.data) == (id, "t", b"1")
                assert inbox.recv(timeout=20).data == b"2"
                for message in inbox:
                    assert message.data == b"3"
                    break
                peer.delivered(timeout=20)
                assert peer.waiting() == 0
                with monitor:
                    monitor.peer(DISPLAY).send(b"4")
                    assert [each.data for each in inbox.recv_many(timeout=20)] == [b"4"]


@contextmanager
def blocking_site(folder: Path, tmp_path: Path) -> Iterator[Path]:
    """A site whose authority runs in a thread; gives the folder of the devices."""
    ready: Future[None] = Future()
    end = threading.Event()

    async def serve() -> None:
        async with serving(folder, tmp_path / "devices") as site:
            await site.add_channel(ECG)
            for name in (MONITOR, DISPLAY):
                await site.enrol(name)
            ready.set_result(None)
            await asyncio.to_thread(end.wait)

    with ThreadPoolExecutor(1) as executor:
        serving_it = executor.submit(asyncio.run, serve())
        try:
            wait([ready, serving_it], 30, FIRST_COMPLETED)
            if serving_it.done():
                serving_it.result()
            yield tmp_path / "devices"
        finally:
            end.set()
        serving_it.result()
