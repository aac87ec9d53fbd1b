"""The engine is a state machine: it names no socket, clock, thread, file, environment, random source."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "rust" / "core"

# A path is refused when it is one of these or lies below one.
FORBIDDEN_PATHS = (
    "std::net",
    "std::os",
    "std::thread",
    "std::fs",
    "std::env",
    "std::process",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::time::UNIX_EPOCH",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "std::sync::mpsc",
    "aws_lc_rs::rand",
    "rand",
    "getrandom",
    "tokio",
    "mio",
    "socket2",
    "libc",
    "chrono",
)
# These are refused wherever they stand, whatever path leads to them.
FORBIDDEN_NAMES = (
    "Instant",
    "SystemTime",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "SystemRandom",
    "OsRng",
    "thread_rng",
    "thread_local",
    "available_parallelism",
)
# Calls that read the clock or the random source of the system out of sight.
FORBIDDEN_CALLS = ("UnixTime::now", "KeyPair::generate", "generate_pkcs8", "generate_pkcs8v1")
FORBIDDEN_MACROS = ("println", "eprintln", "print", "eprint", "dbg", "option_env")
FORBIDDEN_CRATES = {
    "tokio",
    "mio",
    "socket2",
    "libc",
    "rand",
    "getrandom",
    "chrono",
    "time",
    "quinn-udp",
    "nix",
}

_NOT_CODE = re.compile(
    r"""
      //[^\n]*                                # line comment
    | /\*                                     # block comment, nests: handled by the loop
    | \bb?r(?P<hashes>\#*)".*?"(?P=hashes)    # raw string
    | b?"(?:\\.|[^"\\])*"                     # string
    | b?'(?:\\(?:x[0-9A-Fa-f]{2}|u\{[^}]*\}|.)|[^'\\\n])'   # character, not a lifetime
    """,
    re.VERBOSE | re.DOTALL,
)
_BLOCK_EDGE = re.compile(r"/\*|\*/")
_USE = re.compile(r"\buse\s+([^;]+);")
_PATH = re.compile(r"(?:\b|(?<=::))[A-Za-z_]\w*(?:\s*::\s*[A-Za-z_]\w*)+")


def code_only(source: str) -> str:
    """The source with comments and literals blanked; line numbers stay."""
    out: list[str] = []
    position = 0
    while match := _NOT_CODE.search(source, position):
        end = match.end()
        if match.group() == "/*":
            depth = 1
            while depth and (edge := _BLOCK_EDGE.search(source, end)):
                depth += 1 if edge.group() == "/*" else -1
                end = edge.end()
            if depth:
                end = len(source)
        out += [source[position : match.start()], " ", "\n" * source.count("\n", match.start(), end)]
        position = end
    out.append(source[position:])
    return "".join(out)


def expand_use(tree: str) -> list[str]:
    """`std::{net, time::{self, Instant as I}}` as single paths."""
    tree = re.sub(r"\s+as\s+\w+", "", tree)
    tree = re.sub(r"\s+", "", tree)
    brace = tree.find("{")
    if brace < 0:
        return [tree.removeprefix("::").removesuffix("::self")]
    prefix, inner = tree[:brace], tree[brace + 1 : tree.rindex("}")]
    parts: list[str] = []
    depth = start = 0
    for index, char in enumerate(inner):
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            parts.append(inner[start:index])
            start = index + 1
    parts.append(inner[start:])
    return [path for part in parts if part for path in expand_use(prefix + part)]


def impurities(source: str) -> list[str]:
    """What a source of the engine names and must not, as `line: name`."""
    code = code_only(source)
    found: list[str] = []

    def report(offset: int, name: str) -> None:
        found.append(f"{code.count(chr(10), 0, offset) + 1}: {name}")

    def judge(offset: int, path: str) -> None:
        # core:: and std:: are the same house; a glob import is judged by what it stands on.
        plain = re.sub(r"^(core|alloc)::", "std::", path).removesuffix("::*")
        below = any(plain == rule or plain.startswith(rule + "::") for rule in FORBIDDEN_PATHS)
        glob_above = path.endswith("*") and any(rule.startswith(plain + "::") for rule in FORBIDDEN_PATHS)
        if below or glob_above:
            report(offset, path)

    for match in _USE.finditer(code):
        for path in expand_use(match.group(1)):
            judge(match.start(), path)
    for match in _PATH.finditer(_USE.sub(lambda use: " " * len(use.group()), code)):
        judge(match.start(), re.sub(r"\s+", "", match.group()))
    for pattern, names in (
        (r"\b{}\b", FORBIDDEN_NAMES),
        (r"{}\b", FORBIDDEN_CALLS),
        (r"\b{}!", FORBIDDEN_MACROS),
    ):
        for name in names:
            for match in re.finditer(pattern.format(name), code):
                report(match.start(), name)
    return found


def test_engine_names_nothing_of_the_system() -> None:
    broken = [
        f"{path.relative_to(ROOT)}:{impurity}"
        for path in sorted((CORE / "src").rglob("*.rs"))
        for impurity in impurities(path.read_text(encoding="utf-8"))
    ]
    assert not broken, "the engine takes time, randomness and datagrams as arguments:\n" + "\n".join(broken)


def test_engine_forbids_unsafe_code() -> None:
    assert "#![forbid(unsafe_code)]" in (CORE / "src" / "lib.rs").read_text(encoding="utf-8")


def test_engine_depends_on_no_io_crate() -> None:
    manifest = tomllib.loads((CORE / "Cargo.toml").read_text(encoding="utf-8"))
    assert not FORBIDDEN_CRATES & set(manifest["dependencies"])
    assert "build-dependencies" not in manifest


@pytest.mark.parametrize(
    "source",
    [
        "use std::net::UdpSocket;",
        "use std::{collections::BTreeMap, net::{IpAddr, Ipv4Addr}};",
        "use std::time::{Duration, Instant};",
        "use std::time::SystemTime as Clock;",
        "fn f() { std :: thread :: spawn(|| ()); }",
        "fn f() { let t = std::time::Instant::now(); }",
        "fn f() { ::std::fs::read(p); }",
        "use core::net::IpAddr;",
        "use std::*;",
        "let v = std::env::var(name);",
        "use aws_lc_rs::rand::SystemRandom;",
        "let k = Ed25519KeyPair::generate();",
        "let t = UnixTime::now();",
        "rand::thread_rng()",
        "use tokio::time;",
        "eprintln!();",
        "let q = '\"'; std::fs::read(p); let r = '\"';",
        "/* a /* b */ c */ use std::fs;",
    ],
)
def test_the_check_refuses(source: str) -> None:
    assert impurities(source)


@pytest.mark.parametrize(
    "source",
    [
        "use std::time::Duration;",
        "use core::time::Duration;",
        "// std::net::UdpSocket has no place here",
        "/* std::fs /* nested */ std::env */ struct S;",
        'let text = "see std::thread and Instant";',
        'let text = r#"std::fs "quoted" "#;',
        'const VERSION: &str = env!("CARGO_PKG_VERSION");',
        "fn random(source: &mut dyn RandomSource) {}",
        "mod rand_source;",
        "fn f<'a>(x: &'a str) -> &'a str { x }",
        "use std::collections::{BTreeMap, VecDeque};",
    ],
)
def test_the_check_allows(source: str) -> None:
    assert impurities(source) == []
