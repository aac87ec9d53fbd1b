"""First certificates by token, and renewals, many in one transaction.

When a whole site is switched on, hundreds of devices ask within seconds. Those that ask while one transaction
is made share the next one: its waits for the disk, and one new version of each policy. Nobody is answered
before all of it is durable; who is refused is refused alone.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from sealcast.authority import audit, enrolment, settlement
from sealcast.authority.approvals import Credential
from sealcast.authority.changes import Changes
from sealcast.authority.issuance import certificate_row
from sealcast.authority.models import CertificateRow, DeviceRow, TokenRow
from sealcast.authority.site import Site
from sealcast.ca import DeviceRequest, IssuedCertificate
from sealcast.errors import SealcastError, TokenError
from sealcast.pki.certificates import parse_certificate
from sealcast.pki.csr import CertificateRequest
from sealcast.pki.names import Role

MAX_BATCH = 32
"""Requests in one transaction; what comes after it (a removal) waits no longer than that takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class First:
    """A first certificate by a one-time token that needs no approval."""

    device: str
    token: str = field(repr=False)
    csr: CertificateRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """A successor of a certificate whose chain has been verified, in the same name."""

    device: str
    current: bytes
    """DER."""
    csr: CertificateRequest


class AdminTokenError(TokenError):
    """The token makes no device; it is for the caller to go another way."""


Asked = First | Renewal
Outcome = bytes | SealcastError
"""The DER certificate, or why there is none."""


def certify_all(
    session: Session, site: Site, asked: Sequence[Asked], now: int
) -> tuple[list[Outcome], Changes]:
    """Certify those that may be certified, each of another device; token and renewal rules are those of
    `enrolment`.
    """
    # The session finds by their keys the rows that are held here.
    tokens, _certificates, known = _load_together(session, asked)
    judged = [_judge(session, each, now) for each in asked]
    issued = iter(
        site.issuer.issue_devices([each for each in judged if isinstance(each, DeviceRequest)], now)
    )
    outcomes = [next(issued) if isinstance(each, DeviceRequest) else each for each in judged]
    done = [
        (each, outcome)
        for each, outcome in zip(asked, outcomes, strict=True)
        if isinstance(outcome, IssuedCertificate)
    ]
    session.add_all(certificate_row(outcome) for _, outcome in done)
    # Tokens refer to them.
    session.flush()
    enrolled = []
    for each, outcome in done:
        serial = f"{outcome.serial:x}"
        audit.act_as(session, f"device:{each.device}")
        if isinstance(each, Renewal):
            known[each.device].ends = outcome.not_after
            audit.record(session, now, "renew device", each.device, serial=serial)
            continue
        token = tokens[enrolment.token_hash(each.token)]
        token.used, token.serial = now, serial
        enrolment.enter_device(
            session, known.get(each.device), outcome, now, roles=token.roles, maker_key=None
        )
        enrolment.record_enrolment(
            session, each.device, now, serial=serial, by=str(Credential.TOKEN), generated=False
        )
        enrolled.append(each.device)
    if len(done) > 1:
        # What follows is of no single one of them.
        audit.act_as(session, audit.AUTHORITY)
    changed = settlement.settle_devices(session, site, enrolled, now) if enrolled else []
    changes = Changes(channels=changed, readmitted=frozenset(enrolled))
    return [each.der if isinstance(each, IssuedCertificate) else each for each in outcomes], changes


def _load_together(
    session: Session, asked: Sequence[Asked]
) -> tuple[Mapping[bytes, TokenRow], Mapping[str, CertificateRow], Mapping[str, DeviceRow]]:
    """All rows that will be asked for, by their keys; one question for each table."""
    hashes = [enrolment.token_hash(each.token) for each in asked if isinstance(each, First)]
    serials = [
        f"{parse_certificate(each.current).serial_number:x}" for each in asked if isinstance(each, Renewal)
    ]
    names = [each.device for each in asked]
    return (
        {row.hash: row for row in session.scalars(select(TokenRow).where(TokenRow.hash.in_(hashes)))},
        {
            row.serial: row
            for row in session.scalars(select(CertificateRow).where(CertificateRow.serial.in_(serials)))
        },
        {row.name: row for row in session.scalars(select(DeviceRow).where(DeviceRow.name.in_(names)))},
    )


def _judge(session: Session, asked: Asked, now: int) -> DeviceRequest | SealcastError:
    try:
        if isinstance(asked, Renewal):
            enrolment.check_register(session, asked.current)
            return DeviceRequest(csr=asked.csr, current=asked.current)
        if enrolment.token_kind(session, asked.token) is Role.ADMIN:
            return AdminTokenError("the token is of an admin")
        token = enrolment.check_token(
            session, device=asked.device, token=asked.token, key_hash=asked.csr.key_hash, now=now
        )
        return DeviceRequest(csr=asked.csr, name=asked.device, registers=token.registers)
    except SealcastError as error:
        return error


class Change(Protocol):
    """Makes a change in one transaction and puts it in force: `Authority.apply`."""

    async def __call__(self, job: Callable[[Session], tuple[list[Outcome], Changes]]) -> list[Outcome]: ...


class Gathering:
    """Requests that wait until the transaction before them is made, and then share one."""

    def __init__(self, site: Callable[[], Site], clock: Callable[[], int], change: Change) -> None:
        """Take what makes a change, and the clock in microseconds; `site`: as it is then, as its issuer may
        have been exchanged.
        """
        self._site = site
        self._clock = clock
        self._change = change
        self._waiting: list[tuple[Asked, asyncio.Future[Outcome]]] = []
        self._running: asyncio.Task[None] | None = None

    async def ask(self, asked: Asked) -> bytes:
        """The DER certificate, once it is durable. Raises: SealcastError, as `enrolment`'s functions."""
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, answer))
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._work())
        outcome = await answer
        if isinstance(outcome, SealcastError):
            raise outcome
        return outcome

    async def _work(self) -> None:
        try:
            while self._waiting:
                if batch := self._take():
                    await self._certify(batch)
        finally:
            self._running = None

    def _take(self) -> list[tuple[Asked, asyncio.Future[Outcome]]]:
        """The next batch: one request of a device; its second one sees what became of the first."""
        batch: dict[str, tuple[Asked, asyncio.Future[Outcome]]] = {}
        later = []
        for asked, answer in self._waiting:
            if answer.cancelled():
                continue
            if len(batch) < MAX_BATCH and asked.device not in batch:
                batch[asked.device] = asked, answer
            else:
                later.append((asked, answer))
        self._waiting = later
        return list(batch.values())

    async def _certify(self, batch: list[tuple[Asked, asyncio.Future[Outcome]]]) -> None:
        requests, now = [asked for asked, _ in batch], self._clock()
        outcomes: Sequence[Outcome | Exception]
        try:
            outcomes = await self._change(lambda session: certify_all(session, self._site(), requests, now))
        except asyncio.CancelledError:
            for _, answer in batch:
                answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - handed to everyone who waits
            outcomes = [error] * len(batch)
        for (_, answer), outcome in zip(batch, outcomes, strict=True):
            if answer.done():
                continue
            if isinstance(outcome, bytes | SealcastError):
                answer.set_result(outcome)
            else:
                answer.set_exception(outcome)
