"""`sealcast authority`: init, serve, token, channel, device.

Commands that change something work on the folder, or through the service that is running on it: when they
return, the change is stored and in force (sealcast.authority.control).
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sealcast.cli import authority_keys, escape
from sealcast.cli.authority_keys import DeviceUsages, PassphraseFile
from sealcast.errors import UsageError

_FOLDER = typer.Argument(help="The authority's folder.", metavar="DIR", show_default=False)
_CHANNEL = typer.Argument(help="The channel's name.", metavar="CHANNEL", show_default=False)
_JSON = typer.Option("--json", help="Write JSON.")

_Folder = Annotated[Path, _FOLDER]
_Json = Annotated[bool, _JSON]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.add_typer(_authority, name="authority")


_authority = typer.Typer(help="A site's authority: enrolment, channels, keys, removal.", no_args_is_help=True)
_channel = typer.Typer(help="Channels of the site.", no_args_is_help=True)
_device = typer.Typer(help="Devices of the site.", no_args_is_help=True)
_authority.add_typer(_channel, name="channel")
_authority.add_typer(_device, name="device")
authority_keys.register(_authority)


@_authority.command()
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


@_authority.command()
def serve(
    folder: _Folder,
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="For enrolment (EST). Port 0: a free one.")
    ] = "127.0.0.1:8443",
    keys: Annotated[
        str | None,
        typer.Option("--keys", metavar="HOST:PORT", help="For the key server. Default: the next port."),
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
    """Serve enrolment, keys and directory, or the site CA's key, until Ctrl-C or SIGTERM.

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
        say({"authority": listening.authority, "keys": listening.keys})

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
    serve(
        folder,
        listen=parse_address(listen),
        keys=parse_address(keys) if keys else None,
        ready=ready,
        roles=chosen,
        passphrases=passphrases,
    )


@_authority.command()
def token(
    folder: _Folder,
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="The device that it is for.")],
    ttl: Annotated[str, typer.Option("--ttl", metavar="TIME", help="How long it is good for.")] = "1h",
    role: Annotated[
        list[str] | None,
        typer.Option(
            "--role",
            metavar="R",
            help="Role that the device gets; more than once if need be. Default: those that it has.",
        ),
    ] = None,
) -> None:
    """Print a one-time token for the enrolment of a device, alone on standard output."""
    from sealcast.authority.quantities import parse_duration

    answer = _run(folder, "create-token", {"device": device, "ttl": parse_duration(ttl), "roles": role})
    typer.echo(answer["token"])


@_channel.command("add")
def channel_add(
    folder: _Folder,
    channel: Annotated[str, _CHANNEL],
    group: Annotated[str, typer.Option("--group", metavar="ADDR", help="IPv4 or IPv6 multicast address.")],
    port: Annotated[int, typer.Option("--port", metavar="N", help="UDP port.")],
    publish: Annotated[
        list[str],
        typer.Option(
            "--publish", metavar="GLOB", help="Devices that may publish; more than once if need be."
        ),
    ],
    subscribe: Annotated[
        list[str],
        typer.Option(
            "--subscribe", metavar="GLOB", help="Devices that may subscribe; more than once if need be."
        ),
    ],
    interface: Annotated[
        str | None, typer.Option("--interface", metavar="I", help="Network interface of the data path.")
    ] = None,
    rate: Annotated[
        str, typer.Option("--rate", metavar="R", help="Most that one publisher sends.")
    ] = "20Mbit/s",
    slot: Annotated[str, typer.Option("--slot", metavar="TIME", help="How often slot keys turn.")] = "1h",
    slots_ahead: Annotated[
        int, typer.Option("--slots-ahead", metavar="N", help="Slots that members may fetch ahead, 1 to 30.")
    ] = 24,
    suite: Annotated[
        int, typer.Option("--suite", metavar="N", help="1: AES-256-GCM, 2: ChaCha20-Poly1305.")
    ] = 1,
    retention: Annotated[
        str, typer.Option("--retention", metavar="TIME", help="How long publishers keep packets for repair.")
    ] = "60s",
    retention_bytes: Annotated[
        str, typer.Option("--retention-bytes", metavar="SIZE", help="How much they keep.")
    ] = "256M",
    publisher_limit: Annotated[
        str,
        typer.Option(
            "--publisher-limit",
            metavar="TIME",
            help="How long after a removal packets of the old generation may still be sealed.",
        ),
    ] = "30s",
) -> None:
    """Add a channel. The globs match names of enrolled devices, now and later."""
    from dataclasses import asdict

    from sealcast.authority.channels import ChannelSettings
    from sealcast.authority.quantities import parse_duration, parse_rate, parse_size

    settings = ChannelSettings(
        name=channel,
        group=group,
        port=port,
        publish=tuple(publish),
        subscribe=tuple(subscribe),
        interface=interface,
        rate=parse_rate(rate),
        suite=suite,
        slot=parse_duration(slot),
        slots_ahead=slots_ahead,
        retention=parse_duration(retention),
        retention_bytes=parse_size(retention_bytes),
        publisher_limit=parse_duration(publisher_limit),
    )
    _run(folder, "add-channel", asdict(settings))


@_channel.command("set")
def channel_set(
    folder: _Folder,
    channel: Annotated[str, _CHANNEL],
    publish: Annotated[
        list[str] | None, typer.Option("--publish", metavar="GLOB", help="Replaces all publish globs.")
    ] = None,
    subscribe: Annotated[
        list[str] | None, typer.Option("--subscribe", metavar="GLOB", help="Replaces all subscribe globs.")
    ] = None,
) -> None:
    """Change who may publish and subscribe; members that no longer match are removed at once."""
    if publish is None and subscribe is None:
        raise UsageError("nothing to change", cure="give --publish or --subscribe")
    _run(folder, "set-members", {"name": channel, "publish": publish, "subscribe": subscribe})


@_channel.command("list")
def channel_list(folder: _Folder, as_json: _Json = False) -> None:
    """List the channels, with who may do what on them."""
    from sealcast.authority.channels import list_channels
    from sealcast.authority.site import open_storage

    with open_storage(folder).snapshot() as session:
        listed = list_channels(session)
    if as_json:
        typer.echo(json.dumps(listed, indent=2))
        return
    for entry in listed:
        typer.echo(escape(f"{entry['name']:<24} {entry['group']}:{entry['port']}"))
        for what in ("publishers", "subscribers"):
            typer.echo(escape(f"  {what:<12} {' '.join(_texts(entry[what])) or '-'}"))


@_device.command("list")
def device_list(folder: _Folder, as_json: _Json = False) -> None:
    """List the devices."""
    from sealcast.authority.enrolment import list_devices
    from sealcast.authority.site import open_storage
    from sealcast.pki.times import to_datetime

    with open_storage(folder).snapshot() as session:
        listed = list_devices(session)
    for entry in listed:
        for name in ("enrolled", "revoked", "not_after"):
            moment = entry[name]
            entry[name] = f"{to_datetime(moment):%Y-%m-%dT%H:%M:%SZ}" if isinstance(moment, int) else None
    if as_json:
        typer.echo(json.dumps(listed, indent=2))
        return
    for entry in listed:
        roles = " ".join(_texts(entry["roles"]))
        typer.echo(
            escape(f"{entry['name']:<32} {entry['state']:<10} until {entry['not_after']} {roles}".rstrip())
        )


@_device.command("set")
def device_set(
    folder: _Folder,
    name: Annotated[str, typer.Argument(help="The device's name.", metavar="NAME", show_default=False)],
    role: Annotated[
        list[str] | None,
        typer.Option("--role", metavar="R", help="Replaces all roles; more than once if need be."),
    ] = None,
    no_role: Annotated[bool, typer.Option("--no-role", help="Take every role away.")] = False,
) -> None:
    """Change the roles of a device. Policies that name them follow at once, without a new certificate."""
    if bool(role) == no_role:
        raise UsageError("nothing to change, or both", cure="give --role, or --no-role")
    _run(folder, "set-roles", {"name": name, "roles": role or []})


@_device.command("revoke")
def device_revoke(
    folder: _Folder,
    name: Annotated[str, typer.Argument(help="The device's name.", metavar="NAME", show_default=False)],
) -> None:
    """Remove a device: its certificates, its place in every policy, its keys.

    When this returns, the removal is in force; no later key is handed to the device.
    """
    answer = _run(folder, "revoke-device", {"name": name})
    typer.echo(escape(f"{name} is revoked" if answer["changed"] else f"{name} was revoked before"))


def _run(folder: Path, command: str, parameters: dict[str, Any]) -> dict[str, Any]:
    from sealcast.authority.control import run_command

    return run_command(folder, command, parameters)


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
