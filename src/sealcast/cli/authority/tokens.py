"""`sealcast authority token`, and `tokens`: list, revoke."""

import json
from typing import Annotated

import typer

from sealcast.cli import escape
from sealcast.cli.authority.place import AdminFolder, Folder, Json, Place, PlacedCommand, Url

TimeToLive = Annotated[str, typer.Option("--ttl", metavar="TIME", help="How long it is good for.")]

_tokens = typer.Typer(help="One-time tokens that were made.", no_args_is_help=True)


def register(authority: typer.Typer) -> None:
    """Add the command and the group."""
    authority.command(cls=PlacedCommand)(token)
    authority.add_typer(_tokens, name="tokens")


def token(
    folder: Folder,
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="The device that it is for.")],
    ttl: TimeToLive = "1h",
    role: Annotated[
        list[str] | None,
        typer.Option(
            "--role",
            metavar="R",
            help="Role that the device gets; more than once if need be. Default: those that it has.",
        ),
    ] = None,
    registrar: Annotated[
        bool,
        typer.Option(
            "--registrar", help="The device is a registration authority: it may enrol and renew others."
        ),
    ] = False,
    url: Url = None,
    admin: AdminFolder = None,
) -> None:
    """Print a one-time token for the enrolment of a device, alone on standard output.

    A device that was revoked comes back by it.
    """
    from sealcast.pki.quantities import parse_duration

    body = {"device": device, "ttl_us": parse_duration(ttl), "roles": role, "registers": registrar}
    made = Place(folder, url, admin).change("POST", "tokens", body=body)
    typer.echo(made["token"])
    if made["readmits"]:
        typer.echo(
            f"sealcast: warning: device {device!r} is revoked; who enrols with this token is in again",
            err=True,
        )


@_tokens.command("list", cls=PlacedCommand)
def token_list(folder: Folder, url: Url = None, admin: AdminFolder = None, as_json: Json = False) -> None:
    """List the tokens, used ones too; the token itself is known to nobody any more."""
    listed = Place(folder, url, admin).all("tokens")
    if as_json:
        typer.echo(json.dumps(list(listed), indent=2))
        return
    for entry in listed:
        state = f"used {entry['used']}" if entry["used"] else f"until {entry['expires']}"
        typer.echo(escape(f"{entry['id']}  {entry['kind']:<7} {entry['name']:<32} {state}"))


@_tokens.command("revoke", cls=PlacedCommand)
def token_revoke(
    folder: Folder,
    token_id: Annotated[
        str, typer.Argument(help="The token's id, as listed.", metavar="ID", show_default=False)
    ],
    url: Url = None,
    admin: AdminFolder = None,
) -> None:
    """Withdraw a token that was not used yet."""
    Place(folder, url, admin).change("DELETE", "tokens", token_id)
    typer.echo(escape(f"token {token_id} is withdrawn"))
