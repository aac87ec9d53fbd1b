"""The authority at work: enrolment, channels, keys, revocation, over one database.

Every change is one transaction in the storage worker; its result is installed on the event loop before anyone
else runs there (`StorageWorker.run`). So after a change has returned, no answer is made from what was before:
after a removal, no later key goes to the removed device.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from sqlalchemy.orm import Session

from sealcast.authority import (
    admins,
    audit,
    bundles,
    channels,
    directory,
    endpoints,
    enrolment,
    issuance,
    other_sites,
    policies,
    restore,
    revocation,
    rotation_bundle,
    rotation_state,
    settlement,
)
from sealcast.authority.arrangement import settle
from sealcast.authority.changes import Changes as Changes
from sealcast.authority.changes import revoked_devices
from sealcast.authority.channels import ChannelSettings
from sealcast.authority.directory import StoredStream
from sealcast.authority.est_service import EstService
from sealcast.authority.est_state import load_state
from sealcast.authority.in_force import InForce
from sealcast.authority.joins import JoinGathering
from sealcast.authority.models import SiteRow
from sealcast.authority.policies import PolicyChange
from sealcast.authority.site import Site
from sealcast.authority.storage import StorageWorker
from sealcast.authority.stored_channel import channel_row, load_channel
from sealcast.ca import IssuedCertificate, Permit
from sealcast.errors import CertificateError, SealcastError, UsageError
from sealcast.keys import COUNTER_RESERVE, MemberKey, MemberRole
from sealcast.keys.epochs import RESTORE_JUMP
from sealcast.pki.names import member_name
from sealcast.pki.policy_rules import check_roles
from sealcast.pki.policy_source import PolicySource
from sealcast.pki.renewal_proof import RenewalProof
from sealcast.pki.times import system_time
from sealcast.pki.validator import VerifiedPeer
from sealcast.sidechannel.messages import Report

_log = logging.getLogger("sealcast.authority")

_READERS = 4
"""Reads of the management API at once: each has a thread and a connection of its own."""

Result = TypeVar("Result")


class Authority(InForce):
    """The service behind the listeners; what concerns enrolment is in `est`."""

    def __init__(self, site: Site, clock: Callable[[], int] = system_time) -> None:
        """Prepare; `start` reads the database.

        Args:
            site: its folder.
            clock: microseconds since the epoch.
        """
        super().__init__(site, clock)
        self.est = EstService(self)
        self._worker = StorageWorker()
        # The last certificate that each device of another site has shown, by its hash.
        self._guests: dict[str, bytes] = {}
        self._joins: dict[str, JoinGathering] = {}
        self._readers = asyncio.Semaphore(_READERS)
        self._told_audit = False
        self._is_settled = False

    # --- life -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Read the database and make every channel ready.

        Raises:
            StorageError: it cannot be read or written.
        """
        now = self.clock()
        await asyncio.to_thread(self.site.storage.hold)

        def job(session: Session) -> tuple[bool, Changes]:
            row = session.get_one(SiteRow, 1)
            lost = restore.lost_head(session, self.site.folder)
            restored = row.restored or lost is not None
            changed = self._reconcile(session, now, restored=restored)
            # It may have ended while the authority was off: the channels below are certified by it.
            due = self.identity.is_due(now)
            identity = rotation_state.renew_key_server(session, self.site, now) if due else None
            stored = channels.start_channels(session, self.site, now, restored=restored)
            crl = revocation.load_crl(session)
            if restored or changed or crl.is_due(now):
                jump = RESTORE_JUMP if restored else 0
                crl = revocation.issue_crl(session, self.site.issuer, now, jump=jump)
            if restored:
                restore.pass_over(session, self.site.folder, self.site.name, now, asked=row.restored)
            if lost is not None and not row.restored:
                _log.warning("the database is older than %s: numbers used since are left out", lost)
            asked, row.restored = row.restored, False
            changes = Changes(
                channels=stored,
                crl=crl,
                revoked=revoked_devices(session),
                admins=admins.current_roles(session),
                bundle=bundles.load_bundle(session),
                est=load_state(session),
                identity=identity,
            )
            return asked, changes

        asked = await self.apply(job)
        # What was only noticed may be a log that was cut: it stays to be seen until somebody says otherwise.
        await self.keep_audit_head(accept=asked)

    async def stop(self) -> None:
        """Finish what is being stored; nothing may be asked afterwards."""
        self.end_polls()
        try:
            await self.keep_audit_head()
        finally:
            await asyncio.to_thread(self._close)

    # --- recovery (RecoveryService) -------------------------------------------------------------------------

    async def recover(self, proof: RenewalProof) -> bytes:
        """Certify anew the holder of an expired certificate, within the grace (SC-22)."""
        now = self.clock()

        def job(session: Session) -> bytes:
            return enrolment.recover(
                session,
                self.site.issuer,
                proof=proof,
                grace=self.est.settings.recovery_grace_us,
                now=now,
            )

        try:
            return await self._change(job)
        except CertificateError as error:
            if error.reason == enrolment.SUPERSEDED:
                # Somebody has a key that was the device's: an operator may want to know.
                _log.warning("a recovery is refused, a copy of the device asks for it: %s", error.problem)
            raise

    # --- the operator ---------------------------------------------------------------------------------------

    async def create_token(
        self, device: str, ttl: int, roles: Sequence[str] | None = None, *, registers: bool = False
    ) -> str:
        """Make a one-time token; `ttl` in microseconds, the others as enrolment takes them."""
        now = self.clock()

        def job(session: Session) -> str:
            if registers:
                issuance.permit(session, self.site.issuer, Permit.REGISTRATION_AUTHORITY, device, now)
            issuance.readmit(session, self.site.issuer, device, now)
            return enrolment.create_token(
                session, device=device, ttl=ttl, now=now, roles=roles, registers=registers
            )

        return await self._change(job)

    async def add_channel(self, settings: ChannelSettings) -> None:
        """Make a channel; it is served at once."""
        now = self.clock()

        def job(session: Session) -> Changes:
            return Changes(channels=[channels.add_channel(session, self.site, settings, now)])

        await self._change(job, self.install)

    async def set_members(
        self, name: str, publish: tuple[str, ...] | None, subscribe: tuple[str, ...] | None
    ) -> None:
        """Replace a channel's globs; who no longer matches is removed under a fresh generation."""
        now = self.clock()

        def job(session: Session) -> Changes:
            stored = channels.set_members(
                session, self.site, name, publish=publish, subscribe=subscribe, now=now
            )
            return Changes(channels=[stored])

        await self._change(job, self.install)

    async def import_bundle(self, data: bytes) -> int:
        """Take a signed version of the trust bundle; members are told of it at once. Returns: its number.

        Raises: CertificateError: it does not follow from the one in force, or would cut this site off.
        """
        now = self.clock()

        def job(session: Session) -> tuple[int, Changes]:
            bundle, changes = rotation_bundle.import_bundle(session, self.site, data, now)
            return bundle.version, changes

        return await self.apply(job)

    async def import_crl(self, der: bytes) -> int:
        """Take a CRL of another site (DER); members are told at once, and whom it names is removed.

        Returns: its number. Raises: CertificateError: it is refused.
        """
        now = self.clock()

        def job(session: Session) -> tuple[int, Changes]:
            return import_crl(session, self.site, der, now)

        return await self.apply(job)

    async def crl_sources(self) -> dict[bytes, str]:
        """URL of the authority of each other site whose CRL is fetched."""
        return await self.read(other_sites.sources)

    async def set_roles(self, device: str, roles: Sequence[str]) -> None:
        """Give a device other roles; what policies say of it changes at once."""
        now, checked = self.clock(), check_roles(roles)

        def job(session: Session) -> Changes:
            return Changes(channels=channels.set_roles(session, self.site, device, checked, now))

        await self._change(job, self.install)

    async def apply_policy(self, source: PolicySource, *, force: bool) -> PolicyChange:
        """Make the channels what `source` says; whoever loses access is removed under a fresh generation."""
        now = self.clock()

        def job(session: Session) -> tuple[PolicyChange, Changes]:
            change, stored = policies.apply(session, self.site, source, now, force=force)
            return change, Changes(channels=stored)

        change = await self.apply(job)
        self.channels_changed.set()
        return change

    async def revoke_device(self, name: str) -> bool:
        """Remove a device: when this returns, no later key is handed to it, and members are being told.

        Returns:
            False if it was revoked before.
        """
        now = self.clock()

        def job(session: Session) -> tuple[bool, Changes]:
            return revoke(session, self.site, name, now)

        return await self.apply(job)

    async def apply(self, job: Callable[[Session], tuple[Result, Changes]]) -> Result:
        """Make a change in one transaction and put it in force."""

        def work() -> tuple[Result, Changes]:
            with self.site.storage.transaction() as session:
                done = job(session)
            self._follow(done[1])
            return done

        result, _ = await self._worker.run(work, lambda done: self.install(done[1]))
        return result

    def install(self, changes: Changes) -> None:
        """Put in force what a transaction has stored, enrolment included; on the event loop."""
        super().install(changes)
        if changes.est is not None:
            self.est.install(changes.est)

    async def read(self, job: Callable[[Session], Result]) -> Result:
        """Read one state of the database, beside the changes."""

        def work() -> Result:
            with self.site.storage.snapshot() as session:
                return job(session)

        async with self._readers:
            return await asyncio.to_thread(work)

    # --- the key server -------------------------------------------------------------------------------------

    async def bundle_bytes(self, version: int) -> bytes | None:
        """A version of the trust bundle as signed; None if there is no such version."""

        def work() -> bytes | None:
            with self.site.storage.snapshot() as session:
                return bundles.bundle_bytes(session, version)

        return await self._worker.run(work)

    async def record_report(self, device: str, report: Report) -> None:
        """Note what a device of this site says that it holds (SC-21). Raises: UsageError: not one of ours."""
        now = self.clock()

        def job(session: Session) -> bool:
            return bundles.record_report(
                session,
                device,
                version=report.bundle_version,
                digest=report.bundle_hash,
                serial=report.serial,
                now=now,
            )

        if not await self._change(job):
            raise UsageError(
                f"there is no version {report.bundle_version} of the trust bundle with the hash "
                f"{report.bundle_hash.hex()}"
            )

    async def put_endpoint(self, device: str, endpoint: tuple[str, int] | None) -> None:
        """Store where a device takes messages of its peers; None: nowhere."""
        now = self.clock()
        await self._change(lambda session: endpoints.put_endpoint(session, device, endpoint, now))

    async def endpoint_of(self, device: str) -> tuple[str, int] | None:
        """Where a device takes messages of its peers."""
        return await self.read(lambda session: endpoints.endpoint_of(session, device))

    async def join(self, name: str, device: str, role: MemberRole) -> None:
        """Admit a device; returns when that is stored and in force (SC-6).

        The caller authorises before and once more after, as the device may be removed meanwhile.
        """
        gathering = self._joins.get(name)
        if gathering is None:
            gathering = self._joins[name] = JoinGathering(partial(self._admit, name), self.clock)
        await gathering.join(device, role)

    async def _admit(self, name: str, joins: tuple[MemberKey, ...]) -> None:
        """Store a batch of joins and put it in force."""
        now = self.clock()

        def job(session: Session) -> Changes:
            return Changes(channels=[channels.admit(session, self.site, name, joins, now)])

        await self._change(job, self.install)

    async def note_guest(self, peer: VerifiedPeer, certificate: bytes) -> None:
        """Note by which certificate (DER) a device of another site was just let in, if that is new: by it a
        list of that site is known to mean a member.
        """
        device = member_name(self.site.site_id, peer.site_id, peer.name)
        if peer.site_id == self.site.site_id or self._guests.get(device) == peer.certificate_hash:
            return
        now = self.clock()

        def install(_: None) -> None:
            self._guests[device] = peer.certificate_hash

        await self._change(lambda session: other_sites.note_guest(session, device, certificate, now), install)

    async def leave(self, name: str, device: str) -> None:
        """Note that a device leaves."""
        now = self.clock()

        def job(session: Session) -> Changes:
            return Changes(channels=[channels.leave(session, self.site, name, device, now)])

        await self._change(job, self.install)

    async def put_stream(self, name: str, entry: StoredStream) -> None:
        """Store an entry of the directory."""
        now = self.clock()

        def job(session: Session) -> Changes:
            row = channel_row(session, name)
            directory.put_stream(session, name, entry, now)
            session.flush()
            return Changes(channels=[load_channel(session, self.site, row)])

        await self._change(job, self.install)

    # --- upkeep (maintenance.py) ----------------------------------------------------------------------------

    async def turn_slots(self) -> None:
        """Move slots on to the present time."""
        now = self.clock()
        await self._change(
            lambda session: Changes(channels=channels.turn_slots(session, self.site, now)), self.install
        )

    async def renew_objects(self) -> None:
        """Sign policies and CRL anew when due, remove members that expired, reserve beacon counters, revoke
        what was signed and not recorded.
        """
        now = self.clock()
        low = [channel.name for channel in self.all_channels() if channel.counter_runs_low]

        def reserve(session: Session) -> Changes:
            directory.drop_ended(session, now)
            endpoints.drop_unlisted(session, lambda device: bool(self.channels_of(device)))
            changed = []
            for name in low:
                row = channel_row(session, name)
                row.beacon_limit += COUNTER_RESERVE
                session.flush()
                changed.append(load_channel(session, self.site, row))
            return Changes(channels=changed)

        def sign(session: Session) -> Changes:
            found = self._reconcile(session, now)
            settle = settlement.settle_all if found else settlement.settle_due
            changed = settle(session, self.site, now)
            dropped = other_sites.drop_unlisted(session, self.bundle, self.site.site_id, now)
            crl = revocation.load_crl(session)
            renewed = crl if dropped else None
            if found or crl.is_due(now):
                renewed = revocation.issue_crl(session, self.site.issuer, now)
            return Changes(channels=changed, crl=renewed, revoked=revoked_devices(session) if found else None)

        # Keys go on while a signer is away.
        await self._change(reserve, self.install)
        await self._change(sign, self.install)
        await self._worker.run(self._settle)

    async def renew_certificate(self) -> None:
        """Give the key server a new key and certificate; open connections go on."""
        now = self.clock()

        def job(session: Session) -> Changes:
            return Changes(identity=rotation_state.renew_key_server(session, self.site, now))

        await self._change(job, self.install)

    async def keep_audit_head(self, *, accept: bool = False) -> None:
        """Renew the copy of the audit log's head; `accept`: also over one that the log does not hold."""

        def work() -> bool:
            with self.site.storage.snapshot() as session:
                return audit.write_head_file(self.site.folder, session, accept=accept)

        if not await asyncio.to_thread(work) and not self._told_audit:
            self._told_audit = True
            _log.error(
                "the audit log lacks the entry that %s names; see: sealcast authority audit verify DIR",
                audit.HEAD_FILE,
            )

    # --- inside ---------------------------------------------------------------------------------------------

    def _reconcile(self, session: Session, now: int, *, restored: bool = False) -> bool:
        own = self.site.key_server().chain[0]
        return issuance.reconcile(
            session,
            self.site.issuer,
            now,
            in_use={IssuedCertificate.of(own).serial: own},
            restored=restored,
        )

    async def _change(
        self, job: Callable[[Session], Result], install: Callable[[Result], None] | None = None
    ) -> Result:
        def work() -> Result:
            with self.site.storage.transaction() as session:
                return job(session)

        return await self._worker.run(work, install)

    def _follow(self, changes: Changes) -> None:
        """Go on with the site as a rotation has stored it, and have the folder's files follow."""
        if changes.site is None:
            return
        # Here, before the next job runs: what is signed after a switch is signed by the new site CA.
        self.site = changes.site
        self._is_settled = False
        try:
            self._settle()
        except SealcastError as error:
            _log.error("the site CA's keys and files do not follow yet, it will be tried again: %s", error)

    def _settle(self) -> None:
        if not self._is_settled:
            settle(self.site.folder, self.site.storage, self.site.issuer)
            self._is_settled = True

    def _close(self) -> None:
        self._worker.close()
        self.site.storage.release()


def revoke(session: Session, site: Site, name: str, now: int) -> tuple[bool, Changes]:
    """The whole removal of a device inside one transaction; also for a command that finds no service
    running.
    """
    crl = revocation.revoke_device(session, site.issuer, name, now)
    changed = settlement.settle_devices(session, site, [name], now)
    return crl is not None, Changes(channels=changed, crl=crl, removed=frozenset([name]))


def import_crl(session: Session, site: Site, der: bytes, now: int) -> tuple[int, Changes]:
    """The whole import of another site's CRL inside one transaction, as `revoke`. Returns: its number."""
    number, is_new = other_sites.import_crls(session, der, bundles.load_bundle(session), site.site_id, now)
    if not is_new:
        return number, Changes()
    changed = settlement.settle_due(session, site, now)
    return number, Changes(channels=changed, crl=revocation.load_crl(session))
