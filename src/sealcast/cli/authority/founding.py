"""`sealcast authority init`: a site with a root made here, with yours, or with yours on another machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sealcast.cli import escape
from sealcast.cli.authority_keys import DeviceUsages, PassphraseFile
from sealcast.errors import UsageError

if TYPE_CHECKING:
    from sealcast.ca import PassphraseSource

_Folder = Annotated[Path, typer.Argument(help="The authority's folder.", metavar="DIR", show_default=False)]


def register(authority: typer.Typer) -> None:
    """Add the command."""
    authority.command()(init)


def init(
    folder: _Folder,
    site: Annotated[
        str | None, typer.Option("--site", metavar="NAME", help="Name of the site, for people.")
    ] = None,
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
    csr_out: Annotated[
        Path | None,
        typer.Option(
            "--csr-out",
            metavar="FILE",
            help="Begin only: write a request for the site CA, to be signed where your root's key is.",
        ),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(
            "--certificate",
            metavar="FILE",
            help="PEM: what came back for the request; with --root-cert, the authority is completed.",
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle", metavar="FILE", help="With --certificate: version 1 of the trust bundle, signed."
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

    Where your root's key is on another machine: --csr-out here, `sealcast root sign-site` there, then
    --certificate and --root-cert here.
    """
    from sealcast.authority.site import ROOT_KEY_FILE, init_site
    from sealcast.ca import PassphraseSource
    from sealcast.pki.times import system_time

    passphrases = PassphraseSource(file=passphrase_file)
    new_passphrases = PassphraseSource(file=passphrase_file, prompt=None)
    if certificate is not None:
        given = {"--site": site, "--host-name": host_name, "--device-eku": device_eku}
        _exclude("--certificate", {**given, "--root-key": root_key, "--csr-out": csr_out})
        _complete(folder, certificate, root_cert, bundle, passphrases, new_passphrases)
        return
    _exclude("init without --certificate", {"--bundle": bundle})
    if site is None:
        raise UsageError("the site has no name", cure="give one with --site NAME")
    if csr_out is not None:
        _exclude("--csr-out", {"--root-cert": root_cert, "--root-key": root_key})
        _request(folder, csr_out, site, host_name or [], device_eku or [], new_passphrases)
        return
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
        passphrases=passphrases,
        new_passphrases=new_passphrases,
        device_usages=device_eku or (),
    )
    _say_ready(folder, site)
    if root is None:
        typer.echo(f"move {escape(str(folder / ROOT_KEY_FILE))} to a safe place", err=True)


def _request(
    folder: Path,
    output: Path,
    site: str,
    hosts: list[str],
    usages: list[str],
    new_passphrases: "PassphraseSource",
) -> None:
    from sealcast.authority.founding import request_site
    from sealcast.authority.site import is_pending
    from sealcast.pki.files import check_absent, write_new

    if not is_pending(folder):
        check_absent(output)
    request = request_site(
        folder, site_name=site, hosts=hosts, device_usages=usages, new_passphrases=new_passphrases
    )
    write_new(output, request)
    signing = f"sealcast root sign-site {output.name} --root-cert ROOT.pem --root-key ROOT.key"
    completing = f"sealcast authority init {folder} --certificate ca.pem --root-cert ROOT.pem"
    for line in (
        f"the request of site {site} is {output}; where your root's key is:",
        f"  {signing} --output ca.pem --bundle trust.bundle",
        "and with what comes of that:",
        f"  {completing} --bundle trust.bundle",
    ):
        typer.echo(escape(line))


def _complete(
    folder: Path,
    certificate: Path,
    root: Path | None,
    bundle: Path | None,
    passphrases: "PassphraseSource",
    new_passphrases: "PassphraseSource",
) -> None:
    from sealcast.authority.founding import complete_site
    from sealcast.pki.times import system_time

    if root is None:
        raise UsageError("--certificate needs the root that signed it", cure="give it with --root-cert FILE")
    site = complete_site(
        folder,
        certificate=certificate,
        root=root,
        bundle=bundle,
        now=system_time(),
        passphrases=passphrases,
        new_passphrases=new_passphrases,
    )
    _say_ready(folder, site)
    if bundle is None:
        typer.echo("without --bundle it has no trust bundle yet: sealcast authority bundle draft", err=True)


def _say_ready(folder: Path, site: str) -> None:
    from sealcast.authority.site import ROOT_FILE

    typer.echo(f"site {escape(site)} is ready; its root is {escape(str(folder / ROOT_FILE))}")


def _exclude(what: str, options: dict[str, object]) -> None:
    for option, value in options.items():
        if value:
            raise UsageError(f"{what} excludes {option}", cure="leave one of them out")
