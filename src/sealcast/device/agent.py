"""The device agent: keeps a device's folder fresh, so that nobody who uses it meets an expired certificate.

One agent looks after a folder: `sealcast device run`, or an application that links it in. All others read the
folder and notice by themselves. Spec: spec/trust.md section 5 and TR-29, spec/side-channel.md SC-19 to SC-22.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from sealcast import system
from sealcast.device.documents import Documents, sync_documents
from sealcast.device.enrolment import new_token_cure, recover_async, renew_async
from sealcast.device.floors import read_signed_time, take_signed_time
from sealcast.device.folder import AGENT_LOCK
from sealcast.device.identity import DeviceIdentity
from sealcast.device.trust import report_of, sync_trust
from sealcast.errors import CertificateError, NetworkError, SealcastError, StorageError
from sealcast.est import EstClient
from sealcast.pki.ends import warnings
from sealcast.pki.files import PRIVATE, storage_errors
from sealcast.pki.names import Role
from sealcast.pki.times import system_time, to_datetime
from sealcast.sidechannel.client import KeyServerClient
from sealcast.sidechannel.messages import Report

log = logging.getLogger(__name__)

LOOK_SECONDS = 60.0
"""How often the authority is asked what is new, jittered; a rotation waits as long for its devices."""

_RETRY_SECONDS = (1.0, 2.0, 5.0, 15.0, 60.0)
"""After failures in a row, jittered; the last goes on."""

REPORT_AGAIN = 3_600_000_000
"""Microseconds after which a report is made again: an authority that was restored may have lost it."""

CLOCK_WARNING = 600_000_000
"""Microseconds by which clocks of devices and authorities differ without a word."""

FINAL_REASONS = frozenset({"revoked", "expired", "unknown-certificate"})
"""Verdicts that no waiting changes: an operator has to act. A wrong clock (`time`) may be set right."""

_LOCKED_OUT = frozenset({"not-authenticated", "refused", "unknown-issuer"})
"""Verdicts that may pass, as in the midst of a rotation, but by no renewal if they do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStatus:
    """What the agent has just found or done."""

    identity: DeviceIdentity
    renewed: bool = False
    """A new certificate is in force."""
    bundle_changed: bool = False
    """A later trust bundle is in force."""
    documents: Documents
    """CRL and policies that are held."""
    documents_changed: bool = False
    """One of them is new, or gone."""
    refusal: CertificateError | None = None
    """Why a CRL or policy that the authority offers was not taken."""


class DeviceAgent:
    """Looks after one device's folder until it is closed.

    async with DeviceAgent("/var/lib/sealcast/bed12") as agent:
        await agent.run()
    """

    def __init__(
        self,
        path: Path | str,
        *,
        look_seconds: float = LOOK_SECONDS,
        clock: Callable[[], int] = system_time,
        on_status: Callable[[AgentStatus], None] | None = None,
    ) -> None:
        """Take the folder of an enrolled device.

        Args:
            path: the folder.
            look_seconds: between two looks at the authority.
            clock: microseconds since the epoch.
            on_status: is told what each look has brought.
        """
        self._path = Path(path)
        self._look_seconds = look_seconds
        self._clock = clock
        self._on_status = on_status
        self._lock: int | None = None
        self._reported: Report | None = None
        self._reported_at = 0
        self._warned: tuple[str, ...] = ()
        self._refused = ""
        self._wake = asyncio.Event()

    async def __aenter__(self) -> Self:
        DeviceIdentity.open(self._path)
        self._take_lock()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def run(self) -> None:
        """Look after the folder until cancelled.

        Raises: CertificateError: only an operator can help, as when the device was revoked.
        """
        failures = 0
        while True:
            try:
                status = await self.look()
            except CertificateError as error:
                if error.reason in FINAL_REASONS:
                    raise
                failures = self._note(error, failures)
            except SealcastError as error:
                failures = self._note(error, failures)
            else:
                failures = 0
                if self._on_status is not None:
                    self._on_status(status)
            await self._rest(failures)

    async def look(self) -> AgentStatus:
        """Do once what is due: recover or renew the certificate, walk the trust bundle, report, and fetch CRL
        and policies.

        It is renewed earlier than by its life where the authority asks for that, as in a rotation.

        Raises: SealcastError: something did not work; what was done before it stays done.
        """
        try:
            return await self._look()
        except CertificateError as error:
            if error.reason in _LOCKED_OUT:
                error.cure = new_token_cure(Role.DEVICE)
            raise

    async def _look(self) -> AgentStatus:
        before = DeviceIdentity.open(self._path)
        identity = before
        self._warn(before)
        before.check_roots(self._date())
        if self._date() >= identity.not_after:
            identity = await recover_async(self._path, now=self._date())
        elif self._date() >= await self._renewal_time(identity):
            identity = await renew_async(self._path, now=self._date())
        if identity.serial != before.serial or not read_signed_time(self._path):
            take_signed_time(self._path, identity.not_before, self._clock())
        held = Documents.read(self._path, identity.site_id)
        known = None if held.crl is None else held.crl.document
        async with KeyServerClient(identity, crl=lambda: known, clock=self._date) as client:
            identity = await sync_trust(self._path, client, wall=self._clock())
            report, now = report_of(identity), self._clock()
            if report != self._reported or abs(now - self._reported_at) >= REPORT_AGAIN:
                await client.report(report)
                self._reported, self._reported_at = report, now
            refusal = await self._fetch_documents(client, identity)
        documents = Documents.read(self._path, identity.site_id)
        return AgentStatus(
            identity=identity,
            renewed=identity.serial != before.serial,
            bundle_changed=identity.bundle != before.bundle,
            documents=documents,
            documents_changed=documents != held,
            refusal=refusal,
        )

    def wake(self) -> None:
        """Look at once: somebody has heard of news."""
        self._wake.set()

    # -- inside ----------------------------------------------------------------------------------------------

    def _date(self) -> int:
        """What validity goes by: the clock, or the latest signed time where that is later (TR-27)."""
        return max(self._clock(), read_signed_time(self._path))

    async def _fetch_documents(
        self, client: KeyServerClient, identity: DeviceIdentity
    ) -> CertificateError | None:
        """Fetch CRL and policies; what is refused of them keeps nothing else from being done."""
        try:
            await sync_documents(self._path, client, identity, now=self._date(), wall=self._clock())
        except CertificateError as error:
            if str(error) != self._refused:
                log.warning("device folder %s: %s (%s)", self._path, error, error.cure)
            self._refused = str(error)
            return error
        self._refused = ""
        return None

    async def _renewal_time(self, identity: DeviceIdentity) -> int:
        """When to renew, by the certificate's life or by the authority's hint (SC-30), if that is earlier."""
        by_life = identity.renewal_time()
        if self._date() >= by_life:
            return by_life
        try:
            client = EstClient(identity.authority_url, identity.roots, authorities=identity.issuers)
            hint = await client.renewal_info(identity.certificate)
        except SealcastError as error:
            log.debug("device folder %s: no renewal hint: %s", self._path, error)
            return by_life
        if hint is None:
            return by_life
        # The moment in the window follows from the certificate, as every look and every start asks anew.
        return min(by_life, hint.window.choose(random.Random(identity.serial).random()))  # noqa: S311

    def _take_lock(self) -> None:
        path = self._path / AGENT_LOCK
        with storage_errors(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE)
        try:
            is_held = system.lock(descriptor)
        except OSError:
            is_held = False
        if not is_held:
            os.close(descriptor)
            raise StorageError(
                str(self._path),
                "another agent looks after this folder",
                cure="end one of them; applications can use the folder beside a running agent",
            )
        self._lock = descriptor

    def _warn(self, identity: DeviceIdentity) -> None:
        """Say what ends soon in the whole chain, once a day, in the last days hourly."""
        lines = warnings(identity.ends(), self._date())
        wall, signed = self._clock(), read_signed_time(self._path)
        if wall + CLOCK_WARNING < signed:
            told = to_datetime(signed).strftime("%Y-%m-%dT%H:%M:%SZ")
            lines = (f"the clock is wrong: it stands before {told}, when the site signed; set it", *lines)
        for line in lines:
            if line not in self._warned:
                log.warning("device folder %s: %s", self._path, line)
        self._warned = lines

    def _note(self, error: SealcastError, failures: int) -> int:
        level = logging.INFO if isinstance(error, NetworkError) and not failures else logging.WARNING
        log.log(level, "device folder %s: %s (%s)", self._path, error, error.cure)
        return failures + 1

    async def _rest(self, failures: int) -> None:
        seconds = self._look_seconds
        if failures:
            seconds = min(seconds, _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS)) - 1])
        # A whole fleet that is switched on at one moment must not ask at one moment for ever.
        seconds *= random.uniform(0.75, 1.25)  # noqa: S311
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()
