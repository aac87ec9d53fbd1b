"""Imports only go down: cli, authority, ... pki, errors (ARCHITECTURE.md draws the layers)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"

# From the top to the bottom; a package may import those on lower lines.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("cli", "__main__"),
    ("sync",),
    ("repair", "relay"),
    ("authority", "endpoint"),
    ("device", "sidechannel"),
    ("est", "keys"),
    ("ca",),
    ("pki",),
    ("system",),
    ("errors",),
)
RANK = {package: rank for rank, layer in enumerate(LAYERS) for package in layer}

# On one line, these alone may import each other, in this direction only.
SIDEWAYS = {
    "__main__": {"cli"},  # python -m sealcast is the command line
    "device": {"sidechannel"},  # trust is synchronised with the key server
    "relay": {"repair"},  # a relay keeps packets in the store of the repair node
}

ENGINE_USERS = set(RANK) - {"errors", "system"}

HTTP = {"aiohttp", "http", "httpx", "requests", "urllib.request", "urllib3"}
DATABASE = {"sqlalchemy", "sqlite3", "alembic", "aiosqlite", "psycopg", "asyncpg"}
FORBIDDEN_LIBRARIES = {
    "pki": HTTP | DATABASE,
    "keys": HTTP | DATABASE,
    "ca": HTTP,
    "errors": HTTP | DATABASE,
    "system": HTTP | DATABASE,
}

INDEPENDENT = ("tests/reference", "tests/vectors/cases")
INDEPENDENT_LIBRARIES = {"blake3", "cryptography", "cbor2", "__future__"}


def package_of(module: str) -> str:
    """The layer that a module of sealcast belongs to; the package itself is ''."""
    return module.split(".")[1] if "." in module else ""


def imported_modules(module: str, source: str, *, is_package: bool) -> list[tuple[int, str]]:
    """Every (line, absolute name) that a source imports, `from a import b` gives a.b."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                kept = len(parts) - node.level + (1 if is_package else 0)
                base = ".".join([*parts[:kept], *([node.module] if node.module else [])])
            found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return found


def is_within(name: str, ancestors: set[str]) -> bool:
    return any(name == ancestor or name.startswith(ancestor + ".") for ancestor in ancestors)


def why_forbidden(module: str, imported: str) -> str | None:
    """The rule that `module` breaks by importing `imported`, or None."""
    importer = package_of(module)
    if not is_within(imported, {"sealcast"}):
        if is_within(imported, FORBIDDEN_LIBRARIES.get(importer, set())):
            return f"{importer} knows neither HTTP nor what else FORBIDDEN_LIBRARIES names for it"
        return None
    target = package_of(imported)
    if target == "testing":
        allowed = importer == "testing" or is_within(module, {"sealcast.cli.demo"})
        return None if allowed else "only cli/demo and the tests may use sealcast.testing"
    if importer in {"", "testing"} or importer == target:
        return None
    if importer not in RANK:
        return f"{importer} has no place in LAYERS"
    if target == "_core":
        return None if importer in ENGINE_USERS else f"{importer} does not use the engine"
    if target not in RANK:
        # `from sealcast import Name`: the face of the package pulls in the layers above.
        return (
            None
            if importer in LAYERS[0]
            else "below the cli, import from the layer, not from sealcast itself"
        )
    if RANK[target] > RANK[importer] or target in SIDEWAYS.get(importer, set()):
        return None
    return f"{importer} may not import {target}: imports only go down"


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_product_imports_only_go_down() -> None:
    broken = []
    for path in sorted((SOURCE / "sealcast").rglob("*.py")):
        module = module_name(path)
        source = path.read_text(encoding="utf-8")
        for line, imported in imported_modules(module, source, is_package=path.name == "__init__.py"):
            if rule := why_forbidden(module, imported):
                broken.append(f"{path.relative_to(ROOT)}:{line}: imports {imported}: {rule}")
    assert not broken, "\n".join(broken)


def test_every_package_has_a_place() -> None:
    packages = {
        path.stem
        for path in (SOURCE / "sealcast").iterdir()
        if (path.suffix == ".py" or path.is_dir()) and path.name not in {"__init__.py", "__pycache__"}
    }
    assert packages <= set(RANK) | {"testing"}


def why_not_independent(imported: str) -> str | None:
    """What keeps the second implementation from importing a module, or None."""
    if imported.partition(".")[0] in sys.stdlib_module_names:
        # What could load anything else out of sight.
        return "loads by name" if is_within(imported, {"importlib", "pkgutil", "runpy"}) else None
    if is_within(imported, INDEPENDENT_LIBRARIES) or any(
        is_within(imported, {folder.replace("/", ".")}) for folder in INDEPENDENT
    ):
        return None
    return "neither the standard library, nor a library of the few, nor the second implementation itself"


def test_the_second_implementation_shares_no_code() -> None:
    """It is worth something only while it is one: the reference receiver, and what writes the vectors.

    All that it may import of tests/ lies in its own folders, so what its imports import is checked too.
    """
    files = [file for folder in INDEPENDENT for file in sorted((ROOT / folder).rglob("*.py"))]
    # Python runs the packages above as well.
    files += [
        file for file in (ROOT / "tests/__init__.py", ROOT / "tests/vectors/__init__.py") if file.exists()
    ]
    assert len(files) > 20
    broken = []
    for path in files:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        source = path.read_text(encoding="utf-8")
        if "__import__" in source:
            broken.append(f"{path.relative_to(ROOT)}: imports by name")
        for line, imported in imported_modules(module, source, is_package=path.name == "__init__.py"):
            if rule := why_not_independent(imported):
                broken.append(f"{path.relative_to(ROOT)}:{line}: imports {imported}: {rule}")
    assert not broken, "\n".join(broken)


def test_no_product_code_is_loaded_with_the_second_implementation() -> None:
    """The same, asked of the interpreter, libraries included."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for folder in INDEPENDENT
        for path in sorted((ROOT / folder).glob("*.py"))
        if path.name != "__init__.py"
    ]
    program = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert set(modules) <= set(loaded)
    assert not [name for name in loaded if is_within(name, {"sealcast"})]


@pytest.mark.parametrize(
    ("imported", "is_allowed"),
    [
        ("hashlib.sha256", True),
        ("cryptography.x509", True),
        ("tests.reference.tree", True),
        ("tests.vectors.cases.trust.make_bundle", True),
        ("sealcast._core", False),
        ("sealcast", False),
        ("tests.e2e.datagrams.Datagram", False),
        ("tests.vectors.test_files", False),
        ("tests.references.tree", False),
        ("cryptographic", False),
        ("importlib.import_module", False),
    ],
)
def test_the_check_of_independence(imported: str, is_allowed: bool) -> None:
    assert (why_not_independent(imported) is None) == is_allowed


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("sealcast.pki.csr", "sealcast.ca.issue.issue"),
        ("sealcast.pki.csr", "aiohttp.web"),
        ("sealcast.keys.epochs", "sqlite3"),
        ("sealcast.keys.epochs", "http.client"),
        ("sealcast.keys.epochs", "sealcast.est.client"),
        ("sealcast.errors", "sealcast._core.Engine"),
        ("sealcast.endpoint.publisher", "sealcast.authority.app"),
        ("sealcast.endpoint.publisher", "sealcast.testing.clock"),
        ("sealcast.sidechannel.server", "sealcast.repair.store"),
        ("sealcast.device.identity", "sealcast.Publisher"),
        ("sealcast.utils", "sealcast.pki"),
        ("sealcast.cli.top", "sealcast.testing"),
    ],
)
def test_the_check_refuses(module: str, imported: str) -> None:
    assert why_forbidden(module, imported)


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("sealcast", "sealcast.endpoint.publisher.Publisher"),
        ("sealcast.cli.demo", "sealcast.testing.site"),
        ("sealcast.cli.publish", "sealcast.Publisher"),
        ("sealcast.endpoint.publisher", "sealcast._core.Sender"),
        ("sealcast.pki.chain", "sealcast._core.validate_chain"),
        ("sealcast.repair.node", "sealcast.sidechannel.server"),
        ("sealcast.testing.site", "sealcast.authority.app"),
        ("sealcast.authority.app", "aiohttp.web"),
        ("sealcast.pki.names", "ipaddress"),
    ],
)
def test_the_check_allows(module: str, imported: str) -> None:
    assert why_forbidden(module, imported) is None


def test_relative_imports_are_resolved() -> None:
    source = "from . import names\nfrom .names import Name\nfrom ..ca import issue\n"
    assert [name for _, name in imported_modules("sealcast.pki.csr", source, is_package=False)] == [
        "sealcast.pki.names",
        "sealcast.pki.names.Name",
        "sealcast.ca.issue",
    ]
    assert imported_modules("sealcast.pki", "from . import names", is_package=True) == [
        (1, "sealcast.pki.names")
    ]
