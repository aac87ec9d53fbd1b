"""How devices that exchange messages find each other, and hear of changes: SC-33, SC-34, TR-30."""

import asyncio
import hashlib
from collections import Counter

import pytest

from sealcast.authority.endpoints import endpoint_of, put_endpoint
from sealcast.authority.news import MAX_WAITING_PER_DEVICE, DocumentNews
from sealcast.errors import CertificateError, NetworkError, NotAllowedError, PeerError
from sealcast.sidechannel import KeyServerClient, MalformedMessageError
from sealcast.sidechannel.peer_messages import ChannelsRequest, EndpointBody
from sealcast.sidechannel.refusals import RefusedError
from tests.authority.conftest import Site, settings

ECG = "ward/ecg"
PLACE = ("192.0.2.7", 4711)


async def client_of(site: Site, name: str) -> KeyServerClient:
    return await site.client(await site.enrol(name))


class TestEndpoints:
    """SC-34."""

    async def test_a_peer_of_a_common_channel_is_told_and_no_other_is(self, site: Site) -> None:
        await site.add_channel(ECG)
        await site.add_channel("ward/other", publish=("other-*",), subscribe=("other-*",))
        monitor, display, other = [
            await client_of(site, name) for name in ("monitor-1", "display-1", "other-1")
        ]
        await monitor.put_endpoint(PLACE)
        assert await display.endpoint("monitor-1") == PLACE
        # Both directions, whatever the roles: the display may only subscribe.
        assert await monitor.endpoint("display-1") is None
        for name in ("monitor-1", "nobody", f"{site.authority.site.site_id.hex()}:monitor-1"):
            with pytest.raises(PeerError, match=name):
                await other.endpoint(name)
        await monitor.put_endpoint(("2001:db8::7", 1))
        assert await display.endpoint("monitor-1") == ("2001:db8::7", 1)
        await monitor.put_endpoint(None)
        assert await display.endpoint("monitor-1") is None

    async def test_it_outlives_a_restart_and_goes_with_the_device(self, site: Site) -> None:
        await site.add_channel(ECG)
        monitor, display = [await client_of(site, name) for name in ("monitor-1", "display-1")]
        await monitor.put_endpoint(PLACE)
        await display.put_endpoint(PLACE)

        def stored(device: str) -> tuple[str, int] | None:
            with site.authority.site.storage.snapshot() as session:
                return endpoint_of(session, device)

        assert stored("monitor-1") == PLACE
        await site.authority.revoke_device("monitor-1")
        assert stored("monitor-1") is None
        with pytest.raises(PeerError):
            await display.endpoint("monitor-1")
        # Nor is it kept for who is merely on no channel any more.
        await site.authority.set_members(ECG, ("nobody",), ("nobody",))
        await site.authority.renew_objects()
        assert stored("display-1") is None

    async def test_a_device_that_no_policy_lists_has_no_place(self, site: Site) -> None:
        client = await client_of(site, "monitor-1")
        with pytest.raises(NotAllowedError):
            await client.put_endpoint(PLACE)

    @pytest.mark.parametrize(
        "endpoint",
        [("", 1), ("a/b", 1), ("a b", 1), ("a\nb", 1), ("host", 0), ("host", 65_536), ("h" * 256, 1)],
    )
    def test_d5_a_place_that_is_no_host_and_port_is_refused(self, endpoint: tuple[str, int]) -> None:
        with pytest.raises(MalformedMessageError):
            EndpointBody.parse(EndpointBody(endpoint=endpoint).serialize())

    async def test_a_name_that_no_device_can_have_is_refused(self, site: Site) -> None:
        await site.add_channel(ECG)
        client = await client_of(site, "monitor-1")
        for name in ("a b", "../crl", "a" * 64, f"{'z' * 32}:a"):
            with pytest.raises(NetworkError, match="refuses"):
                await client.endpoint(name)

    async def test_one_place_for_each_device(self, site: Site) -> None:
        def put(port: int) -> None:
            with site.authority.site.storage.transaction() as session:
                put_endpoint(session, "a", ("host", port), port)

        put(1)
        put(2)
        with site.authority.site.storage.snapshot() as session:
            assert endpoint_of(session, "a") == ("host", 2)


class TestNews:
    """SC-33."""

    async def test_what_is_not_known_comes_at_once_and_a_change_when_it_happens(self, site: Site) -> None:
        await site.add_channel(ECG)
        client = await client_of(site, "monitor-1")
        told, digest = await client.await_channels(bytes(32))
        assert told == await client.channels()
        waiting = asyncio.ensure_future(client.await_channels(digest))
        # What does not concern it wakes it and lets it wait on.
        await site.authority.add_channel(settings("ward/none", publish=("no",), subscribe=("no",)))
        await client.put_endpoint(PLACE)
        assert not waiting.done()
        await site.authority.add_channel(settings("ward/spo2"))
        told, _ = await asyncio.wait_for(waiting, 10)
        assert [name for name, _ in told.channels] == [ECG, "ward/spo2"]

    async def test_a_removal_is_told_to_all_and_to_the_removed(self, site: Site) -> None:
        await site.add_channel(ECG)
        monitor, display = [await client_of(site, name) for name in ("monitor-1", "display-1")]
        waiting = []
        for client in (monitor, display):
            _, digest = await client.await_channels(bytes(32))
            waiting.append(asyncio.ensure_future(client.await_channels(digest)))
        # They wait as soon as another request on the same connections is answered.
        await asyncio.gather(monitor.time(), display.time())
        await site.authority.revoke_device("monitor-1")
        told, _ = await asyncio.wait_for(waiting[1], 10)
        assert told.crl[0] == site.authority.crl.number
        with pytest.raises(CertificateError) as caught:
            await asyncio.wait_for(waiting[0], 10)
        assert caught.value.reason == "revoked"

    async def test_one_device_cannot_wait_without_bound(self) -> None:
        news, body = DocumentNews(), b"the same"
        known = hashlib.sha256(body).digest()

        def wait(device: str) -> "asyncio.Task[bytes]":
            return asyncio.ensure_future(news.wait(device, lambda: body, known, 30))

        waiting = [wait("greedy") for _ in range(MAX_WAITING_PER_DEVICE)]
        with pytest.raises(RefusedError, match="too-many-requests"):
            await wait("greedy")
        waiting.append(wait("other"))
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        body = b"another"
        news.tell()
        assert set(await asyncio.wait_for(asyncio.gather(*waiting), 10)) == {b"another"}
        known = hashlib.sha256(body).digest()
        waiting = [wait("greedy")]
        await asyncio.sleep(0)
        news.end()
        assert await asyncio.wait_for(waiting[0], 10) == body
        assert await asyncio.wait_for(wait("greedy"), 10) == body

    async def test_whom_a_change_does_not_concern_is_not_asked_and_none_is_missed(self) -> None:
        """Also one that comes before those who wait have run since the one before."""
        news, answers, asked = DocumentNews(), {"a": b"1", "b": b"1"}, Counter[str]()
        known = hashlib.sha256(b"1").digest()

        def wait(device: str) -> "asyncio.Task[bytes]":
            def answer() -> bytes:
                asked[device] += 1
                return answers[device]

            return asyncio.ensure_future(news.wait(device, answer, known, 30))

        a, b = wait("a"), wait("b")
        await asyncio.sleep(0)
        for _ in range(10):
            news.tell(lambda device: device == "a")
        answers["b"] = b"2"
        news.tell(lambda device: device == "b")
        assert await asyncio.wait_for(b, 10) == b"2"
        # At first, and at its own change.
        assert asked["b"] == 2
        answers["a"] = b"3"
        news.tell()
        assert await asyncio.wait_for(a, 10) == b"3"

    @pytest.mark.parametrize("known", [b"", bytes(31), bytes(33)])
    def test_d5_a_hash_of_another_length_is_refused(self, known: bytes) -> None:
        with pytest.raises(MalformedMessageError):
            ChannelsRequest.parse(ChannelsRequest(known=known).serialize())
