"""Enrolment at a running authority: labels, registration authorities, renewal, linking.

`test_est_N_…` is line N of the conformance list; SC-26 to SC-30.
"""

import asyncio
import base64
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import select

from sealcast.authority import renewal
from sealcast.authority.models import AuditRow
from sealcast.ca import KeySigner
from sealcast.device import DeviceIdentity, renew_async
from sealcast.errors import CertificateError, EnrolmentError, StorageError, TokenError, UsageError
from sealcast.est import CertificateId, EstClient, RenewalWindow
from sealcast.est.attributes import CHALLENGE_PASSWORD, COMMON_NAME, SECP256R1
from sealcast.pki.certificates import has_usage, parse_certificate
from sealcast.pki.profiles import REGISTRATION_AUTHORITY
from tests.authority.conftest import DAY, Site
from tests.est.wire import Wire, body, csr, tls


def client(site: Site, own: DeviceIdentity | None = None, label: str | None = None) -> EstClient:
    files = None if own is None else (own.certificate_file, own.key_file)
    return EstClient(site.listening.authority, site.roots, own=files, label=label)


def wire(site: Site, own: DeviceIdentity | None = None) -> Wire:
    port = int(site.listening.authority.rpartition(":")[2])
    return Wire(port, tls(site.roots, None if own is None else (own.certificate_file, own.key_file)))


def successor(own: bytes, key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
    return csr("", current=own, key=key)


class TestLabels:
    """RFC 7030 section 3.2.2."""

    async def test_est_2_the_site_id_is_a_label(self, site: Site) -> None:
        labelled = client(site, label=site.authority.site.site_id.hex())
        assert sorted(await labelled.cacerts()) == sorted(await client(site).cacerts())
        signer = KeySigner.generate()
        token = await site.token("monitor-1")
        assert await labelled.simpleenroll("monitor-1", token, signer.make_csr("monitor-1"))

    async def test_est_2_an_operator_gives_more(self, site: Site) -> None:
        with pytest.raises(Exception, match="no EST server"):
            await client(site, label="ward").cacerts()
        await site.set_enrolment(labels=["ward", "icu"])
        for label in ("ward", "icu"):
            assert await client(site, label=label).cacerts()

    async def test_est_3_an_operations_name_is_refused(self, site: Site) -> None:
        with pytest.raises(UsageError, match="cacerts"):
            await site.set_enrolment(labels=["cacerts"])
        assert site.authority.est.settings.labels == ()


class TestAttributes:
    async def test_est_28_the_authority_says_what_it_takes(self, site: Site) -> None:
        attributes = await client(site).csrattrs()
        assert attributes is not None
        assert attributes.curve == SECP256R1
        assert attributes.template is not None
        assert attributes.template.subject == ((COMMON_NAME, None),)

    async def test_est_20_required_linking_is_listed_and_met(self, site: Site) -> None:
        await site.set_enrolment(linking_required=True)
        attributes = await client(site).csrattrs()
        assert attributes is not None
        assert CHALLENGE_PASSWORD in attributes.wanted
        assert attributes.template is None
        token = await site.token("monitor-1")
        with pytest.raises(EnrolmentError, match="tls-unique"):
            await client(site).simpleenroll("monitor-1", token, KeySigner.generate().make_csr("monitor-1"))
        # Our own device asks first what is wanted, at enrolment and at renewal.
        identity = await site.enrol("monitor-1", token)
        assert (await renew_async(identity.path)).serial != identity.serial

    async def test_est_20_required_linking_keeps_sessions_at_tls_1_2(self, site: Site) -> None:
        async def version() -> str | None:
            port = int(site.listening.authority.rpartition(":")[2])
            _, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=tls(site.roots), server_hostname="localhost"
            )
            connection: ssl.SSLObject = writer.get_extra_info("ssl_object")
            writer.close()
            return connection.version()

        assert await version() == "TLSv1.3"
        await site.set_enrolment(linking_required=True)
        assert await version() == "TLSv1.2"
        await site.set_enrolment(linking_required=False)
        assert await version() == "TLSv1.3"


class TestSwitches:
    async def test_they_survive_a_restart(self, site: Site) -> None:
        from sealcast.authority.est_state import load_settings

        await site.set_enrolment(server_keygen=True, labels=["ward"])
        with site.authority.site.storage.snapshot() as session:
            stored = load_settings(session)
        assert (stored.server_keygen, stored.labels) == (True, ("ward",))
        assert stored == site.authority.est.settings

    async def test_est_32_serverkeygen(self, site: Site) -> None:
        with pytest.raises(Exception, match="no EST server"):
            await client(site).serverkeygen("monitor-1", await site.token("monitor-1"), csr("monitor-1"))
        await site.set_enrolment(server_keygen=True)
        made = await client(site).serverkeygen("monitor-1", await site.token("monitor-1"), csr("monitor-1"))
        private_key = serialization.load_der_private_key(made.private_key, password=None)
        assert parse_certificate(made.certificate).public_key() == private_key.public_key()
        # Nobody keeps it.
        with site.authority.site.storage.snapshot() as session:
            database = site.authority.site.storage.path.read_bytes()
            session.scalars(select(AuditRow).where(AuditRow.action == "enrol device")).one()
        assert made.private_key not in database


class TestRegistrationAuthority:
    """RFC 7030 section 3.7: id-kp-cmcRA."""

    async def gateway(self, site: Site) -> DeviceIdentity:
        return await site.enrol("gateway", await site.token("gateway", registers=True))

    async def test_est_18_its_certificate_says_so_and_keeps_saying_it(self, site: Site) -> None:
        gateway = await self.gateway(site)
        assert has_usage(parse_certificate(gateway.certificate), REGISTRATION_AUTHORITY)
        renewed = await renew_async(gateway.path)
        assert has_usage(parse_certificate(renewed.certificate), REGISTRATION_AUTHORITY)

    async def test_est_18_it_enrols_and_renews_others(self, site: Site) -> None:
        gateway = client(site, await self.gateway(site))
        certificate = await gateway.simpleenroll(None, "", csr("monitor-1"))
        issued = parse_certificate(certificate)
        assert not has_usage(issued, REGISTRATION_AUTHORITY)
        renewed = await gateway.simplereenroll(successor(certificate))
        assert parse_certificate(renewed).subject == issued.subject
        with site.authority.site.storage.snapshot() as session:
            rows = session.scalars(select(AuditRow).where(AuditRow.subject == "monitor-1")).all()
        assert [row.detail.get("by") for row in rows] == ["gateway", None, "gateway"]

    @pytest.mark.parametrize("operation", ["simpleenroll", "simplereenroll"])
    async def test_est_18_without_the_purpose_nobody_asks_for_others(
        self, site: Site, operation: str
    ) -> None:
        """F1: with a certificate of its own."""
        await site.enrol("monitor-2")
        device = wire(site, await site.enrol("monitor-1"))
        reply = await device.post(operation, body(csr("monitor-2")))
        assert reply.status == 403
        assert b"monitor-2" in reply.body

    async def test_est_18_the_purpose_is_not_had_by_asking(self, site: Site) -> None:
        token = await site.token("monitor-1")
        der = csr("monitor-1", extensions=[x509.ExtendedKeyUsage([REGISTRATION_AUTHORITY])])
        certificate = await client(site).simpleenroll("monitor-1", token, der)
        assert not has_usage(parse_certificate(certificate), REGISTRATION_AUTHORITY)

    async def test_est_18_it_brings_back_nobody_that_was_removed(self, site: Site) -> None:
        gateway = await self.gateway(site)
        removed = await site.enrol("monitor-1")
        await site.authority.revoke_device("monitor-1")
        for ask in (
            client(site, gateway).simpleenroll(None, "", csr("monitor-1")),
            client(site, gateway).simplereenroll(successor(removed.certificate)),
        ):
            with pytest.raises(EnrolmentError, match="revoked"):
                await ask

    async def test_est_23_one_that_was_removed_asks_for_nobody(self, site: Site) -> None:
        gateway = await self.gateway(site)
        device = await site.enrol("monitor-1")
        await site.authority.revoke_device("gateway")
        for ask in (
            client(site, gateway).simpleenroll(None, "", csr("monitor-2")),
            client(site, gateway).simplereenroll(successor(device.certificate)),
            client(site, gateway).simplereenroll(successor(gateway.certificate)),
        ):
            with pytest.raises(EnrolmentError, match="revoked"):
                await ask

    async def test_est_18_it_takes_the_place_of_no_other_one(self, site: Site) -> None:
        gateway = await self.gateway(site)
        other = await site.enrol("gateway-2", await site.token("gateway-2", registers=True))
        with pytest.raises(EnrolmentError, match="renews itself"):
            await client(site, gateway).simplereenroll(successor(other.certificate))

    async def test_est_20_linking_is_not_asked_of_it(self, site: Site) -> None:
        gateway = await self.gateway(site)
        await site.set_enrolment(linking_required=True)
        # What it passes on was linked to its own session with the device, if at all.
        password = {CHALLENGE_PASSWORD: base64.b64encode(bytes(12))}
        for der in (csr("monitor-1"), csr("monitor-2", attributes=password)):
            assert await client(site, gateway).simpleenroll(None, "", der)


class TestRenewal:
    """RFC 7030 section 4.2.2."""

    @pytest.mark.parametrize("how", ["renew", "rekey"])
    async def test_est_22_renewal_and_rekey_give_a_fresh_certificate(self, site: Site, how: str) -> None:
        identity = await site.enrol("monitor-1")
        before = parse_certificate(identity.certificate)
        site.clock.ahead = 2 * DAY
        key = None
        if how == "renew":
            loaded = KeySigner.from_pem(identity.key_file.read_bytes(), "key")
            der = loaded.make_csr("monitor-1", current=before)
        else:
            key = ec.generate_private_key(ec.SECP256R1())
            der = successor(identity.certificate, key)
        after = parse_certificate(await client(site, identity).simplereenroll(der))
        assert (after.public_key() == before.public_key()) == (how == "renew")
        assert key is None or after.public_key() == key.public_key()
        assert after.serial_number != before.serial_number
        assert after.not_valid_after_utc > before.not_valid_after_utc
        assert after.subject == before.subject

    async def test_est_14_an_own_certificate_also_opens_simpleenroll(self, site: Site) -> None:
        identity = await site.enrol("monitor-1")
        certificate = await client(site, identity).simpleenroll(None, "", csr("monitor-1"))
        assert parse_certificate(certificate).serial_number != identity.serial

    @pytest.mark.parametrize("operation", ["simpleenroll", "simplereenroll", "serverkeygen"])
    async def test_est_23_a_revoked_certificate_is_refused_on_every_path(
        self, site: Site, operation: str
    ) -> None:
        await site.set_enrolment(server_keygen=True)
        identity = await site.enrol("monitor-1")
        await site.authority.revoke_device("monitor-1")
        reply = await wire(site, identity).post(operation, body(successor(identity.certificate)))
        assert reply.status == 403
        assert b"revoked" in reply.body

    async def test_est_23_by_a_token_it_comes_back_and_the_old_certificate_does_not(self, site: Site) -> None:
        old = await site.enrol("monitor-1")
        files = old.certificate_file.read_bytes(), old.key_file.read_bytes()
        await site.authority.revoke_device("monitor-1")
        await site.enrol("monitor-1")
        kept = site.devices / "kept"
        kept.mkdir()
        for name, data in zip(("certificate.pem", "key.pem"), files, strict=True):
            (kept / name).write_bytes(data)
        thief = EstClient(
            site.listening.authority, site.roots, own=(kept / "certificate.pem", kept / "key.pem")
        )
        with pytest.raises(EnrolmentError, match="revoked"):
            await thief.simplereenroll(successor(old.certificate))

    async def test_est_23_an_expired_certificate_is_refused(self, site: Site) -> None:
        """The clock of the authority counts, whatever TLS thought of it."""
        identity = await site.enrol("monitor-1")
        site.clock.ahead = 91 * DAY
        with pytest.raises((EnrolmentError, CertificateError), match=r"expired|revocation"):
            await client(site, identity).simplereenroll(successor(identity.certificate))


class TestRenewalInfo:
    """draft-yusef-lamps-rfc7030-renewal-recommendation, RFC 9773."""

    async def test_by_default_it_is_the_last_third_of_the_life(self, site: Site) -> None:
        identity = await site.enrol("monitor-1")
        hint = await client(site).renewal_info(identity.certificate)
        assert hint is not None
        life = identity.not_after - identity.not_before
        assert abs(hint.window.start - (identity.not_before + life * 2 // 3)) < 1_000_000
        assert hint.window.end == identity.not_after
        assert hint.retry_after == 6 * 3600

    async def test_the_operator_has_a_fleet_renew_early(self, site: Site) -> None:
        old = await site.enrol("monitor-1")
        now = site.clock() // 1_000_000 * 1_000_000
        window = RenewalWindow(start=now + DAY, end=now + 3 * DAY)
        with site.authority.site.storage.transaction() as session:
            renewal.set_renewal_window(session, issued_before=now + DAY, window=window, now=now)
        site.clock.ahead = 2 * DAY
        new = await site.enrol("monitor-2")
        hints = [await client(site).renewal_info(identity.certificate) for identity in (old, new)]
        assert [hint is not None and hint.window == window for hint in hints] == [True, False]

    async def test_a_later_window_changes_nothing(self, site: Site) -> None:
        identity = await site.enrol("monitor-1")
        before = await client(site).renewal_info(identity.certificate)
        window = RenewalWindow(start=identity.not_after, end=identity.not_after + DAY)
        with site.authority.site.storage.transaction() as session:
            renewal.set_renewal_window(
                session, issued_before=identity.not_after, window=window, now=site.clock()
            )
        assert await client(site).renewal_info(identity.certificate) == before

    async def test_it_is_said_only_of_good_certificates_of_this_site(self, site: Site) -> None:
        identity = await site.enrol("monitor-1")
        known = CertificateId.of(identity.certificate)
        others = (
            CertificateId(key_identifier=known.key_identifier, serial=known.serial + 1),
            CertificateId(key_identifier=bytes(20), serial=known.serial),
            CertificateId(key_identifier=known.key_identifier, serial=-known.serial),
        )
        for other in others:
            reply = await wire(site).get(f"/.well-known/est/renewal-info/{other.serialize()}")
            assert reply.status == 404
        await site.authority.revoke_device("monitor-1")
        assert await client(site).renewal_info(identity.certificate) is None

    def test_a_window_has_an_end(self, folder: Path) -> None:
        from sealcast.authority.site import Site as Folder

        storage = Folder.open(folder).storage
        with storage.transaction() as session, pytest.raises(UsageError, match="ends before"):
            renewal.set_renewal_window(session, issued_before=1, window=RenewalWindow(start=2, end=2), now=0)


async def test_stored_switches_that_make_no_sense_are_one_clear_error(site: Site) -> None:
    from sealcast.authority.est_state import load_settings
    from sealcast.authority.models import SettingRow

    with site.authority.site.storage.transaction() as session:
        session.add(SettingRow(part="est", values={"labels": ["cacerts"]}))
        session.flush()
        with pytest.raises(StorageError, match="cacerts"):
            load_settings(session)


async def test_a_token_of_another_device_is_no_better_than_none(site: Site) -> None:
    token = await site.token("monitor-2")
    with pytest.raises(TokenError):
        await client(site).simpleenroll("monitor-1", token, csr("monitor-1"))
