"""Abuse cases and faults of the data plane and of its side channel: each has a test with its id in its name.

A test is named `a2_…` in Rust, `test_a2_…` or `test_fault_7_a10_…` in Python. The letters say where it has
to be shown: u at the code alone, f with input that nobody thought of, s in virtual time, n over real sockets,
e over HTTPS; what is shown further out is shown further in, too.

A1 s n  junk flood                    B8 u    counter exhaustion             D1 s n  repair storm
A2 u s  good header, junk body        C2 s n  signature flood                D2 e    one asks for everything
A3 u s  far-future sequence           C3 s    half-finished blocks           D3 f e  poisoned answer
A4 s n  unknown-epoch spray           C10 s n FEC pollution                  D4 e    withholding
A5 s n  stream-id spray                                                      D5 f e  absurd ranges
A6 f    lying lengths                 fault 1 to 9 n: loss, bursts, shared   D6 e    floods of requests
A7 n    reflection                    and separate loss, chosen drops,       D7 e    half-open connections
A8 u    cross-channel injection       reordering, duplicates, corruption,
A9 n    IGMP games                    MTU, partitions
A10 n   corruption on the wire
"""

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# As rustfmt writes it; `proptest!` has its own way.
RUST_TEST = re.compile(r"#\[test\]\n\s*(?:(?:#\[|///)[^\n]*\n\s*)*fn (\w+)\(")
LISTED = re.compile(r"\b([A-D]\d+) ([ufsne](?: [ufsne])*)\b")
REAL = "ne"
"""Levels that take sockets, and the folders where tests have them."""
REAL_FOLDERS = ("tests/e2e", "tests/sidechannel", "tests/authority")
FAULTS = range(1, 10)


def named() -> dict[str, set[str]]:
    """The files with a test of each id."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                _note(found, node.name.removeprefix("test_"), path)
    for path in (ROOT / "rust").rglob("*.rs"):
        for name in RUST_TEST.findall(path.read_text(encoding="utf-8")):
            _note(found, name, path)
    return found


def _note(found: defaultdict[str, set[str]], name: str, path: Path) -> None:
    for identifier in re.findall(r"(?:^|_)(fault_\d+|[a-h]\d+)(?=_)", name):
        found[identifier.upper()].add(path.relative_to(ROOT).as_posix())


def listed() -> dict[str, set[str]]:
    assert __doc__ is not None
    levels = {identifier: set(letters.split()) for identifier, letters in LISTED.findall(__doc__)}
    return levels | {f"FAULT_{number}": {"n"} for number in FAULTS}


def test_the_list_is_read() -> None:
    expected = {*(f"A{n}" for n in range(1, 11)), "B8", "C2", "C3", "C10", *(f"D{n}" for n in range(1, 8))}
    assert {identifier for identifier in listed() if not identifier.startswith("FAULT")} == expected
    assert listed()["D3"] == {"f", "e"}


def test_each_has_a_test_with_its_id_where_it_has_to_be_shown() -> None:
    found = named()
    missing = [
        f"{identifier} ({' '.join(sorted(levels))}): {sorted(found[identifier])}"
        for identifier, levels in listed().items()
        if not any(is_real(path) == bool(levels & set(REAL)) for path in found[identifier])
        or (levels - set(REAL) and not found[identifier])
    ]
    assert not missing, "without a test of that level:\n" + "\n".join(missing)


def is_real(path: str) -> bool:
    return path.startswith(REAL_FOLDERS)
