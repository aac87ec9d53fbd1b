"""What the SDKs say of faults, and what they bring beside their libraries."""

from __future__ import annotations

import signal
import socket
import struct
from urllib.parse import urlsplit

import pytest

from tests.sdk.conftest import Stage
from tests.sdk.languages import LANGUAGES


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_join_waits_for_a_key_server_that_comes_back(stage: Stage, language: str) -> None:
    """The first request fails at once, and the join has 20 seconds."""
    device, channel = stage.device(), stage.channel()
    address = urlsplit(stage.site.keys_url)
    stage.site.stop(signal.SIGKILL)
    try:
        with socket.create_server((address.hostname or "", address.port or 0)) as door:
            door.settimeout(30)
            peer = stage.start(language, "subscribe", device, channel)
            first, _ = door.accept()
            first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            first.close()
    finally:
        stage.site.serve()
    peer.wait_line("^joined")
