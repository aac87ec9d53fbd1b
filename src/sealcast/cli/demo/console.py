"""A process: commands of `sealcast`, one after the other, as a script of an operator's would run them.

    python -m sealcast.cli.demo.console

Reads the argument lists as one JSON array; writes what each command wrote to standard output, as one JSON
array. Ends with the code of the first command that fails. One process, as each would load the same libraries.
"""

import contextlib
import io
import json
import sys

from sealcast.cli import main as sealcast


def main() -> int:
    """Run them all."""
    outputs = []
    for arguments in json.load(sys.stdin):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            code = sealcast(arguments)
        if code != 0:
            return code
        outputs.append(output.getvalue())
    json.dump(outputs, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
