"""A site for tests: root, site CA, server certificate, and an enrolment service that keeps all in memory."""

import secrets
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from sealcast.ca import FileSigner, IssuedCertificate, KeySigner, Root, Signer, SiteCa, create_root
from sealcast.errors import CertificateError, EnrolmentError, TokenError
from sealcast.est import (
    CertificateId,
    CsrAttributes,
    EnrolmentRequest,
    EstSettings,
    GeneratedKey,
    RenewalWindow,
    make_tls_context,
    start_listener,
)
from sealcast.pki import Role, Validator
from sealcast.pki.certificates import certificate_der, certificates_pem, parse_certificate
from sealcast.pki.crl import Revocation
from sealcast.pki.names import new_site_id
from sealcast.pki.signed import PublicKey
from sealcast.pki.times import system_time

SECOND = 1_000_000
DAY = 86_400 * SECOND


class Site:
    """A root, a site CA under it and a key server certificate for loopback, with their files in a folder."""

    def __init__(self, folder: Path, *, name: str = "Ward 3", site_id: bytes | None = None) -> None:
        self.folder = folder
        self.now = system_time()
        self.root: Root = create_root(site_name=name, signer=KeySigner.generate(), now=self.now)
        ca_signer = KeySigner.generate()
        ca = self.root.issue_site_ca(
            site_name=name, site_id=site_id or new_site_id(), public_key=ca_signer.public_key, now=self.now
        )
        self.issuer = SiteCa(certificate_der(ca), ca_signer)
        self.root_der = certificate_der(self.root.certificate)
        self.authorities = [self.root_der, self.issuer.certificate]
        self.root_file = folder / "root.pem"
        self.root_file.write_bytes(certificates_pem([self.root_der]))
        self.server_chain_file = folder / "server.pem"
        self.server_key_file = folder / "server-key.pem"
        self.server = self.key_server(["127.0.0.1", "localhost"])

    @property
    def site_id(self) -> bytes:
        return self.issuer.site_id

    def key_server(self, hosts: Sequence[str]) -> IssuedCertificate:
        signer = KeySigner.generate()
        issued = self.issuer.issue_key_server(
            public_key=signer.public_key, name="authority", hosts=hosts, now=self.now
        )
        self.server_chain_file.write_bytes(certificates_pem([issued.der, self.issuer.certificate]))
        self.server_key_file.write_bytes(signer.to_pem())
        return issued

    def device(self, name: str, signer: Signer | None = None, *, now: int | None = None) -> IssuedCertificate:
        csr = (signer or KeySigner.generate()).make_csr(name)
        return self.issuer.issue_device(csr, name, self.now if now is None else now)

    def device_files(self, name: str, *, now: int | None = None, chain: bool = True) -> tuple[Path, Path]:
        """A device's PEM files, certificate first, as a TLS client wants them."""
        key_file = self.folder / f"{name}-{secrets.token_hex(4)}.key.pem"
        signer = FileSigner.create(key_file)
        issued = self.device(name, signer, now=now)
        chain_file = key_file.with_suffix(".chain.pem")
        ders = [issued.der, self.issuer.certificate] if chain else [issued.der]
        chain_file.write_bytes(certificates_pem(ders))
        return chain_file, key_file


class TokenService:
    """One-time tokens, certificates and revocations in memory; `tokens` maps a token to its device."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.tokens: dict[str, str] = {}
        self.asked: list[bytes] = []
        """The DER of every first request, in their order."""
        self.issued: list[IssuedCertificate] = []
        self.revocations: list[Revocation] = []
        self.pending_seconds: int | None = None
        self.failure: Exception | None = None
        self.settings = EstSettings()
        self.attributes: CsrAttributes | None = None
        self.authorities: dict[str | None, Sequence[bytes]] = {None: site.authorities}
        self.windows: dict[CertificateId, RenewalWindow] = {}

    def token(self, name: str) -> str:
        token = secrets.token_urlsafe(16)
        self.tokens[token] = name
        return token

    def revoke(self, certificate: bytes) -> None:
        serial = parse_certificate(certificate).serial_number
        self.revocations.append(Revocation(serial=serial, time=self.site.now))

    def labels(self) -> Collection[str]:
        return [label for label in self.authorities if label is not None]

    def ca_certificates(self, label: str | None) -> Sequence[bytes]:
        return self.authorities[label]

    def csr_attributes(self, label: str | None) -> CsrAttributes | None:
        return self.attributes

    def is_registration_authority(self, certificate: bytes) -> bool:
        return False

    async def renewal_window(self, certificate_id: CertificateId) -> RenewalWindow | None:
        return self.windows.get(certificate_id)

    async def enroll(self, request: EnrolmentRequest) -> bytes:
        return self._first(request, None)

    async def generate(self, request: EnrolmentRequest) -> GeneratedKey:
        signer = KeySigner.generate()
        return GeneratedKey(
            certificate=self._first(request, signer.public_key), private_key=signer.to_pkcs8()
        )

    def _first(self, request: EnrolmentRequest, generated: PublicKey | None) -> bytes:
        self.asked.append(request.csr.der)
        if self.failure is not None:
            raise self.failure
        if request.name is None:
            raise EnrolmentError("only by a token")
        if self.pending_seconds is not None:
            raise EnrolmentError("an operator must approve", retry_after=self.pending_seconds)
        if self.tokens.get(request.token) != request.name:
            raise TokenError("unknown token")
        issued = self.site.issuer.issue_device(
            request.csr.der, request.name, system_time(), generated=generated
        )
        del self.tokens[request.token]
        self.issued.append(issued)
        return issued.der

    async def reenroll(self, request: EnrolmentRequest) -> bytes:
        assert request.certificate is not None
        crl = self.site.issuer.issue_crl(number=1, revocations=self.revocations, now=self.site.now)
        validator = Validator([self.site.root_der], [self.site.issuer.certificate])
        try:
            validator.verify_peer([request.certificate], Role.DEVICE, system_time(), crl)
        except CertificateError as error:
            raise EnrolmentError(str(error)) from None
        issued = self.site.issuer.renew_device(request.certificate, request.csr.der, system_time())
        self.issued.append(issued)
        return issued.der


@asynccontextmanager
async def serving(service: TokenService) -> AsyncIterator[str]:
    """Serve EST on loopback; gives the URL."""
    site = service.site
    context = make_tls_context(site.server_chain_file, site.server_key_file, site.authorities)
    runner, port = await start_listener(service, "127.0.0.1", 0, context)
    try:
        yield f"https://127.0.0.1:{port}"
    finally:
        await runner.cleanup()
