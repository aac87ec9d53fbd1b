"""`sealcast authority audit`: list, verify."""

import json
from typing import Annotated

import typer

from sealcast.cli import escape
from sealcast.cli.authority.place import AdminFolder, Folder, Json, Place, PlacedCommand, Url
from sealcast.errors import StorageError

_audit = typer.Typer(help="Who did what, when.", no_args_is_help=True)


def register(authority: typer.Typer) -> None:
    """Add the group."""
    authority.add_typer(_audit, name="audit")


@_audit.command("list", cls=PlacedCommand)
def audit_list(
    folder: Folder,
    actor: Annotated[
        str | None,
        typer.Option("--actor", metavar="WHO", help="Only what this one did: admin:NAME, local:UID."),
    ] = None,
    subject: Annotated[
        str | None, typer.Option("--subject", metavar="NAME", help="Only what was done to this.")
    ] = None,
    url: Url = None,
    admin: AdminFolder = None,
    as_json: Json = False,
) -> None:
    """List the audit log, oldest first; with --json one object a line."""
    for entry in Place(folder, url, admin).all("audit", actor=actor, subject=subject):
        if as_json:
            typer.echo(json.dumps(entry))
            continue
        more = " ".join(f"{name}={value}" for name, value in entry["detail"].items())
        words = (entry["time"], entry["actor"], entry["outcome"], entry["action"], entry["subject"], more)
        typer.echo(escape(f"{entry['number']:>6}  {'  '.join(words)}"))


@_audit.command("verify", cls=PlacedCommand)
def audit_verify(
    folder: Folder,
    head: Annotated[
        str | None,
        typer.Option("--head", metavar="NUMBER:HASH", help="What this command printed earlier."),
    ] = None,
    url: Url = None,
    admin: AdminFolder = None,
    as_json: Json = False,
) -> None:
    """Check the audit log, and print its head: keep that on another machine, and give it to the next check.

    A log that was cut off at its end, together with the copy of its head in the folder, looks whole to who
    has kept no head.
    """
    verdict = Place(folder, url, admin).get("audit", "verification", head=head)
    if as_json:
        typer.echo(json.dumps(verdict))
    if not verdict["holds"]:
        raise StorageError(
            "audit log",
            f"entry {verdict['first_bad']} does not fit: {verdict['fault']}",
            cure=f"entries up to {verdict['entries']} hold; find out who changed the database",
        )
    if not as_json:
        typer.echo(escape(f"{verdict['entries']} entries hold; head {verdict['head']}"))
