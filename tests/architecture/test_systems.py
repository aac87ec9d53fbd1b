"""What operating systems do not have alike is asked for in `system` alone.

mypy, told of each system by `make lint`, refuses what the standard library lacks there. This looks for what
mypy does not know of.
"""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "sealcast"
THE_ONE = SOURCE / "system.py"
ALONE = {SOURCE / "cli/demo/leash.py", SOURCE / "cli/demo/switch.py"}
"""Programs of the demo that import nothing of Sealcast, and ask themselves."""

MODULES = {
    "_winapi",
    "ctypes",
    "fcntl",
    "grp",
    "msvcrt",
    "nt",
    "posix",
    "pwd",
    "resource",
    "termios",
    "winreg",
}
NAMES = {
    "sys.platform": "asks for the system",
    "os.name": "asks for the system",
    "os.uname": "asks for the system",
    "platform.system": "asks for the system",
    "asyncio.run": "Windows' loop watches no sockets: system.run",
    "asyncio.new_event_loop": "Windows' loop watches no sockets: system.new_event_loop",
    "os.chmod": "Windows knows no modes",
    "os.umask": "Windows knows no modes",
}
METHODS = {
    "add_signal_handler": "system.on_signals",
    "add_child_handler": "Windows has none",
    "start_unix_server": "system.serve_locally",
    "create_unix_server": "system.serve_locally",
    "open_unix_connection": "system.local_socket",
    "create_unix_connection": "system.local_socket",
}
FOLDERS = ("/proc/", "/sys/", "/dev/")
OTHERS = 0o077
"""Of a file's mode, which says nothing on Windows."""


def what_is_not_portable(source: str) -> list[tuple[int, str]]:
    """Every (line, reason)."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found += [(node.lineno, f"import {each.name}") for each in names if each.name in MODULES]
            case ast.ImportFrom(module=str(module), names=names):
                imported = {f"{module}.{each.name}" for each in names}
                if module in MODULES or imported & NAMES.keys():
                    found.append((node.lineno, f"import of {module}"))
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if f"{owner}.{name}" in NAMES:
                found.append((node.lineno, f"{owner}.{name}: {NAMES[f'{owner}.{name}']}"))
            case ast.Attribute(attr=name) if name in METHODS:
                found.append((node.lineno, f"{name}: {METHODS[name]}"))
            case ast.Constant(value=str(text)) if text.startswith(FOLDERS):
                found.append((node.lineno, f"{text}: Linux has it"))
            case ast.BinOp(op=ast.BitAnd(), right=ast.Constant(value=bits)) if bits == OTHERS:
                found.append((node.lineno, "system.OTHERS_MAY_READ"))
    return found


def test_one_module_knows_of_systems() -> None:
    found = [
        f"{path.relative_to(SOURCE)}:{line}: {reason}"
        for path in sorted(SOURCE.rglob("*.py"))
        if path not in {THE_ONE, *ALONE}
        for line, reason in what_is_not_portable(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


def test_it_is_needed() -> None:
    assert what_is_not_portable(THE_ONE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "source",
    [
        "import fcntl",
        "from pwd import getpwnam",
        "from sys import platform",
        "if sys.platform == 'linux': pass",
        "asyncio.run(main())",
        "loop.add_signal_handler(15, stop)",
        "open('/proc/self/maps')",
        "mode & 0o077",
    ],
)
def test_the_check_finds(source: str) -> None:
    assert len(what_is_not_portable(source)) == 1


@pytest.mark.parametrize("source", ["import os", "system.run(main())", "os.path.join(a, b)", "mode & 0o777"])
def test_the_check_allows(source: str) -> None:
    assert what_is_not_portable(source) == []
