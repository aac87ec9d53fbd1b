"""`sealcast admin`: enroll, show, renew; on the machine of somebody who manages a site.

An admin's folder is made like a device's; its key is made here and stays here.
"""

from pathlib import Path
from typing import Annotated

import typer

from sealcast.cli import escape
from sealcast.cli.device import (
    AUTHORITY_OPTION,
    ROOT_OPTION,
    TOKEN_OPTION,
    read_roots,
    read_token,
    show_identity,
)
from sealcast.errors import SealcastError
from sealcast.pki.names import Role

_Folder = Annotated[Path, typer.Argument(help="Your folder.", metavar="DIR", show_default=False)]
_Json = Annotated[bool, typer.Option("--json", help="Write one JSON object.")]

_admin = typer.Typer(help="Your identity as an admin of a site.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.add_typer(_admin, name="admin")


@_admin.command()
def enroll(
    folder: _Folder,
    authority: Annotated[str, AUTHORITY_OPTION],
    root: Annotated[list[Path], ROOT_OPTION],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Your name, as it was added.")],
    token: Annotated[str, TOKEN_OPTION],
    as_json: _Json = False,
) -> None:
    """Make a key and get a certificate for it with the token of `authority admin add` (RFC 7030)."""
    from sealcast import device

    identity = device.enroll(
        folder,
        authority_url=authority,
        roots=read_roots(root),
        name=name,
        token=read_token(token),
        role=Role.ADMIN,
    )
    show_identity(identity, as_json=as_json)


@_admin.command()
def show(folder: _Folder, as_json: _Json = False) -> None:
    """Show name, site, certificate and addresses."""
    from sealcast.device import DeviceIdentity

    show_identity(DeviceIdentity.open(folder, Role.ADMIN), as_json=as_json)


@_admin.command()
def renew(folder: _Folder, as_json: _Json = False) -> None:
    """Get a new certificate for a new key, by the present one, and follow the site's trust bundle."""
    from sealcast import device
    from sealcast.device.trust import follow_trust

    identity = device.renew(folder, role=Role.ADMIN)
    try:
        identity = follow_trust(folder, Role.ADMIN)
    except SealcastError as error:
        # The certificate is renewed; a new root is missed only if this stays so until the old one ends.
        typer.echo(escape(f"the trust bundle cannot be followed: {error} ({error.cure})"), err=True)
    show_identity(identity, as_json=as_json)
