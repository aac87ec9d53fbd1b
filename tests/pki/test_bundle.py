"""The trust bundle: who may add and remove roots, and how a device that slept catches up (TR-16 to TR-20)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealcast.ca import KeySigner, Root, create_root
from sealcast.errors import CertificateError, SealcastError, UsageError
from sealcast.pki.bundle import (
    MAX_BUNDLE_BYTES,
    Anchor,
    BundleSite,
    Purpose,
    SignedBundle,
    TrustBundle,
    VerifiedBundle,
    accept,
    begin_by_roots,
    check_successor,
    pin,
    walk,
)
from sealcast.pki.certificates import certificate_der
from sealcast.pki.profiles import CertificateIssuer, site_ca_builder
from sealcast.pki.signed import Context, SignedObject, encode_cbor

SECOND = 1_000_000
YEAR = 365 * 86_400 * SECOND
NOW = 1_790_000_000 * SECOND
SITE, OTHER = bytes(range(16)), bytes(range(16, 32))


def new_root(now: int = NOW) -> Root:
    return create_root(site_name="Ward", signer=KeySigner.generate(), now=now)


def der(root: Root) -> bytes:
    return certificate_der(root.certificate)


def owner(root: Root, sites: tuple[bytes, ...] = (), *, since: int = 0) -> Anchor:
    return Anchor(certificate=der(root), purpose=Purpose.OWNER, since=since, sites=sites)


@dataclass(frozen=True)
class SiteCa:
    """A site CA and its key."""

    certificate: bytes
    signer: KeySigner


def site_ca(root: Root, site_id: bytes = SITE) -> SiteCa:
    signer = KeySigner.generate()
    certificate = root.issue_site_ca(site_name="Ward", site_id=site_id, public_key=signer.public_key, now=NOW)
    return SiteCa(certificate_der(certificate), signer)


def self_signed_ca(site_id: bytes = SITE) -> SiteCa:
    signer = KeySigner.generate()
    builder = site_ca_builder(
        site_name="Ward",
        site_id=site_id,
        public_key=signer.public_key,
        issuer=CertificateIssuer.self_signed("Ward CA", "Ward", signer.public_key, NOW + YEAR),
        serial=1,
        now=NOW,
    )
    return SiteCa(certificate_der(signer.sign_certificate(builder)), signer)


def ward(*authorities: SiteCa, delegated: bool = False, site_id: bytes = SITE) -> BundleSite:
    return BundleSite(
        site_id=site_id,
        name="Ward",
        delegated=delegated,
        authorities=tuple(ca.certificate for ca in authorities),
    )


def first(anchors: Sequence[Anchor], sites: Sequence[BundleSite], threshold: int = 1) -> TrustBundle:
    return TrustBundle(
        version=1,
        predecessor=None,
        issued=NOW,
        threshold=threshold,
        anchors=tuple(anchors),
        sites=tuple(sites),
    )


def signed(bundle: TrustBundle, *roots: Root) -> bytes:
    result = SignedBundle.unsigned(bundle)
    for root in roots:
        result = result.sign(der(root), root.signer)
    return result.serialize()


def pinned(bundle: TrustBundle, *roots: Root) -> VerifiedBundle:
    data = signed(bundle, *roots)
    return pin(data, SignedBundle.parse(data).hash)


def successor(held: VerifiedBundle, **changes: object) -> TrustBundle:
    values = {"version": held.version + 1, "predecessor": held.hash, "issued": NOW + SECOND, **changes}
    return replace(held.bundle, **values)  # type: ignore[arg-type]


def refusal(held: VerifiedBundle, data: bytes) -> str:
    with pytest.raises(CertificateError) as caught:
        accept(held, data)
    return caught.value.reason


def test_tr_16_it_reads_back_as_it_was_written() -> None:
    root, maker = new_root(), new_root()
    bundle = first(
        [owner(root, (SITE,)), Anchor(certificate=der(maker), purpose=Purpose.MAKER, since=5)],
        [ward(site_ca(root), site_ca(root))],
    )
    assert TrustBundle.decode(bundle.encode()) == bundle
    data = signed(bundle, root)
    assert SignedBundle.parse(data).serialize() == data
    assert bundle.owners()[0].certificate == der(root)
    assert bundle.makers()[0].certificate == der(maker)


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_tr_16_junk_is_refused(junk: bytes) -> None:
    for parse in (SignedBundle.parse, TrustBundle.decode):
        with pytest.raises(CertificateError):
            parse(junk)


def test_bad_input_what_is_no_bundle_is_told_with_the_value_and_the_cure() -> None:
    root = new_root()
    bundle = first([owner(root)], [ward(site_ca(root))])
    data = signed(bundle, root)
    follows = replace(bundle, version=2, predecessor=hashlib.sha256(data).digest())
    earlier = replace(follows, issued=bundle.issued - 1)
    for problem, refused in (
        ("3 bytes are no signed trust bundle", lambda: SignedBundle.parse(encode_cbor([1, 2]))),
        ("no trust bundle of format 1", lambda: TrustBundle.decode(encode_cbor([1, 2]))),
        (
            f"{MAX_BUNDLE_BYTES + 1} bytes is too large",
            lambda: SignedBundle.parse(bytes(MAX_BUNDLE_BYTES + 1)),
        ),
        ("version 2 of a trust bundle names no predecessor", lambda: replace(bundle, version=2)),
        ("names a predecessor", lambda: replace(bundle, predecessor=bytes(32))),
        ("has 32 bytes, not 3", lambda: replace(follows, predecessor=b"abc")),
        (f"not {bytes(32).hex()}", lambda: pin(data, bytes(32))),
        ("does not follow version 1", lambda: check_successor(bundle, b"", replace(follows, version=3))),
        ("follows another version 1", lambda: check_successor(bundle, b"", follows)),
        (f"at {earlier.issued} µs", lambda: check_successor(bundle, earlier.predecessor or b"", earlier)),
    ):
        with pytest.raises(SealcastError) as caught:
            refused()
        assert problem in caught.value.problem
        assert caught.value.cure not in ("", "see --help"), problem


def test_tr_17_what_would_never_do() -> None:
    root, stranger = new_root(), new_root()
    ca = site_ca(root)
    with pytest.raises(UsageError, match="lock every device out"):
        first([owner(root)], [ward(ca)], threshold=2)
    with pytest.raises(UsageError, match="lock every device out"):
        first([Anchor(certificate=der(root), purpose=Purpose.MAKER, since=0)], [], threshold=1)
    with pytest.raises(UsageError, match="twice"):
        first([owner(root), owner(root)], [])
    with pytest.raises(UsageError, match="twice"):
        first([owner(root)], [ward(ca), ward(ca)])
    with pytest.raises(UsageError, match="no site CA"):
        first([owner(root)], [ward()])
    with pytest.raises(UsageError, match="no owner's root"):
        first([owner(stranger)], [ward(ca)])
    with pytest.raises(UsageError, match="no owner's root"):
        first([owner(root, (OTHER,))], [ward(ca)])
    with pytest.raises(UsageError, match="no site CA of site"):
        first([owner(root)], [ward(ca, site_id=OTHER)])
    with pytest.raises(UsageError, match="not self-signed"):
        first([Anchor(certificate=ca.certificate, purpose=Purpose.OWNER, since=0)], [])
    # Signed by itself a site CA counts only where the bundle delegates that.
    with pytest.raises(UsageError, match="no owner's root"):
        first([owner(root)], [ward(self_signed_ca())])
    assert first([owner(root)], [ward(self_signed_ca(), delegated=True)]).sites[0].delegated


def test_tr_18_version_1_is_pinned_by_its_hash() -> None:
    root = new_root()
    bundle = first([owner(root)], [ward(site_ca(root))])
    assert pinned(bundle, root).bundle == bundle
    with pytest.raises(CertificateError, match="fingerprint"):
        pin(signed(bundle, root), bytes(32))
    with pytest.raises(CertificateError, match="lacks signatures"):
        pinned(bundle, new_root())
    assert begin_by_roots(signed(bundle, root), [der(new_root()), der(root)]).bundle == bundle
    with pytest.raises(CertificateError, match="roots that were given"):
        begin_by_roots(signed(bundle, root), [der(new_root())])
    later = successor(pinned(bundle, root))
    data = signed(later, root)
    with pytest.raises(CertificateError, match="only version 1"):
        pin(data, SignedBundle.parse(data).hash)


def test_tr_19_a_root_is_added_then_the_old_one_removed() -> None:
    old, new = new_root(), new_root()
    ca = site_ca(old)
    held = pinned(first([owner(old)], [ward(ca)]), old)
    both = signed(successor(held, anchors=(owner(old), owner(new))), old)
    second = accept(held, both)
    # The site CA has to be of a root that stays.
    new_ca = site_ca(new)
    alone = successor(second, anchors=(owner(new),), sites=(ward(new_ca),))
    third = accept(second, signed(alone, new))
    assert [bundle.version for bundle in walk(held, [both, third.signed])] == [2, 3]
    # It cannot be skipped, nor taken back.
    assert refusal(held, third.signed) == "version"
    assert refusal(third, both) == "version"
    assert refusal(third, third.signed) == "version"


def test_f12_who_may_not_add_a_root() -> None:
    root, forged = new_root(), new_root()
    ca = site_ca(root)
    maker = new_root()
    anchors = (owner(root), Anchor(certificate=der(maker), purpose=Purpose.MAKER, since=0))
    held = pinned(first(anchors, [ward(ca)]), root)
    wanted = successor(held, anchors=(*anchors, owner(forged)))
    # The new root itself, a maker's root, a site CA, nobody.
    for entry in ([forged], [maker], []):
        assert refusal(held, signed(wanted, *entry)) == "signature"
    by_ca = SignedBundle.unsigned(wanted).sign(ca.certificate, ca.signer)
    assert refusal(held, by_ca.serialize()) == "signature"
    # A signature of the right root over something else, or for another use.
    other = SignedBundle.parse(signed(successor(held), root))
    moved = SignedBundle(tbs=wanted.encode(), signatures=other.signatures)
    assert refusal(held, moved.serialize()) == "signature"
    misused = SignedObject.sign(Context.POLICY, wanted.encode(), root.signer)
    name = other.signatures[0][0]
    forged_use = SignedBundle(tbs=wanted.encode(), signatures=((name, misused.algorithm, misused.signature),))
    assert refusal(held, forged_use.serialize()) == "signature"
    # A bundle of another lineage.
    stranger = pinned(first(anchors, [ward(ca)], threshold=1), root, maker)
    assert refusal(held, signed(successor(stranger), root)) == "predecessor"
    assert accept(held, signed(wanted, root)).version == 2


def test_f12_a_root_out_of_its_time_does_not_sign() -> None:
    root, late = new_root(), new_root()
    ca = site_ca(root)
    held = pinned(first([owner(root), owner(late, since=NOW + YEAR)], [ward(ca)]), root)
    assert refusal(held, signed(successor(held), late)) == "signature"
    assert accept(held, signed(successor(held, issued=NOW + 2 * YEAR), late)).version == 2
    assert refusal(held, signed(successor(held, issued=NOW + 30 * YEAR), root)) == "lockout"
    assert refusal(held, signed(successor(held, issued=NOW - 1), root)) == "time"
    old = new_root(NOW - 19 * YEAR)
    held = pinned(first([owner(root), owner(old)], [ward(ca)]), old)
    assert refusal(held, signed(successor(held, issued=NOW + 2 * YEAR), old)) == "signature"


def test_tr_19_m_of_n() -> None:
    roots = [new_root() for _ in range(3)]
    ca = site_ca(roots[0])
    held = pinned(first([owner(root) for root in roots], [ward(ca)], threshold=2), *roots[:2])
    wanted = successor(held, threshold=1)
    assert refusal(held, signed(wanted, roots[0])) == "signature"
    twice = SignedBundle.parse(signed(wanted, roots[0], roots[0]))
    assert len(twice.signatures) == 1
    assert accept(held, signed(wanted, roots[0], roots[2])).bundle.threshold == 1


def test_tr_19_a_version_that_would_lock_the_fleet_out() -> None:
    root, other = new_root(), new_root()
    held = pinned(first([owner(root)], [ward(site_ca(root))]), root)
    replaced = successor(held, anchors=(owner(other),), sites=(ward(site_ca(other)),))
    assert refusal(held, signed(replaced, root)) == "lockout"
    future = owner(other, since=NOW + YEAR)
    none_in_force = successor(held, anchors=(owner(root), future), threshold=2)
    assert refusal(held, signed(none_in_force, root)) == "lockout"


def test_tr_20_a_delegated_site_changes_its_own_authorities() -> None:
    root = new_root()
    ca, elsewhere = site_ca(root), site_ca(root, OTHER)
    sites = (ward(ca, delegated=True), ward(elsewhere, site_id=OTHER))
    held = pinned(first([owner(root)], sites), root)
    new = self_signed_ca()

    def by(signer: SiteCa, **changes: object) -> bytes:
        bundle = successor(held, **changes)
        return SignedBundle.unsigned(bundle).sign(signer.certificate, signer.signer).serialize()

    renewed = (ward(new, ca, delegated=True), sites[1])
    assert accept(held, by(ca, sites=renewed)).bundle.sites == renewed
    # Not by the one that comes, not for another site, nothing else besides, not without any change.
    assert refusal(held, by(new, sites=renewed)) == "signature"
    assert refusal(held, by(elsewhere, sites=renewed)) == "signature"
    moved = (sites[0], ward(site_ca(root, OTHER), site_id=OTHER))
    assert refusal(held, by(elsewhere, sites=moved)) == "signature"
    assert refusal(held, by(ca, sites=renewed, anchors=(owner(root), owner(new_root())))) == "signature"
    assert refusal(held, by(ca, sites=renewed[:1])) == "signature"
    assert refusal(held, by(ca)) == "signature"
    undelegated = (ward(ca), sites[1])
    assert refusal(held, by(ca, sites=undelegated)) == "signature"
