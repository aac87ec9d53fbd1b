"""The engine with its drivers' sockets, publisher and subscriber, and no Python on the way of a message.

`rust/net/examples/sealed_udp` does the sending and the checking.
"""

from __future__ import annotations

import json
from typing import Any

from bench.children import ChildError
from bench.engine import built
from bench.site import Site
from bench.stream import MESSAGE_BYTES, Run
from bench.wire import FAR


async def run_sealed(site: Site, *, rate: int, count: int, message_bytes: int = MESSAGE_BYTES) -> Run:
    """Send `count` messages at `rate` Mbit/s from one end of the wire to the other."""
    told = await _ends(site, "stream", rate, message_bytes, count)
    return Run(
        messages=told["received"],
        message_bytes=message_bytes,
        seconds=(told["last"] - told["start"]) / 1e9,
        send_seconds=told["send_seconds"],
        lost=told["lost"],
        wrong=told["wrong"],
        repaired=told["repaired"],
        dropped_by_kernel=told["dropped_by_kernel"],
        datagram_bytes=told["bytes"] / told["packets"],
        send_cpu=told["send_cpu"],
        receive_cpu=told["receive_cpu"],
    )


async def lone_ages(site: Site, interval: float, message_bytes: int, count: int) -> list[float]:
    """Send messages one after each `interval`; return how old each was at the application, in microseconds.

    Raises: ChildError: one was lost, or another than was sent.
    """
    told = await _ends(site, "lone", round(interval * 1e6), message_bytes, count)
    if told["lost"] or told["wrong"]:
        raise ChildError(f"of {count} lone messages {told['lost']} were lost and {told['wrong']} wrong")
    ages: list[float] = told["ages"]
    return ages


async def signature_micros(site: Site) -> tuple[float, float]:
    """Return what signing a block and verifying it take, alone."""
    program = str(built("sealcast-net", "example", "sealed_udp"))
    told = json.loads(await site.children.run("signature", [program, "signature"]))
    return told["sign"], told["verify"]


async def _ends(site: Site, mode: str, pace: int, message_bytes: int, count: int) -> dict[str, Any]:
    program = str(built("sealcast-net", "example", "sealed_udp"))
    group, port = site.group()
    interface = site.wire.interface if site.wire is not None else "lo"
    far = site.wire.namespace(FAR) if site.wire is not None else None
    words = [mode, f"{group}:{port}", interface, *map(str, (pace, message_bytes, count))]
    both = await site.start("sealed", [program, *words, *([far] if far is not None else [])])
    try:
        told: dict[str, Any] = {}
        for line in (await both.output()).splitlines():
            told |= json.loads(line)
    finally:
        await both.stop()
    return told
