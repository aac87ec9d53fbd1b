"""`sealcast authority device`: list, show, revoke."""

import json
from typing import Annotated

import typer

from sealcast.cli import escape
from sealcast.cli.authority.place import AdminFolder, Folder, Json, Place, PlacedCommand, Url
from sealcast.errors import UsageError

_Name = Annotated[str, typer.Argument(help="The device's name.", metavar="NAME", show_default=False)]

_devices = typer.Typer(help="Devices of the site.", no_args_is_help=True)


def register(authority: typer.Typer) -> None:
    """Add the group."""
    authority.add_typer(_devices, name="device")


@_devices.command("list", cls=PlacedCommand)
def device_list(
    folder: Folder,
    name: Annotated[
        str | None, typer.Option("--name", metavar="GLOB", help="Only those whose name matches.")
    ] = None,
    state: Annotated[
        str | None, typer.Option("--state", metavar="STATE", help="Only enrolled, or only revoked ones.")
    ] = None,
    url: Url = None,
    admin: AdminFolder = None,
    as_json: Json = False,
) -> None:
    """List the devices."""
    listed = Place(folder, url, admin).all("devices", name=name, state=state)
    if as_json:
        typer.echo(json.dumps(list(listed), indent=2))
        return
    for entry in listed:
        roles = " ".join(entry["roles"])
        typer.echo(
            escape(f"{entry['name']:<32} {entry['state']:<10} until {entry['not_after']} {roles}".rstrip())
        )


@_devices.command("set", cls=PlacedCommand)
def device_set(
    folder: Folder,
    name: _Name,
    role: Annotated[
        list[str] | None,
        typer.Option("--role", metavar="R", help="Replaces all roles; more than once if need be."),
    ] = None,
    no_role: Annotated[bool, typer.Option("--no-role", help="Take every role away.")] = False,
    url: Url = None,
    admin: AdminFolder = None,
) -> None:
    """Change the roles of a device. Policies that name them follow at once, without a new certificate."""
    if bool(role) == no_role:
        raise UsageError("nothing to change, or both", cure="give --role, or --no-role")
    Place(folder, url, admin).change("PUT", "devices", name, "roles", body={"roles": role or []})


@_devices.command("show", cls=PlacedCommand)
def device_show(
    folder: Folder, name: _Name, url: Url = None, admin: AdminFolder = None, as_json: Json = False
) -> None:
    """Show a device and its certificates."""
    shown = Place(folder, url, admin).get("devices", name)
    if as_json:
        typer.echo(json.dumps(shown, indent=2))
        return
    for key in ("name", "state", "enrolled", "revoked"):
        typer.echo(escape(f"{key:<12}{shown[key] or '-'}"))
    typer.echo(escape(f"{'roles':<12}{' '.join(shown['roles']) or '-'}"))
    for entry in shown["certificates"]:
        end = f"revoked {entry['revoked']}" if entry["revoked"] else f"until {entry['not_after']}"
        typer.echo(escape(f"{'certificate':<12}{entry['serial']} from {entry['not_before']} {end}"))


@_devices.command("revoke", cls=PlacedCommand)
def device_revoke(folder: Folder, name: _Name, url: Url = None, admin: AdminFolder = None) -> None:
    """Remove a device: its certificates, its place in every policy, its keys.

    When this returns, the removal is in force; no later key is handed to the device.
    """
    answer = Place(folder, url, admin).change("PUT", "devices", name, "revocation")
    typer.echo(escape(f"{name} is revoked" if answer["changed"] else f"{name} was revoked before"))
