"""`sealcast policy`: check, diff, apply, show, explain.

The source is TOML (`sealcast.pki.policy_source`); docs/policy.md tells how to write one.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sealcast.cli import escape
from sealcast.cli.authority.place import AdminFolder, Folder, Place, PlacedCommand, Url
from sealcast.errors import ConfigError

EXIT_DIFFERENT = 10
"""`diff` says by it that `apply` would change something; no error has this code."""

_MAX_FILE_CHARACTERS = 256

_File = Annotated[
    Path,
    typer.Argument(
        help="The policy's source, TOML; - is standard input.", metavar="FILE", show_default=False
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Write JSON.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.add_typer(_policy, name="policy")


_policy = typer.Typer(
    help="Who may publish and subscribe: the site's policy as a file.", no_args_is_help=True
)


@_policy.command()
def check(file: _File, as_json: _Json = False) -> None:
    """Check a source, without an authority. Exit code 0: no error (there may be warnings); 3: errors."""
    from sealcast.pki.policy_source import read_source

    reading = read_source(_read(file))
    errors = sum(problem.is_error for problem in reading.problems)
    if as_json:
        listed = [
            {
                "line": problem.line,
                "place": problem.place,
                "problem": problem.problem,
                "cure": problem.cure,
                "error": problem.is_error,
            }
            for problem in reading.problems
        ]
        channels = [settings.name for settings in reading.source.channels] if reading.source else None
        typer.echo(json.dumps({"file": str(file), "problems": listed, "channels": channels}, indent=2))
    else:
        for problem in reading.problems:
            kind = "error" if problem.is_error else "warning"
            typer.echo(escape(f"{kind}: {problem.text(str(file))}"))
    if errors:
        raise ConfigError(f"{file}: {_counted(errors, 'error')}", cure="correct the file")
    if not as_json and reading.source is not None:
        typer.echo(escape(f"{file}: {_counted(len(reading.source.channels), 'channel')}, no error"))


@_policy.command(cls=PlacedCommand)
def diff(
    folder: Folder, file: _File, url: Url = None, admin: AdminFolder = None, as_json: _Json = False
) -> int:
    """Say what `apply` would change. Exit code 0: nothing; 10: something."""
    body = _accepted(file)
    change = Place(folder, url, admin).change("POST", "policy", "comparison", body=body)
    _tell(change, as_json=as_json)
    return 0 if change["is_empty"] else EXIT_DIFFERENT


@_policy.command(cls=PlacedCommand)
def apply(
    folder: Folder,
    file: _File,
    force: Annotated[
        bool, typer.Option("--force", help="Also if that stops a channel that is in use.")
    ] = False,
    url: Url = None,
    admin: AdminFolder = None,
    as_json: _Json = False,
) -> None:
    """Make the channels what the source says, all at once, and say what has changed.

    When this returns, the change is stored and in force; devices that lost access get no later key.
    """
    body = _accepted(file) | {"force": force}
    _tell(Place(folder, url, admin).change("PUT", "policy", body=body), as_json=as_json)


@_policy.command(cls=PlacedCommand)
def show(folder: Folder, url: Url = None, admin: AdminFolder = None) -> None:
    """Write the policy in force as a source; applied, it changes nothing."""
    typer.echo(Place(folder, url, admin).get("policy")["source"], nl=False)


@_policy.command(cls=PlacedCommand)
def explain(
    folder: Folder,
    device: Annotated[
        str,
        typer.Argument(
            help="Its name; of another site site:SITE/NAME.", metavar="DEVICE", show_default=False
        ),
    ],
    channel: Annotated[
        str, typer.Argument(help="The channel's name.", metavar="CHANNEL", show_default=False)
    ],
    url: Url = None,
    admin: AdminFolder = None,
    as_json: _Json = False,
) -> None:
    """Say what a device may do on a channel, by which rule, in which signed version; or why not."""
    answer = Place(folder, url, admin).get("channels", channel, "explanations", device)
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
        return
    roles = f" (roles: {' '.join(answer['roles'])})" if answer["roles"] else ""
    typer.echo(
        escape(
            f"{answer['device']}{roles} on {answer['channel']}, policy version {answer['version']} of "
            f"{answer['issued']}, good until {answer['next_update']}"
        )
    )
    for action in ("publish", "subscribe"):
        verdict = answer[action]
        typer.echo(escape(f"  {action:<9} {'yes' if verdict['allowed'] else 'no'}: {verdict['reason']}"))
    for note in answer["notes"]:
        typer.echo(escape(f"  note: {note}"))


def _accepted(file: Path) -> dict[str, Any]:
    """The source, if it has no error, for the authority."""
    from sealcast.pki.policy_source import read_source

    data = _read(file)
    read_source(data).accepted(str(file))
    return {"source": data.decode(), "file": str(file)[-_MAX_FILE_CHARACTERS:]}


def _read(file: Path) -> bytes:
    from sealcast.pki.files import read_file, storage_errors
    from sealcast.pki.policy_source import MAX_SOURCE_BYTES

    if str(file) == "-":
        with storage_errors(file):
            return sys.stdin.buffer.read(MAX_SOURCE_BYTES + 1)
    return read_file(file)


def _tell(change: dict[str, Any], *, as_json: bool) -> None:
    """Say what has changed, or would."""
    if as_json:
        typer.echo(json.dumps(change, indent=2))
        return
    for line in _lines(change):
        typer.echo(escape(line))
    for name in change["untouched"]:
        typer.echo(
            escape(
                f"note: channel {name} is not in the file and stays as it is (empty lists would close it)"
            ),
            err=True,
        )
    for rule in change["idle"]:
        typer.echo(escape(f"note: {rule} matches no device now"), err=True)


def _lines(change: dict[str, Any]) -> list[str]:
    if change["is_empty"]:
        return ["no change"]
    lines = _marked("site ", change["sites"])
    for channel in change["channels"]:
        lines.append(f"{'new ' if channel['is_new'] else ''}channel {channel['name']}")
        for key, (before, after) in channel["settings"].items():
            old = "" if channel["is_new"] else f"{before or '-'} -> "
            lines.append(f"  {key}: {old}{after or '-'}")
        for key, rules in channel["rules"].items():
            lines += _marked(f"  {key} rule ", rules)
        for key, action in (("publishers", "publish"), ("subscribers", "subscribe")):
            lines += [f"  {name} gains {action}" for name in channel[key]["added"]]
            lines += [f"  {name} loses {action}" for name in channel[key]["removed"]]
    return lines


def _marked(what: str, changed: dict[str, list[str]]) -> list[str]:
    indent = what[: len(what) - len(what.lstrip())]
    added = [f"{indent}+ {what.lstrip()}{item}" for item in changed["added"]]
    return added + [f"{indent}- {what.lstrip()}{item}" for item in changed["removed"]]


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
