"""`sealcast authority est`: show, set; `approval`: list, approve, deny; `maker`: add, list, remove."""

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from sealcast.cli import escape
from sealcast.cli.authority.place import AdminFolder, Folder, Json, Place, PlacedCommand, Url
from sealcast.errors import UsageError

_Number = Annotated[
    int,
    typer.Argument(help="The request's number, as `list` shows it.", metavar="N", show_default=False),
]

_est = typer.Typer(help="Switches of enrolment (EST, RFC 7030).", no_args_is_help=True)
_approval = typer.Typer(help="Requests for a first certificate that wait for a yes.", no_args_is_help=True)
_maker = typer.Typer(
    help="Makers whose certificates (IDevIDs) admit to a first enrolment.", no_args_is_help=True
)


def register(authority: typer.Typer) -> None:
    """Add the groups."""
    authority.add_typer(_est, name="est")
    authority.add_typer(_approval, name="approval")
    authority.add_typer(_maker, name="maker")


@_est.command("show", cls=PlacedCommand)
def est_show(folder: Folder, url: Url = None, admin: AdminFolder = None, as_json: Json = False) -> None:
    """Show the switches."""
    from sealcast.pki.quantities import format_duration

    shown = Place(folder, url, admin).get("enrolment")
    if as_json:
        typer.echo(json.dumps(shown, indent=2))
        return
    for name, value in shown.items():
        if name.endswith("_us"):
            text = format_duration(value) if value else "0 (never)"
        else:
            text = " ".join(value) or "-" if isinstance(value, list) else "on" if value else "off"
        typer.echo(escape(f"{name.removesuffix('_us').replace('_', ' '):<20}{text}"))


@_est.command("set", cls=PlacedCommand)
def est_set(
    folder: Folder,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            metavar="NAME",
            help="Answer under /.well-known/est/NAME/ too; replaces all labels, - for none. The site's id is "
            "always one.",
        ),
    ] = None,
    server_keygen: Annotated[
        bool | None,
        typer.Option(
            "--server-keygen/--no-server-keygen", help="Make private keys for devices that ask for it."
        ),
    ] = None,
    linking: Annotated[
        bool | None,
        typer.Option(
            "--linking/--no-linking", help="Refuse requests that are not bound to their TLS 1.2 session."
        ),
    ] = None,
    strict: Annotated[
        bool | None,
        typer.Option("--strict/--no-strict", help="Refuse requests in PEM armour or raw DER."),
    ] = None,
    approve_tokens: Annotated[
        bool | None,
        typer.Option(
            "--approve-tokens/--no-approve-tokens", help="Have first enrolments by token wait for approval."
        ),
    ] = None,
    open_requests: Annotated[
        bool | None,
        typer.Option(
            "--open-requests/--no-open-requests",
            help="Let devices without a token ask, and wait for approval.",
        ),
    ] = None,
    recovery_grace: Annotated[
        str | None,
        typer.Option(
            "--recovery-grace",
            metavar="TIME",
            help="How long after its certificate's end a device may still recover by itself, for example "
            "30d; 0: never, a new token is needed.",
        ),
    ] = None,
    url: Url = None,
    admin: AdminFolder = None,
) -> None:
    """Change switches; what is not named stays as it is."""
    from sealcast.pki.quantities import parse_duration

    values = {
        "labels": None if label is None else [] if label == ["-"] else label,
        "server_keygen": server_keygen,
        "linking_required": linking,
        "strict_bodies": strict,
        "approve_tokens": approve_tokens,
        "open_requests": open_requests,
        "recovery_grace_us": None
        if recovery_grace is None
        else parse_duration(recovery_grace, may_be_zero=True),
    }
    changes = {name: value for name, value in values.items() if value is not None}
    if not changes:
        raise UsageError("nothing to change", cure="give an option; see --help")
    Place(folder, url, admin).change("PATCH", "enrolment", body=changes)


@_approval.command("list", cls=PlacedCommand)
def approval_list(
    folder: Folder,
    every: Annotated[bool, typer.Option("--all", help="Those that are decided too.")] = False,
    url: Url = None,
    admin: AdminFolder = None,
    as_json: Json = False,
) -> None:
    """List the requests that wait. Compare the key with what the device shows before you say yes."""
    listed = Place(folder, url, admin).all("approvals", state=None if every else "pending")
    if as_json:
        typer.echo(json.dumps(list(listed), indent=2))
        return
    for row in listed:
        typer.echo(
            escape(
                f"{row['id']:>6} {row['state']:<8} {row['device']} ({row['known']}) by {row['credential']} "
                f"since {row['requested']}"
            )
        )
        typer.echo(f"       key {row['key_sha256']}")
        for name in ("detail", "reason"):
            if row[name]:
                typer.echo(escape(f"       {row[name]}"))


@_approval.command("approve", cls=PlacedCommand)
def approval_approve(folder: Folder, number: _Number, url: Url = None, admin: AdminFolder = None) -> None:
    """Let a request have its certificate, which the device fetches when it asks again."""
    decided = Place(folder, url, admin).change(
        "POST", "approvals", str(number), "decision", body={"approve": True}
    )
    typer.echo(escape(f"request {number} of {decided['device']} is approved"))


@_approval.command("deny", cls=PlacedCommand)
def approval_deny(
    folder: Folder,
    number: _Number,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Told to the device.")] = "",
    url: Url = None,
    admin: AdminFolder = None,
) -> None:
    """Refuse a request."""
    decided = Place(folder, url, admin).change(
        "POST", "approvals", str(number), "decision", body={"approve": False, "reason": reason}
    )
    typer.echo(escape(f"request {number} of {decided['device']} is denied"))


@_maker.command("add", cls=PlacedCommand)
def maker_add(
    folder: Folder,
    file: Annotated[
        Path,
        typer.Argument(
            help="PEM: the maker's root and the CA certificates below it.",
            metavar="FILE",
            show_default=False,
        ),
    ],
    name: Annotated[
        str,
        typer.Option(
            "--name",
            metavar="RULE",
            help="Which device name a certificate may enrol as: serial-number (of its subject), "
            "hardware-serial (hwSerialNum of its hardwareModuleName), approval (any, once approved).",
        ),
    ] = "approval",
    crl: Annotated[
        list[Path] | None,
        typer.Option("--crl", metavar="FILE", help="The maker's CRL; may be given more than once."),
    ] = None,
    url: Url = None,
    admin: AdminFolder = None,
) -> None:
    """Admit a maker's devices to their first enrolment; add it again to change the rule or the CRL."""
    from sealcast.authority.makers import maker_texts, read_maker
    from sealcast.pki.idevid import NameRule

    rules = {str(rule): rule for rule in NameRule}
    if name not in rules:
        raise UsageError(f"unknown rule {name!r}", cure=f"use one of: {', '.join(rules)}")
    certificates, crls = maker_texts(read_maker(file, rules[name], tuple(crl or ())))
    added = Place(folder, url, admin).change(
        "POST", "makers", body={"certificates": certificates, "crls": crls, "name": name}
    )
    typer.echo(added["fingerprint"])


@_maker.command("list", cls=PlacedCommand)
def maker_list(folder: Folder, url: Url = None, admin: AdminFolder = None, as_json: Json = False) -> None:
    """List the makers that were added."""
    listed = Place(folder, url, admin).all("makers")
    if as_json:
        typer.echo(json.dumps(list(listed), indent=2))
        return
    for row in listed:
        typer.echo(row["fingerprint"])
        typer.echo(escape(f"  {row['subject']}; name by {row['name']}; {row['crls']} CRLs"))


@_maker.command("remove", cls=PlacedCommand)
def maker_remove(
    folder: Folder,
    maker: Annotated[
        str,
        typer.Argument(
            help="The file it was added by, or its fingerprint.", metavar="FILE", show_default=False
        ),
    ],
    url: Url = None,
    admin: AdminFolder = None,
) -> None:
    """Admit no more devices of a maker; those that have enrolled stay."""
    from sealcast.authority.makers import read_maker
    from sealcast.pki.idevid import NameRule

    path = Path(maker)
    if re.fullmatch("[0-9a-f]{64}", maker) and not path.exists():
        fingerprint = maker
    else:
        fingerprint = read_maker(path, NameRule.APPROVAL).fingerprint.hex()
    Place(folder, url, admin).change("DELETE", "makers", fingerprint)
    typer.echo(f"{fingerprint} is removed")
