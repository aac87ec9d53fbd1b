"""`sealcast authority crl`: import, list, source: the CRLs of other sites whose devices are members here."""

import base64
import json
from pathlib import Path
from typing import Annotated

import typer

from sealcast.cli import escape
from sealcast.cli.authority.place import AdminFolder, Folder, Json, Place, PlacedCommand, Url
from sealcast.errors import UsageError

_crls = typer.Typer(help="CRLs of other sites whose devices are members here.", no_args_is_help=True)


def register(authority: typer.Typer) -> None:
    """Add the group."""
    authority.add_typer(_crls, name="crl")


@_crls.command("import", cls=PlacedCommand)
def crl_import(
    folder: Folder,
    file: Annotated[Path, typer.Argument(help="The CRL, PEM or DER.", metavar="FILE", show_default=False)],
    url: Url = None,
    admin: AdminFolder = None,
) -> None:
    """Take a CRL of another site; members are told at once, and those whom it names lose their keys."""
    from sealcast.errors import CertificateError
    from sealcast.pki.crl import MAX_CRL_BYTES, read_crl
    from sealcast.pki.files import read_file

    try:
        der = read_crl(read_file(file, limit=2 * MAX_CRL_BYTES))
    except CertificateError as error:
        raise CertificateError(f"{file}: {error.problem}", reason=error.reason, cure=error.cure) from None
    body = {"der": base64.b64encode(der).decode("ascii")}
    taken = Place(folder, url, admin).change("POST", "other-crls", body=body)
    typer.echo(f"number {taken['number']} is in force")


@_crls.command("list", cls=PlacedCommand)
def crl_list(folder: Folder, url: Url = None, admin: AdminFolder = None, as_json: Json = False) -> None:
    """List the CRLs of other sites, and where they are fetched."""
    place = Place(folder, url, admin)
    sources = {source["site"]: source["url"] for source in place.all("crl-sources")}
    listed = [{**row, "url": sources.get(row["site"])} for row in place.all("other-crls")]
    seen = {row["site"] for row in listed}
    waiting = [{"site": site, "url": url} for site, url in sources.items() if site not in seen]
    if as_json:
        typer.echo(json.dumps([*listed, *waiting], indent=2))
        return
    for row in listed:
        source = f", from {row['url']}" if row["url"] else ""
        typer.echo(
            escape(f"site {row['site']}: number {row['number']}, good until {row['next_update']}{source}")
        )
    for row in waiting:
        typer.echo(escape(f"site {row['site']}: none yet, from {row['url']}"))


@_crls.command("source", cls=PlacedCommand)
def crl_source(
    folder: Folder,
    site: Annotated[str, typer.Argument(help="The other site's id, see: root show-bundle.", metavar="SITE")],
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="URL", help="Its authority: https://HOST:PORT, as for enrolment."),
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Fetch it no more.")] = False,
    url: Url = None,
    admin: AdminFolder = None,
) -> None:
    """Fetch another site's CRL from its authority, every few seconds."""
    if off == (source is not None):
        raise UsageError("one of --from and --off is needed", cure="give the authority's URL, or --off")
    place = Place(folder, url, admin)
    if source is None:
        place.change("DELETE", "crl-sources", site)
        typer.echo(escape(f"site {site}: its CRL is fetched no more"))
    else:
        place.change("PUT", "crl-sources", site, body={"url": source})
        typer.echo(escape(f"site {site}: its CRL is fetched from {source}"))
