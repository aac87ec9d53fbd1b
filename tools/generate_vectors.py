#!/usr/bin/env python3
"""Write vectors/*.json from the reference implementation, or check that they are what it would write.

    tools/generate_vectors.py            write
    tools/generate_vectors.py --check    compare, exit 1 on a difference

Every value in them is fixed: two runs give the same bytes. What is in which file is in tests/vectors/cases/.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.vectors.cases import FILES  # noqa: E402 - a script finds its repository itself


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="write the known answers of vectors/, or check them")
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    parser.add_argument("--folder", type=Path, default=ROOT / "vectors", help="where the files are")
    options = parser.parse_args(arguments)
    differing = []
    for name, make in FILES.items():
        path = options.folder / f"{name}.json"
        text = make().serialize()
        if path.is_file() and path.read_text() == text:
            continue
        differing.append(path.name)
        if not options.check:
            path.write_text(text)
    stale = sorted(path.name for path in options.folder.glob("*.json") if path.stem not in FILES)
    for path_name in differing:
        print(f"{path_name}: {'differs' if options.check else 'written'}")
    for path_name in stale:
        print(f"{path_name}: nothing writes this file")
    return 1 if stale or (options.check and differing) else 0


if __name__ == "__main__":
    sys.exit(main())
