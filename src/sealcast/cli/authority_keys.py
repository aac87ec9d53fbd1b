"""`sealcast authority key|profile|permit|readmit`: what concerns the site CA's key and what it signs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sealcast.cli import escape
from sealcast.errors import UsageError

if TYPE_CHECKING:
    from sealcast.ca import Passphrase

_FOLDER = typer.Argument(
    help="The authority's folder, or the signer's, where that has one.", metavar="DIR", show_default=False
)
_Folder = Annotated[Path, _FOLDER]

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help="Its first line is the passphrase of the keys. Else SEALCAST_PASSPHRASE or "
        "SEALCAST_PASSPHRASE_FILE in the environment, the systemd credentials sealcast-ca, sealcast-root and "
        "sealcast-storage, or a prompt.",
    ),
]
DeviceUsages = Annotated[
    list[str] | None,
    typer.Option(
        "--device-eku",
        metavar="OID",
        help="Extended key usage of devices besides clientAuth and serverAuth, for example "
        "1.2.840.10004.20701.1.1 (IEEE 11073 SDC); more than once if need be.",
    ),
]


def register(authority: typer.Typer) -> None:
    """Add the commands."""
    authority.add_typer(_key, name="key")
    authority.command()(profile)
    authority.command()(permit)
    authority.command()(readmit)


_key = typer.Typer(help="Keys at rest.", no_args_is_help=True)


@_key.command()
def passwd(
    folder: _Folder,
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key",
            metavar="NAME",
            help="ca, root or storage; more than once if need be. Default: all that lie in the folder.",
        ),
    ] = None,
    passphrase_file: PassphraseFile = None,
    new_passphrase_file: Annotated[
        Path | None,
        typer.Option(
            "--new-passphrase-file",
            metavar="FILE",
            help="Its first line is the new passphrase. Else SEALCAST_NEW_PASSPHRASE, or a prompt.",
        ),
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Store the keys in clear.")] = False,
) -> None:
    """Set, change or remove the passphrase of keys: of all of them, or, if anything fails, of none.

    A running service or signer goes on, and asks for the new passphrase at its next start.
    """
    from sealcast.authority.at_rest import change_passphrase
    from sealcast.authority.site import check_not_pending
    from sealcast.ca import PassphraseSource

    if remove and new_passphrase_file is not None:
        raise UsageError("--remove and --new-passphrase-file exclude each other", cure="give one of them")
    check_not_pending(folder)
    new = None if remove else _new_passphrase(new_passphrase_file)
    changed = change_passphrase(folder, tuple(key or ()), PassphraseSource(file=passphrase_file), new)
    for path in changed:
        typer.echo(escape(f"{path} is {'in clear' if new is None else 'encrypted'}"))


def profile(
    folder: _Folder,
    device_eku: DeviceUsages = None,
    no_device_eku: Annotated[
        bool, typer.Option("--no-device-eku", help="None but clientAuth and serverAuth.")
    ] = False,
) -> None:
    """Show or set what device certificates say from now on; those that are out change at their renewal.

    To be run as the user that holds the site CA's key.
    """
    from dataclasses import replace

    from sealcast.authority.issuance import LEDGER_FILE
    from sealcast.authority.site import check_not_pending
    from sealcast.ca import Ledger
    from sealcast.pki.profiles import check_usages

    if no_device_eku and device_eku:
        raise UsageError("--device-eku and --no-device-eku exclude each other", cure="give one of them")
    check_not_pending(folder)
    ledger = Ledger(folder / LEDGER_FILE)
    settings = ledger.settings()
    if no_device_eku or device_eku:
        settings = replace(settings, device_usages=check_usages(device_eku or ()))
        ledger.change_settings(settings)
    typer.echo(f"device EKUs: {' '.join(('clientAuth', 'serverAuth', *settings.device_usages))}")


def permit(
    folder: _Folder,
    name: Annotated[
        str | None,
        typer.Argument(help="Whom. Without it, those that are permitted are listed.", metavar="NAME"),
    ] = None,
    admin: Annotated[bool, typer.Option("--admin", help="To be an admin of the site.")] = False,
    registrar: Annotated[
        bool, typer.Option("--registrar", help="To be a registration authority, which enrols others.")
    ] = False,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Not any more.")] = False,
) -> None:
    """Let the site CA certify a name as an admin, or as a registration authority.

    Needed only where the signer is another user's process: to be run as that user, before `admin add` or
    `token --registrar`. What is withdrawn is not renewed; what is out has to be revoked.
    """
    from sealcast.authority.issuance import open_issuer
    from sealcast.authority.site import check_not_pending
    from sealcast.ca import PassphraseSource, Permit
    from sealcast.pki.times import system_time

    chosen = {Permit.ADMIN: admin, Permit.REGISTRATION_AUTHORITY: registrar}
    if name is not None and not any(chosen.values()):
        raise UsageError("permitted to be what?", cure="give --admin or --registrar, or both")
    if name is None and (withdraw or any(chosen.values())):
        raise UsageError("whose permit?", cure="give a name")
    check_not_pending(folder)
    issuer = open_issuer(folder, PassphraseSource())
    for what, is_chosen in chosen.items():
        if name is None:
            for each in sorted(issuer.permitted(what)):
                typer.echo(escape(f"{what}  {each}"))
        elif is_chosen:
            (issuer.withdraw if withdraw else issuer.permit)(what, name, system_time())
            typer.echo(escape(f"{name} may {'not ' if withdraw else ''}be {what}"))


def readmit(
    folder: _Folder,
    name: Annotated[str, typer.Argument(help="The device's name.", metavar="NAME", show_default=False)],
) -> None:
    """Let the site CA certify a removed device again; it still needs a new token.

    Needed only where the signer is another user's process: to be run as that user.
    """
    from sealcast.authority.issuance import open_issuer
    from sealcast.authority.site import check_not_pending
    from sealcast.ca import PassphraseSource
    from sealcast.pki.times import system_time

    check_not_pending(folder)
    issuer = open_issuer(folder, PassphraseSource())
    if name not in issuer.removed_names():
        raise UsageError(f"device {name!r} is not removed", cure="see: sealcast authority device list DIR")
    issuer.readmit(name, system_time())
    typer.echo(escape(f"{name} may be enrolled again"))


def _new_passphrase(file: Path | None) -> "Passphrase":
    import os

    from sealcast.ca.passphrase import Passphrase, prompt_on_terminal, read_passphrase

    if file is not None:
        return read_passphrase(file)
    if text := os.environ.get("SEALCAST_NEW_PASSPHRASE"):
        return Passphrase(os.fsencode(text))
    text = prompt_on_terminal("new passphrase: ")
    if not text:
        raise UsageError(
            "there is no new passphrase",
            cure="give it by --new-passphrase-file, SEALCAST_NEW_PASSPHRASE or a prompt, or use --remove",
        )
    if prompt_on_terminal("once more: ") != text:
        raise UsageError("the two passphrases differ", cure="try again; nothing was changed")
    return Passphrase(text.encode())
