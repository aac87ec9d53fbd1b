"""Keeping the device's trust bundle up to date: every version in order, believed before it is stored.

Spec: spec/trust.md section 5, spec/side-channel.md SC-19 to SC-21.
"""

from pathlib import Path
from typing import Protocol

from sealcast import system
from sealcast.device.floors import take_signed_time
from sealcast.device.folder import DeviceFolder, current_bundle, stored_bundle
from sealcast.device.identity import DeviceIdentity
from sealcast.errors import CertificateError
from sealcast.pki.bundle import VerifiedBundle, accept, begin_by_roots
from sealcast.pki.names import Role
from sealcast.pki.times import system_time
from sealcast.sidechannel.client import KeyServerClient, UnknownVersionError
from sealcast.sidechannel.messages import BundleAnswer, Report

_MAX_VERSIONS = 10_000
"""How far a device that holds none looks for one to begin with; a site has a few in a year."""


class BundleSource(Protocol):
    """Where versions come from; `KeyServerClient` is one."""

    async def bundle(self, version: int) -> BundleAnswer:
        """Return a version as signed. Raises: UnknownVersionError."""


async def follow_trust_async(path: Path, role: Role, *, now: int | None = None) -> DeviceIdentity:
    """Walk to the key server's latest trust bundle: for an admin's folder, which no agent looks after.

    `now`: microseconds. Returns, raises: as `sync_trust`.
    """
    identity, moment = DeviceIdentity.open(path, role), system_time() if now is None else now
    identity.check_roots(moment)
    async with KeyServerClient(identity, clock=lambda: moment) as client:
        return await sync_trust(path, client, wall=moment, role=role)


def follow_trust(path: Path, role: Role) -> DeviceIdentity:
    """Do `follow_trust_async` where no event loop runs."""
    return system.run(follow_trust_async(path, role))


async def sync_trust(
    path: Path, source: BundleSource, *, wall: int | None = None, role: Role = Role.DEVICE
) -> DeviceIdentity:
    """Walk to the latest trust bundle that `source` has, and put it in force in the device's folder.

    Each version is stored as soon as it is believed, so that what follows may fail and nothing is lost.

    `wall`: what this machine's clock says, microseconds. `role`: of the folder's holder.
    Returns: the identity as it is now.
    Raises: CertificateError: a version does not follow from the one that is held, which stays in force;
    NetworkError; StorageError.
    """
    identity = DeviceIdentity.open(path, role)
    held, number = identity.bundle, 1
    while True:
        try:
            answer = await source.bundle(number if held is None else held.version + 1)
        except UnknownVersionError:
            if held is not None and current_bundle(path) is None:
                with DeviceFolder.open_for_writing(path) as folder:
                    folder.restore_bundle()
            return DeviceIdentity.open(path, role)
        try:
            held = _take(path, held, answer.bundle, identity)
        except CertificateError as refusal:
            if (
                held is not None
                or refusal.reason != "signature"
                or number >= min(answer.latest, _MAX_VERSIONS)
            ):
                raise
            # Of roots that had gone before this device was made: it begins with a later version (TR-18).
            number += 1
            continue
        take_signed_time(path, held.bundle.issued, system_time() if wall is None else wall)


def _take(path: Path, held: VerifiedBundle | None, data: bytes, identity: DeviceIdentity) -> VerifiedBundle:
    bundle = begin_by_roots(data, identity.given_roots) if held is None else accept(held, data)
    if held is None:
        # It replaces the roots that were given: it must not cut this device off from its own site.
        own = bundle.bundle.site(identity.site_id)
        if not own.authorities:
            raise CertificateError("the trust bundle lists no site CA of this site", reason="lockout")
    with DeviceFolder.open_for_writing(path) as folder:
        # Read again under the lock: another process may have come further meanwhile. Versions never go back.
        present = stored_bundle(path)
        if present is not None and present.version >= bundle.version:
            return present
        folder.write_bundle(data)
    return bundle


def report_of(identity: DeviceIdentity) -> Report:
    """What this device has to report now (SC-21)."""
    bundle = identity.bundle
    return Report(
        bundle_version=0 if bundle is None else bundle.version,
        bundle_hash=bytes(32) if bundle is None else bundle.hash,
        serial=f"{identity.serial:x}",
    )
