"""How soon a revoked device is refused: from the call of `revoke`, by each subscriber and by the key server.

Publishers stream to subscribers in processes of their own; one after the other is revoked. Each also asks the
key server without pause, over a connection that was open before.
"""

from __future__ import annotations

import asyncio
import time
from statistics import quantiles

from bench.children import Child, ChildError, end
from bench.figures import Figure, Figures, below
from bench.site import Manager, Site, enrol
from sealcast.errors import CertificateError
from sealcast.keys import MemberRole
from sealcast.sidechannel import KeyServerClient

GROUP = "a revoked device, from the call of `revoke`"
SUBSCRIBERS = 3
PUBLISHERS = 20
"""At the same time; each sends a message every INTERVAL_SECONDS."""
INTERVAL_SECONDS = 0.02
_PATIENCE_SECONDS = 20.0
_BAR_MS = 2000


class _Watch:
    """A subscriber that says whose streams it follows, and when it closes one."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._seen: dict[tuple[str, str], asyncio.Future[int]] = {}
        self._reading = asyncio.create_task(self._read())

    async def moment(self, what: str, device: str) -> int:
        """When the stream of a device was `started` or `closed`, in nanoseconds; waits for it."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await self._future(what, device)

    async def finish(self) -> None:
        """End the process."""
        self._reading.cancel()
        await self._child.finish()

    async def _read(self) -> None:
        while True:
            told = await self._child.line(600)
            future = self._future(told["what"], told["device"])
            if not future.done():
                future.set_result(told["at"])

    def _future(self, what: str, device: str) -> asyncio.Future[int]:
        loop = asyncio.get_running_loop()
        return self._seen.setdefault((what, device), loop.create_future())


async def measure(site: Site, figures: Figures, *, rounds: int, quick: bool) -> None:
    """Revoke every publisher of each round."""
    count = 3 if quick else PUBLISHERS
    channel = await site.channel()
    manager = Manager(site.authority_folder)
    watches = []
    for index in range(SUBSCRIBERS):
        device = str(await site.device(f"sub-{index + 1}"))
        child = await site.children.start(
            f"watch-{index + 1}", end("watch_streams", device=device, channel=channel)
        )
        await child.line()
        watches.append(_Watch(child))
    streams: list[float] = []
    requests: list[float] = []
    answers: list[float] = []
    try:
        for number in range(rounds):
            await _round(site, manager, watches, channel, number, count, (streams, requests, answers))
    finally:
        for watch in watches:
            await watch.finish()
        await manager.close()
    note = f"{SUBSCRIBERS} subscribers, {count} publishers at a time"
    _report(figures, "`revoke` answered", answers, "over the local socket")
    _report(figures, "its streams refused, by the last subscriber", streams, note)
    _report(figures, "its requests refused at the key server", requests, "over a connection that was open")


async def _round(
    site: Site,
    manager: Manager,
    watches: list[_Watch],
    channel: str,
    number: int,
    count: int,
    found: tuple[list[float], list[float], list[float]],
) -> None:
    names = [f"pub-revoked-{number}-{index}" for index in range(count)]
    identities = [await enrol(site, manager, name) for name in names]
    folders = [str(identity.path) for identity in identities]
    publishers = await site.children.start(
        "publishers", end("publish_many", devices=folders, channel=channel, interval=INTERVAL_SECONDS)
    )
    await publishers.line()
    for name in names:
        await asyncio.gather(*(watch.moment("started", name) for watch in watches))
    streams, requests, answers = found
    for name, identity in zip(names, identities, strict=True):
        async with KeyServerClient(identity) as client:
            await client.join(channel, MemberRole.PUBLISH)
            asking = asyncio.create_task(_refused(client, channel))
            called = time.time_ns()
            await manager.call("PUT", f"devices/{name}/revocation")
            answers.append((time.time_ns() - called) / 1e6)
            closed = await asyncio.gather(*(watch.moment("closed", name) for watch in watches))
            streams.append((max(closed) - called) / 1e6)
            requests.append((await asyncio.wait_for(asking, _PATIENCE_SECONDS) - called) / 1e6)
    await publishers.stop()


async def _refused(client: KeyServerClient, channel: str) -> int:
    """Ask until it is refused as revoked; return when, in nanoseconds."""
    while True:
        try:
            await client.keys(channel)
        except CertificateError as error:
            if error.reason != "revoked":
                raise ChildError(f"refused for another reason: {error}") from None
            return time.time_ns()


def _report(figures: Figures, name: str, values: list[float], note: str) -> None:
    p99 = quantiles(values, n=100, method="inclusive")[98]
    figures.add(
        Figure(
            group=GROUP,
            name=f"{name}: p99",
            unit="ms",
            values=[p99],
            bar=below(_BAR_MS),
            note=f"median {quantiles(values, n=2)[0]:.3g} ms, most {max(values):.3g} ms; "
            f"{len(values)} revocations; {note}",
        )
    )
