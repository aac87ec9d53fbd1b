"""Certificates a second, first ones and renewals, next to what TLS and the signatures alone allow.

The authority, or the server that is its limit, and the client that asks it share one core: a figure is of the
whole exchange. The limit does the same handshake and the same signatures with the same libraries
(`bench.asking`); what the disk costs is told by a third server, which waits for it as often as the authority
does for a lone request. A fourth is the authority with its signer as a process of its own, on the same core.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.children import Child, cpu_seconds, sealcast
from bench.figures import Figure, Figures, at_least
from bench.site import Site
from sealcast.authority import enrolment
from sealcast.authority.issuance import CA_FILE, CA_KEY_FILE
from sealcast.authority.site import ROOT_FILE, SERVER_FILE
from sealcast.authority.site import Site as Folder
from sealcast.pki.times import system_time

GROUP = "certificates, both ends on one core"
AT_ONCE = 32
"""Devices that ask at the same time."""
DISK_WAITS = 2
"""The ledger before the signature, the register before the answer."""
_HOUR = 3600 * 1_000_000
_LEAST = 0.5


def asking(role: str, **parameters: object) -> list[str]:
    """Return the command line of one of `bench.asking`."""
    return [sys.executable, "-m", "bench.asking", role, json.dumps(parameters)]


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process, and those that it starts, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


async def measure(site: Site, figures: Figures, *, rounds: int, quick: bool) -> None:
    """Ask three servers in turns."""
    count = 60 if quick else 400
    folder = site.folder / "enrolment"
    folder.mkdir()
    place = folder / "authority"
    await site.children.run("enrolment-init", sealcast("authority", "init", place, "--site", "enrolment"))
    tokens = folder / "tokens.json"
    tokens.write_text(json.dumps(_tokens(place, count * (4 * rounds + 1))))
    # The same site twice, with the same tokens.
    apart = folder / "apart"
    shutil.copytree(place, apart)
    ca = folder / "ca-with-key.pem"
    ca.write_bytes((place / CA_KEY_FILE).read_bytes() + (place / CA_FILE).read_bytes())
    limit = {"server": place / SERVER_FILE, "root": place / ROOT_FILE, "ca": ca, "folder": folder}
    paths = {name: str(path) for name, path in limit.items()}
    free = ("--listen", "127.0.0.1:0", "--keys", "127.0.0.1:0", "--manage", "none", "--json")
    with one_core():
        authority = await site.children.start("enrolment", sealcast("authority", "serve", place, *free))
        servers = [authority]
        for waits in (0, DISK_WAITS):
            command = asking("answer", waits=waits, **paths)
            servers.append(await site.children.start(f"limit-{waits}", command))
        signing = await site.children.start(
            "signer", sealcast("authority", "serve", apart, "--roles", "signer", "--json")
        )
        await signing.line()
        service = sealcast("authority", "serve", apart, "--roles", "est,keys,directory", *free)
        served = await site.children.start("enrolment-apart", service)
        client = await site.children.start(
            "asking",
            asking("ask", root=paths["root"], folder=str(folder), tokens=str(tokens), at_once=AT_ONCE),
        )
    ports = [int((await authority.line())["authority"].rpartition(":")[2])]
    ports += [(await server.line())["port"] for server in servers[1:]]
    apart_port = int((await served.line())["authority"].rpartition(":")[2])
    await client.line()
    await _asked(client, f"enrol {ports[0]} {count}")
    rates: dict[str, list[list[float]]] = {what: [[] for _ in servers] for what in ("enrol", "renew")}
    costs: dict[str, list[list[float]]] = {what: [[] for _ in servers] for what in rates}
    rates_apart = []
    for _ in range(rounds):
        rates_apart.append(count / await _asked(client, f"enrol {apart_port} {count}"))
        for what in rates:
            for index, (server, port) in enumerate(zip(servers, ports, strict=True)):
                # One that waits for the disk for each certificate is slow, and steady.
                asked = count // 4 if index == 2 else count
                before = cpu_seconds(server.pid)
                seconds = await _asked(client, f"{what} {port} {asked}")
                rates[what][index].append(asked / seconds)
                costs[what][index].append((cpu_seconds(server.pid) - before) / asked * 1e3)
    await client.finish()
    for server in (*servers, served, signing):
        await server.stop()
    figures.add(
        Figure(
            group=GROUP,
            name="first certificates, by token: signer as a process of its own",
            unit="/s",
            values=rates_apart,
            note="as the first certificates below",
        )
    )
    for what, name in (("enrol", "first certificates, by token"), ("renew", "renewals")):
        _report(figures, name, rates[what], costs[what], count)


def _report(
    figures: Figures, name: str, rates: list[list[float]], costs: list[list[float]], count: int
) -> None:
    limit, durable = (
        f"{name}: TLS and signatures alone",
        f"{name}: the same and {DISK_WAITS} waits for the disk",
    )
    figures.add(Figure(group=GROUP, name=limit, unit="/s", values=rates[1]))
    figures.add(
        Figure(
            group=GROUP, name=durable, unit="/s", values=rates[2], ratio_to=limit, note="one after the other"
        )
    )
    ratios = [mine / best for mine, best in zip(rates[0], rates[1], strict=True)]
    note = f"{count} a run, {AT_ONCE} at once, each over a new connection"
    figures.add(Figure(group=GROUP, name=name, unit="/s", values=rates[0], ratio_to=limit, note=note))
    figures.add(
        Figure(
            group=GROUP,
            name=f"{name}: share of that limit",
            unit="",
            values=ratios,
            bar=at_least(_LEAST),
            note="run by run",
        )
    )
    spent = f"{name}: CPU of the server"
    base = f"{spent}, TLS and signatures alone"
    figures.add(Figure(group=GROUP, name=base, unit="ms", values=costs[1]))
    figures.add(Figure(group=GROUP, name=spent, unit="ms", values=costs[0], ratio_to=base))


async def _asked(client: Child, order: str) -> float:
    client.order(order)
    seconds: float = (await client.line(300))["seconds"]
    return seconds


def _tokens(place: Path, count: int) -> list[tuple[str, str]]:
    """Tokens for so many devices, made in one go while nobody serves."""
    now = system_time()
    with Folder.open(place).storage.transaction() as session:
        return [
            (name, enrolment.create_token(session, device=name, ttl=_HOUR, now=now))
            for name in (f"device-{number}" for number in range(count))
        ]
