"""`python -m sealcast`: the command line."""

import sys

from sealcast.cli import main

if __name__ == "__main__":
    sys.exit(main())
