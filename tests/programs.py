"""Programs of others, run to their end."""

import asyncio
import subprocess
from pathlib import Path

PATIENCE_SECONDS = 30


async def run_program(*command: str, folder: Path) -> bytes:
    """Run a command in a folder and return its standard output; a failure shows the rest."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        out, log = await process.communicate()
    assert process.returncode == 0, log.decode()
    return out
