"""`--help` and `--json` of every command."""

import ast
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from sealcast import cli
from tests.e2e.processes import Processes
from tests.e2e.site import Site, command

DOCUMENTED = {
    "authority init": "--site --root-cert --root-key --csr-out --certificate --bundle",
    "authority serve": "--listen --keys --manage --json",
    "authority restored": "--bundle-is-latest",
    "authority token": "--device --ttl --role --url --admin",
    "authority status": "--url --admin --json",
    "authority tokens list": "--url --admin --json",
    "authority admin add": "--role --ttl --url --admin",
    "authority admin list": "--url --admin --json",
    "authority rotate server": "--url --admin",
    "authority rotate site": "--root-key --csr-out --certificate --bundle-out --within --force --again "
    "--url --admin",
    "authority rotate root": "--new-root-cert --root-key --certificate --crosses --bundle-out --force",
    "authority rotate status": "--url --admin --json",
    "authority permit": "--admin --registrar --withdraw",
    "authority audit list": "--actor --subject --url --admin --json",
    "authority audit verify": "--head --url --admin --json",
    "admin enroll": "--authority --root --name --token --json",
    "authority channel add": "--group --port --publish --subscribe --interface --rate",
    "authority channel list": "--json",
    "authority device list": "--json",
    "authority device revoke": "",
    "authority device set": "--role --no-role",
    "policy check": "--json",
    "policy diff": "--json",
    "policy apply": "--force --json",
    "policy show": "",
    "policy explain": "--json",
    "device enroll": "--authority --root --name --token --wait --cancel --json",
    "device show": "--json",
    "device renew": "--json",
    "publish": "--raw --interface --send-to --json",
    "subscribe": "--output --count --interface --listen --json",
    "send": "--linger --interface --send-to --json",
    "receive": "--output --count --overwrite --interface --listen --json",
    "peer send": "--raw --topic --wait --queued --json",
    "peer inbox": "--output --count --raw --listen --json",
    "demo": "--seed",
}
"""What scripts rely on."""


def commands() -> dict[str, list[str]]:
    """Every command and group, and its options."""
    app = typer.Typer()
    for name in cli.COMMANDS:
        importlib.import_module(cli.module_of(name)).register(app)
    return dict(_below(typer.main.get_command(app), ""))


def _below(parsed: Any, path: str) -> Iterator[tuple[str, list[str]]]:
    names = (name for parameter in parsed.params for name in parameter.opts)
    yield path, [name for name in names if name.startswith("--")]
    for name, child in getattr(parsed, "commands", {}).items():
        yield from _below(child, f"{path} {name}".strip())


@pytest.mark.parametrize("words", commands(), ids=lambda words: words or "sealcast")
def test_help_names_every_option(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = command(*words.split(), "--help")
    assert f"Usage: sealcast {words}" in text
    if words:
        missing = [option for option in commands()[words] if option not in text]
        assert not missing


def test_what_scripts_rely_on_is_there() -> None:
    found = commands()
    for words, options in DOCUMENTED.items():
        assert set(options.split()) <= set(found[words]), words


def test_every_command_that_a_text_names_is_there() -> None:
    """What an error tells people to type is looked up as they would: word by word, down to a command."""
    found = commands()
    groups = {words.rpartition(" ")[0] for words in found if words}
    named = 0
    for path in Path(cli.__file__).parents[1].rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
                continue
            for text in re.findall(r"sealcast ((?:[a-z][a-z-]* ?)+)", node.value):
                at = ""
                for word in text.split():
                    below = f"{at} {word}".strip()
                    # Prose ends where the first word is no command; below a group every word has to be one.
                    if at not in groups or (not at and below not in found):
                        break
                    assert below in found, f"{path.name}: sealcast {text}"
                    at = below
                named += bool(at)
    assert named > 30


def test_json_can_be_read(site: Site, processes: Processes) -> None:
    folder = site.devices / "monitor"
    words = (
        "device", "enroll", folder, "--authority", site.url, "--keys", site.keys_url, "--root", site.root,
        "--name", "monitor", "--token", site.token("monitor"), "--json",
    )  # fmt: skip
    enrolled = json.loads(command(*words))
    assert enrolled["name"] == "monitor"
    assert json.loads(command("device", "show", folder, "--json")) == enrolled
    renewed = json.loads(command("device", "renew", folder, "--json"))
    assert {key for key in enrolled if enrolled[key] != renewed[key]} >= {"serial", "certificate_sha256"}
    channel = site.add_channel("icu3/vitals", publish="mon*", subscribe="nobody")
    [listed] = json.loads(command("authority", "channel", "list", site.folder, "--json"))
    assert (listed["name"], listed["group"], listed["port"]) == (channel.name, channel.group, channel.port)
    assert (listed["publishers"], listed["subscribers"]) == (["monitor"], [])
    [device] = json.loads(command("authority", "device", "list", site.folder, "--json"))
    assert device["name"] == "monitor"
    site.revoke("monitor")
    [device] = json.loads(command("authority", "device", "list", site.folder, "--json"))
    assert device["state"] == "revoked"


def test_errors_and_json_are_explained_once() -> None:
    text = " ".join(command("--help").split())
    assert "With --json, results are JSON on standard output" in text
    assert "9 something is missing" in text


def test_channels_are_listed_with_their_rules(site: Site) -> None:
    site.enrol("bed12")
    channel = site.add_channel(
        "icu4/vitals", "--rate", "5Mbit/s", "--interface", "lo", publish="bed*", subscribe="no*"
    )
    lines = command("authority", "channel", "list", site.folder).splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith(channel.name))
    assert lines[at].split() == [channel.name, channel.address, "interface", "lo", "5Mbit/s"]
    assert [line.split() for line in lines[at + 1 : at + 3]] == [
        ["publish", "bed*:", "bed12"],
        ["subscribe", "no*:", "-"],
    ]


def test_a_token_stands_alone(site: Site, processes: Processes) -> None:
    assert len(command("authority", "token", site.folder, "--device", "any").split()) == 1
    site.enrol("stolen")
    site.revoke("stolen")
    made = processes.run("authority", "token", site.folder, "--device", "stolen")
    assert (made.code, len(made.out.split())) == (0, 1)
    assert (
        made.err == "sealcast: warning: device 'stolen' is revoked; who enrols with this token is in again\n"
    )
