"""What the authority of a site has signed, as a device holds it: policies and CRLs (TR-29, SC-32).

    DIR/policies/<channel id>   name, version, nextUpdate, signed policy, the site CA's certificate: CBOR
    DIR/crls/<site id>          the CRLs that this site's authority hands out: DER, one after the other (TR-9)

The agent fetches those of its own site, publishers and subscribers store the CRLs that they get. Each is
judged before it is written, and only a later one takes its place; its number stays known (`floors`) where a
file is lost. Nothing opens by these files alone: keys are in no folder, and come by a join.
Spec: spec/trust.md TR-29, spec/side-channel.md SC-32.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sealcast import _core
from sealcast.device.floors import (
    Floors,
    raise_crl_numbers,
    raise_floors,
    read_crl_numbers,
    read_floors,
    take_signed_time,
)
from sealcast.device.folder import CRLS, POLICIES
from sealcast.device.identity import DeviceIdentity
from sealcast.errors import CertificateError, ChannelError, StorageError
from sealcast.pki.files import PRIVATE, TEMPORARY_SUFFIX, locked, read_file, storage_errors, write_atomically
from sealcast.pki.names import Role, channel_id
from sealcast.pki.signed import decode_array, encode_cbor
from sealcast.sidechannel.messages import MAX_CRL, MAX_POLICY, ChannelsAnswer, CrlAnswer, PolicyAnswer
from sealcast.system import sync_folder

log = logging.getLogger(__name__)

_LOCK = "lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldPolicy:
    """A policy that was judged when it was written."""

    channel: str
    version: int
    next_update: int
    """Microseconds."""
    signed: bytes
    issuer: bytes
    """DER: the site CA that has signed it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldCrl:
    """The CRLs of one site's authority, which were judged when they were written."""

    document: bytes
    number: int
    """Of the first list."""
    next_update: int
    """Of the first list, microseconds."""
    issued: int
    """Likewise."""

    @property
    def digest(self) -> bytes:
        """SHA-256 of the document, as beacons and SC-32 name it."""
        return hashlib.sha256(self.document).digest()

    @classmethod
    def parse(cls, document: bytes) -> "HeldCrl":
        """Read a document. Raises: CertificateError."""
        return cls._of(document, _judge(document, ()))

    @classmethod
    def _of(cls, document: bytes, lists: Sequence["_List"]) -> "HeldCrl":
        _, number, issued, next_update, _ = lists[0]
        return cls(document=document, number=number, issued=issued, next_update=next_update)


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """What a device holds of one site, as a rule its own."""

    crl: HeldCrl | None
    policies: tuple[HeldPolicy, ...]
    """By name of the channel."""

    @classmethod
    def read(cls, folder: Path, site_id: bytes) -> "Documents":
        """Read a device's folder; what is damaged is left out, and told of in the log."""
        return cls(crl=held_crl(folder, site_id), policies=_held_policies(folder, site_id))


class Source(Protocol):
    """Where they come from; `KeyServerClient` is one."""

    async def channels(self) -> ChannelsAnswer:
        """What there is for this device, by number."""

    async def crl(self) -> CrlAnswer:
        """The CRLs in force."""

    async def policy(self, channel: str) -> PolicyAnswer:
        """The policy in force."""

    @property
    def shown(self) -> Sequence[bytes]:
        """The chain of the key server that has answered, DER."""


async def sync_documents(
    path: Path,
    source: Source,
    identity: DeviceIdentity,
    *,
    now: int,
    wall: int,
    site_id: bytes | None = None,
) -> None:
    """Fetch what is new of CRL and policies, and put it in the device's folder.

    `now`: the date; `wall`: what the clock says; microseconds. `site_id`: of the source; None: the device's
    own. What is refused leaves what is held as it is,
    and keeps nothing else from being taken.
    Raises: CertificateError: the first of what was refused; NetworkError; StorageError.
    """
    site_id = site_id or identity.site_id
    told = await source.channels()
    refusals: list[CertificateError] = []
    crl = held_crl(path, site_id)
    if crl is None or crl.digest != told.crl[1]:
        try:
            document = (await source.crl()).crl
            _take_fresh_crl(path, site_id, document, source.shown, identity, now, wall)
        except CertificateError as error:
            refusals.append(error)
    issuer = _issuer(identity, source.shown, now, None)
    held = {policy.channel: policy for policy in _held_policies(path, site_id)}
    for name, version in told.channels:
        known = held.get(name)
        if known is not None and known.version == version:
            continue
        try:
            signed = (await source.policy(name)).policy
            take_policy(path, site_id, name, signed, issuer, now=now, wall=wall)
        except ChannelError as error:
            # It has changed since we were told: the next look tells.
            log.debug("device folder %s: channel %s: %s", path, name, error)
        except CertificateError as error:
            refusals.append(error)
    _drop_policies(path, set(held) - {name for name, _ in told.channels}, site_id)
    if refusals:
        raise refusals[0]


def take_crl(path: Path, site_id: bytes, document: bytes, authorities: Sequence[bytes]) -> HeldCrl:
    """Store the CRLs that the authority of a site hands out, unless they are older than what was seen.

    `authorities`: the site CA certificates (DER) that are believed. Numbers are remembered of those lists
    alone that one of them has signed; others are kept with the document, and vouch for nobody.
    Returns: what is held now. Raises: CertificateError, StorageError.
    """
    folder = path / CRLS
    lists = _judge(document, authorities)
    taken = HeldCrl._of(document, lists)
    if not lists[0][4]:
        raise CertificateError(
            f"CRL {taken.number} is signed by no site CA that is known", reason="unknown-issuer"
        )
    numbers = {issuer: number for issuer, number, _, _, is_known in lists if is_known}
    with _writing(folder):
        held, seen = held_crl(path, site_id), read_crl_numbers(path)
        if held is not None and held.document == document:
            return held
        known = 0 if held is None else held.number
        if taken.number < known:
            raise _backwards(f"CRL {taken.number}", str(known))
        for issuer, number in numbers.items():
            if number < seen.get(issuer, 0):
                raise _backwards(f"CRL {taken.number}: its list {number} of one issuer", str(seen[issuer]))
        # First the numbers, so that a crash in between loses none; the rest is fetched again.
        raise_crl_numbers(path, numbers)
        write_atomically(folder / site_id.hex(), document, PRIVATE)
    return taken


def take_policy(
    path: Path, site_id: bytes, channel: str, signed: bytes, issuer: bytes, *, now: int, wall: int
) -> HeldPolicy:
    """Store a policy unless it is older than what was seen.

    `issuer`: the site CA of a chain that was verified. Returns: what is held now.
    Raises: CertificateError, StorageError.
    """
    identifier = channel_id(site_id, channel)
    folder = path / POLICIES
    with _writing(folder):
        held = _read_policy(folder / identifier.hex())
        floor = read_floors(path, identifier).policy_version
        known = max(floor, 0 if held is None else held.version)
        try:
            version, issued, next_update = _core.verify_policy(
                signed, issuer=issuer, site_id=site_id, channel=channel, known_version=known, now=now
            )
        except _core.ValidationError as error:
            raise CertificateError(
                f"the policy of channel {channel!r} is refused: {error} ({known} is known)",
                reason=error.reason,
            ) from None
        if held is not None and held.version == version:
            return held
        taken = HeldPolicy(
            channel=channel, version=version, next_update=next_update, signed=signed, issuer=issuer
        )
        raise_floors(path, identifier, Floors(policy_version=version))
        write_atomically(
            folder / identifier.hex(), encode_cbor([channel, version, next_update, signed, issuer]), PRIVATE
        )
    take_signed_time(path, issued, wall)
    return taken


def held_crl(path: Path, site_id: bytes) -> HeldCrl | None:
    """Return the CRLs that are held of a site's authority; None if there are none, or they are damaged."""
    file = path / CRLS / site_id.hex()
    try:
        with storage_errors(file):
            if not file.exists():
                return None
        return HeldCrl.parse(read_file(file, limit=MAX_CRL))
    except (CertificateError, StorageError) as error:
        log.warning("%s is of no use, and fetched anew: %s", file, error)
        return None


def _take_fresh_crl(
    path: Path,
    site_id: bytes,
    document: bytes,
    shown: Sequence[bytes],
    identity: DeviceIdentity,
    now: int,
    wall: int,
) -> None:
    """Judge the key server by the CRLs that it hands out, as a member does at its join, and store them."""
    issuer = _issuer(identity, shown, now, document)
    before = held_crl(path, site_id)
    taken = take_crl(path, site_id, document, (*identity.issuers, issuer))
    if before is None or taken.number > before.number:
        take_signed_time(path, taken.issued, wall)


def _issuer(identity: DeviceIdentity, shown: Sequence[bytes], now: int, crl: bytes | None) -> bytes:
    """The site CA that speaks for the site: that of the key server's chain."""
    try:
        return identity.validator().verify_peer(shown, Role.KEY_SERVER, now, crl).issuer
    except CertificateError as error:
        # Its own reasons are about this device elsewhere: it is the key server that is not believed.
        raise CertificateError(
            f"the key server, by its CRLs: {error.problem}", reason="key-server", cure=error.cure
        ) from None


_List = tuple[bytes, int, int, int, bool]


def _judge(document: bytes, authorities: Sequence[bytes]) -> list[_List]:
    try:
        return _core.judge_crls(document, authorities)
    except _core.ValidationError as error:
        raise CertificateError(f"the CRLs are refused: {error}", reason=error.reason) from None


def _backwards(what: str, known: str) -> CertificateError:
    return CertificateError(
        f"{what} is older than {known}, which is known",
        reason="backwards",
        cure="see whether the authority was restored from a backup: sealcast authority restored",
    )


def _held_policies(path: Path, site_id: bytes) -> tuple[HeldPolicy, ...]:
    folder = path / POLICIES
    with storage_errors(folder):
        files = sorted(folder.iterdir()) if folder.is_dir() else []
    read = [(file.name, _read_policy(file)) for file in files if len(file.name) == 64]  # a channel id
    held = [
        policy
        for name, policy in read
        # By its name and id a policy says whose it is: there may be those of other sites.
        if policy is not None and channel_id(site_id, policy.channel).hex() == name
    ]
    return tuple(sorted(held, key=lambda policy: policy.channel))


def _read_policy(file: Path) -> HeldPolicy | None:
    with storage_errors(file):
        if not file.exists():
            return None
    try:
        match decode_array(read_file(file, limit=MAX_POLICY)):
            case [str(channel), int(version), int(next_update), bytes(signed), bytes(issuer)]:
                return HeldPolicy(
                    channel=channel, version=version, next_update=next_update, signed=signed, issuer=issuer
                )
    except (CertificateError, StorageError):
        pass
    log.warning("%s is of no use, and fetched anew", file)
    return None


def _drop_policies(path: Path, channels: set[str], site_id: bytes) -> None:
    """Remove those of channels that are not this device's any more; their versions stay known."""
    if not channels:
        return
    folder = path / POLICIES
    with _writing(folder), storage_errors(folder):
        for channel in channels:
            (folder / channel_id(site_id, channel).hex()).unlink(missing_ok=True)
        sync_folder(folder)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Lock a folder of documents, made if need be, and clear away what a crash has left."""
    with storage_errors(folder):
        if not folder.is_dir():
            folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(folder.parent)
    with locked(folder / _LOCK):
        with storage_errors(folder):
            for file in folder.glob(f"*{TEMPORARY_SUFFIX}"):
                file.unlink()
        yield
