"""`sealcast authority init` and `serve`: what works on the folder itself."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sealcast.cli import escape
from sealcast.cli.authority_keys import DeviceUsages, PassphraseFile
from sealcast.errors import UsageError

_NOWHERE = "none"

_Folder = Annotated[Path, typer.Argument(help="The authority's folder.", metavar="DIR", show_default=False)]
_Json = Annotated[bool, typer.Option("--json", help="Write JSON.")]


def register(authority: typer.Typer) -> None:
    """Add the commands."""
    authority.command()(init)
    authority.command()(serve)


def init(
    folder: _Folder,
    site: Annotated[str, typer.Option("--site", metavar="NAME", help="Name of the site, for people.")],
    root_cert: Annotated[
        Path | None,
        typer.Option("--root-cert", metavar="FILE", help="PEM: your own root. Default: a root is made."),
    ] = None,
    root_key: Annotated[
        Path | None,
        typer.Option(
            "--root-key", metavar="FILE", help="PEM: its key, read once to certify the site CA; not copied."
        ),
    ] = None,
    host_name: Annotated[
        list[str] | None,
        typer.Option(
            "--host-name",
            metavar="HOST",
            help="Name or address under which devices reach this machine; may be given more than once. "
            "localhost, 127.0.0.1 and ::1 are always in.",
        ),
    ] = None,
    device_eku: DeviceUsages = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make an authority: root (or yours), site CA, key server certificate, database.

    DIR/root.pem is what devices have to be given. When a root was made here, move DIR/root.key to a safe
    place: nothing needs it from day to day. With a passphrase, root.key, ca.key and storage.key are
    encrypted; `serve`, and commands while nothing serves, need it then.
    """
    from sealcast.authority.site import ROOT_FILE, ROOT_KEY_FILE, init_site
    from sealcast.ca import PassphraseSource
    from sealcast.pki.times import system_time

    if (root_cert is None) != (root_key is None):
        raise UsageError(
            "--root-cert and --root-key belong together", cure="give both, or neither to make a root"
        )
    root = (root_cert, root_key) if root_cert is not None and root_key is not None else None
    init_site(
        folder,
        site_name=site,
        root=root,
        hosts=host_name or (),
        now=system_time(),
        passphrases=PassphraseSource(file=passphrase_file),
        new_passphrases=PassphraseSource(file=passphrase_file, prompt=None),
        device_usages=device_eku or (),
    )
    typer.echo(f"site {escape(site)} is ready; its root is {escape(str(folder / ROOT_FILE))}")
    if root is None:
        typer.echo(f"move {escape(str(folder / ROOT_KEY_FILE))} to a safe place", err=True)


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
            help="Signer: signatures in an hour of the kind device, key-server, admin, crl or policy.",
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
    it as another user, give it a folder of its own with ca.pem, ca.key and ledger.db, and link its
    signer.sock into the service's folder.
    """
    from sealcast.authority.app import Listening, serve, serve_signer
    from sealcast.authority.quantities import parse_address, parse_limits
    from sealcast.authority.roles import SIGNER, parse_roles
    from sealcast.authority.signer_process import user_id
    from sealcast.ca import PassphraseSource

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
