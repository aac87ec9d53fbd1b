"""Starts a program that ends when its parent does, however the parent ends.

    python -I -S leash.py PROGRAM ARGUMENT...

On Linux; elsewhere the program is just started. Nothing of Sealcast is imported.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become the program."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606


if __name__ == "__main__":
    main()
