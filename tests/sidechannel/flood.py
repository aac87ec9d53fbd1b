"""A member that asks without end, in a process of its own, and what a modest one waits for meanwhile. D6."""

import asyncio
import gc
import json
import math
import os
import ssl
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

from sealcast.pki.tls import client_context
from sealcast.sidechannel.quota import AT_ONCE, REFUSED_SECONDS, TURN_SECONDS
from tests.figures import record

SECONDS = float(os.environ.get("SEALCAST_FLOOD", "0.5"))
"""For which the modest one asks, without a flood and with it."""
CONNECTIONS, PIPELINED = 16, 8
PACE_SECONDS = 0.01


class Certified(Protocol):
    """Whose certificate the flood is asked with."""

    @property
    def certificate_file(self) -> Path: ...
    @property
    def key_file(self) -> Path: ...


@asynccontextmanager
async def flooding(
    identity: Certified, authorities: tuple[bytes, ...], port: int, path: str, body: bytes
) -> AsyncIterator[Counter[int]]:
    """A flood for the length of the block; gives the answers by their status, at its end, and judges how many
    there are: those of one member come at a distance, whatever it does (SC-43).
    """
    told = {
        "certificate": str(identity.certificate_file),
        "key": str(identity.key_file),
        "authorities": [der.hex() for der in authorities],
        "port": port,
        "request": (
            b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body)) + body
        ).hex(),
    }
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, json.dumps(told), stdin=pipe, stdout=pipe
    )
    answers: Counter[int] = Counter()
    began = time.monotonic()
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"begun\n"
        yield answers
        process.stdin.close()
        async with asyncio.timeout(30):
            answers.update(
                {int(status): count for status, count in json.loads(await process.stdout.read()).items()}
            )
            assert await process.wait() == 0
        assert set(answers) <= {200, 429}
        assert answers[200] <= (time.monotonic() - began) / TURN_SECONDS + AT_ONCE + CONNECTIONS
        assert answers[429] <= (time.monotonic() - began) / REFUSED_SECONDS * CONNECTIONS + CONNECTIONS
        assert answers[200] >= CONNECTIONS
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def waits(ask: Callable[[], Awaitable[object]]) -> list[float]:
    """How long each of the modest one's requests takes, in milliseconds."""
    took: list[float] = []
    # As a service does once it runs: what the tests have loaded takes the collector 100 ms to look through.
    gc.collect()
    gc.freeze()
    until = time.monotonic() + SECONDS
    while (began := time.monotonic()) < until:
        await ask()
        took.append((time.monotonic() - began) * 1e3)
        await asyncio.sleep(PACE_SECONDS)
    gc.unfreeze()
    return took


def note(what: str, alone: list[float], beside: list[float], answers: Counter[int], grown: int) -> None:
    """Record both figures and their ratio. `grown`: bytes."""
    p99_alone, p99_beside = p99(alone), p99(beside)
    record(
        {
            "what": what,
            "count": len(beside),
            "p99_alone_ms": round(p99_alone, 2),
            "p99_ms": round(p99_beside, 2),
            "ratio": round(p99_beside / p99_alone, 2),
            "flood_per_second": round(answers.total() / SECONDS),
            "refused": answers[429],
            "grown_kib": grown // 1024,
            "held": True,
        }
    )


def p99(took: list[float]) -> float:
    return sorted(took)[math.ceil(len(took) * 0.99) - 1]


async def _ask_without_end(
    port: int, context: ssl.SSLContext, request: bytes, answers: Counter[int], begun: asyncio.Event
) -> None:
    while True:
        with suppress(OSError, EOFError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            try:
                writer.write(request * PIPELINED)
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).lower()
                    await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]))
                    answers[int(head.split()[1])] += 1
                    begun.set()
                    writer.write(request)
            finally:
                writer.transport.abort()


async def _flood(certificate: str, key: str, authorities: list[str], port: int, request: str) -> None:
    context = client_context(Path(certificate), Path(key), [bytes.fromhex(der) for der in authorities])
    answers: Counter[int] = Counter()
    begun = asyncio.Event()
    tasks = [
        asyncio.ensure_future(_ask_without_end(port, context, bytes.fromhex(request), answers, begun))
        for _ in range(CONNECTIONS)
    ]
    await begun.wait()
    print("begun", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(json.dumps(answers))


if __name__ == "__main__":
    asyncio.run(_flood(**json.loads(sys.argv[1])))
