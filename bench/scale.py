"""What each operation takes with 100,000 devices in the database: as whoever asks sees it, at a real service.

Management over the local socket, enrolment and keys over TLS; one request at a time. A channel of the whole
site lists every device, so each enrolment and each removal changes a signed document of 100,000 names; every
tenth device has joined it. Ten more list a thousand each, one those of a role. 10,000 certificates are on the
CRL, which each removal makes anew.
"""

from __future__ import annotations

import gc
import hashlib
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median, quantiles

from bench.asking import Client
from bench.children import Child, cpu_seconds, sealcast
from bench.figures import Figure, Figures, below
from bench.population import WHOLE_SITE, device_name, fill
from bench.site import Manager, Site
from sealcast.authority import revocation
from sealcast.authority.joins import JOIN_MOMENT_SECONDS
from sealcast.authority.live import JOIN_BURST
from sealcast.authority.site import ROOT_FILE
from sealcast.authority.site import Site as Folder
from sealcast.device import enroll_async
from sealcast.keys import MemberRole
from sealcast.pki.certificates import parse_certificate, parse_pem_certificates
from sealcast.pki.times import system_time
from sealcast.sidechannel import KeyServerClient
from sealcast.sidechannel.messages import Report

GROUP = "each operation with {devices:,} devices, at a running service"
BAR_MS = 50
REVOKED = 10_000
WARDS = 10
_WARD = 1000
_WHOLE = "channel added, every device"
_JOIN_OF_ALL = "join of the channel of every device, without that"
# Each of those channels fills the service's memory with another long list; a device may not join more often.
_FEW = {_WHOLE: 20, _JOIN_OF_ALL: JOIN_BURST - 2}

Call = Callable[[int], Awaitable[object]]


async def measure(site: Site, figures: Figures, *, rounds: int, quick: bool) -> None:
    """Fill a database, serve it, ask."""
    devices, count = (2_000, 10) if quick else (100_000, 100)
    place = site.folder / "scale"
    await site.children.run("scale-init", sealcast("authority", "init", place, "--site", "scale"))
    fill(place, devices=devices, revoked=REVOKED if not quick else 200, members=devices // 10)
    group = GROUP.format(devices=devices)
    values = _crl(place, rounds)
    figures.add(
        Figure(
            group=group,
            name=f"the CRL of {REVOKED:,} entries made anew" if not quick else "the CRL made anew",
            unit="ms",
            values=values,
            bar=below(1000),
            note="read, built, signed, stored",
        )
    )
    free = ("--listen", "127.0.0.1:0", "--keys", "127.0.0.1:0", "--manage", "none", "--json")
    child = await site.children.start("scale", sealcast("authority", "serve", place, *free))
    listening = await child.line(120)
    manager = Manager(place)
    try:
        await _measure(place, site.folder, child, listening, manager, figures, group, count, devices)
    finally:
        await manager.close()
        await child.stop()


def _crl(place: Path, rounds: int) -> list[float]:
    folder, values = Folder.open(place), []
    for _ in range(rounds):
        start = time.perf_counter()
        with folder.storage.transaction() as session:
            revocation.issue_crl(session, folder.issuer, system_time())
        values.append((time.perf_counter() - start) * 1e3)
    return values


async def _measure(
    place: Path,
    home: Path,
    service: Child,
    listening: dict[str, str],
    manager: Manager,
    figures: Figures,
    group: str,
    count: int,
    devices: int,
) -> None:
    est = int(listening["authority"].rpartition(":")[2])
    shown = home / "scale-shown"
    shown.mkdir()
    client = Client(str(place / ROOT_FILE), shown)
    tokens: dict[int, str] = {}
    call = manager.call

    async def add_channel(name: str, subscribe: list[str], number: int) -> None:
        address = {"group": f"239.254.{number // 200}.{number % 200 + 1}", "port": 5000}
        body = {"name": name, "publish": ["publisher-*"], "subscribe": subscribe, **address}
        await call("POST", "channels", body)

    async def token(number: int) -> None:
        tokens[number] = (await call("POST", "tokens", {"device": f"new-{number}"}))["token"]

    async def enrol(number: int) -> None:
        await client.enrol(est, f"new-{number}", tokens[number])

    def ward(number: int) -> list[str]:
        return [f"{device_name(number * _WARD)[:-3]}*"]

    await add_channel("site/monitors", ["role:monitor"], 1)
    for number in range(WARDS):
        await add_channel(f"ward-{number}/vitals", ward(number), number + 2)
    member_token = (await call("POST", "tokens", {"device": "publisher-1"}))["token"]
    identity = await enroll_async(
        home / "scale-publisher",
        authority_url=listening["authority"],
        keys_url=listening["keys"],
        roots=parse_pem_certificates((place / ROOT_FILE).read_bytes()),
        name="publisher-1",
        token=member_token,
    )
    source = (await call("GET", "policy"))["source"]
    rates = ("1Mbit/s", "2Mbit/s")

    async with KeyServerClient(identity) as member:
        bundle = await member.bundle(1)
        report = Report(
            bundle_version=1,
            bundle_hash=hashlib.sha256(bundle.bundle).digest(),
            serial=f"{parse_certificate(identity.certificate).serial_number:x}",
        )
        operations: dict[str, Call] = {
            "token": token,
            "first certificate, TLS included": enrol,
            "renewal, TLS included": lambda n: client.renew(est, n),
            "other roles for a device": lambda n: call(
                "PUT", f"devices/{device_name(n)}/roles", {"roles": ["nurse"]}
            ),
            "audit append (a change that changes nothing)": lambda n: call(
                "PUT", f"devices/{device_name(n)}/roles", {"roles": ["nurse"]}
            ),
            "revoke": lambda n: call("PUT", f"devices/{device_name(n)}/revocation"),
            "channel added, 1,000 devices": lambda n: add_channel(f"new/{n}", ward(n % WARDS), n + 100),
            "channel altered, 1,000 devices": lambda n: call(
                "PATCH", f"channels/new%2F{n}/members", {"subscribe": ward((n + 1) % WARDS)}
            ),
            "policy applied, one channel's rate": lambda n: call(
                "PUT", "policy", {"source": _with_rate(source, rates[n % 2]), "force": True}
            ),
            "policy compared, nothing changes": lambda n: call(
                "POST", "policy/comparison", {"source": source}
            ),
            "policy explained": lambda n: call("GET", f"channels/site%2Fall/explanations/{device_name(n)}"),
            "devices listed, a page of 100": lambda n: call(
                "GET", "devices", limit=100, after=device_name(n * devices // count)
            ),
            "device shown": lambda n: call("GET", f"devices/{device_name(n)}"),
            "status": lambda n: call("GET", "status"),
            "bundle progress": lambda n: call("GET", "bundles/latest/progress"),
            "audit listed, a page of 100": lambda n: call("GET", "audit", limit=100, after=n * 100),
            "report": lambda n: member.report(report),
            "join, without the 50 ms in which joins are gathered": lambda n: member.join(
                f"ward-{n % WARDS}/vitals", MemberRole.PUBLISH
            ),
            _JOIN_OF_ALL: lambda n: member.join(WHOLE_SITE, MemberRole.PUBLISH),
            "keys": lambda n: member.keys(WHOLE_SITE),
            "policy fetched, every device in it": lambda n: member.policy(WHOLE_SITE),
            _WHOLE: lambda n: add_channel(f"whole/{n}", ["*"], n + 400),
        }
        # This process's own pauses are not the service's.
        gc.collect()
        gc.freeze()
        for name, operation in operations.items():
            taken = []
            times = min(count, _FEW.get(name, count))
            spent = cpu_seconds(service.pid)
            for number in range(times):
                start = time.perf_counter()
                await operation(number)
                taken.append((time.perf_counter() - start) * 1e3)
            if name.startswith("join"):
                taken = [each - JOIN_MOMENT_SECONDS * 1e3 for each in taken]
            _report(figures, group, name, taken, (cpu_seconds(service.pid) - spent) / times * 1e3)


def _report(figures: Figures, group: str, name: str, taken: list[float], cpu: float) -> None:
    p99 = quantiles(taken, n=100, method="inclusive")[98]
    figures.add(
        Figure(
            group=group,
            name=f"{name}: p99",
            unit="ms",
            values=[p99],
            bar=below(BAR_MS),
            note=f"median {median(taken):.3g} ms, CPU of the service {cpu:.2g} ms; {len(taken)} samples",
        )
    )


def _with_rate(source: str, rate: str) -> str:
    """The policy with another rate for the first ward."""
    before, head, rest = source.partition('[channel."ward-0/vitals"]')
    return before + head + re.sub('rate = "[^"]*"', f'rate = "{rate}"', rest, count=1)
