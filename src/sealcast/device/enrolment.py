"""Getting a certificate, and the next one.

The key is made here, is on disk before the authority hears of it, and never leaves. The new credentials are
put in force by one rename after everything that came back has been checked, so an enrolment that is refused,
interrupted or killed leaves the folder as it was. Spec: spec/side-channel.md section 3.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from sealcast import system
from sealcast.ca.signer import KeyKind, KeySigner
from sealcast.device.folder import (
    KEY_FILE,
    RENEWAL_KEY,
    DeviceFolder,
    Stage,
    current_credentials,
    pending_request,
)
from sealcast.device.identity import (
    CERTIFICATE_FILE,
    ISSUERS_FILE,
    ROOTS_FILE,
    SETTINGS_FILE,
    DeviceIdentity,
    DeviceSettings,
)
from sealcast.device.pending import DROP, PendingRequest
from sealcast.errors import (
    CertificateError,
    ConfigError,
    EnrolmentError,
    NetworkError,
    SealcastError,
    StorageError,
    TokenError,
    UsageError,
)
from sealcast.est.client import Enrolled, EstClient, RequestPlan, check_authority_url
from sealcast.pki.certificates import certificates_pem, parse_certificate
from sealcast.pki.files import PRIVATE
from sealcast.pki.names import Role, check_device_name
from sealcast.pki.renewal_proof import RenewalProof
from sealcast.pki.times import system_time


async def enroll_async(
    path: Path,
    *,
    authority_url: str,
    roots: Sequence[bytes],
    name: str,
    token: str | None = None,
    maker: tuple[Path, Path] | None = None,
    patience: float = 0,
    label: str | None = None,
    keys_url: str | None = None,
    now: int | None = None,
    role: Role = Role.DEVICE,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> DeviceIdentity:
    """Enrol a device, or an admin, with a one-time token; also again under the same name, with a new key.

    A request that is not decided yet, or whose answer was lost, is gone on with by the next call, with the
    same key, until `cancel`.

    `path`: its folder, made if need be. `roots`: DER, trusted from now on; no other is. `maker`: in place of
    the token, the PEM files of the maker's certificate and key. `patience`: for how many seconds to wait for
    an operator's approval. `label`: which of the authority's CAs.
    `keys_url`: the key server, by default the port after the authority's. `now`: microseconds. `role`: what
    the token is for. `sleep`: how the wait passes.
    Raises: TokenError, EnrolmentError, CertificateError, NetworkError, StorageError, ConfigError, UsageError.
    """
    check_device_name(name)
    if token is None and maker is None:
        raise UsageError("neither a token nor a maker's certificate is given", cure="give one of them")
    if token == "":
        raise UsageError("the token is empty", cure="give the one-time token that the authority printed")
    authority_url = check_authority_url(authority_url)
    keys_url = check_authority_url(keys_url) if keys_url else default_keys_url(authority_url)
    client = EstClient(authority_url, roots, own=maker, label=label)
    with DeviceFolder.open_for_writing(path) as folder:
        _check_same_device(path, name, role)
        request = PendingRequest.read(path)
        if request is not None:
            request.check_same(path, name=name, role=role, label=label)
        is_new = request is None
        plan = await client.plan(name)
        ca_certificates = await client.cacerts()
        if request is None:
            signer = KeySigner.generate(plan.kind)
            request = PendingRequest(
                name=name,
                role=role,
                authority_url=authority_url,
                keys_url=keys_url,
                label=label,
                time=system_time(),
                roots=tuple(roots),
                signer=signer,
                csr=None if plan.linked else signer.make_csr(name, extras=plan.extras),
            )
            folder.write_pending(request.files())
        try:
            with folder.stage() as stage:
                certificate = await _patiently(lambda: _send(client, request, token, plan), patience, sleep)
                enrolled = client.check(
                    certificate,
                    public_key=request.signer.public_key,
                    name=name,
                    ca_certificates=ca_certificates,
                    now=system_time() if now is None else now,
                    role=role,
                )
                settings = DeviceSettings(
                    name=name,
                    site_id=enrolled.identity.site_id,
                    authority_url=authority_url,
                    keys_url=keys_url,
                    role=role,
                )
                stage.write(KEY_FILE, request.signer.to_pem(), PRIVATE)
                folder.supersede_bundle(roots)
                _commit(stage, settings, enrolled, roots)
        except SealcastError as error:
            if is_new and _is_answered(error):
                folder.remove_pending()
            elif isinstance(error, EnrolmentError) and not isinstance(error, TokenError):
                is_refused = _is_answered(error)
                request.note_refusal(path, error.problem if is_refused else "")
                if is_refused:
                    # Never dropped unasked: whether it will ever be granted is for people to know.
                    error.cure = f"{error.cure}; to begin anew, drop the request: {DROP}"
            raise
        folder.remove_pending()
    return DeviceIdentity.open(path, role)


def cancel(path: Path) -> None:
    """Drop a request that is not decided yet, with its key; the authority is not told.

    Raises: StorageError if nothing waits there.
    """
    if pending_request(path) is None:
        raise StorageError(str(path), "no request waits here", cure="see: sealcast device show DIR")
    with DeviceFolder.open_for_writing(path) as folder:
        folder.remove_pending()


async def renew_async(path: Path, *, now: int | None = None, role: Role = Role.DEVICE) -> DeviceIdentity:
    """Renew a device's, or an admin's, certificate with a new key. `now`: microseconds.

    Returns: the identity with the new certificate. Raises: as `enroll_async`; CertificateError if the present
    certificate expired, as then only a token helps.
    """
    present = DeviceIdentity.open(path, role)
    moment = system_time() if now is None else now
    if moment >= present.not_after:
        raise CertificateError(
            f"the certificate of {role} {present.name!r} has expired",
            reason="expired",
            cure=f"enrol it again with a new token: sealcast {role} enroll"
            if role is Role.ADMIN
            else "recover it: sealcast device run --once, or enrol it again with a new token",
        )
    with DeviceFolder.open_for_writing(path) as folder, folder.stage() as stage:
        # Read again under the lock: another process may just have renewed.
        present = DeviceIdentity.open(path, role)
        client = EstClient(
            present.authority_url,
            present.roots,
            own=(present.certificate_file, present.key_file),
            authorities=present.issuers,
        )
        plan = await client.plan(present.name)
        ca_certificates = await client.cacerts()
        was_asked = folder.renewal_key() is not None
        signer = _next_key(folder, stage, plan.kind)
        try:
            certificate = await client.renew(present.certificate, signer, plan)
        except EnrolmentError as error:
            if error.retry_after is None:
                if not was_asked:
                    folder.remove_renewal_key()
                # Such as a device that a site CA's retirement has left behind.
                error.cure = new_token_cure(role)
            raise
        _accept(client, stage, present, certificate, signer, ca_certificates, moment)
    return DeviceIdentity.open(path, role)


def new_token_cure(role: Role) -> str:
    """What to do about a certificate that is not accepted any more."""
    return f"if it stays so: enrol it with a new token into the same folder: sealcast {role} enroll"


async def recover_async(path: Path, *, now: int | None = None) -> DeviceIdentity:
    """Renew, by a signed proof, a certificate that has expired (SC-22). `now`: microseconds.

    Returns: the identity with the new certificate. Raises: as `renew_async`; CertificateError with the reason
    `expired` if the authority grants no grace any more: then only a token helps.
    """
    moment = system_time() if now is None else now
    with DeviceFolder.open_for_writing(path) as folder, folder.stage() as stage:
        present = DeviceIdentity.open(path)
        if moment < present.not_after:
            # Another process has just renewed.
            return present
        client = EstClient(present.authority_url, present.roots, authorities=present.issuers)
        ca_certificates = await client.cacerts()
        was_asked = folder.renewal_key() is not None
        signer = _next_key(folder, stage)
        csr = signer.make_csr(present.name, current=parse_certificate(present.certificate))
        proof = RenewalProof(certificate=present.certificate, csr=csr, time=moment).sign(present.signer)
        try:
            certificate = await client.recover(proof)
        except EnrolmentError as error:
            if not was_asked:
                folder.remove_renewal_key()
            raise CertificateError(
                f"the certificate of device {present.name!r} has expired, and {error.problem}",
                reason="expired",
                cure="enrol it again with a new token: sealcast device enroll",
            ) from None
        _accept(client, stage, present, certificate, signer, ca_certificates, moment)
    return DeviceIdentity.open(path)


def enroll(
    path: Path,
    *,
    authority_url: str,
    roots: Sequence[bytes],
    name: str,
    token: str | None = None,
    maker: tuple[Path, Path] | None = None,
    patience: float = 0,
    label: str | None = None,
    keys_url: str | None = None,
    now: int | None = None,
    role: Role = Role.DEVICE,
) -> DeviceIdentity:
    """Do `enroll_async` where no event loop runs."""
    return system.run(
        enroll_async(
            path,
            authority_url=authority_url,
            roots=roots,
            name=name,
            token=token,
            maker=maker,
            patience=patience,
            label=label,
            keys_url=keys_url,
            now=now,
            role=role,
        )
    )


def renew(path: Path, *, now: int | None = None, role: Role = Role.DEVICE) -> DeviceIdentity:
    """Do `renew_async` where no event loop runs."""
    return system.run(renew_async(path, now=now, role=role))


def default_keys_url(authority_url: str) -> str:
    """Return the key server's URL where nothing else is said: the port after the authority's."""
    parts = urlsplit(authority_url)
    port = (parts.port or 443) + 1
    if port > 65535:
        raise ConfigError(
            f"no port after that of {authority_url}", cure="say where the key server is, with --keys URL"
        )
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"https://{host}:{port}"


def _accept(
    client: EstClient,
    stage: Stage,
    present: DeviceIdentity,
    certificate: bytes,
    signer: KeySigner,
    ca_certificates: Sequence[bytes],
    now: int,
) -> None:
    """Check what a renewal has brought, and put it in force."""
    enrolled = client.check(
        certificate,
        public_key=signer.public_key,
        name=present.name,
        ca_certificates=ca_certificates,
        now=now,
        role=present.settings.role,
    )
    if enrolled.identity.site_id != present.site_id:
        raise CertificateError("the authority sent a certificate of another site", reason="wrong-site")
    _commit(stage, present.settings, enrolled, present.given_roots)


def _check_same_device(path: Path, name: str, role: Role) -> None:
    """Refuse to put one device over another; a damaged folder of unknown name is refused too."""
    if current_credentials(path) is None:
        return
    present = DeviceIdentity.open(path, role)
    if present.name != name:
        raise StorageError(
            str(path),
            f"holds {role} {present.name!r}, not {name!r}",
            cure=f"give each {role} a folder of its own",
        )


async def _send(client: EstClient, request: PendingRequest, token: str | None, plan: RequestPlan) -> bytes:
    """Send the request as it was sent before, or, if it has to name the TLS session, for the same key."""
    if request.csr is None or plan.linked:
        return await client.enroll(request.name, token, request.signer, plan)
    return await client.simpleenroll(None if token is None else request.name, token or "", request.csr)


def _is_answered(error: SealcastError) -> bool:
    """Whether nothing can come of the request any more."""
    if isinstance(error, EnrolmentError):
        return error.retry_after is None
    return not isinstance(error, NetworkError)


async def _patiently(
    ask: Callable[[], Awaitable[bytes]], patience: float, sleep: Callable[[float], Awaitable[None]]
) -> bytes:
    """Ask again as long as the authority says that an operator has to decide, and for so many seconds."""
    while True:
        try:
            return await ask()
        except EnrolmentError as error:
            if error.retry_after is None or error.retry_after > patience:
                raise
            patience -= error.retry_after
            await sleep(error.retry_after)


def _next_key(folder: DeviceFolder, stage: Stage, kind: KeyKind = KeyKind.P256) -> KeySigner:
    """The key for the next certificate, on the disk before the authority hears of it.

    That of a renewal whose answer never came is used again: it may be the one that the authority knows as
    this device's latest, and only by that one may an expired certificate be recovered (SC-22).
    """
    signer = _kept_key(folder)
    if signer is None or signer.kind is not kind:
        signer = KeySigner.generate(kind)
        folder.write_renewal_key(signer.to_pem())
    stage.write(KEY_FILE, signer.to_pem(), PRIVATE)
    return signer


def _kept_key(folder: DeviceFolder) -> KeySigner | None:
    kept = folder.renewal_key()
    try:
        return None if kept is None else KeySigner.from_pem(kept, RENEWAL_KEY)
    except CertificateError:
        return None


def _commit(stage: Stage, settings: DeviceSettings, enrolled: Enrolled, roots: Sequence[bytes]) -> None:
    stage.write(CERTIFICATE_FILE, certificates_pem(enrolled.chain))
    stage.write(ISSUERS_FILE, certificates_pem(enrolled.issuers))
    stage.write(ROOTS_FILE, certificates_pem(roots))
    stage.write(SETTINGS_FILE, settings.serialize())
    stage.commit()
