"""Each invariant of the design has a test with its name: `invariant_<n>_…` in Rust, `test_invariant_<n>_…` in
Python.

 1. No unauthenticated byte changes state.
 2. A receiver sends nothing on the multicast side.
 3. No (key, nonce) pair is used twice.
 4. No message is delivered that its publisher did not sign for this channel; none twice.
 5. Nothing removed, revoked or expired opens, signs or asks with success.
 6. A rotation of anything loses nothing and stalls no stream for more than a second.
 7. A loss is either mended or reported.
 8. Policy, CRL number, epoch and serial only move forward.
 9. Private keys do not leave the device; secrets are in no log, argv, core or database in clear.
10. Memory is bounded by configuration whatever arrives.
"""

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NUMBERED = re.compile(r"(?:test_)?invariant_(\d+)_\w+")
# As rustfmt writes it: only what the test harness runs counts.
RUST_TEST = re.compile(r"#\[test\]\n\s*(?:#\[[^\n]*\]\n\s*)*fn (\w+)\(")


def numbered() -> dict[int, list[str]]:
    """The tests of each invariant."""
    found: defaultdict[int, list[str]] = defaultdict(list)
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                _note(found, node.name)
    for path in (ROOT / "rust").rglob("*.rs"):
        for name in RUST_TEST.findall(path.read_text(encoding="utf-8")):
            _note(found, name)
    return found


def _note(found: defaultdict[int, list[str]], name: str) -> None:
    if match := NUMBERED.fullmatch(name):
        found[int(match[1])].append(name)


def test_each_invariant_has_a_test_with_its_name() -> None:
    found = numbered()
    listed = {int(number) for number in re.findall(r"^ ?(\d+)\. ", __doc__, re.MULTILINE)}
    assert listed == set(range(1, 11))
    assert set(found) == listed, f"without a test: {listed - set(found)}; unknown: {set(found) - listed}"


def test_rust_and_python_are_both_looked_at() -> None:
    names = {name for names in numbered().values() for name in names}
    assert "invariant_1_no_flipped_bit_changes_state" in names
    assert "test_invariant_2_a_subscriber_sends_no_datagram" in names
