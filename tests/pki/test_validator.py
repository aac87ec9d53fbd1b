"""The engine's validator through its Python face, on what the CA of the project issues (TR-5 to TR-9, TR-14).

The reference implementation judges the same objects, so that both ends of the spec are held against each
other.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from sealcast import _core
from sealcast.ca import KeyKind, KeySigner
from sealcast.errors import CertificateError
from sealcast.pki.certificates import spki
from sealcast.pki.credential import StreamCredential, make_bundle
from sealcast.pki.crl import GRACE, LIFE, Revocation
from sealcast.pki.names import Identity, Role, channel_id
from sealcast.pki.policy_names import Names
from sealcast.pki.times import microseconds
from sealcast.pki.validator import Validator
from tests.est.site import DAY, SECOND, Site
from tests.pki.test_policy import example as example_policy
from tests.reference import trust as reference
from tests.reference.wire import MalformedError


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture
def validator(site: Site) -> Validator:
    return Validator([site.root_der], [site.issuer.certificate])


class TestPeers:
    """verify_peer."""

    @pytest.mark.parametrize("kind", [KeyKind.P256, KeyKind.ED25519])
    def test_a_device_is_who_its_certificate_says(
        self, site: Site, validator: Validator, kind: KeyKind
    ) -> None:
        issued = site.device("monitor-1", KeySigner.generate(kind))
        for chain in ([issued.der], [issued.der, site.issuer.certificate], [issued.der, *site.authorities]):
            peer = validator.verify_peer(chain, Role.DEVICE, site.now)
            assert peer.identity == Identity(role=Role.DEVICE, site_id=site.site_id, name="monitor-1")
            assert peer.certificate_hash == hashlib.sha256(issued.der).digest()
            assert peer.not_after == issued.not_after

    def test_a_key_server_is_no_device(self, site: Site, validator: Validator) -> None:
        assert validator.verify_peer([site.server.der], Role.KEY_SERVER, site.now).name == "authority"
        for certificate, role in ((site.server.der, Role.DEVICE), (site.device("a").der, Role.KEY_SERVER)):
            with pytest.raises(CertificateError) as caught:
                validator.verify_peer([certificate], role, site.now)
            assert caught.value.reason == "wrong-role"

    @pytest.mark.parametrize(
        ("when", "reason"), [(-DAY, "not-yet-valid"), (91 * DAY, "expired"), (3 * 365 * DAY, "expired")]
    )
    def test_validity(self, site: Site, validator: Validator, when: int, reason: str) -> None:
        issued = site.device("monitor-1")
        with pytest.raises(CertificateError) as caught:
            validator.verify_peer([issued.der], Role.DEVICE, site.now + when)
        assert caught.value.reason == reason
        assert caught.value.cure

    def test_a_clock_that_lags_a_minute_is_allowed(self, site: Site, validator: Validator) -> None:
        issued = site.device("monitor-1")
        validator.verify_peer([issued.der], Role.DEVICE, issued.not_before)

    def test_without_the_site_ca_there_is_no_path(self, site: Site) -> None:
        alone = Validator([site.root_der])
        issued = site.device("monitor-1")
        with pytest.raises(CertificateError) as caught:
            alone.verify_peer([issued.der], Role.DEVICE, site.now)
        assert caught.value.reason == "unknown-issuer"
        alone.verify_peer([issued.der, site.issuer.certificate], Role.DEVICE, site.now)

    def test_an_intermediate_is_no_anchor(self, site: Site, tmp_path: Path) -> None:
        other = Site(tmp_path, name="Elsewhere")
        with pytest.raises(CertificateError):
            Validator([other.root_der], [site.issuer.certificate]).verify_peer(
                [site.device("monitor-1").der], Role.DEVICE, site.now
            )

    def test_several_roots_are_a_set(self, site: Site, tmp_path: Path) -> None:
        other = Site(tmp_path)
        both = Validator([other.root_der, site.root_der], [other.issuer.certificate, site.issuer.certificate])
        for one in (site, other):
            peer = both.verify_peer([one.device("monitor-1").der], Role.DEVICE, one.now)
            assert peer.site_id == one.site_id

    @pytest.mark.parametrize("chain", [[], [b""], [b"garbage"]])
    def test_garbage_is_refused(self, site: Site, validator: Validator, chain: list[bytes]) -> None:
        with pytest.raises(CertificateError):
            validator.verify_peer(chain, Role.DEVICE, site.now)

    def test_a_ca_is_no_peer(self, site: Site, validator: Validator) -> None:
        for certificate in site.authorities:
            with pytest.raises(CertificateError):
                validator.verify_peer([certificate], Role.DEVICE, site.now)

    def test_no_anchor_no_trust(self) -> None:
        with pytest.raises(CertificateError):
            Validator([])
        with pytest.raises(CertificateError):
            Validator([b"garbage"])


class TestRevocation:
    """TR-9."""

    def crl(self, site: Site, *serials: int, now: int | None = None) -> bytes:
        revocations = [Revocation(serial=serial, time=site.now) for serial in serials]
        return site.issuer.issue_crl(number=1, revocations=revocations, now=now or site.now)

    def test_a_revoked_certificate_is_refused(self, site: Site, validator: Validator) -> None:
        good, bad = site.device("monitor-1"), site.device("monitor-2")
        crl = self.crl(site, bad.serial)
        validator.verify_peer([good.der], Role.DEVICE, site.now, crl)
        with pytest.raises(CertificateError) as caught:
            validator.verify_peer([bad.der], Role.DEVICE, site.now, crl)
        assert caught.value.reason == "revoked"
        validator.verify_peer([bad.der], Role.DEVICE, site.now)

    def test_an_old_crl_is_refused_after_its_grace(self, site: Site, validator: Validator) -> None:
        issued = site.device("monitor-1")
        end = site.now + microseconds(LIFE + GRACE)
        crl = self.crl(site)
        validator.verify_peer([issued.der], Role.DEVICE, end - 2 * SECOND, crl)
        with pytest.raises(CertificateError):
            validator.verify_peer([issued.der], Role.DEVICE, end + 2 * SECOND, crl)

    def test_a_crl_of_another_issuer_is_refused(
        self, site: Site, validator: Validator, tmp_path: Path
    ) -> None:
        for crl in (self.crl(Site(tmp_path)), b"garbage"):
            with pytest.raises(CertificateError):
                validator.verify_peer([site.device("monitor-1").der], Role.DEVICE, site.now, crl)


@dataclass
class Publisher:
    """A device with a stream key."""

    site: Site
    signer: KeySigner
    credential: StreamCredential
    chain: list[bytes]

    def bundle(self, **changes: object) -> bytes:
        return make_bundle(replace(self.credential, **changes), self.signer, self.chain)  # type: ignore[arg-type]


@pytest.fixture
def publisher(site: Site) -> Publisher:
    signer = KeySigner.generate()
    issued = site.device("monitor-1", signer)
    credential = StreamCredential(
        spki=spki(ed25519.Ed25519PrivateKey.generate().public_key()),
        channel_id=channel_id(site.site_id, "icu3/vitals"),
        suite=1,
        site_id=site.site_id,
        device="monitor-1",
        certificate_hash=hashlib.sha256(issued.der).digest(),
        not_before=site.now,
        not_after=site.now + DAY,
        start_nonce=bytes(16),
        instance="",
        succeeds=None,
    )
    return Publisher(site, signer, credential, [issued.der, site.issuer.certificate])


class TestCredentials:
    """TR-14, by the engine and by the reference."""

    def judge(self, publisher: Publisher, bundle: bytes) -> None:
        """Accept by both or refuse by both."""
        site, mine = publisher.site, publisher.credential
        policy = replace(
            example_policy(),
            site_id=site.site_id,
            issued=site.now,
            next_update=site.now + DAY,
            publishers=Names.of(["monitor-1"]),
        )
        accepted = reference.accept_policy(
            policy.sign(site.issuer.signer),
            chain=[site.issuer.certificate],
            anchors=[site.root_der],
            now=site.now,
        )
        verdicts = []
        for attempt in (
            lambda: _core.Validator([site.root_der], []).verify_credential(
                bundle, role="device", channel_id=mine.channel_id, suite=1, now=site.now
            ),
            lambda: reference.accept_stream(
                bundle,
                stream_id=mine.stream_id,
                policy=accepted,
                anchors=[site.root_der],
                role="device",
                now=site.now,
                packet_time=site.now,
            ),
        ):
            try:
                attempt()
                verdicts.append("")
            except (ValueError, reference.RefusedError, MalformedError) as error:
                verdicts.append(str(error) or "refused")
        assert bool(verdicts[0]) == bool(verdicts[1]), verdicts
        if verdicts[0]:
            raise CertificateError(verdicts[0])

    def test_a_credential_made_here_is_believed(self, publisher: Publisher) -> None:
        self.judge(publisher, publisher.bundle())
        self.judge(publisher, publisher.bundle(instance="lead-ii", succeeds=bytes(16)))
        verified = _core.Validator([publisher.site.root_der], []).verify_credential(
            publisher.bundle(instance="lead-ii"),
            role="device",
            channel_id=publisher.credential.channel_id,
            suite=1,
            now=publisher.site.now,
        )
        assert verified.stream_id == publisher.credential.stream_id
        assert (verified.name, verified.instance) == ("monitor-1", "lead-ii")

    @pytest.mark.parametrize(
        "change",
        [
            {"channel_id": bytes(32)},
            {"suite": 2},
            {"site_id": bytes(16)},
            {"device": "monitor-2"},
            {"certificate_hash": bytes(32)},
            {"not_before": 1, "not_after": 2},
        ],
    )
    def test_a_lie_in_a_field_is_refused(self, publisher: Publisher, change: dict[str, object]) -> None:
        with pytest.raises(CertificateError):
            self.judge(publisher, publisher.bundle(**change))

    @pytest.mark.parametrize(
        "make",
        [
            lambda it: make_bundle(it.credential, KeySigner.generate(), it.chain),
            lambda it: make_bundle(it.credential, it.signer, it.chain[:1]),
            lambda it: make_bundle(it.credential, it.signer, [it.site.device("monitor-1").der, it.chain[1]]),
            lambda it: make_bundle(it.credential, it.signer, [it.site.server.der, it.chain[1]]),
            lambda it: it.bundle()[:-1],
            lambda it: it.bundle() + b"\x00",
        ],
        ids=["another key", "no site CA", "another certificate", "a key server", "cut", "longer"],
    )
    def test_a_bundle_that_does_not_hold_is_refused(
        self, publisher: Publisher, make: Callable[[Publisher], bytes]
    ) -> None:
        with pytest.raises(CertificateError):
            self.judge(publisher, make(publisher))


def test_the_engine_and_we_name_channels_alike(site: Site) -> None:
    assert _core.channel_id(site.site_id, "icu3/vitals") == channel_id(site.site_id, "icu3/vitals")
