"""A device's listener: what stays open between requests is bounded."""

import asyncio
import gc
import socket
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import web

from sealcast.sidechannel.listener import Listener
from tests.est.site import Site
from tests.sidechannel.identities import identity_of

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def _answer(_: web.Request) -> web.Response:
    return web.Response(text="here")


async def test_d7_connections_that_do_nothing_are_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are served; those above the bound end with their answer."""
    monkeypatch.setattr("sealcast.sidechannel.listener.KEPT_OPEN", 3)
    site = Site(tmp_path)
    application = web.Application()
    application.router.add_get("/", _answer)
    listener = Listener(identity_of(site, "monitor"))
    _, port = await listener.listen(application, "127.0.0.1")
    context = identity_of(site, "bed1").ssl_context_client()
    writers, kept = [], 0
    try:
        for _ in range(6):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writers.append(writer)
            writer.write(REQUEST)
            head = await reader.readuntil(b"here")
            assert head.startswith(b"HTTP/1.1 200")
            kept += b"connection: close" not in head.lower()
            if b"connection: close" in head.lower():
                await asyncio.wait_for(reader.read(), 10)
        assert kept == 3
    finally:
        for writer in writers:
            writer.close()
        await listener.close()


@pytest.mark.parametrize("turns", range(5))
async def test_a_connection_that_comes_as_the_listener_ends_ends_with_it(tmp_path: Path, turns: int) -> None:
    """At whatever step on its way in: what is left open would be told of as a warning of the interpreter."""
    listener = Listener(identity_of(Site(tmp_path), "monitor"))
    _, port = await listener.listen(web.Application(), "127.0.0.1")
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for _ in range(turns):
            await asyncio.sleep(0)
        await listener.close()
        with suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", ResourceWarning)
        gc.collect()
    assert not told
