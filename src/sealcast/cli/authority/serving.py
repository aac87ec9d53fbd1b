"""`sealcast authority serve|restored`: the service, or the signer; what to say before it runs on a backup."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sealcast.cli.authority_keys import PassphraseFile
from sealcast.errors import UsageError

_NOWHERE = "none"

_Folder = Annotated[Path, typer.Argument(help="The authority's folder.", metavar="DIR", show_default=False)]
_Json = Annotated[bool, typer.Option("--json", help="Write JSON.")]


def register(authority: typer.Typer) -> None:
    """Add the command."""
    authority.command()(serve)
    authority.command()(restored)


def restored(
    folder: _Folder,
    bundle_is_latest: Annotated[
        bool,
        typer.Option(
            "--bundle-is-latest",
            help="No version of the trust bundle was made since the backup, or those are imported by now.",
        ),
    ] = False,
) -> None:
    """Say that the folder comes from a backup: the next start reuses no number that was used since.

    A database that alone is older than the rest of the folder is noticed without this. No new version of the
    trust bundle is taken until it is said that the latest one is there; nor when a device holds a later one.
    """
    from sealcast.authority.lost_bundles import CURE
    from sealcast.authority.restore import mark_restored
    from sealcast.pki.times import system_time

    mark_restored(folder, system_time(), bundle_is_latest=bundle_is_latest)
    typer.echo("the next start leaves out every number that may have been used since the backup")
    if not bundle_is_latest:
        typer.echo(f"no new version of the trust bundle is taken; if later ones were made: {CURE}")


def serve(
    folder: _Folder,
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="For enrolment (EST). Port 0: a free one.")
    ] = "127.0.0.1:8443",
    keys: Annotated[
        str | None,
        typer.Option("--keys", metavar="HOST:PORT", help="For the key server. Default: the next port."),
    ] = None,
    manage: Annotated[
        str | None,
        typer.Option(
            "--manage",
            metavar="HOST:PORT",
            help="For the management API; none: on the local socket only. Default: the port after the key "
            "server's.",
        ),
    ] = None,
    roles: Annotated[
        str,
        typer.Option(
            "--roles",
            metavar="ROLES",
            help="est,keys,directory opens no CA key and asks a signer; signer holds the CA key and opens no "
            "network and no database. est, keys and directory write one SQLite database and cannot be apart.",
        ),
    ] = "est,keys,directory,signer",
    limit: Annotated[
        list[str] | None,
        typer.Option(
            "--limit",
            metavar="KIND=N",
            help="Signer: in an hour of the kind device, key-server, admin, crl, policy, or key (site CA).",
        ),
    ] = None,
    service_user: Annotated[
        str | None,
        typer.Option("--service-user", metavar="USER", help="Signer: as whom the service runs, if another."),
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: _Json = False,
) -> None:
    """Serve enrolment, keys, directory and management, or the site CA's key, until Ctrl-C or SIGTERM.

    One line on standard output says that all listen, and where. A signer listens on DIR/signer.sock. To run
    it as another user, give it a folder of its own with ca.pem, ca.key and ledger.db, and root.pem by which
    it judges the certificate of its next key; link its signer.sock into the service's folder.
    """
    from sealcast.authority.app import Listening, serve, serve_signer
    from sealcast.authority.quantities import parse_address, parse_limits
    from sealcast.authority.roles import SIGNER, parse_roles
    from sealcast.ca import PassphraseSource
    from sealcast.system import user_id

    def say(facts: dict[str, str]) -> None:
        line = json.dumps(facts) if as_json else " ".join(["ready:", *(f"{k} {v}" for k, v in facts.items())])
        print(line, flush=True)  # noqa: T201  # flushed at once: others wait for this line

    def ready(listening: Listening) -> None:
        facts = {"authority": listening.authority, "keys": listening.keys}
        say(facts if listening.manage is None else {**facts, "manage": listening.manage})

    chosen, passphrases = parse_roles(roles), PassphraseSource(file=passphrase_file)
    if chosen == SIGNER:
        serve_signer(
            folder,
            ready=lambda path: say({"signer": str(path)}),
            passphrases=passphrases,
            limits=parse_limits(limit or ()),
            service_user=user_id(service_user) if service_user else None,
        )
        return
    if limit or service_user:
        raise UsageError("--limit and --service-user are for --roles signer", cure="leave them out")
    managed = manage != _NOWHERE
    serve(
        folder,
        listen=parse_address(listen),
        keys=parse_address(keys) if keys else None,
        manage=parse_address(manage) if manage and managed else None,
        is_managed=managed,
        ready=ready,
        roles=chosen,
        passphrases=passphrases,
    )
