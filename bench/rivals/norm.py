"""NORM (RFC 5740) by NRL's library: one file to one receiver, with nothing that secures it: `norm.cpp`."""

from __future__ import annotations

from pathlib import Path

from bench.children import ChildError
from bench.rivals.packages import HERE, build, install, took
from bench.site import Site
from bench.wire import FAR

_PATIENCE_SECONDS = 300.0


class Norm:
    """Its program."""

    def __init__(self, folder: Path) -> None:
        """Install and build. Raises: MissingError."""
        install(["libnorm-dev"], ["/usr/include/normApi.h"])
        self._received = folder / "received"
        self._received.mkdir(parents=True)
        self._program = folder / "norm"
        build(["c++", "-O2", "-o", str(self._program), str(HERE / "norm.cpp"), "-lnorm"], folder)

    async def transfer(self, site: Site, file: Path, *, rate: int) -> float:
        """Return the seconds of a transfer at `rate` Mbit/s. Raises: ChildError: it did not arrive."""
        group, port = site.group()
        where = [group, str(port), "lo" if site.wire is None else site.wire.interface]
        receive = [str(self._program), "receive", *where, f"{self._received}/"]
        send = [str(self._program), "send", *where, str(file), str(rate * 1_000_000)]
        receiver = await site.start("norm-receiver", receive, FAR)
        sender = await site.start("norm-sender", send)
        try:
            await receiver.line()
            await sender.line()
            sender.order("go")
            got, sent = await receiver.line(_PATIENCE_SECONDS), await sender.line(_PATIENCE_SECONDS)
        finally:
            await sender.finish()
            await receiver.finish()
        if not took(self._received, file):
            raise ChildError(f"norm: the file did not arrive at {rate} Mbit/s")
        seconds: float = got["last"] - sent["start"]
        return seconds
