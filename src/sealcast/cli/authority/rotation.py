"""`sealcast authority rotate`: server, site, root; status, abandon.

One command takes a rotation as far as it can go, and is given again to go on: after a wait, after a crash,
after a ceremony elsewhere. Roots' keys are used here, where the command runs, and never leave this process;
without them it writes what has to be signed.
"""

import base64
import hashlib
import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sealcast.cli import escape
from sealcast.cli.authority.place import REMOTE, AdminFolder, Folder, Json, Place, PlacedCommand, Url
from sealcast.cli.authority_keys import PassphraseFile
from sealcast.cli.root_keys import find_root, open_root
from sealcast.errors import ConflictError, SealcastError, UsageError

if TYPE_CHECKING:
    from sealcast.ca import Root
    from sealcast.pki.bundle import SignedBundle, TrustBundle

_rotations = typer.Typer(
    help="Rotate a root, the site CA's key, or the server's certificate, while everything runs.",
    no_args_is_help=True,
)

_RootCert = Annotated[
    Path | None,
    typer.Option("--root-cert", metavar="FILE", help="PEM: an owner's root. Default: DIR/root.pem."),
]
_RootKey = Annotated[
    Path | None,
    typer.Option(
        "--root-key",
        metavar="FILE",
        help="PEM: its key, used here and not copied. Default: DIR/root.key, if it is there.",
    ),
]
_Certificate = Annotated[
    Path | None,
    typer.Option("--certificate", metavar="FILE", help="PEM: the site CA's, signed where the root's key is."),
]
_BundleOut = Annotated[
    Path | None,
    typer.Option(
        "--bundle-out", metavar="FILE", help="Where to write a trust bundle that has to be signed elsewhere."
    ),
]
_Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Take the next step although devices are not so far; those need a new token when they are back.",
    ),
]


def register(authority: typer.Typer) -> None:
    """Add the group."""
    authority.add_typer(_rotations, name="rotate")


@_rotations.command("server", cls=PlacedCommand)
def rotate_server(folder: Folder, url: Url = None, admin: AdminFolder = None) -> None:
    """Give the server another key and certificate. Open connections go on; the old one stays good."""
    made = Place(folder, url, admin).change("POST", "rotations", body={"kind": "server"})
    typer.echo(f"rotation {made['id']} of the server's certificate: done")


@_rotations.command("site", cls=PlacedCommand)
def rotate_site(
    folder: Folder,
    root_cert: _RootCert = None,
    root_key: _RootKey = None,
    csr_out: Annotated[
        Path | None,
        typer.Option(
            "--csr-out",
            metavar="FILE",
            help="Where to write the request, to be signed where the root's key is.",
        ),
    ] = None,
    certificate: _Certificate = None,
    bundle_out: _BundleOut = None,
    within: Annotated[
        str | None,
        typer.Option(
            "--within",
            metavar="TIME",
            help="In which time devices take their new certificates after the switch; 1h by default. Given "
            "with the command that switches.",
        ),
    ] = None,
    force: _Force = False,
    again: Annotated[
        bool, typer.Option("--again", help="Begin another one although one has ended within a day.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    url: Url = None,
    admin: AdminFolder = None,
) -> None:
    """Give the site CA another key, step by step, and go as far as the devices are.

    Publishes both site CAs, waits for the devices' reports, switches, has devices take new certificates, and
    retires the old one, whose key is destroyed.
    """
    from sealcast.pki.files import check_absent
    from sealcast.pki.quantities import parse_duration

    place = Place(folder, url, admin)
    root = _own_root(place, folder, root_cert, root_key, passphrase_file)
    seconds = None if within is None else max(1, parse_duration(within) // 10**6)
    walk = _Walk(place, "site", root, bundle_out, force=force, within_seconds=seconds)
    rotation = walk.current()
    if within is not None and rotation is not None and rotation["switched"] is not None:
        raise ConflictError(
            f"--within {within} comes too late: rotation {rotation['id']} has switched at "
            f"{rotation['switched']}, with the time in which devices take their new certificates",
            cure="give the command without it",
        )
    if rotation is None:
        if not again:
            walk.check_not_just_done()
        if certificate is not None:
            raise UsageError(
                "--certificate is given, and no rotation of the site CA waits for one",
                cure="begin one without it; --csr-out FILE writes what has to be certified",
            )
        if root is None and csr_out is not None:
            check_absent(csr_out)
        rotation = walk.start({"kind": "site"})
    if rotation["step"] == "certificate":
        signed = _read(certificate) if certificate is not None else walk.certify_request(rotation)
        if signed is None:
            _write_out(csr_out, "--csr-out", rotation["request"].encode(), "certified by: root sign-site")
        else:
            rotation = walk.take(rotation, {"certificate": signed})
    walk.go_on(rotation)


@_rotations.command("root", cls=PlacedCommand)
def rotate_root(
    folder: Folder,
    new_root_cert: Annotated[
        Path | None,
        typer.Option("--new-root-cert", metavar="FILE", help="PEM: the new root; made by: root new."),
    ] = None,
    new_root_key: Annotated[
        Path | None,
        typer.Option("--new-root-key", metavar="FILE", help="PEM: its key, used here and not copied."),
    ] = None,
    root_cert: _RootCert = None,
    root_key: _RootKey = None,
    certificate: _Certificate = None,
    crosses: Annotated[
        Path | None,
        typer.Option(
            "--crosses",
            metavar="FILE",
            help="PEM: old and new root by each other, made by root cross-sign; for EST clients.",
        ),
    ] = None,
    bundle_out: _BundleOut = None,
    force: _Force = False,
    passphrase_file: PassphraseFile = None,
    url: Url = None,
    admin: AdminFolder = None,
) -> None:
    """Bring in another root above the site CA, step by step, and go as far as the devices are.

    Publishes both roots, waits for the devices' reports, switches, and retires the old one. The site CA keeps
    its key: no device needs another certificate.
    """
    place = Place(folder, url, admin)
    old = _own_root(place, folder, root_cert, root_key, passphrase_file)
    new = open_root(new_root_cert, new_root_key, passphrase_file) if new_root_cert and new_root_key else None
    walk = _Walk(place, "root", old, bundle_out, new_root=new, force=force)
    rotation = walk.current()
    if rotation is None:
        if new_root_cert is None:
            raise UsageError(
                "no new root is given", cure="make one with: sealcast root new; --new-root-cert FILE"
            )
        rotation = walk.start({"kind": "root", "root": _read(new_root_cert)})
    elif new_root_cert is not None:
        _check_same_root(new_root_cert, rotation)
    if rotation["step"] == "certificate":
        signed = _read(certificate) if certificate is not None else walk.certify_anew(rotation)
        if signed is None:
            typer.echo(
                "next: have the site CA certified where the new root's key is: sealcast root sign-site "
                "DIR/ca.pem; then give that with --certificate FILE"
            )
        else:
            cross = _read(crosses) if crosses is not None else walk.cross()
            body = {"certificate": signed} if cross is None else {"certificate": signed, "crosses": cross}
            rotation = walk.take(rotation, body)
    walk.go_on(rotation)


@_rotations.command("status", cls=PlacedCommand)
def rotate_status(folder: Folder, url: Url = None, admin: AdminFolder = None, as_json: Json = False) -> None:
    """Show the rotations, and how many devices stand where in the one that is under way."""
    listed = list(Place(folder, url, admin).all("rotations"))
    if as_json:
        typer.echo(json.dumps(listed, indent=2))
        return
    for rotation in listed:
        _tell(rotation)


@_rotations.command("abandon", cls=PlacedCommand)
def rotate_abandon(
    folder: Folder,
    number: Annotated[
        int, typer.Argument(help="The rotation's number.", metavar="NUMBER", min=1, show_default=False)
    ],
    url: Url = None,
    admin: AdminFolder = None,
) -> None:
    """Give up a rotation of which nothing has been published yet."""
    _tell(Place(folder, url, admin).change("POST", "rotations", str(number), "abandon"))


class _Walk:
    """Takes one rotation from step to step."""

    def __init__(
        self,
        place: Place,
        kind: str,
        root: "Root | None",
        bundle_out: Path | None,
        *,
        new_root: "Root | None" = None,
        force: bool,
        within_seconds: int | None = None,
    ) -> None:
        self._place = place
        self._kind = kind
        self._root = root
        self._new_root = new_root
        self._bundle_out = bundle_out
        self._force = force
        self._within = {} if within_seconds is None else {"within_seconds": within_seconds}
        self._moved = False

    def current(self) -> dict[str, Any] | None:
        """The rotation of this kind that is under way."""
        latest = self._latest()
        return latest if latest is not None and latest["finished"] is None else None

    def check_not_just_done(self) -> None:
        """Raises: ConflictError if one has ended lately: the command is given again to go on, until it is
        done."""
        from sealcast.pki.times import microseconds, system_time

        latest = self._latest()
        if latest is None or latest["step"] != "done":
            return
        finished = datetime.fromisoformat(latest["finished"])
        if system_time() - microseconds(finished) < _LATELY:
            raise ConflictError(
                f"rotation {latest['id']} of the {_WHAT[self._kind]} is done, since {latest['finished']}: "
                "nothing is left to do",
                cure="give --again to begin another one",
            )

    def _latest(self) -> dict[str, Any] | None:
        of_kind = (each for each in self._place.all("rotations") if each["kind"] == self._kind)
        return max(of_kind, key=lambda rotation: int(rotation["id"]), default=None)

    def start(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._did(self._place.change("POST", "rotations", body=body))

    def take(self, rotation: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        """Bring the site CA's certificate."""
        return self._did(
            self._place.change("POST", "rotations", str(rotation["id"]), "certificate", body=body)
        )

    def certify_request(self, rotation: dict[str, Any]) -> str | None:
        """Sign the request, if the root's key is here."""
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization

        from sealcast.ca.site_request import SiteRequest

        request = x509.load_pem_x509_csr(rotation["request"].encode())
        asked = SiteRequest.parse(request.public_bytes(serialization.Encoding.DER))
        return None if self._root is None else _certified(asked, self._root)

    def certify_anew(self, rotation: dict[str, Any]) -> str | None:
        """Sign the site CA's present certificate by the new root, if its key is here."""
        from sealcast.ca.site_request import SiteRequest
        from sealcast.pki.certificates import parse_pem_certificates

        asked = SiteRequest.of_certificate(parse_pem_certificates(rotation["old"].encode())[0])
        return None if self._new_root is None else _certified(asked, self._new_root)

    def cross(self) -> str | None:
        """Certify each root by the other, if both keys are here."""
        from sealcast.ca import cross_certify
        from sealcast.pki.certificates import certificates_pem
        from sealcast.pki.times import system_time

        if self._root is None or self._new_root is None:
            return None
        made = cross_certify(self._root, self._new_root, system_time())
        return certificates_pem([made.new_with_old, made.old_with_new]).decode("ascii")

    def go_on(self, rotation: dict[str, Any]) -> None:
        """Take every step that can be taken now.

        Raises: ConflictError if not one could, with what is missing.
        """
        while rotation["finished"] is None and rotation["step"] != "certificate":
            if rotation["step"] in ("publish", "retire"):
                if not self._sign_bundle(rotation):
                    break
                rotation = self._did(self._place.get("rotations", str(rotation["id"])))
                continue
            try:
                within = self._within if rotation["step"] == "reports" else {}
                body = {"force": self._force, **within}
                path = ("rotations", str(rotation["id"]), "advance")
                rotation = self._did(self._place.change("POST", *path, body=body))
            except ConflictError:
                if self._moved:
                    break
                raise
            # It is for the one step that it was asked for.
            self._force = False
        rotation = self._place.get("rotations", str(rotation["id"]))
        _tell(rotation)
        if self._within and rotation["switched"] is None:
            typer.echo("  --within is not kept: give it again with the command that switches")

    def _sign_bundle(self, rotation: dict[str, Any]) -> bool:
        """Sign what the rotation waits for with the keys that are here; False if that does not do."""
        from sealcast.pki.bundle import SignedBundle
        from sealcast.pki.certificates import certificate_der, parse_pem_certificates

        draft = self._place.get("rotations", str(rotation["id"]), "bundle")
        signed = SignedBundle.parse(base64.b64decode(draft["bundle"]))
        signers = [parse_pem_certificates(each["pem"].encode())[0] for each in draft["certificates"]]
        for root in (self._root, self._new_root):
            if root is not None and certificate_der(root.certificate) in signers:
                signed = signed.sign(certificate_der(root.certificate), root.signer)
        if signed.signed_by(signers) >= draft["threshold"]:
            data = base64.b64encode(signed.serialize()).decode("ascii")
            self._place.change("POST", "bundles", body={"bundle": data})
            return True
        if self._bundle_out is not None and _is_written(self._bundle_out, signed):
            # Given again while it waits; the file may bear signatures by now.
            typer.echo(escape(f"{self._bundle_out} is that trust bundle already, and stays as it is"))
            return False
        _write_out(
            self._bundle_out,
            "--bundle-out",
            signed.serialize(),
            f"signed by {draft['threshold']} owner's roots: root sign-bundle, then: authority bundle import",
        )
        return False

    def _did(self, rotation: dict[str, Any]) -> dict[str, Any]:
        self._moved = True
        return rotation


def describe(rotation: dict[str, Any]) -> str:
    """Where a rotation stands, in a line."""
    counts = {"reports": rotation["reported"], "reissue": rotation["reissued"]}
    done = f" ({counts[rotation['step']]} of {rotation['devices']})" if rotation["step"] in counts else ""
    return f"{rotation['id']} of the {_WHAT[rotation['kind']]}: {_WAITS[rotation['step']]}{done}"


def _tell(rotation: dict[str, Any]) -> None:
    """Where a rotation stands, for people."""
    typer.echo(f"rotation {describe(rotation)}")
    devices = rotation["devices"]
    if rotation["finished"] is None and rotation["version"] is not None:
        typer.echo(f"  trust bundle {rotation['version']}: {rotation['reported']} of {devices} devices")
        _tell_names("missing", rotation["missing"])
    if rotation["step"] == "reissue":
        typer.echo(f"  new certificates: {rotation['reissued']} of {devices} devices")
        _tell_names("old", rotation["old_devices"])
        _tell_names("old, admin", rotation["old_admins"])
    if rotation["forced"]:
        typer.echo(f"  forced: {', '.join(rotation['forced'])}")


def _tell_names(what: str, names: list[str]) -> None:
    for name in names[:_NAMES_SHOWN]:
        typer.echo(escape(f"    {what}: {name}"))
    if len(names) > _NAMES_SHOWN:
        typer.echo(f"    and {len(names) - _NAMES_SHOWN} more")


_NAMES_SHOWN = 10
_LATELY = 24 * 3600 * 1_000_000
_WHAT = {"server": "server's certificate", "site": "site CA", "root": "root"}
_WAITS = {
    "certificate": "waits for the certificate of the site CA",
    "publish": "waits for a signed trust bundle that lists old and new",
    "reports": "waits for the devices' reports, then switches",
    "reissue": "has switched; waits for the devices' new certificates",
    "retire": "waits for a signed trust bundle without the old one",
    "done": "done",
    "abandoned": "given up",
}


def _certified(asked: Any, root: "Root") -> str:
    from sealcast.pki.certificates import certificates_pem
    from sealcast.pki.times import system_time

    return certificates_pem([asked.certify(root, system_time())]).decode("ascii")


def _own_root(
    place: Place, folder: Path, certificate: Path | None, key: Path | None, passphrase_file: Path | None
) -> "Root | None":
    """The root whose key is at hand; None where it is elsewhere."""
    from sealcast.authority.site import ROOT_FILE, ROOT_KEY_FILE

    is_remote = str(folder) == REMOTE
    if key is None:
        if certificate is not None:
            raise UsageError("--root-cert is given without --root-key", cure="give both, or none")
        key = folder / ROOT_KEY_FILE
        if is_remote or not key.exists():
            return None
        # After a rotation of the root it is the old one's, most likely: nobody is asked for its passphrase.
        gone = any(each["kind"] == "root" and each["step"] == "done" for each in place.all("rotations"))
        return find_root(folder / ROOT_FILE, key, passphrase_file, maybe_gone=gone)
    if certificate is None:
        if is_remote:
            raise UsageError("--root-key is given without --root-cert", cure="give both")
        certificate = folder / ROOT_FILE
    return open_root(certificate, key, passphrase_file)


def _check_same_root(path: Path, rotation: dict[str, Any]) -> None:
    """Raises: ConflictError if a file is not the new root of the rotation that is under way."""
    from sealcast.pki.certificates import parse_pem_certificates

    given, own = _certificates(path), parse_pem_certificates(rotation["new_root"].encode())
    if given != own:
        raise ConflictError(
            f"{path} (SHA-256 {_fingerprints(given)}) is not the root that rotation {rotation['id']} brings "
            f"in (SHA-256 {_fingerprints(own)})",
            cure="give that one; what is not published can be given up: sealcast authority rotate abandon",
        )


def _fingerprints(certificates: list[bytes]) -> str:
    return ", ".join(hashlib.sha256(der).hexdigest() for der in certificates)


def _is_written(path: Path, signed: "SignedBundle") -> bool:
    """Tell whether a file is this draft, or was, at another time, and signed by whomever."""
    from sealcast.pki.bundle import MAX_BUNDLE_BYTES, SignedBundle
    from sealcast.pki.files import read_file

    if not path.is_file():
        return False
    try:
        found = SignedBundle.parse(read_file(path, limit=MAX_BUNDLE_BYTES)).read()
    except SealcastError:
        return False
    return _timeless(found) == _timeless(signed.read())


def _timeless(bundle: "TrustBundle") -> "TrustBundle":
    return replace(bundle, issued=0, anchors=tuple(replace(each, since=0) for each in bundle.anchors))


def _certificates(path: Path) -> list[bytes]:
    from sealcast.authority.issuance import certificates

    return certificates(path)


def _read(path: Path) -> str:
    """A file of certificates as PEM text, without what may stand around them."""
    from sealcast.pki.certificates import certificates_pem

    return certificates_pem(_certificates(path)).decode("ascii")


def _write_out(path: Path | None, option: str, data: bytes, what: str) -> None:
    from sealcast.pki.files import write_new

    if path is None:
        raise UsageError(
            f"the root's key is not here, and {option} does not say where to write what it has to sign",
            cure=f"give {option} FILE, or the key with --root-key FILE",
        )
    write_new(path, data)
    typer.echo(escape(f"next: {path}, to be {what}"))
