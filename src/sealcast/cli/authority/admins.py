"""`sealcast authority admin`: add, token, list, role, revoke."""

import json
from typing import Annotated

import typer

from sealcast.cli import escape
from sealcast.cli.authority.place import AdminFolder, Folder, Json, Place, PlacedCommand, Url
from sealcast.cli.authority.tokens import TimeToLive

_Name = Annotated[str, typer.Argument(help="The admin's name.", metavar="NAME", show_default=False)]
_Role = Annotated[str, typer.Option("--role", metavar="ROLE", help="viewer, operator or security-officer.")]

_admins = typer.Typer(help="Who may manage the site from other machines.", no_args_is_help=True)


def register(authority: typer.Typer) -> None:
    """Add the group."""
    authority.add_typer(_admins, name="admin")


@_admins.command("add", cls=PlacedCommand)
def admin_add(
    folder: Folder,
    name: _Name,
    role: _Role,
    ttl: TimeToLive = "1h",
    url: Url = None,
    admin: AdminFolder = None,
) -> None:
    """Add an admin, and print the one-time token for `sealcast admin enroll`, alone on standard output."""
    from sealcast.pki.quantities import parse_duration

    body = {"name": name, "role": role, "ttl_us": parse_duration(ttl)}
    typer.echo(Place(folder, url, admin).change("POST", "admins", body=body)["token"])


@_admins.command("token", cls=PlacedCommand)
def admin_token(
    folder: Folder, name: _Name, ttl: TimeToLive = "1h", url: Url = None, admin: AdminFolder = None
) -> None:
    """Print another token for an admin that lost its key, or that was revoked and is to come back."""
    from sealcast.pki.quantities import parse_duration

    body = {"ttl_us": parse_duration(ttl)}
    typer.echo(Place(folder, url, admin).change("POST", "admins", name, "tokens", body=body)["token"])


@_admins.command("list", cls=PlacedCommand)
def admin_list(folder: Folder, url: Url = None, admin: AdminFolder = None, as_json: Json = False) -> None:
    """List the admins and their roles."""
    listed = Place(folder, url, admin).all("admins")
    if as_json:
        typer.echo(json.dumps(list(listed), indent=2))
        return
    for entry in listed:
        typer.echo(escape(f"{entry['name']:<32} {entry['role']:<17} {entry['state']}"))


@_admins.command("role", cls=PlacedCommand)
def admin_role(folder: Folder, name: _Name, role: _Role, url: Url = None, admin: AdminFolder = None) -> None:
    """Give an admin another role; it counts from its next request on."""
    Place(folder, url, admin).change("PATCH", "admins", name, body={"role": role})
    typer.echo(escape(f"{name} is {role}"))


@_admins.command("revoke", cls=PlacedCommand)
def admin_revoke(folder: Folder, name: _Name, url: Url = None, admin: AdminFolder = None) -> None:
    """Revoke an admin; its next request is refused."""
    answer = Place(folder, url, admin).change("PUT", "admins", name, "revocation")
    typer.echo(escape(f"{name} is revoked" if answer["changed"] else f"{name} was revoked before"))
