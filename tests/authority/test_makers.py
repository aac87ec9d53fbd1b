"""SC-25: a maker's certificate as first credential, enrolment rights and nothing else."""

import ssl
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from sealcast.authority.makers import MAX_MAKERS, add_maker, load_makers, parse_maker, remove_maker
from sealcast.authority.models import DeviceRow
from sealcast.device import enroll_async, renew_async
from sealcast.errors import CertificateError, EnrolmentError, UnknownNameError, UsageError
from sealcast.est import EstClient
from sealcast.pki.bundle import Anchor, Purpose
from sealcast.pki.certificates import certificate_der, parse_certificate
from sealcast.pki.hardware import HardwareIdentity
from sealcast.pki.idevid import Maker as StoredMaker
from sealcast.pki.idevid import NameRule
from tests.authority.bundles import add_version, held
from tests.authority.conftest import Site
from tests.authority.maker import Maker
from tests.est.wire import HANDSHAKE_ERRORS, Reply, Wire, body, csr, tls


@pytest.fixture
def maker() -> Maker:
    return Maker()


async def admit(site: Site, maker: Maker, rule: str = "serial-number", crls: str = "") -> None:
    await site.add_maker(maker, rule, crls)


def client(site: Site, files: tuple[Path, Path]) -> EstClient:
    return EstClient(site.listening.authority, site.roots, own=files)


async def post(site: Site, files: tuple[Path, Path], operation: str, der: bytes) -> Reply:
    port = int(site.listening.authority.rpartition(":")[2])
    return await Wire(port, tls(site.roots, files)).post(operation, body(der))


async def test_est_16_it_enrols_under_the_name_that_the_maker_gave(
    site: Site, maker: Maker, tmp_path: Path
) -> None:
    await admit(site, maker)
    identity = await enroll_async(
        tmp_path / "device",
        authority_url=site.listening.authority,
        roots=site.roots,
        name="SN-7",
        maker=maker.idevid(tmp_path),
    )
    assert identity.name == "SN-7"
    # From now on it lives by its own certificate.
    assert (await renew_async(identity.path)).serial != identity.serial


async def test_the_hardware_serial_may_be_the_name(site: Site, maker: Maker, tmp_path: Path) -> None:
    await admit(site, maker, "hardware-serial")
    files = maker.idevid(tmp_path, hardware_serial=b"HW-9")
    assert await client(site, files).simpleenroll(None, "", csr("HW-9"))
    reply = await post(site, files, "simpleenroll", csr("SN-7"))
    assert reply.status == 403


async def test_est_17_another_name_is_refused(site: Site, maker: Maker, tmp_path: Path) -> None:
    await admit(site, maker)
    reply = await post(site, maker.idevid(tmp_path), "simpleenroll", csr("SN-8"))
    assert reply.status == 403
    assert b"SN-8" in reply.body


@pytest.mark.parametrize("operation", ["simplereenroll", "fullcmc"])
async def test_est_16_it_opens_nothing_else_of_est(
    site: Site, maker: Maker, tmp_path: Path, operation: str
) -> None:
    await admit(site, maker)
    reply = await post(site, maker.idevid(tmp_path), operation, csr("SN-7"))
    assert reply.status in (403, 404)


async def test_est_16_it_opens_no_key_server(site: Site, maker: Maker, tmp_path: Path) -> None:
    """Every request of the key server is tried in test_routes.py; this is the handshake itself."""
    await admit(site, maker)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(*maker.idevid(tmp_path))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(site.listening.keys + "/v1/time")


async def test_est_16_a_maker_vouches_for_no_member_of_the_site(
    site: Site, maker: Maker, tmp_path: Path
) -> None:
    """It signs the URI of a device; explicit and implicit anchors are kept apart."""
    await admit(site, maker)
    await site.enrol("monitor-1")
    uri = f"sealcast:device:{site.authority.site.site_id.hex()}:monitor-1"
    files = maker.idevid(tmp_path, names=[x509.UniformResourceIdentifier(uri)], serial_number="monitor-1")
    for operation in ("simpleenroll", "simplereenroll"):
        assert (await post(site, files, operation, csr("monitor-1"))).status == 403


async def test_est_16_a_token_works_beside_it(site: Site, maker: Maker, tmp_path: Path) -> None:
    await admit(site, maker)
    token = await site.token("monitor-1")
    certificate = await client(site, maker.idevid(tmp_path)).simpleenroll(
        "monitor-1", token, csr("monitor-1")
    )
    assert certificate


async def test_before_it_is_admitted_the_handshake_ends(site: Site, maker: Maker, tmp_path: Path) -> None:
    with pytest.raises(HANDSHAKE_ERRORS):
        await post(site, maker.idevid(tmp_path), "simpleenroll", csr("SN-7"))


async def test_one_that_was_removed_is_refused_though_tls_knows_it(
    site: Site, maker: Maker, tmp_path: Path
) -> None:
    await admit(site, maker)
    files = maker.idevid(tmp_path)
    fingerprint = load(site)[0].fingerprint
    await site.operate(lambda session, now: remove_maker(session, fingerprint, now))
    reply = await post(site, files, "simpleenroll", csr("SN-7"))
    assert reply.status == 403
    with pytest.raises(UnknownNameError, match=fingerprint.hex()):
        await site.operate(lambda session, now: remove_maker(session, fingerprint, now))


@pytest.mark.parametrize("what", ["expired", "server purpose"])
async def test_est_15_an_unfit_certificate_ends_the_handshake(
    site: Site, maker: Maker, tmp_path: Path, what: str
) -> None:
    from datetime import UTC, datetime

    await admit(site, maker)
    changes: dict[str, object] = {"until": datetime(2024, 1, 1, tzinfo=UTC)}
    if what != "expired":
        changes = {"usages": [x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]}
    with pytest.raises(HANDSHAKE_ERRORS):
        await post(site, maker.idevid(tmp_path, **changes), "simpleenroll", csr("SN-7"))


async def test_est_15_what_the_maker_has_revoked_is_refused(site: Site, maker: Maker, tmp_path: Path) -> None:
    """TLS knows nothing of the maker's list; the service does."""
    files = maker.idevid(tmp_path)
    serial = x509.load_pem_x509_certificate(files[0].read_bytes()).serial_number
    await admit(site, maker, crls=maker.crl(serial))
    reply = await post(site, files, "simpleenroll", csr("SN-7"))
    assert reply.status == 403
    assert b"revoked" in reply.body


class TestName:
    """Who may have a name that is known already."""

    async def test_the_same_device_enrols_again(self, site: Site, maker: Maker, tmp_path: Path) -> None:
        await admit(site, maker)
        files = maker.idevid(tmp_path)
        for _ in range(2):
            assert await client(site, files).simpleenroll(None, "", csr("SN-7"))

    async def test_another_device_of_the_same_number_does_not(
        self, site: Site, maker: Maker, tmp_path: Path
    ) -> None:
        other = Maker("Other")
        await admit(site, maker)
        await admit(site, other)
        assert await client(site, maker.idevid(tmp_path)).simpleenroll(None, "", csr("SN-7"))
        for files in (other.idevid(tmp_path), maker.idevid(tmp_path)):
            with pytest.raises(EnrolmentError, match="other means"):
                await client(site, files).simpleenroll(None, "", csr("SN-7"))

    async def test_what_a_token_has_made_stays(self, site: Site, maker: Maker, tmp_path: Path) -> None:
        await admit(site, maker)
        await site.enrol("SN-7")
        with pytest.raises(EnrolmentError, match="other means"):
            await client(site, maker.idevid(tmp_path)).simpleenroll(None, "", csr("SN-7"))

    async def test_est_23_a_removed_device_stays_removed(
        self, site: Site, maker: Maker, tmp_path: Path
    ) -> None:
        await admit(site, maker)
        files = maker.idevid(tmp_path)
        await client(site, files).simpleenroll(None, "", csr("SN-7"))
        await site.authority.revoke_device("SN-7")
        with pytest.raises(EnrolmentError, match="revoked"):
            await client(site, files).simpleenroll(None, "", csr("SN-7"))


class TestApproval:
    async def test_est_25_the_operator_gives_the_name(self, site: Site, maker: Maker, tmp_path: Path) -> None:
        await admit(site, maker, "approval")
        files, key = maker.idevid(tmp_path), ec.generate_private_key(ec.SECP256R1())
        assert (await post(site, files, "simpleenroll", csr("ward-pump", key=key))).status == 202
        [row] = site.approvals()
        assert (row["credential"], row["device"]) == ("maker", "ward-pump")
        assert "SN-7" in str(row["detail"])
        await site.approve(row["id"])
        # The yes is to this device's key and certificate.
        stranger = maker.idevid(tmp_path, serial_number="SN-8")
        assert (await post(site, stranger, "simpleenroll", csr("ward-pump", key=key))).status == 202
        certificate = await client(site, files).simpleenroll(None, "", csr("ward-pump", key=key))
        assert parse_certificate(certificate).public_key() == key.public_key()
        with site.authority.site.storage.snapshot() as session:
            assert session.get_one(DeviceRow, "ward-pump").maker_key is not None

    async def test_a_device_that_starts_afresh_replaces_its_request(
        self, site: Site, maker: Maker, tmp_path: Path
    ) -> None:
        await admit(site, maker, "approval")
        files = maker.idevid(tmp_path)
        for _ in range(3):
            assert (await post(site, files, "simpleenroll", csr("ward-pump"))).status == 202
        assert len(site.approvals()) == 1


class TestHardware:
    """What the maker says of the hardware stands in the site's certificate too (802.1AR)."""

    async def test_it_is_taken_over_and_stays(self, site: Site, maker: Maker, tmp_path: Path) -> None:
        await admit(site, maker)
        identity = await enroll_async(
            tmp_path / "device",
            authority_url=site.listening.authority,
            roots=site.roots,
            name="SN-7",
            maker=maker.idevid(tmp_path, hardware_serial=b"HW-9"),
        )
        for each in (identity, await renew_async(identity.path)):
            certificate = parse_certificate(each.certificate)
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert HardwareIdentity.of(certificate.subject, names) == HardwareIdentity(
                serial_number="SN-7", module=("1.3.6.1.4.1.1", b"HW-9")
            )

    async def test_a_request_may_not_ask_for_another(self, site: Site, maker: Maker, tmp_path: Path) -> None:
        await admit(site, maker)
        other = HardwareIdentity(module=("1.3.6.1.4.1.1", b"HW-8")).general_name()
        assert other is not None
        reply = await post(
            site,
            maker.idevid(tmp_path, hardware_serial=b"HW-9"),
            "simpleenroll",
            csr("SN-7", names=[other]),
        )
        assert reply.status == 403


class TestTrustBundle:
    """TR-21: makers' roots of the bundle vouch for first enrolments."""

    async def test_est_16_their_devices_wait_for_the_operator(
        self, site: Site, maker: Maker, tmp_path: Path
    ) -> None:
        files = maker.idevid(tmp_path, issuer=maker.root, issuer_key=maker.key)
        with pytest.raises(HANDSHAKE_ERRORS):
            await post(site, files, "simpleenroll", csr("SN-7"))
        anchor = Anchor(certificate=certificate_der(maker.root), purpose=Purpose.MAKER, since=0)
        await add_version(site, anchors=(*held(site).bundle.anchors, anchor))
        assert (await post(site, files, "simplereenroll", csr("SN-7"))).status == 403
        key = ec.generate_private_key(ec.SECP256R1())
        assert (await post(site, files, "simpleenroll", csr("SN-7", key=key))).status == 202
        [row] = site.approvals()
        await site.approve(row["id"])
        assert (await post(site, files, "simpleenroll", csr("SN-7", key=key))).status == 200

    async def test_an_operators_rule_goes_before(self, site: Site, maker: Maker, tmp_path: Path) -> None:
        anchor = Anchor(certificate=certificate_der(maker.root), purpose=Purpose.MAKER, since=0)
        await add_version(site, anchors=(*held(site).bundle.anchors, anchor))
        await admit(site, maker)
        assert await client(site, maker.idevid(tmp_path)).simpleenroll(None, "", csr("SN-7"))

    async def test_one_for_other_sites_vouches_for_nothing_here(
        self, site: Site, maker: Maker, tmp_path: Path
    ) -> None:
        elsewhere = bytes(15) + b"\x01"
        anchor = Anchor(
            certificate=certificate_der(maker.root), purpose=Purpose.MAKER, since=0, sites=(elsewhere,)
        )
        await add_version(site, anchors=(*held(site).bundle.anchors, anchor))
        files = maker.idevid(tmp_path, issuer=maker.root, issuer_key=maker.key)
        with pytest.raises(HANDSHAKE_ERRORS):
            await post(site, files, "simpleenroll", csr("SN-7"))


class TestRows:
    async def test_what_is_stored_reads_as_it_was(self, site: Site, maker: Maker) -> None:
        await admit(site, maker, crls=maker.crl(7))
        [stored] = load(site)
        assert stored.certificates == StoredMaker.parse(maker.pem, NameRule.SERIAL_NUMBER).certificates
        assert len(stored.crls) == 1

    async def test_added_again_it_is_changed(self, site: Site, maker: Maker) -> None:
        await admit(site, maker)
        await admit(site, maker, "approval")
        assert [stored.rule for stored in load(site)] == [NameRule.APPROVAL]

    async def test_their_number_is_bounded(self, site: Site, maker: Maker) -> None:
        parsed = StoredMaker.parse(maker.pem, NameRule.APPROVAL)
        with site.authority.site.storage.transaction() as session:
            from sealcast.authority.models import MakerRow

            for number in range(MAX_MAKERS):
                session.add(
                    MakerRow(
                        fingerprint=bytes([number]), subject="", certificates=b"", crls=b"", rule="", added=0
                    )
                )
            session.flush()
            with pytest.raises(UsageError, match="makers"):
                add_maker(session, parsed, 0)

    def test_a_file_that_is_none_is_refused(self) -> None:
        with pytest.raises(CertificateError):
            parse_maker("x", NameRule.APPROVAL, "")


def load(site: Site) -> tuple[StoredMaker, ...]:
    with site.authority.site.storage.snapshot() as session:
        return load_makers(session)
