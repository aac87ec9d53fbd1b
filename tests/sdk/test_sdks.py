"""What the SDKs say of faults, and what they bring beside their libraries."""

from __future__ import annotations

import re
import signal
import socket
import struct
import subprocess
from urllib.parse import urlsplit

import pytest

from tests.sdk.conftest import Stage
from tests.sdk.languages import LANGUAGES, make

UNPLUGGED = "the token is unplugged"
"""What the keys of the programs below say when they are to sign."""
NOBODY = r"nobody answers at https://127.0.0.1:\d+, or was not believed: "


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


def failures(language: str, stage: Stage) -> str:
    """What the SDK's program says that fails in several ways."""
    sdk = LANGUAGES[language]
    sdk.command()
    make(sdk.folder, "build/failures")
    words = [str(sdk.folder / "build/failures"), str(stage.device()), stage.channel().name]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        (
            "java",
            [
                f"^nobody listens: unreachable: {NOBODY}127.0.0.1:1: nobody takes connections there$",
                f"^nobody signs: unreachable: {NOBODY}127.0.0.1:.*{UNPLUGGED}",
                f"^nobody signs: of java.io.IOException: {UNPLUGGED}$",
            ],
        ),
        (
            "csharp",
            [
                f"^nobody listens: unreachable: SealcastException: {NOBODY}127.0.0.1:1: Connection refused$",
                f"^no TLS 1.3: unreachable: SealcastException: {NOBODY}127.0.0.1:\\d+: Authentication failed",
                f"^no SSL_CTX: unreachable: SealcastException: {NOBODY}{UNPLUGGED}$",
                f"^no SSL_CTX: of IOException: {UNPLUGGED}$",
                f"^nobody signs: signing: SealcastException: the device key did not sign: {UNPLUGGED}$",
                f"^nobody signs: of IOException: {UNPLUGGED}$",
                "^no identity: ArgumentNullException: .*identity",
                "^no options: ArgumentNullException: .*options",
            ],
        ),
    ],
    ids=["java", "csharp"],
)
def test_a_failure_says_what_it_comes_of(stage: Stage, language: str, expected: list[str]) -> None:
    """The network's word, and what a key that is elsewhere has thrown."""
    out = failures(language, stage)
    assert [pattern for pattern in expected if not re.search(pattern, out, re.MULTILINE)] == [], out
