"""The Python API over real multicast: with an event loop, and without one."""

import asyncio
import math
import os
import random
import signal
import threading
from typing import Any

import pytest

from sealcast import _core, sync
from sealcast.endpoint import Device, Message
from sealcast.endpoint.events import Event, StreamEnded
from sealcast.errors import IncompleteError, NotAllowedError, UnknownChannelError, UsageError
from tests.e2e.feed import Feed
from tests.e2e.processes import wait_until
from tests.e2e.site import Channel, Site

RATE = ("--rate", "1Gbit/s")


@pytest.fixture
def channel(site: Site) -> Channel:
    site.enrol("monitor", "display")
    return site.add_channel("icu3/vitals", *RATE, publish="monitor", subscribe="display")


def open_device(site: Site, name: str) -> Device:
    return Device.open(site.devices / name)


async def test_messages_in_order_with_their_topics(site: Site, channel: Channel) -> None:
    sent = [(f"{number}".encode(), None if number % 3 else f"topic {number % 5}") for number in range(3000)]
    async with (
        open_device(site, "display").subscriber(channel.name) as subscriber,
        open_device(site, "monitor").publisher(channel.name, linger=0.1) as publisher,
        asyncio.timeout(30),
    ):
        assert await publisher.members() == ["display"]
        for data, topic in sent:
            await publisher.send(data, topic=topic)
        received: list[Message] = []
        async for message in subscriber:
            received.append(message)
            if len(received) == len(sent):
                break
        assert [(message.data, message.topic) for message in received] == sent
        assert {message.publisher for message in received} == {"monitor"}
        assert {message.stream_id for message in received} == {publisher.stream_id}
        assert publisher.counters()["messages"] == len(sent)
        assert subscriber.counters()["datagrams"] > 0
        assert subscriber.epoch == publisher.epoch


async def test_sixteen_mebibytes_are_one_message_and_a_byte_more_is_none(
    site: Site, channel: Channel
) -> None:
    largest = random.Random(4).randbytes(16 << 20)
    async with (
        open_device(site, "display").subscriber(channel.name) as subscriber,
        open_device(site, "monitor").publisher(channel.name, linger=0.1) as publisher,
        asyncio.timeout(50),
    ):
        with pytest.raises(UsageError, match="16777216"):
            await publisher.send(largest + b"x")
        with pytest.raises(UsageError):
            await publisher.send(b"x", topic="t" * 256)
        await publisher.send(largest, topic="image")
        await publisher.send(b"")
        # Which the large one does not hold up.
        assert (await subscriber.recv()).data == b""
        assert (await subscriber.recv()).data == largest


async def test_b8_a_stream_without_numbers_says_so_and_another_goes_on(
    site: Site, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DP-47: what was taken arrives, the end is said, and the cure is one."""
    made = _core.SendEngine

    def near_the_end(**options: Any) -> _core.SendEngine:
        engine = made(**options)
        engine._begin_at(2**62 - 100, 2**62 - 3)
        return engine

    publisher = open_device(site, "monitor").publisher(channel.name, linger=0.1)
    with monkeypatch.context() as patch:
        patch.setattr("sealcast._core.SendEngine", near_the_end)
        await publisher.__aenter__()
    async with (
        open_device(site, "display").subscriber(channel.name) as subscriber,
        asyncio.timeout(30),
    ):
        for number in range(3):
            await publisher.send(f"{number}".encode())
        for send in (publisher.send(b"x"), publisher.send_many([b"x", b"y"])):
            with pytest.raises(IncompleteError, match="the stream has used up its numbers") as refused:
                await send
            assert (refused.value.exit_code, refused.value.cure.split(":")[0]) == (
                9,
                "leave the publisher and open it anew",
            )
        await publisher.__aexit__(None, None, None)
        async with publisher:
            await publisher.send(b"3")
            assert [(await subscriber.recv()).data for _ in range(4)] == [b"0", b"1", b"2", b"3"]


async def test_unordered_gives_every_message_once(site: Site, channel: Channel) -> None:
    sent = [f"{number}".encode() for number in range(2000)]
    async with (
        open_device(site, "display").subscriber(channel.name, delivery="unordered") as subscriber,
        open_device(site, "monitor").publisher(channel.name, linger=0.1) as publisher,
        asyncio.timeout(30),
    ):
        await publisher.send_many(sent)
        received: list[bytes] = []
        while len(received) < len(sent):
            received += [message.data for message in await subscriber.recv_many()]
        assert sorted(received) == sorted(sent)


async def test_realtime_gives_what_comes_in_time(site: Site, channel: Channel) -> None:
    display = open_device(site, "display")
    with pytest.raises(UsageError, match="without a deadline"):
        display.subscriber(channel.name, delivery="realtime")
    async with (
        display.subscriber(channel.name, delivery="realtime", deadline=0.5) as subscriber,
        open_device(site, "monitor").publisher(channel.name, linger=0.1) as publisher,
        asyncio.timeout(30),
    ):
        await publisher.send_many([f"{number}".encode() for number in range(500)])
        received: list[bytes] = []
        while len(received) < 500:
            received += [message.data for message in await subscriber.recv_many()]
        assert received == [f"{number}".encode() for number in range(500)]


async def test_a_late_joiner_gets_the_last_value_of_each_topic(site: Site, channel: Channel) -> None:
    """With its origin; a message of 32 MiB, where both sides allow it, beside (DP-45)."""
    large = os.urandom(32 << 20)
    monitor = open_device(site, "monitor")
    async with (
        monitor.publisher(channel.name, linger=0.1, retain_topics=10, max_message_bytes=1 << 30) as publisher,
        asyncio.timeout(50),
    ):
        for value in (b"80", b"81"):
            await publisher.send(value, topic="pulse")
        await publisher.send(b"120", topic="pressure")
        await publisher.drained()
        late = open_device(site, "display").subscriber(channel.name, start="last", max_message_bytes=1 << 30)
        async with late:
            first, second = await late.recv(), await late.recv()
            await publisher.send(large)
            await publisher.send(b"82", topic="pulse")
            third, fourth = await late.recv(), await late.recv()
        got = [(message.topic, message.data) for message in (first, second, third)]
        assert got == [("pulse", b"81"), ("pressure", b"120"), ("pulse", b"82")]
        assert first.origin is not None
        assert first.origin[0] == publisher.stream_id == first.stream_id
        assert first.origin[2] < first.time
        assert third.origin is None
        assert fourth.data == large


async def test_two_subscribers_of_one_process(site: Site, channel: Channel) -> None:
    """Also of one device: each delivers everything."""
    device = open_device(site, "display")
    async with (
        device.subscriber(channel.name) as first,
        device.subscriber(channel.name) as second,
        open_device(site, "monitor").publisher(channel.name, linger=0.1) as publisher,
        asyncio.timeout(30),
    ):
        await publisher.send(b"to both")
        assert [(await subscriber.recv()).data for subscriber in (first, second)] == [b"to both"] * 2


async def test_a_late_joiner_starts_at_now(site: Site, channel: Channel) -> None:
    """DP-34."""
    async with open_device(site, "monitor").publisher(channel.name, linger=0.1) as publisher:
        await publisher.send_many([b"before"] * 100)
        await publisher.drained()
        events: list[Event] = []
        async with (
            open_device(site, "display").subscriber(channel.name, on_event=events.append) as subscriber,
            asyncio.timeout(30),
        ):
            await publisher.send(b"after")
            assert (await subscriber.recv()).data in (b"before", b"after")
            assert not [event for event in events if type(event).__name__ in ("Gap", "MessageLost")]


async def test_an_application_that_is_busy_holds_up_no_keys(site: Site) -> None:
    """The keys of each step come while nothing is taken, so that nothing in between is lost."""
    site.enrol("monitor", "display", "bad", "new")
    channel = site.add_channel("icu3/vitals", "--retention", "3s")
    async with (
        open_device(site, "display").subscriber(channel.name) as subscriber,
        open_device(site, "bad").subscriber(channel.name),
        open_device(site, "monitor").publisher(channel.name, linger=0.1) as publisher,
        asyncio.timeout(30),
    ):

        async def publish_in_the_next_epoch(text: bytes) -> None:
            await asyncio.to_thread(wait_until, lambda: publisher.epoch != epoch, "the next epoch")
            await publisher.send(text)
            await publisher.drained()

        epoch = publisher.epoch
        site.revoke("bad")
        await publish_in_the_next_epoch(b"after the removal")
        await asyncio.to_thread(
            wait_until, lambda: subscriber.counters()["accepted"] > 0, "the packet is opened", 10
        )
        epoch = publisher.epoch
        async with open_device(site, "new").subscriber(channel.name):
            await publish_in_the_next_epoch(b"after the join")
        assert (await subscriber.recv()).data == b"after the removal"
        assert (await subscriber.recv()).data == b"after the join"


async def test_refusals_at_the_door(site: Site, channel: Channel) -> None:
    with pytest.raises(NotAllowedError, match=r"display.*publish"):
        async with open_device(site, "display").publisher(channel.name):
            pass
    with pytest.raises(NotAllowedError, match=r"monitor.*subscribe"):
        async with open_device(site, "monitor").subscriber(channel.name):
            pass
    with pytest.raises(UnknownChannelError, match="icu4"):
        async with open_device(site, "monitor").publisher("icu4/vitals"):
            pass
    with pytest.raises(UsageError, match="not open"):
        await open_device(site, "monitor").publisher(channel.name).send(b"x")
    with pytest.raises(UsageError, match="not open"):
        await open_device(site, "display").subscriber(channel.name).recv()


async def test_options_are_checked_before_anything_is_done(site: Site, channel: Channel) -> None:
    device = open_device(site, "monitor")
    for options, says in (
        ({"max_block": 0}, "max_block is 0"),
        ({"max_block": 65}, "max_block is 65"),
        ({"queue_bytes": 0}, "queue_bytes is 0"),
        ({"linger": -1.0}, "linger is -1"),
        ({"linger": math.nan}, "linger is nan"),
        ({"mtu": 575}, "mtu is 575"),
        ({"mtu": 9001}, "mtu is 9001"),
        ({"instance": "a,b"}, "not an instance name: 'a,b'"),
    ):
        with pytest.raises(UsageError, match=says):
            device.publisher(channel.name, **options)
    for options, says in (
        ({"max_message_bytes": 0}, "max_message_bytes is 0"),
        ({"buffer_bytes": 65_535}, "buffer_bytes is 65535"),
        ({"delivery": "perhaps"}, "no delivery mode 'perhaps'"),
    ):
        with pytest.raises(UsageError, match=says):
            device.subscriber(channel.name, **options)
    for end in (device.publisher, device.subscriber):
        with pytest.raises(UsageError, match="not a channel name: 'a,b'"):
            end("a,b")


async def test_the_ends_of_the_ranges_work(site: Site, channel: Channel) -> None:
    async with (
        open_device(site, "display").subscriber(
            channel.name, max_message_bytes=10, buffer_bytes=1 << 16
        ) as subscriber,
        open_device(site, "monitor").publisher(
            channel.name, mtu=576, max_block=1, queue_bytes=1, linger=0
        ) as publisher,
        asyncio.timeout(30),
    ):
        await publisher.send_many([b"0123456789", b"too long for it", b"last"])
        assert [(await subscriber.recv()).data for _ in range(2)] == [b"0123456789", b"last"]


async def test_what_cannot_be_sent_is_refused_before_any_of_it_is(site: Site, channel: Channel) -> None:
    async with (
        open_device(site, "display").subscriber(channel.name) as subscriber,
        open_device(site, "monitor").publisher(channel.name, linger=0) as publisher,
        asyncio.timeout(30),
    ):
        with pytest.raises(UsageError, match="message 1 of 3 has 16777217 bytes: none was sent"):
            await publisher.send_many([b"first", bytes((16 << 20) + 1), b"third"])
        with pytest.raises(UsageError, match="is no UTF-8"):
            await publisher.send(b"x", topic="a\udcff")
        with pytest.raises(UsageError, match="a topic of 256 bytes"):
            await publisher.send_many([b"x"], topic="t" * 256)
        assert publisher.counters()["messages"] == 0
        await publisher.send(b"good")
        assert (await subscriber.recv()).data == b"good"


async def test_an_open_end_is_not_opened_again_but_a_closed_one_is(site: Site, channel: Channel) -> None:
    publisher = open_device(site, "monitor").publisher(channel.name, linger=0)
    subscriber = open_device(site, "display").subscriber(channel.name)
    async with asyncio.timeout(30):
        for text in (b"one", b"two"):
            async with subscriber, publisher:
                stream = publisher.stream_id
                for end in (publisher, subscriber):
                    with pytest.raises(UsageError, match="is open already"):
                        await end.__aenter__()
                assert publisher.stream_id == stream
                await publisher.send(text)
                assert (await subscriber.recv()).data == text
    assert publisher.counters()["messages"] == 1


async def test_a_publisher_that_is_heard_no_more_is_told_once(
    site: Site, channel: Channel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sealcast.endpoint.subscriber.SILENT_SECONDS", 2.0)

    def told() -> list[str]:
        return [record.message for record in caplog.records if "has been heard" in record.message]

    async with open_device(site, "display").subscriber(channel.name) as subscriber, asyncio.timeout(30):
        with Feed(site, site.devices / "monitor", channel) as feed:
            await subscriber.recv()
            feed.process.send_signal(signal.SIGSTOP)
            await asyncio.to_thread(wait_until, lambda: bool(told()), "the silence is told")
            feed.process.send_signal(signal.SIGCONT)
            await asyncio.to_thread(feed.finish)
        items = subscriber.items()
        async for item in items:
            if isinstance(item, StreamEnded):
                break
    assert told() == ["channel icu3/vitals: nothing has been heard of monitor for 2 s; it may be gone"]


class TestBlocking:
    """The same names without an event loop."""

    def test_a_thread_publishes_and_another_subscribes(self, site: Site, channel: Channel) -> None:
        sent = [f"{number}".encode() for number in range(1000)]
        with sync.Device.open(site.devices / "display").subscriber(channel.name) as subscriber:

            def publish() -> None:
                device = sync.Device.open(site.devices / "monitor")
                with device.publisher(channel.name, linger=0.1) as publisher:
                    assert publisher.members() == ["display"]
                    publisher.send(sent[0], topic="first")
                    publisher.send_many(sent[1:])
                    publisher.drained()
                    assert publisher.epoch is not None

            thread = threading.Thread(target=publish)
            thread.start()
            received = []
            for message in subscriber:
                received.append(message.data)
                if len(received) == len(sent):
                    break
            thread.join()
            assert received == sent
            with pytest.raises(TimeoutError):
                subscriber.recv(timeout=0.05)
            with pytest.raises(TimeoutError):
                subscriber.recv_many(timeout=0.05)

    def test_a_message_after_a_timeout_is_not_lost(self, site: Site, channel: Channel) -> None:
        with (
            sync.Device.open(site.devices / "display").subscriber(channel.name) as subscriber,
            sync.Device.open(site.devices / "monitor").publisher(channel.name, linger=0.1) as publisher,
        ):
            for number in range(20):
                with pytest.raises(TimeoutError):
                    subscriber.recv(timeout=0.01)
                publisher.send(f"{number}".encode())
                assert subscriber.recv(timeout=30).data == f"{number}".encode()


@pytest.mark.parametrize("error", [RuntimeError("of the application"), asyncio.CancelledError()])
async def test_a_publisher_that_is_left_by_an_error_signs_its_end(
    site: Site, channel: Channel, error: BaseException
) -> None:
    async def fail() -> None:
        async with open_device(site, "monitor").publisher(channel.name, linger=3600) as publisher:
            await publisher.send(b"last")
            raise error

    async with open_device(site, "display").subscriber(channel.name) as subscriber, asyncio.timeout(30):
        with pytest.raises(type(error)):
            await fail()
        items = subscriber.items()
        async for item in items:
            if isinstance(item, StreamEnded):
                assert item.next_sequence == 1
                break


async def test_a_publisher_that_cannot_seal_says_why_it_cannot_end(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sealcast.endpoint.publisher._STALLED_SECONDS", 1.0)
    site.enrol("monitor")
    channel = site.add_channel("icu3/vitals", "--slot", "500ms", "--slots-ahead", "1")

    async def publish() -> None:
        async with open_device(site, "monitor").publisher(channel.name) as publisher:
            site.stop()
            epoch = publisher.epoch
            assert epoch is not None
            await asyncio.to_thread(
                wait_until, lambda: (publisher.epoch or epoch)[0] > epoch[0] + 3, "slots without keys"
            )
            await publisher.send(b"nobody will read this")

    async with asyncio.timeout(50):
        with pytest.raises(IncompleteError, match="no key for the present epoch"):
            await publish()


async def test_an_error_does_not_wait_for_a_long_queue(site: Site) -> None:
    """What has not gone out is dropped, and subscribers are told the end of what has."""
    site.enrol("monitor", "display")
    channel = site.add_channel("icu3/vitals", "--rate", "1Mbit/s")
    publisher = open_device(site, "monitor").publisher(channel.name, linger=3600)
    loop = asyncio.get_running_loop()

    async def fail() -> None:
        async with publisher:
            await publisher.send_many([bytes(1000)] * 10_000)
            raise RuntimeError

    async with open_device(site, "display").subscriber(channel.name) as subscriber, asyncio.timeout(30):
        began = loop.time()
        with pytest.raises(RuntimeError):
            await fail()
        assert loop.time() - began < 15, "10 MB at 1 Mbit/s are 80 s"
        counters = publisher.counters()
        received = 0
        async for item in subscriber.items():
            received += isinstance(item, Message)
            if isinstance(item, StreamEnded):
                break
        assert received == counters["messages"] - counters["abandoned"] > 0
