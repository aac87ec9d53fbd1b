"""`sealcast authority status` and `openapi`."""

import json

import typer

from sealcast.cli import escape
from sealcast.cli.authority.place import AdminFolder, Folder, Json, Place, PlacedCommand, Url
from sealcast.cli.authority.rotation import describe


def register(authority: typer.Typer) -> None:
    """Add the commands."""
    authority.command(cls=PlacedCommand)(status)
    authority.command()(openapi)


def status(folder: Folder, url: Url = None, admin: AdminFolder = None, as_json: Json = False) -> None:
    """Show how the site stands: what listens, how many devices, what ends when."""
    shown = Place(folder, url, admin).get("status")
    if as_json:
        typer.echo(json.dumps(shown, indent=2))
        return
    lines = {
        "site": shown["site"],
        "service": f"running since {shown['started']}" if shown["running"] else "not running",
        **{f"{name} URL": address for name, address in shown["listening"].items()},
        "devices": f"{shown['devices']} enrolled, {shown['revoked_devices']} revoked",
        "CRL": f"number {shown['crl']['number']}, good until {shown['crl']['next_update']}",
        "site CA": f"until {shown['certificates']['site_ca']}",
        "key server": f"until {shown['certificates']['key_server']}",
        "earliest end": f"{shown['ends'][0]['what']}, {shown['ends'][0]['at']}",
        "audit head": shown["audit_head"] or "-",
    }
    if (rotation := shown["rotation"]) is not None:
        lines["rotation"] = describe(rotation)
    for name, value in lines.items():
        typer.echo(escape(f"{name:<16}{value}"))
    for warning in shown["warnings"]:
        typer.echo(escape(f"{'warning':<16}{warning}"))
    for channel in shown["channels"]:
        members = "-" if channel["members"] is None else channel["members"]
        typer.echo(escape(f"{'channel':<16}{channel['name']}  members {members}"))


def openapi() -> None:
    """Print the OpenAPI document of the management API."""
    from sealcast.authority.api.openapi import make_document
    from sealcast.authority.api.table import TABLE

    typer.echo(json.dumps(make_document(TABLE), indent=1))
