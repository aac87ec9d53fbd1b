"""The authority behind the EST listener: who is admitted, and by what (SC-23 to SC-30).

Explicit and implicit trust anchors are kept apart (RFC 7030 section 3.6): a certificate under this site's
root is judged by the engine's validator and renews itself; one under a maker's root is judged by `pki.idevid`
and opens a first enrolment alone.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.orm import Session

from sealcast.authority import admins, audit, enrolment, renewal, settlement
from sealcast.authority.changes import Changes
from sealcast.authority.enrolment import Admission, Waiting
from sealcast.authority.enrolment_batch import AdminTokenError, First, Gathering, Renewal
from sealcast.authority.est_state import EstState
from sealcast.ca import KeySigner
from sealcast.errors import CertificateError, EnrolmentError, TokenError
from sealcast.est.attributes import (
    CHALLENGE_PASSWORD,
    COMMON_NAME,
    ECDSA_WITH_SHA256,
    SECP256R1,
    CsrAttributes,
    RequestTemplate,
    WantedAttribute,
)
from sealcast.est.renewal import CertificateId, RenewalWindow
from sealcast.est.service import EnrolmentRequest, GeneratedKey
from sealcast.est.settings import EstSettings
from sealcast.pki.certificates import certificate_identity, has_usage, parse_certificate
from sealcast.pki.csr import CertificateRequest
from sealcast.pki.idevid import Maker, NameRule, VerifiedIdevid, find_maker
from sealcast.pki.names import Role
from sealcast.pki.profiles import REGISTRATION_AUTHORITY
from sealcast.pki.signed import PublicKey
from sealcast.pki.validator import VerifiedPeer

if TYPE_CHECKING:
    from sealcast.authority.service import Authority

Result = TypeVar("Result")


class EstService:
    """Satisfies `sealcast.est.EnrolmentService`."""

    def __init__(self, authority: "Authority") -> None:
        """Take the running authority; `install` brings the state."""
        self._authority = authority
        self._state = EstState()
        self._gathering = Gathering(lambda: authority.site, authority.clock, authority.apply)
        # Called when settings or makers have changed; the listener adapts its TLS context.
        self.on_change: list[Callable[[], None]] = []

    # --- state ----------------------------------------------------------------------------------------------

    @property
    def settings(self) -> EstSettings:
        """The switches in force."""
        return self._state.settings

    def install(self, state: EstState) -> None:
        """Put in force what has been stored."""
        self._state = state
        for changed in self.on_change:
            changed()

    def tls_authorities(self) -> Sequence[bytes]:
        """DER: under what the listener admits client certificates.

        A maker that was removed may stay in a context that is in use: its certificates then pass the
        handshake, and are refused by every operation.
        """
        makers = [der for maker in self._makers() for der in maker.certificates]
        return (*self._authority.tls_authorities(), *makers)

    def _makers(self) -> tuple[Maker, ...]:
        """Those that the operator has added, and those of the trust bundle (TR-21), whose devices wait for
        his approval.
        """
        bundle = self._authority.bundle
        added = {maker.root for maker in self._state.makers}
        told = () if bundle is None else bundle.bundle.makers()
        return (
            *self._state.makers,
            *(
                Maker(root=anchor.certificate, issuers=(), crls=(), rule=NameRule.APPROVAL)
                for anchor in told
                if anchor.covers(self._authority.site.site_id) and anchor.certificate not in added
            ),
        )

    # --- what anyone may ask --------------------------------------------------------------------------------

    def labels(self) -> Collection[str]:
        """The id of the site, which outlives its CA's key, and those that the operator gave."""
        return (self._authority.site.site_id.hex(), *self.settings.labels)

    def ca_certificates(self, label: str | None = None) -> Sequence[bytes]:
        """DER: roots and site CAs; during a change of the root also what leads from one to the other."""
        site, bundle = self._authority.site, self._authority.bundle
        owners = () if bundle is None else bundle.bundle.owners()
        listed = [anchor.certificate for anchor in owners if anchor.covers(site.site_id)]
        return tuple(dict.fromkeys([*site.roots, *listed, *self._state.crosses, *site.issuers]))

    def csr_attributes(self, label: str | None = None) -> CsrAttributes:
        """A common name to be filled in, and a P-256 key."""
        wanted = (WantedAttribute.key(SECP256R1), ECDSA_WITH_SHA256)
        if self.settings.linking_required:
            # Without a template: who reads one ignores the list, and it cannot say that a value is that of
            # the session.
            return CsrAttributes(wanted=(CHALLENGE_PASSWORD, *wanted))
        template = RequestTemplate(subject=((COMMON_NAME, None),), curve=SECP256R1)
        return CsrAttributes(wanted=wanted, template=template)

    async def renewal_window(self, certificate_id: CertificateId) -> RenewalWindow | None:
        """When to renew a certificate of this site."""

        return await self._authority.read(lambda session: renewal.renewal_window(session, certificate_id))

    # --- enrolment ------------------------------------------------------------------------------------------

    def is_registration_authority(self, certificate: bytes) -> bool:
        """Whether this DER certificate is of this site, good, and names id-kp-cmcRA (RFC 6402)."""
        if not has_usage(parse_certificate(certificate), REGISTRATION_AUTHORITY):
            return False
        try:
            self._verify_own(certificate, self._authority.clock())
        except CertificateError:
            return False
        return True

    async def enroll(self, request: EnrolmentRequest) -> bytes:
        """Certify a device, and sign the policies that it now belongs to."""
        if request.name is not None and request.token and not self.settings.approve_tokens:
            first = First(device=request.name, token=request.token, csr=request.csr)
            with contextlib.suppress(AdminTokenError):
                return await self._gathering.ask(first)
        return await self._first(request, None)

    async def generate(self, request: EnrolmentRequest) -> GeneratedKey:
        """As `enroll`, with a key made here."""
        signer = await asyncio.to_thread(KeySigner.generate)
        certificate = await self._first(request, signer.public_key)
        return GeneratedKey(certificate=certificate, private_key=signer.to_pkcs8())

    async def reenroll(self, request: EnrolmentRequest) -> bytes:
        """Certify anew the holder of a certificate; chain, role and revocation are judged here."""
        current, csr, now = _certificate(request), request.csr, self._authority.clock()
        if _role(current) is Role.ADMIN:
            return await self._renew_admin(current, csr, now)
        peer = self._verify_own(current, now)
        if csr.common_name == peer.name or not self.is_registration_authority(current):
            return await self._gathering.ask(Renewal(device=peer.name, current=current, csr=csr))

        def job(session: Session) -> tuple[bytes, Changes]:
            audit.act_as(session, f"device:{peer.name}")
            issuer = self._authority.site.issuer
            issued = enrolment.renew_for(session, issuer, registrar=current, csr=csr, now=now)
            return issued.der, Changes()

        return await self._authority.apply(job)

    async def _first(self, request: EnrolmentRequest, generated: PublicKey | None) -> bytes:
        now, csr = self._authority.clock(), request.csr
        own, idevid = None, None
        if request.name is None:
            own, idevid = self._judge_certificate(_certificate(request), now)
            if own is not None and (
                csr.common_name == own.name or not self.is_registration_authority(_certificate(request))
            ):
                return await self._by_own_certificate(own.name, request, generated, now)

        def job(session: Session) -> tuple[bytes | Waiting, Changes]:
            if request.name is not None and enrolment.token_kind(session, request.token) is Role.ADMIN:
                return self._enrol_admin(session, request, generated, now)
            # As it is when this has its turn: another site CA may issue by then.
            site = self._authority.site
            admission = self._admit(session, request, idevid, now)
            audit.act_as(session, f"device:{admission.registrar or admission.device}")
            result = enrolment.enrol(session, site.issuer, admission, csr, generated=generated, now=now)
            if isinstance(result, Waiting):
                return result, Changes()
            session.flush()
            changed = settlement.settle_devices(session, site, [admission.device], now)
            return result, Changes(channels=changed, readmitted=frozenset([admission.device]))

        result = await self._authority.apply(job)
        if isinstance(result, Waiting):
            raise EnrolmentError("an operator has to approve it", retry_after=result.retry_after)
        return result

    def _admit(
        self,
        session: Session,
        request: EnrolmentRequest,
        idevid: VerifiedIdevid | None,
        now: int,
    ) -> Admission:
        if request.name is not None:
            if not request.token:
                if not self.settings.open_requests:
                    raise TokenError("the token is empty")
                return enrolment.admit_without_credential(request.name)
            return enrolment.admit_by_token(
                session,
                device=request.name,
                token=request.token,
                key_hash=request.csr.key_hash,
                needs_approval=self.settings.approve_tokens,
                now=now,
            )
        if idevid is not None:
            return enrolment.admit_by_maker(session, idevid, request.csr, self._makers())
        return enrolment.admit_by_registrar(session, registrar=_certificate(request), csr=request.csr)

    async def _by_own_certificate(
        self, name: str, request: EnrolmentRequest, generated: PublicKey | None, now: int
    ) -> bytes:
        """A device that holds a good certificate may ask for another one in its own name (SC-27)."""

        def job(session: Session) -> tuple[bytes, Changes]:
            audit.act_as(session, f"device:{name}")
            issued = enrolment.renew(
                session,
                self._authority.site.issuer,
                current=_certificate(request),
                csr=request.csr,
                generated=generated,
                same_subject=False,
                now=now,
            )
            return issued.der, Changes()

        return await self._authority.apply(job)

    def _judge_certificate(
        self, certificate: bytes, now: int
    ) -> tuple[VerifiedPeer | None, VerifiedIdevid | None]:
        """Tell a certificate of this site from a maker's; the two never stand for each other."""
        try:
            return self._verify_own(certificate, now), None
        except CertificateError as refusal:
            if _role(certificate) is not None:
                # It claims to be one of ours, or of another site: no maker may vouch for that.
                raise
            makers = self._makers()
            try:
                return None, find_maker(makers, certificate, now)
            except CertificateError as error:
                raise (error if makers else refusal) from None

    def _verify_own(self, certificate: bytes, now: int) -> VerifiedPeer:
        authority = self._authority
        peer = authority.validator.verify_peer([certificate], Role.DEVICE, now, authority.crl.der)
        if peer.site_id != authority.site.site_id:
            raise CertificateError(f"device {peer.name!r} is of another site", reason="wrong-site")
        return authority.judge(peer)

    # --- admins ---------------------------------------------------------------------------------------------

    def _enrol_admin(
        self, session: Session, request: EnrolmentRequest, generated: PublicKey | None, now: int
    ) -> tuple[bytes, Changes]:
        name = request.name or ""
        if generated is not None:
            raise EnrolmentError("the key of an admin is made by the admin")
        audit.act_as(session, f"admin:{name}")
        row = enrolment.check_token(session, device=name, token=request.token, now=now, kind=Role.ADMIN)
        issued = admins.enrol_admin(session, self._authority.site.issuer, row, request.csr.der, now)
        session.flush()
        return issued.der, Changes(admins=admins.current_roles(session))

    async def _renew_admin(self, certificate: bytes, csr: CertificateRequest, now: int) -> bytes:
        authority = self._authority
        peer = authority.validator.verify_peer([certificate], Role.ADMIN, now, authority.crl.der)

        def job(session: Session) -> tuple[bytes, Changes]:
            audit.act_as(session, f"admin:{peer.name}")
            issued = admins.renew_admin(
                session, authority.site.issuer, current=certificate, csr=csr.der, name=peer.name, now=now
            )
            return issued.der, Changes()

        return await authority.apply(job)


def _certificate(request: EnrolmentRequest) -> bytes:
    if request.certificate is None:
        raise EnrolmentError("a TLS client certificate is needed")
    return request.certificate


def _role(certificate: bytes) -> Role | None:
    """The role in the identity that a certificate claims; None if it claims none."""
    try:
        return certificate_identity(parse_certificate(certificate)).role
    except CertificateError:
        return None
