"""Several roots and site CAs at one validator: scope, paths, CRLs of several issuers (TR-6, TR-9, TR-21)."""

from dataclasses import dataclass
from itertools import permutations

import pytest

from sealcast.ca import KeySigner, Root, create_root, cross_certify
from sealcast.errors import CertificateError
from sealcast.pki.bundle import Anchor, BundleSite, Purpose, TrustBundle
from sealcast.pki.certificates import certificate_der, parse_certificate
from sealcast.pki.crl import Revocation, crl_builder
from sealcast.pki.names import Role
from sealcast.pki.profiles import CertificateIssuer, device_builder, site_ca_builder
from sealcast.pki.times import to_datetime
from sealcast.pki.validator import Validator

SECOND = 1_000_000
YEAR = 365 * 86_400 * SECOND
NOW = 1_790_000_000 * SECOND
WARD, LAB = bytes(range(16)), bytes(range(16, 32))


@dataclass(frozen=True)
class Ca:
    """A site CA and its key."""

    site_id: bytes
    certificate: bytes
    signer: KeySigner

    @property
    def issuer(self) -> CertificateIssuer:
        return CertificateIssuer.of(parse_certificate(self.certificate), self.signer.public_key)

    def device(self, name: str, site_id: bytes | None = None, *, serial: int = 7) -> bytes:
        builder = device_builder(
            name=name,
            site_name="Ward",
            site_id=self.site_id if site_id is None else site_id,
            public_key=KeySigner.generate().public_key,
            issuer=self.issuer,
            serial=serial,
            now=NOW,
        )
        return certificate_der(self.signer.sign_certificate(builder))

    def crl(self, number: int, *serials: int) -> bytes:
        revoked = [Revocation(serial=serial, time=NOW) for serial in serials]
        return self.signer.sign_crl(
            crl_builder(issuer=self.issuer, number=number, revocations=revoked, now=NOW)
        )


def new_root(now: int = NOW) -> Root:
    return create_root(site_name="Owner", signer=KeySigner.generate(), now=now)


def der(root: Root) -> bytes:
    return certificate_der(root.certificate)


def new_ca(root: Root, site_id: bytes, name: str, signer: KeySigner | None = None, *, now: int = NOW) -> Ca:
    signer = signer or KeySigner.generate()
    certificate = root.issue_site_ca(site_name=name, site_id=site_id, public_key=signer.public_key, now=now)
    return Ca(site_id, certificate_der(certificate), signer)


def own_ca(site_id: bytes, name: str) -> Ca:
    """A site CA that has signed itself."""
    signer = KeySigner.generate()
    issuer = CertificateIssuer.self_signed(f"{name} CA", name, signer.public_key, NOW + 2 * YEAR)
    builder = site_ca_builder(
        site_name=name, site_id=site_id, public_key=signer.public_key, issuer=issuer, serial=1, now=NOW
    )
    return Ca(site_id, certificate_der(signer.sign_certificate(builder)), signer)


def verdict(validator: Validator, certificate: bytes, crl: bytes | None = None, *, now: int = NOW) -> str:
    """The device's name, or why it is refused."""
    try:
        return validator.verify_peer([certificate], Role.DEVICE, now, crl).name
    except CertificateError as error:
        return error.reason


def test_f6_a_root_vouches_for_the_sites_of_its_scope_alone() -> None:
    ward_root, lab_root = new_root(), new_root()
    ward, lab = new_ca(ward_root, WARD, "Ward"), new_ca(lab_root, LAB, "Lab")
    # The lab's root certifies a CA that says it is the ward's.
    false = new_ca(lab_root, WARD, "False")
    authorities = [ward.certificate, lab.certificate, false.certificate]
    validator = Validator([(der(ward_root), (WARD,)), (der(lab_root), (LAB,))], authorities)
    assert verdict(validator, ward.device("a")) == "a"
    assert verdict(validator, lab.device("b")) == "b"
    assert verdict(validator, false.device("c")) == "wrong-site"
    assert verdict(validator, lab.device("d", WARD)) == "wrong-site"
    everywhere = Validator([der(lab_root)], authorities)
    assert verdict(everywhere, false.device("c")) == "c"


def test_a_site_ca_that_is_an_anchor_stands_for_its_own_site() -> None:
    ward, stranger = own_ca(WARD, "Ward"), own_ca(WARD, "Other")
    validator = Validator([(ward.certificate, (WARD,))])
    assert verdict(validator, ward.device("a")) == "a"
    assert verdict(validator, ward.device("b", LAB)) == "wrong-site"
    assert verdict(validator, stranger.device("c")) == "unknown-issuer"
    # Whatever scope it is given.
    assert verdict(Validator([ward.certificate]), ward.device("b", LAB)) == "wrong-site"


def test_an_expired_cross_certificate_hides_no_good_path() -> None:
    """The AddTrust outage of 2020: a path to an expired certificate was built, the good one was not tried."""
    old, new = new_root(NOW - 4 * YEAR), new_root()
    signer = KeySigner.generate()
    expired = new_ca(old, WARD, "Ward", signer, now=NOW - 3 * YEAR)
    good = new_ca(new, WARD, "Ward", signer)
    device = good.device("a")
    for authorities in ([expired.certificate, good.certificate], [good.certificate, expired.certificate]):
        assert verdict(Validator([der(old), der(new)], authorities), device) == "a"
    assert verdict(Validator([der(old), der(new)], [expired.certificate]), device) == "expired"
    # Of two anchors with one key, one may have ended.
    ended = create_root(site_name="Owner", signer=new.signer, now=NOW - 25 * YEAR)
    assert verdict(Validator([der(ended), der(new)], [good.certificate]), device) == "a"


@pytest.mark.parametrize("known", ["the old root as well", "the new root alone"])
def test_an_expired_cross_certificate_that_is_shown_first_hides_no_good_root(known: str) -> None:
    """AddTrust 2020 to the letter: the chain leads over an expired certificate of the new root to an old root
    that has expired too, while the new root is trusted by itself.
    """
    old = create_root(site_name="Old owner", signer=KeySigner.generate(), now=NOW - 21 * YEAR)
    new = new_root(NOW - 3 * YEAR)
    cross = cross_certify(old, new, NOW - 2 * YEAR).new_with_old
    assert parse_certificate(cross).not_valid_after_utc < to_datetime(NOW)
    ca = new_ca(new, WARD, "Ward")
    roots = [der(old), der(new)] if known == "the old root as well" else [der(new)]
    for authorities in ([cross, ca.certificate], [ca.certificate, cross], [cross]):
        for rest in permutations([cross, ca.certificate, der(old), der(new)]):
            chain = [ca.device("a"), *rest]
            validator = Validator(roots, authorities)
            for crl in (None, ca.crl(1)):
                assert validator.verify_peer(chain, Role.DEVICE, NOW, crl).name == "a"
    with pytest.raises(CertificateError):
        Validator([der(old)]).verify_peer([ca.device("a"), ca.certificate, cross], Role.DEVICE, NOW)


def test_f10_site_cas_of_one_name_have_each_its_own_list() -> None:
    root = new_root()
    ward, lab = new_ca(root, WARD, "Ward"), new_ca(root, LAB, "Ward")
    validator = Validator([der(root)], [ward.certificate, lab.certificate])
    for crl in (ward.crl(5, 1) + lab.crl(9, 2), lab.crl(9, 2) + ward.crl(5, 1)):
        assert verdict(validator, ward.device("a", serial=1), crl) == "revoked"
        assert verdict(validator, ward.device("a", serial=2), crl) == "a"
        assert verdict(validator, lab.device("b", serial=2), crl) == "revoked"
        assert verdict(validator, lab.device("b", serial=1), crl) == "b"
    # The other one's list says nothing, nor does one in its name by another key.
    forged = KeySigner.generate().sign_crl(crl_builder(issuer=lab.issuer, number=10, revocations=[], now=NOW))
    for crl in (ward.crl(5), ward.crl(5) + forged):
        assert verdict(validator, lab.device("b"), crl) in ("revocation-unknown", "unknown-issuer")


def test_f10_what_a_late_list_says_stays_true() -> None:
    root = new_root()
    ward = new_ca(root, WARD, "Ward")
    validator = Validator([der(root)], [ward.certificate])
    late = NOW + YEAR // 12
    assert verdict(validator, ward.device("a", serial=1), ward.crl(5, 1), now=late) == "revoked"
    assert verdict(validator, ward.device("a", serial=2), ward.crl(5, 1), now=late) == "revocation-unknown"


def test_crls_of_several_issuers_are_one_document() -> None:
    root = new_root()
    ward, ward_2, lab = (
        new_ca(root, WARD, "Ward"),
        new_ca(root, WARD, "Ward 2"),
        new_ca(root, LAB, "Lab"),
    )
    validator = Validator([der(root)], [ward.certificate, ward_2.certificate, lab.certificate])
    crl = ward.crl(5, 1, 2) + ward_2.crl(5, 3) + lab.crl(9)
    assert verdict(validator, ward.device("a", serial=4), crl) == "a"
    assert verdict(validator, ward.device("a", serial=2), crl) == "revoked"
    # A serial number counts for its own issuer (F10).
    assert verdict(validator, ward_2.device("b", serial=2), crl) == "b"
    assert verdict(validator, ward_2.device("b", serial=3), crl) == "revoked"
    assert verdict(validator, lab.device("c", serial=1), crl) == "c"
    # An issuer whose list is missing is not believed, nor a list that its issuer has not signed.
    assert verdict(validator, lab.device("c"), ward.crl(5)) == "revocation-unknown"
    forged = KeySigner.generate().sign_crl(crl_builder(issuer=lab.issuer, number=10, revocations=[], now=NOW))
    assert verdict(validator, lab.device("c"), ward.crl(5) + forged) == "revocation-unknown"
    for broken in (b"", crl[:-1], crl + b"\x30", ward.crl(5) + b"junk"):
        with pytest.raises(CertificateError):
            validator.verify_peer([ward.device("a")], Role.DEVICE, NOW, broken)


def test_tr_21_what_follows_from_a_bundle() -> None:
    root, late, maker = new_root(), new_root(), new_root()
    ward, lab = new_ca(root, WARD, "Ward"), own_ca(LAB, "Lab")

    def anchor(of: Root, purpose: Purpose, since: int = 0) -> Anchor:
        return Anchor(certificate=der(of), purpose=purpose, since=since)

    bundle = TrustBundle(
        version=1,
        predecessor=None,
        issued=NOW,
        threshold=1,
        anchors=(
            anchor(root, Purpose.OWNER),
            anchor(late, Purpose.OWNER, NOW + YEAR),
            anchor(maker, Purpose.MAKER),
        ),
        sites=(
            BundleSite(site_id=WARD, name="Ward", delegated=False, authorities=(ward.certificate,)),
            BundleSite(site_id=LAB, name="Lab", delegated=True, authorities=(lab.certificate,)),
        ),
    )
    assert bundle.trusted(NOW) == ((der(root), (WARD, LAB)), (lab.certificate, (LAB,)))
    assert (der(late), (WARD, LAB)) in bundle.trusted(NOW + YEAR)
    validator = Validator(bundle.trusted(NOW), bundle.authorities())
    assert verdict(validator, ward.device("a")) == "a"
    assert verdict(validator, lab.device("b")) == "b"
    # A site that the bundle does not list, and a maker's root.
    elsewhere = bytes(16)
    assert verdict(validator, new_ca(root, elsewhere, "Else").device("c")) == "unknown-issuer"
    assert verdict(validator, new_ca(maker, WARD, "Maker").device("d")) == "unknown-issuer"
    unlisted = new_ca(root, elsewhere, "Else")
    shown = Validator(bundle.trusted(NOW), [*bundle.authorities(), unlisted.certificate])
    assert verdict(shown, unlisted.device("e")) == "wrong-site"
