"""`sealcast root`: the ceremonies of a root, where its key is. Offline: files in, files out.

new, sign-site, cross-sign, sign-bundle, show-bundle. What an authority needs back is a file, never a key.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sealcast.cli import escape
from sealcast.cli.authority_keys import PassphraseFile
from sealcast.cli.root_keys import open_root
from sealcast.errors import CertificateError, UsageError

if TYPE_CHECKING:
    from sealcast.ca import Root
    from sealcast.pki.bundle import TrustBundle

_RootCert = Annotated[Path, typer.Option("--root-cert", metavar="FILE", help="PEM: the root's certificate.")]
_RootKey = Annotated[Path, typer.Option("--root-key", metavar="FILE", help="PEM: the root's key.")]
_Json = Annotated[bool, typer.Option("--json", help="Write JSON.")]
_Bundle = Annotated[Path, typer.Argument(help="The trust bundle's file.", metavar="FILE", show_default=False)]

KINDS = ("P-256", "P-384")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.add_typer(_root, name="root")


_root = typer.Typer(
    help="Ceremonies of a root, where its key is: offline, files in and files out.", no_args_is_help=True
)


@_root.command()
def new(
    certificate: Annotated[
        Path, typer.Argument(help="Where to write the certificate.", metavar="CERT", show_default=False)
    ],
    key: Annotated[Path, typer.Argument(help="Where to write the key.", metavar="KEY", show_default=False)],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="The owner's name, for people.")],
    kind: Annotated[
        str, typer.Option("--kind", metavar="KIND", help=f"Kind of key: {' or '.join(KINDS)}.")
    ] = "P-384",
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make a root: a key and its self-signed certificate, good for 20 years. Nothing is overwritten.

    With a passphrase the key is encrypted.
    """
    from sealcast.ca import KeyKind, KeySigner, PassphraseSource, create_root
    from sealcast.pki.certificates import certificate_der, certificates_pem
    from sealcast.pki.files import check_absent, write_new
    from sealcast.pki.names import check_site_name
    from sealcast.pki.times import system_time

    check_site_name(name)
    if certificate.absolute() == key.absolute():
        raise UsageError(
            f"{key} is to be both the certificate and the key", cure="give each a file of its own"
        )
    if kind not in KINDS:
        raise UsageError(f"there is no kind of root key {kind!r}", cure=f"use {' or '.join(KINDS)}")
    check_absent(certificate)
    passphrase = PassphraseSource(file=passphrase_file, prompt=None).find("root")
    signer = KeySigner.generate(KeyKind(kind))
    root = create_root(site_name=name, signer=signer, now=system_time())
    der = certificate_der(root.certificate)
    signer.store(key, passphrase)
    try:
        write_new(certificate, certificates_pem([der]))
    except BaseException:
        # A key without its certificate is of no use, and would be in the way of the next try.
        key.unlink()
        raise
    typer.echo(f"{escape(str(certificate))}  SHA-256 {_fingerprint(der)}")


@_root.command("sign-site")
def sign_site(
    request: Annotated[
        Path,
        typer.Argument(
            help="PEM: the request, as `authority init` or `authority rotate` wrote it; or the site CA's "
            "certificate by another root.",
            metavar="CSR",
            show_default=False,
        ),
    ],
    root_cert: _RootCert,
    root_key: _RootKey,
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="Where to write the certificate.")],
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            metavar="FILE",
            help="Where to write version 1 of a trust bundle with this root and this site, signed.",
        ),
    ] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Certify a site CA; take the certificate back with the option --certificate of what asked for it.

    Nothing is overwritten.
    """
    from sealcast.authority.bundles import first_bundle
    from sealcast.ca.site_request import SiteRequest
    from sealcast.pki.bundle import SignedBundle
    from sealcast.pki.certificates import certificates_pem, parse_pem_certificates
    from sealcast.pki.files import check_absent, read_file, write_new
    from sealcast.pki.times import system_time

    for path in (output, bundle):
        if path is not None:
            check_absent(path)
    pem = read_file(request)
    if b"BEGIN CERTIFICATE-" in pem:
        asked = SiteRequest.of_certificate(parse_pem_certificates(pem)[0])
    else:
        asked = SiteRequest.parse(_request_der(pem, request))
    root, now = open_root(root_cert, root_key, passphrase_file), system_time()
    certificate = asked.certify(root, now)
    write_new(output, certificates_pem([certificate]))
    typer.echo(f"site {escape(asked.site_name)} ({asked.site_id.hex()}): {escape(str(output))}")
    if bundle is not None:
        first = first_bundle(
            root=_der(root),
            site_id=asked.site_id,
            site_name=asked.site_name,
            authority=certificate,
            now=now,
        )
        signed = SignedBundle.unsigned(first).sign(_der(root), root.signer)
        write_new(bundle, signed.serialize())
        typer.echo(f"trust bundle: {escape(str(bundle))}, fingerprint {signed.hash.hex()}")


@_root.command("cross-sign")
def cross_sign(
    old_cert: Annotated[Path, typer.Option("--old-cert", metavar="FILE", help="PEM: the root that goes.")],
    old_key: Annotated[Path, typer.Option("--old-key", metavar="FILE", help="PEM: its key.")],
    new_cert: Annotated[Path, typer.Option("--new-cert", metavar="FILE", help="PEM: the root that comes.")],
    new_key: Annotated[Path, typer.Option("--new-key", metavar="FILE", help="PEM: its key.")],
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="Where to write both, PEM.")],
    passphrase_file: PassphraseFile = None,
) -> None:
    """Certify each of two roots by the other, for EST clients that know only one of them.

    Give the file to `sealcast authority rotate root` with --crosses. Nothing is overwritten.
    """
    from sealcast.ca import cross_certify
    from sealcast.pki.certificates import certificates_pem
    from sealcast.pki.files import check_absent, write_new
    from sealcast.pki.times import system_time

    check_absent(output)
    old = open_root(old_cert, old_key, passphrase_file)
    made = cross_certify(old, open_root(new_cert, new_key, passphrase_file), system_time())
    write_new(output, certificates_pem([made.new_with_old, made.old_with_new]))
    typer.echo(escape(f"both until the earlier end: {output}"))


@_root.command("sign-bundle")
def sign_bundle(
    file: _Bundle,
    root_cert: _RootCert,
    root_key: _RootKey,
    predecessor: Annotated[
        Path | None,
        typer.Option(
            "--predecessor",
            metavar="FILE",
            help="The version before; needed for every version but the first.",
        ),
    ] = None,
    drop_site: Annotated[
        list[str] | None,
        typer.Option(
            "--drop-site",
            metavar="ID",
            help="A site that the version before lists and this one does not, or with none of its CAs: "
            "its devices will be locked out. More than once if need be.",
        ),
    ] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Sign a version of the trust bundle, in place, after saying what it changes.

    One that no device could take, or after which none could take another one, is refused.
    """
    from sealcast.pki.bundle import SignedBundle, check_successor, read_bundle_file
    from sealcast.pki.files import write_atomically

    signed = SignedBundle.parse(read_bundle_file(file))
    bundle = signed.read()
    before = None
    if predecessor is not None:
        before_signed = SignedBundle.parse(read_bundle_file(predecessor))
        before = before_signed.read()
        check_successor(before, before_signed.hash, bundle)
        _check_sites(before, bundle, drop_site or ())
    elif bundle.version > 1:
        raise UsageError(
            f"version {bundle.version} of a trust bundle follows another one",
            cure="give that with --predecessor FILE, so that what it changes can be judged",
        )
    root = open_root(root_cert, root_key, passphrase_file)
    der = _der(root)
    owners = (before or bundle).owners()
    if der not in [anchor.certificate for anchor in owners]:
        raise CertificateError(
            f"{root_cert} is no owner's root of version {(before or bundle).version}: its signature would "
            "count for nothing",
            reason="unknown-issuer",
        )
    for line in _changes(before, bundle):
        typer.echo(escape(line), err=True)
    signed = signed.sign(der, root.signer)
    write_atomically(file, signed.serialize())
    have = signed.signed_by(anchor.certificate for anchor in owners)
    typer.echo(f"version {bundle.version}: {have} of {(before or bundle).threshold} signatures")


@_root.command("show-bundle")
def show_bundle(file: _Bundle, as_json: _Json = False) -> None:
    """Show what a trust bundle says, and its fingerprint; nothing is verified."""
    from sealcast.pki.bundle import SignedBundle, read_bundle_file

    signed = SignedBundle.parse(read_bundle_file(file))
    facts = {"fingerprint": signed.hash.hex(), **_facts(signed.read()), "signatures": len(signed.signatures)}
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    for line in (f"fingerprint {facts['fingerprint']}", *_changes(None, signed.read())):
        typer.echo(escape(line))
    typer.echo(f"{facts['signatures']} signatures")


def _check_sites(before: "TrustBundle", after: "TrustBundle", dropped: Sequence[str]) -> None:
    """Raises: CertificateError if nobody would trust the devices of a site any more, and that is not said."""
    from sealcast.pki.bundle import key_id

    if unknown := set(dropped) - {site.site_id.hex() for site in before.sites}:
        raise UsageError(
            f"--drop-site {min(unknown)}: version {before.version} lists no such site",
            cure="see: sealcast root show-bundle",
        )
    kept = {(site.site_id, key_id(der)) for site in after.sites for der in site.authorities}
    for site in before.sites:
        still = any((site.site_id, key_id(der)) in kept for der in site.authorities)
        if not still and site.site_id.hex() not in dropped:
            raise CertificateError(
                f"version {after.version} lists no CA that version {before.version} lists of the site "
                f"{site.name} ({site.site_id.hex()}): all its devices would be locked out",
                reason="lockout",
                cure="draft it from the latest version, with that site; if no device of it is left: "
                f"--drop-site {site.site_id.hex()}",
            )


def _facts(bundle: "TrustBundle") -> dict[str, Any]:
    return {
        "version": bundle.version,
        "predecessor": bundle.predecessor.hex() if bundle.predecessor else None,
        "issued": bundle.issued,
        "threshold": bundle.threshold,
        "anchors": [
            {
                "certificate_sha256": _fingerprint(anchor.certificate),
                "purpose": anchor.purpose.name.lower(),
                "since": anchor.since,
                "sites": [site.hex() for site in anchor.sites],
            }
            for anchor in bundle.anchors
        ],
        "sites": [
            {
                "site": site.site_id.hex(),
                "name": site.name,
                "delegated": site.delegated,
                "authorities_sha256": [_fingerprint(der) for der in site.authorities],
            }
            for site in bundle.sites
        ],
    }


def _changes(before: "TrustBundle | None", after: "TrustBundle") -> list[str]:
    """What a person has to know before a signature: every difference, a line each."""
    lines = [f"version {after.version}"]
    if before is None or before.threshold != after.threshold:
        lines.append(f"  asks for {after.threshold} of {len(after.owners())} owner's roots for the next one")
    old, new = _entries(before), _entries(after)
    lines += [f"- {line}" for line in old if line not in new]
    lines += [f"+ {line}" for line in new if line not in old]
    return lines


def _entries(bundle: "TrustBundle | None") -> list[str]:
    if bundle is None:
        return []
    lines = []
    for anchor in bundle.anchors:
        scope = ", ".join(site.hex() for site in anchor.sites) or "every site"
        lines.append(f"{anchor.purpose.name.lower()} root {_fingerprint(anchor.certificate)} for {scope}")
    for site in bundle.sites:
        how = " (delegated)" if site.delegated else ""
        lines += [
            f"site {site.name} {site.site_id.hex()}{how}: CA {_fingerprint(der)}" for der in site.authorities
        ]
    return lines


def _der(root: "Root") -> bytes:
    from sealcast.pki.certificates import certificate_der

    return certificate_der(root.certificate)


def _request_der(pem: bytes, path: Path) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    try:
        return x509.load_pem_x509_csr(pem).public_bytes(serialization.Encoding.DER)
    except ValueError:
        raise UsageError(
            f"{path} holds no certificate request",
            cure="give a file that starts with BEGIN CERTIFICATE REQUEST",
        ) from None


def _fingerprint(certificate: bytes) -> str:
    import hashlib

    return hashlib.sha256(certificate).hexdigest()
