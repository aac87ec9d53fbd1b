"""`sealcast authority`: one file per group of commands.

founding   init                             place      which authority: a folder, or a URL
serving    serve, restored
channels   channel add, set, list           status     status, openapi
devices    device list, show, revoke        admins     admin add, token, list, role, revoke
tokens     token; tokens list, revoke       audit      audit list, verify
bundles    bundle list, export, draft, import, progress
rotation   rotate server, site, root, status, abandon
crls       crl import, list, source

All but those of `founding` and `serving` go through the management API: of the service that runs on the
folder, of the folder itself where none runs, or of an authority on another machine.
"""

import typer

from sealcast.cli import authority_keys
from sealcast.cli.authority import (
    admins,
    audit,
    bundles,
    channels,
    crls,
    devices,
    enrolment,
    founding,
    rotation,
    serving,
    status,
    tokens,
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    authority = typer.Typer(
        help="A site's authority: enrolment, channels, keys, removal.", no_args_is_help=True
    )
    for group in (
        founding,
        serving,
        tokens,
        enrolment,
        channels,
        devices,
        bundles,
        rotation,
        crls,
        admins,
        audit,
        authority_keys,
        status,
    ):
        group.register(authority)
    app.add_typer(authority, name="authority")
