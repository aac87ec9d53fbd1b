"""UFTP: one file to one receiver, plain, with AES-256-GCM, and with a signature of ECDSA per packet."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from bench.children import ChildError
from bench.rivals.packages import build, install, took
from bench.site import Site
from bench.wire import FAR

PLAIN, GCM, SIGNED = "plain", "AES-256-GCM", "a signature per packet"
_EXCHANGE = ["-h", "sha256", "-e", "ecdh_ecdsa"]
_OPTIONS = {
    PLAIN: [],
    GCM: ["-Y", "aes256-gcm", *_EXCHANGE],
    SIGNED: ["-Y", "aes256-cbc", *_EXCHANGE, "-w", "keyex"],
}
_SOCKET_BYTES = str(4 << 20)
_BLOCK_BYTES = "1400"
_PATIENCE_SECONDS = 300
_ELAPSED = re.compile(r"Total elapsed time: ([0-9.]+) seconds")


class Uftp:
    """Its server and its client."""

    def __init__(self, folder: Path) -> None:
        """Install, and make a key. Raises: MissingError."""
        install(["uftp"], ["/usr/bin/uftp", "/usr/bin/uftpd", "/usr/bin/uftp_keymgt"])
        folder.mkdir(parents=True)
        self._key = folder / "key.pem"
        self._received = folder / "received"
        self._received.mkdir()
        build(["uftp_keymgt", "-g", "ec:prime256v1", str(self._key)], folder)

    async def transfer(self, site: Site, how: str, file: Path, *, rate: int) -> float:
        """Return the seconds of a transfer at `rate` Mbit/s, without the announcement.

        The figure is UFTP's own, from the end of the key exchange on. Raises: ChildError: it did not arrive.
        """
        key = ["-k", str(self._key)] if how != PLAIN else []
        common = ["-q", "-I", "lo" if site.wire is None else site.wire.interface, "-B", _SOCKET_BYTES, *key]
        client = ["uftpd", "-d", *common, "-D", str(self._received)]
        server = ["uftp", *_OPTIONS[how], *common, "-R", str(rate * 1000), "-b", _BLOCK_BYTES, str(file)]
        receiver = await site.start("uftpd", client, FAR)
        try:
            sender = await site.start("uftp", server)
            async with asyncio.timeout(_PATIENCE_SECONDS):
                output = await sender.output(also_errors=True)
        except TimeoutError:
            raise ChildError(f"uftp has not ended after {_PATIENCE_SECONDS} s") from None
        finally:
            await receiver.stop()
        elapsed = _ELAPSED.search(output)
        if not took(self._received, file) or elapsed is None:
            raise ChildError(f"uftp: the file did not arrive ({how}, {rate} Mbit/s)")
        return float(elapsed[1])
