"""Eclipse Cyclone DDS, with and without DDS Security: `cyclone.c` in two processes."""

from __future__ import annotations

import datetime
from pathlib import Path
from statistics import quantiles

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs7

from bench.rivals.packages import HERE, build, install
from bench.site import Site
from bench.wire import FAR, NEAR

PLAIN, ENCRYPT, ORIGIN = "none", "ENCRYPT", "ENCRYPT_WITH_ORIGIN_AUTHENTICATION"
"""Protection of RTPS messages, as a governance document names it."""

_LIBRARIES = Path("/usr/lib/x86_64-linux-gnu/libddsc0debian")
_YEARS = datetime.timedelta(days=3650)


class Cyclone:
    """Its program and the documents of its security, in a folder."""

    def __init__(self, folder: Path) -> None:
        """Install and build. Raises: MissingError."""
        install(
            ["cyclonedds-dev", "cyclonedds-tools"],
            ["/usr/bin/idlc", "/usr/include/ddsc/dds.h", str(_LIBRARIES / "libdds_security_crypto.so")],
        )
        folder.mkdir(parents=True)
        self._folder = folder
        build(["idlc", "-l", "c", str(HERE / "sample.idl")], folder)
        flags = ["-O2", f"-I{folder}", f"-I{HERE}", "-o", "cyclone"]
        build(["cc", *flags, str(HERE / "cyclone.c"), "sample.c", "-lddsc"], folder)
        self._make_identities()

    async def goodput(self, site: Site, protection: str, *, count: int, message_bytes: int) -> float:
        """Return samples a second that came, from the first write to the last receipt."""
        words = [str(count), str(message_bytes)]
        reader = await site.start(
            "cyclone-reader", self._command(site, protection, FAR, "subscribe", words), FAR
        )
        writer = await site.start("cyclone-writer", self._command(site, protection, NEAR, "publish", words))
        try:
            await writer.line()
            await reader.line()
            writer.order("go")
            got, sent = await reader.line(300), await writer.line(300)
            writer.order("done")
        finally:
            await writer.finish()
            await reader.finish()
        rate: float = (got["received"] - got["wrong"]) / (got["last"] - sent["start"])
        return rate

    async def one_way(self, site: Site, protection: str, *, count: int, message_bytes: int) -> list[float]:
        """Return the hundredths of half a round trip, in microseconds."""
        words = [str(count), str(message_bytes)]
        answers = await site.start("cyclone-pong", self._command(site, protection, FAR, "pong", words), FAR)
        asks = await site.start("cyclone-ping", self._command(site, protection, NEAR, "ping", words))
        try:
            await asks.line()
            await answers.line()
            asks.order("go")
            micros: list[float] = (await asks.line(300))["micros"]
            answers.order("done")
        finally:
            await asks.finish()
            await answers.finish()
        return quantiles([trip / 2 for trip in micros], n=100)

    def _command(self, site: Site, protection: str, host: str, role: str, words: list[str]) -> list[str]:
        interface = "lo" if site.wire is None else site.wire.interface
        general = f'<General><Interfaces><NetworkInterface name="{interface}"/></Interfaces></General>'
        security = "" if protection == PLAIN else self._security(protection, host)
        domain = f'<CycloneDDS><Domain id="any">{general}{security}</Domain></CycloneDDS>'
        return ["env", f"CYCLONEDDS_URI={domain}", str(self._folder / "cyclone"), role, *words]

    def _security(self, protection: str, host: str) -> str:
        def library(name: str, verb: str) -> str:
            path = _LIBRARIES / f"libdds_security_{name}.so"
            calls = f'initFunction="init_{verb}" finalizeFunction="finalize_{verb}"'
            return f'<Library path="{path}" {calls}/>'

        def file(name: str) -> str:
            return f"file:{self._folder / name}"

        governance = self._governance(protection)
        return (
            f"<Security><Authentication>{library('auth', 'authentication')}"
            f"<IdentityCA>{file('ca.pem')}</IdentityCA>"
            f"<IdentityCertificate>{file(f'{host}.pem')}</IdentityCertificate>"
            f"<PrivateKey>{file(f'{host}.key')}</PrivateKey></Authentication>"
            f"<AccessControl>{library('ac', 'access_control')}"
            f"<PermissionsCA>{file('ca.pem')}</PermissionsCA>"
            f"<Governance>file:{governance}</Governance>"
            f"<Permissions>{file(f'{host}.p7s')}</Permissions></AccessControl>"
            f"<Cryptographic>{library('crypto', 'crypto')}</Cryptographic></Security>"
        )

    def _governance(self, protection: str) -> Path:
        file = self._folder / f"{protection}.p7s"
        if not file.exists():
            text = (HERE / "governance.xml").read_text().replace("PROTECTION", protection)
            file.write_bytes(self._signed(text))
        return file

    def _make_identities(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._ca = _certificate("bench", self._key, "bench", self._key, is_ca=True)
        (self._folder / "ca.pem").write_bytes(self._ca.public_bytes(serialization.Encoding.PEM))
        for host in (NEAR, FAR):
            key = ec.generate_private_key(ec.SECP256R1())
            certificate = _certificate(host, key, "bench", self._key, is_ca=False)
            (self._folder / f"{host}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
            (self._folder / f"{host}.key").write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
            permissions = (HERE / "permissions.xml").read_text().replace("SUBJECT", f"CN={host}")
            (self._folder / f"{host}.p7s").write_bytes(self._signed(permissions))

    def _signed(self, text: str) -> bytes:
        """Return a document as S/MIME, as DDS Security has them."""
        builder = pkcs7.PKCS7SignatureBuilder().set_data(text.encode())
        builder = builder.add_signer(self._ca, self._key, hashes.SHA256())
        options = [pkcs7.PKCS7Options.Text, pkcs7.PKCS7Options.DetachedSignature]
        return builder.sign(serialization.Encoding.SMIME, options)


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    signer: ec.EllipticCurvePrivateKey,
    *,
    is_ca: bool,
) -> x509.Certificate:
    def common_name(value: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, value)])

    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(common_name(issuer), common_name(name), key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + _YEARS)
    builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    return builder.sign(signer, hashes.SHA256())
