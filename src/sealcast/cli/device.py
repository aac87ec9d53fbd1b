"""`sealcast device`: enroll, show, renew, run.

EST as in RFC 7030; the device's folder is described in `sealcast.device.folder`.
"""

import hashlib
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sealcast.cli import escape
from sealcast.errors import UsageError

if TYPE_CHECKING:
    from sealcast.device import DeviceIdentity, PendingRequest

_FOLDER = typer.Argument(help="The device's folder.", metavar="DIR", show_default=False)
_JSON = typer.Option("--json", help="Write one JSON object.")
AUTHORITY_OPTION = typer.Option("--authority", metavar="URL", help="The authority: https://HOST:PORT.")
ROOT_OPTION = typer.Option(
    "--root", metavar="FILE", help="PEM file with a root to trust; may be given more than once."
)
TOKEN_OPTION = typer.Option(
    "--token",
    metavar="TOKEN",
    envvar="SEALCAST_TOKEN",
    help="The one-time token; - reads it from standard input, so that it is in no process list.",
)

_MAX_TOKEN_CHARACTERS = 1024

_Facts = dict[str, str | list[str]]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.add_typer(_device, name="device")


_device = typer.Typer(help="This machine's identity at a site.", no_args_is_help=True)


@_device.command()
def enroll(
    folder: Annotated[Path, _FOLDER],
    authority: Annotated[str | None, AUTHORITY_OPTION] = None,
    root: Annotated[list[Path] | None, ROOT_OPTION] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The device's name at the site.")
    ] = None,
    token: Annotated[str | None, TOKEN_OPTION] = None,
    maker_cert: Annotated[
        Path | None,
        typer.Option(
            "--maker-cert", metavar="FILE", help="In place of a token, PEM: the maker's certificate (IDevID)."
        ),
    ] = None,
    maker_key: Annotated[
        Path | None, typer.Option("--maker-key", metavar="FILE", help="PEM: the key of that certificate.")
    ] = None,
    wait: Annotated[
        str | None,
        typer.Option(
            "--wait", metavar="TIME", help="How long to wait for the operator's approval, if one is needed."
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option("--label", metavar="NAME", help="Which of the authority's CAs to ask (EST label)."),
    ] = None,
    keys: Annotated[
        str | None,
        typer.Option(
            "--keys", metavar="URL", help="The key server; by default the port after the authority's."
        ),
    ] = None,
    drop: Annotated[
        bool, typer.Option("--cancel", help="Drop the request that waits for approval, and its key.")
    ] = False,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Make a key and get a certificate for it, by a one-time token or by the maker's certificate.

    RFC 7030 section 4.2.1. Where an operator has to approve it first, key and request stay in DIR: run it
    again, with the token or the maker's certificate alone, to go on with the same request.
    """
    from sealcast import device

    if drop:
        device.cancel(folder)
        typer.echo("the request is dropped here; an operator may still see it")
        return
    waiting = device.PendingRequest.read(folder)
    if waiting is not None:
        authority, name = authority or waiting.authority_url, name or waiting.name
        label, keys = label or waiting.label, keys or waiting.keys_url
    if authority is None or name is None or not (root or waiting):
        raise UsageError("--authority, --root and --name are needed", cure="see --help")
    if (maker_cert is None) != (maker_key is None):
        raise UsageError("--maker-cert and --maker-key belong together", cure="give both, or a token")
    if (token is None) == (maker_cert is None):
        raise UsageError(
            "one credential is needed, a token or a maker's certificate",
            cure="give --token, or --maker-cert and --maker-key",
        )

    identity = device.enroll(
        folder,
        authority_url=authority,
        roots=read_roots(root) if root else waiting.roots if waiting else (),
        name=name,
        token=None if token is None else read_token(token),
        maker=None if maker_cert is None or maker_key is None else (maker_cert, maker_key),
        patience=_seconds(wait) if wait else 0,
        label=label,
        keys_url=keys,
    )
    show_identity(identity, as_json=as_json)


@_device.command()
def show(folder: Annotated[Path, _FOLDER], as_json: Annotated[bool, _JSON] = False) -> None:
    """Show name, site, certificate and addresses, or the request that waits for approval."""
    from sealcast.device import DeviceIdentity, PendingRequest
    from sealcast.device.folder import current_credentials

    waiting = PendingRequest.read(folder)
    if waiting is not None and current_credentials(folder) is None:
        facts: _Facts = {
            "name": waiting.name,
            "authority": waiting.authority_url,
            "keys": waiting.keys_url,
            "roots_sha256": [_fingerprint(root) for root in waiting.roots],
        }
        _write(facts | _pending_facts(waiting), as_json=as_json)
    else:
        show_identity(DeviceIdentity.open(folder), waiting, as_json=as_json)


@_device.command()
def renew(folder: Annotated[Path, _FOLDER], as_json: Annotated[bool, _JSON] = False) -> None:
    """Get a new certificate for a new key, by the present one (RFC 7030 section 4.2.2)."""
    from sealcast import device

    show_identity(device.renew(folder), as_json=as_json)


@_device.command("run")
def run_agent(
    folder: Annotated[Path, _FOLDER],
    once: Annotated[
        bool, typer.Option("--once", help="Do what is due now, then end, instead of going on.")
    ] = False,
    interval: Annotated[
        str, typer.Option("--interval", metavar="TIME", help="Between two looks at the authority.")
    ] = "60s",
    as_json: Annotated[
        bool, typer.Option("--json", help="Write one JSON object a look that brought news.")
    ] = False,
) -> None:
    """Keep the device's folder fresh: certificate, trust bundle, CRL, policies; report to the authority.

    Publishers and subscribers on the same folder notice by themselves and go on. A certificate that has
    expired is recovered within the grace that the site grants.
    """
    from sealcast.cli.data import run
    from sealcast.device.agent import AgentStatus, DeviceAgent
    from sealcast.pki.quantities import parse_duration

    def tell(status: AgentStatus) -> None:
        bundle = status.identity.bundle
        facts = {
            "name": status.identity.name,
            "renewed": status.renewed,
            "not_after": _time(status.identity.not_after),
            "renewal": _time(status.identity.renewal_time()),
            "bundle": 0 if bundle is None else bundle.version,
            "crl": 0 if status.documents.crl is None else status.documents.crl.number,
            "policies": {policy.channel: policy.version for policy in status.documents.policies},
            **({} if status.refusal is None else {"refused": str(status.refusal)}),
        }
        if as_json:
            typer.echo(json.dumps(facts))
        elif status.renewed or status.bundle_changed or status.documents_changed or once:
            news = "a new certificate" if status.renewed else "certificate"
            typer.echo(
                f"{news} until {facts['not_after']}, trust bundle {facts['bundle']}, CRL {facts['crl']}, "
                f"policies of {len(status.documents.policies)} channels"
            )

    seconds = parse_duration(interval) / 1e6

    async def work() -> None:
        async with DeviceAgent(folder, look_seconds=seconds, on_status=tell) as agent:
            if once:
                status = await agent.look()
                tell(status)
                if status.refusal is not None:
                    raise status.refusal
            else:
                await agent.run()

    run(work)


def _seconds(text: str) -> float:
    from sealcast.pki.quantities import parse_duration

    return parse_duration(text) / 1e6


def read_roots(files: list[Path]) -> list[bytes]:
    """Read PEM files of roots."""
    from sealcast.errors import CertificateError
    from sealcast.pki.certificates import parse_pem_certificates
    from sealcast.pki.files import read_file

    roots: list[bytes] = []
    for file in files:
        try:
            roots += parse_pem_certificates(read_file(file))
        except CertificateError as error:
            raise CertificateError(f"{file}: {error}", reason=error.reason, cure=error.cure) from None
    return roots


def read_token(token: str) -> str:
    """Return the token that was given, or written to standard input."""
    if token != "-":  # noqa: S105 - the word for standard input
        return token
    line = sys.stdin.readline(_MAX_TOKEN_CHARACTERS).strip()
    if not line:
        raise UsageError("no token on standard input", cure="write the token and a newline")
    return line


def show_identity(
    identity: "DeviceIdentity", waiting: "PendingRequest | None" = None, *, as_json: bool
) -> None:
    """Write what is known of a device, or of an admin; `waiting`: its request that is not decided yet."""
    from sealcast.pki.ends import warnings
    from sealcast.pki.times import system_time

    ends = identity.ends()
    facts: _Facts = {
        "name": identity.name,
        "site": identity.site_id.hex(),
        "authority": identity.authority_url,
        "keys": identity.keys_url,
        "serial": f"{identity.serial:x}",
        "not_before": _time(identity.not_before),
        "not_after": _time(identity.not_after),
        "renewal": _time(identity.renewal_time()),
        "certificate_sha256": _fingerprint(identity.certificate),
        "roots_sha256": [_fingerprint(root) for root in identity.roots],
        **_held_facts(identity),
        "earliest_end": _time(min(end.ends for end in ends)),
        "warning": list(warnings(ends, system_time())),
    }
    _write(facts if waiting is None else facts | _pending_facts(waiting), as_json=as_json)


def _held_facts(identity: "DeviceIdentity") -> _Facts:
    """What the agent keeps here of what the authority has signed, and until when each is good."""
    from sealcast.device.documents import Documents
    from sealcast.pki.names import Role

    if identity.settings.role is not Role.DEVICE:
        return {}
    held = Documents.read(identity.path, identity.site_id)
    return {
        "bundle": "0" if identity.bundle is None else str(identity.bundle.version),
        "crl": "0" if held.crl is None else f"{held.crl.number} until {_time(held.crl.next_update)}",
        "policies": [
            f"{policy.channel} {policy.version} until {_time(policy.next_update)}" for policy in held.policies
        ],
    }


def _pending_facts(request: "PendingRequest") -> _Facts:
    """By the hash of the key an operator knows the request: `authority approval list` shows it."""
    from sealcast.pki.certificates import spki

    key = hashlib.sha256(spki(request.signer.public_key)).hexdigest()
    if request.refusal:
        return {"asked": _time(request.time), "refused": request.refusal, "refused_key_sha256": key}
    return {"waits_since": _time(request.time), "waiting_key_sha256": key}


def _write(facts: _Facts, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    for key, value in facts.items():
        for text in [value] if isinstance(value, str) else value:
            typer.echo(f"{key.replace('_', ' '):<20}{escape(text)}")


def _time(microseconds: int) -> str:
    from sealcast.pki.times import to_datetime

    moment: datetime = to_datetime(microseconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _fingerprint(certificate: bytes) -> str:
    return hashlib.sha256(certificate).hexdigest()
