"""`sealcast authority bundle`: list, export, draft, import, progress.

A draft is taken to where the roots' keys are (`sealcast root sign-bundle`); what they signed is imported.
"""

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sealcast.cli import escape
from sealcast.cli.authority.place import AdminFolder, Folder, Json, Place, PlacedCommand, Url
from sealcast.errors import UsageError

if TYPE_CHECKING:
    from sealcast.pki.bundle import Anchor, BundleSite, TrustBundle, VerifiedBundle

_Output = Annotated[Path, typer.Option("--output", metavar="FILE", help="Where to write it.")]
_Certificates = list[Path] | None

_bundles = typer.Typer(
    help="The trust bundle: which roots and site CAs devices believe in.", no_args_is_help=True
)


def register(authority: typer.Typer) -> None:
    """Add the group."""
    authority.add_typer(_bundles, name="bundle")


@_bundles.command("list", cls=PlacedCommand)
def bundle_list(folder: Folder, url: Url = None, admin: AdminFolder = None, as_json: Json = False) -> None:
    """List the versions; the last one is in force."""
    listed = list(Place(folder, url, admin).all("bundles"))
    if as_json:
        typer.echo(json.dumps(listed, indent=2))
        return
    for entry in listed:
        typer.echo(escape(f"{entry['version']:>6}  {entry['issued']}  {entry['fingerprint']}"))


@_bundles.command("export", cls=PlacedCommand)
def bundle_export(
    folder: Folder,
    output: _Output,
    version: Annotated[
        int | None, typer.Option("--version", metavar="N", min=1, help="Default: the one in force.")
    ] = None,
    url: Url = None,
    admin: AdminFolder = None,
) -> None:
    """Write a version, as it is signed, to a new file; show it with `sealcast root show-bundle`."""
    from sealcast.pki.files import write_new

    found = Place(folder, url, admin).get("bundles", _number(version))
    write_new(output, base64.b64decode(found["bundle"]))
    typer.echo(escape(f"version {found['version']}: {output}"))


@_bundles.command("draft", cls=PlacedCommand)
def bundle_draft(
    folder: Folder,
    output: _Output,
    add_root: Annotated[
        _Certificates, typer.Option("--add-root", metavar="FILE", help="PEM: another owner's root.")
    ] = None,
    add_maker: Annotated[
        _Certificates,
        typer.Option(
            "--add-maker",
            metavar="FILE",
            help="PEM: a maker's root, for first enrolments alone.",
        ),
    ] = None,
    add_site_root: Annotated[
        _Certificates,
        typer.Option(
            "--add-site-root",
            metavar="FILE",
            help="PEM: the root of another owner, for those of its sites whose CA is given with --add-ca.",
        ),
    ] = None,
    remove_root: Annotated[
        _Certificates, typer.Option("--remove-root", metavar="FILE", help="PEM: a root to be dropped.")
    ] = None,
    add_ca: Annotated[
        _Certificates, typer.Option("--add-ca", metavar="FILE", help="PEM: another site CA, of any site.")
    ] = None,
    remove_ca: Annotated[
        _Certificates,
        typer.Option("--remove-ca", metavar="FILE", help="PEM: a site CA to be dropped."),
    ] = None,
    threshold: Annotated[
        int | None,
        typer.Option(
            "--threshold",
            metavar="M",
            min=1,
            help="How many owner's roots must sign the next version.",
        ),
    ] = None,
    delegate: Annotated[
        bool | None,
        typer.Option(
            "--delegate/--no-delegate",
            help="Whether the site may change the list of its site CAs by itself, as in rotate site.",
        ),
    ] = None,
    url: Url = None,
    admin: AdminFolder = None,
) -> None:
    """Write the next version, unsigned, to a new file. One that devices could not live with is refused.

    The first one lists the site's root and its CA, and takes no options.
    """
    from sealcast.authority import lost_bundles
    from sealcast.authority.bundles import check_own_site, draft_bundle
    from sealcast.pki.bundle import SignedBundle, stored
    from sealcast.pki.files import write_new
    from sealcast.pki.times import system_time

    place = Place(folder, url, admin)
    if doubtful := place.get("site")["no_new_bundle"]:
        raise UsageError(doubtful, cure=lost_bundles.CURE)
    if next(place.all("bundles"), None) is None:
        if threshold is not None or any(
            (add_root, add_maker, remove_root, add_ca, remove_ca, delegate is not None)
        ):
            raise UsageError(
                "there is no trust bundle yet, and version 1 takes no options",
                cure="import version 1 first, then draft version 2",
            )
        write_new(output, SignedBundle.unsigned(_first(place)).serialize())
        typer.echo(escape(f"version 1: {output}, to be signed by the site's root"))
        return
    held = stored(base64.b64decode(place.get("bundles", _number(None))["bundle"]))
    changes: dict[str, Any] = {
        "anchors": (
            *_anchors(held, _read(add_root), _read(add_maker), _read(remove_root)),
            *_site_roots(_read(add_site_root), _read(add_ca)),
        ),
        "sites": _sites(held, _read(add_ca), _read(remove_ca)),
    }
    if threshold is not None:
        changes["threshold"] = threshold
    own = bytes.fromhex(place.get("site")["site_id"])
    if delegate is not None:
        changes["sites"] = tuple(
            replace(each, delegated=delegate) if each.site_id == own else each for each in changes["sites"]
        )
    if all(changes[name] == getattr(held.bundle, name) for name in changes):
        raise UsageError("nothing would change", cure="see --help for what can be added and removed")
    draft = draft_bundle(held, system_time(), **changes)
    check_own_site(draft, own, _issuing(place))
    write_new(output, SignedBundle.unsigned(draft).serialize())
    typer.echo(
        escape(f"version {draft.version}: {output}, to be signed by {held.bundle.threshold} owner's roots")
    )


@_bundles.command("import", cls=PlacedCommand)
def bundle_import(
    folder: Folder,
    file: Annotated[
        Path, typer.Argument(help="The signed bundle's file.", metavar="FILE", show_default=False)
    ],
    url: Url = None,
    admin: AdminFolder = None,
) -> None:
    """Take the next version, signed; every device is told of it at once."""
    from sealcast.pki.bundle import read_bundle_file

    data = base64.b64encode(read_bundle_file(file)).decode("ascii")
    added = Place(folder, url, admin).change("POST", "bundles", body={"bundle": data})
    typer.echo(f"version {added['version']} is in force")


@_bundles.command("progress", cls=PlacedCommand)
def bundle_progress(
    folder: Folder,
    version: Annotated[
        int | None, typer.Option("--version", metavar="N", min=1, help="Default: the one in force.")
    ] = None,
    url: Url = None,
    admin: AdminFolder = None,
    as_json: Json = False,
) -> None:
    """Show how many devices have reported that they trust by a version, and which have not."""
    found = Place(folder, url, admin).get("bundles", _number(version), "progress")
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    typer.echo(f"version {found['version']}: {found['reported']} of {found['devices']} devices")
    for name in found["missing"]:
        typer.echo(escape(f"  missing: {name}"))


def _issuing(place: Place) -> bytes:
    from sealcast.pki.certificates import parse_pem_certificates

    return parse_pem_certificates(place.get("site-cas")["items"][0]["pem"].encode())[0]


def _first(place: Place) -> "TrustBundle":
    from sealcast.authority.bundles import first_bundle
    from sealcast.pki.certificates import parse_pem_certificates
    from sealcast.pki.times import system_time

    site = place.get("site")
    (root, *_), (authority, *_) = (
        [parse_pem_certificates(entry["pem"].encode())[0] for entry in place.get(kind)["items"]]
        for kind in ("roots", "site-cas")
    )
    return first_bundle(
        root=root,
        site_id=bytes.fromhex(site["site_id"]),
        site_name=site["name"],
        authority=authority,
        now=system_time(),
    )


def _number(version: int | None) -> str:
    return "latest" if version is None else str(version)


def _read(files: _Certificates) -> list[bytes]:
    from sealcast.errors import CertificateError
    from sealcast.pki.certificates import parse_pem_certificates
    from sealcast.pki.files import read_file

    found: list[bytes] = []
    for file in files or ():
        try:
            found += parse_pem_certificates(read_file(file))
        except CertificateError as error:
            raise CertificateError(f"{file}: {error.problem}", reason=error.reason, cure=error.cure) from None
    return found


def _anchors(
    held: "VerifiedBundle", owners: list[bytes], makers: list[bytes], removed: list[bytes]
) -> "tuple[Anchor, ...]":
    from sealcast.pki.bundle import Anchor, Purpose
    from sealcast.pki.times import system_time

    listed = {anchor.certificate for anchor in held.bundle.anchors}
    for der in removed:
        if der not in listed:
            raise UsageError("a root to be dropped is not in the bundle", cure="see: root show-bundle")
    now = system_time()
    added = [
        Anchor(certificate=der, purpose=purpose, since=now)
        for ders, purpose in ((owners, Purpose.OWNER), (makers, Purpose.MAKER))
        for der in ders
        if der not in listed
    ]
    kept = [anchor for anchor in held.bundle.anchors if anchor.certificate not in removed]
    return (*kept, *added)


def _site_roots(roots: list[bytes], authorities: list[bytes]) -> "tuple[Anchor, ...]":
    """Another owner's roots: each vouches for the sites of those CAs that it has signed, and no more."""
    from sealcast.pki.bundle import Anchor, Purpose
    from sealcast.pki.certificates import certificate_identity, is_issued_by, parse_certificate
    from sealcast.pki.times import system_time

    anchors, cas = [], [parse_certificate(der) for der in authorities]
    for der in roots:
        root = parse_certificate(der)
        sites = {certificate_identity(ca).site_id for ca in cas if is_issued_by(ca, root)}
        if not sites:
            raise UsageError(
                "a root of another owner has signed none of the site CAs that are added",
                cure="give its site's CA as well, with --add-ca",
            )
        anchors.append(
            Anchor(certificate=der, purpose=Purpose.SITE, since=system_time(), sites=tuple(sorted(sites)))
        )
    return tuple(anchors)


def _sites(held: "VerifiedBundle", added: list[bytes], removed: list[bytes]) -> "tuple[BundleSite, ...]":
    from sealcast.pki.bundle import BundleSite
    from sealcast.pki.certificates import certificate_identity, organization, parse_certificate

    sites = {site.site_id: site for site in held.bundle.sites}
    for der in removed:
        if not any(der in site.authorities for site in sites.values()):
            raise UsageError("a site CA to be dropped is not in the bundle", cure="see: root show-bundle")
    for site_id, site in list(sites.items()):
        kept = tuple(der for der in site.authorities if der not in removed)
        if kept:
            sites[site_id] = replace(site, authorities=kept)
        else:
            del sites[site_id]
    for der in added:
        certificate = parse_certificate(der)
        site_id = certificate_identity(certificate).site_id
        known = sites.get(site_id)
        if known is None:
            known = BundleSite(
                site_id=site_id, name=organization(certificate), delegated=False, authorities=()
            )
        if der not in known.authorities:
            sites[site_id] = replace(known, authorities=(*known.authorities, der))
    return tuple(sites.values())
