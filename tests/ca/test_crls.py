"""Lists that are put together from the one before say what the library makes of the same entries at once."""

import random
from pathlib import Path

import pytest
from cryptography import x509

from sealcast.ca import KeySigner, LocalIssuer, crls
from sealcast.ca.crls import CrlMaker
from sealcast.ca.signer import KeyKind, Signer
from sealcast.errors import CertificateError
from sealcast.pki.crl import CrlFacts, Revocation, crl_builder, split_crls
from sealcast.pki.profiles import CertificateIssuer
from tests.ca.test_local import DAY, NOW, Ca, csr

CENTURY = 36_525 * DAY


def as_issuer(signer: Signer) -> CertificateIssuer:
    return CertificateIssuer(
        subject=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Ward CA")]),
        public_key=signer.public_key,
        key_identifier=x509.SubjectKeyIdentifier.from_public_key(signer.public_key),
        not_after=NOW + CENTURY,
    )


def content(der: bytes, signer: Signer) -> tuple[object, ...]:
    """All that a CRL says, its entries sorted."""
    crl = x509.load_der_x509_crl(der)
    assert crl.is_signature_valid(signer.public_key)
    entries = sorted((entry.serial_number, entry.revocation_date_utc, len(entry.extensions)) for entry in crl)
    algorithm = (
        crl.signature_algorithm_oid,
        crl.signature_hash_algorithm and crl.signature_hash_algorithm.name,
    )
    return crl.issuer, crl.last_update_utc, crl.next_update_utc, list(crl.extensions), algorithm, entries


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Short lists are put together too; how many entries each one took over."""
    monkeypatch.setattr(crls, "JOINED_FROM", 2)
    counts: list[int] = []
    original = CrlMaker._joined

    def counting(self: CrlMaker, part: bytes, encoded: list[bytes], number: int, count: int) -> bytes:
        counts.append(len(encoded))
        return original(self, part, encoded, number, count)

    monkeypatch.setattr(CrlMaker, "_joined", counting)
    return counts


@pytest.mark.parametrize("kind", list(KeyKind))
def test_a_list_says_the_same_as_one_made_at_once(kind: KeyKind, joined: list[int]) -> None:
    """Entries come, end, come back, and are none at all; of this century and the next."""
    signer, chance = KeySigner.generate(kind), random.Random(kind.value)
    maker = CrlMaker(as_issuer(signer), signer)
    listed: list[Revocation] = []
    for number in range(1, 60):
        listed = [each for each in listed if chance.random() > (0.9 if number % 20 == 0 else 0.05)]
        drawn = {
            chance.getrandbits(chance.choice((7, 8, 16, 159))) + 1
            for _ in range(chance.choice((0, 0, 1, 1, 2, 40)))
        }
        drawn -= {each.serial for each in listed}
        listed += [
            Revocation(serial=serial, time=NOW + chance.randrange(CENTURY)) for serial in sorted(drawn)
        ]
        if number % 15 == 0:
            chance.shuffle(listed)
        now = NOW + number * DAY
        der = maker.make(number=number, revocations=listed, now=now)
        at_once = crl_builder(issuer=as_issuer(signer), number=number, revocations=listed, now=now)
        assert content(der, signer) == content(signer.sign_crl(at_once), signer)
    assert len(joined) > 40
    assert max(joined) > 100


def test_what_is_short_is_made_by_the_library_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CrlMaker, "_joined", None)
    signer = KeySigner.generate()
    maker = CrlMaker(as_issuer(signer), signer)
    listed = [Revocation(serial=serial + 1, time=NOW) for serial in range(crls.JOINED_FROM - 1)]
    for number in (1, 2):
        der = maker.make(number=number, revocations=listed, now=NOW)
        assert len(CrlFacts.parse(der).serials) == len(listed)


def test_a_serial_number_given_twice_is_listed_twice(joined: list[int]) -> None:
    signer = KeySigner.generate()
    maker = CrlMaker(as_issuer(signer), signer)
    twice = [
        Revocation(serial=5, time=NOW),
        Revocation(serial=5, time=NOW + DAY),
        Revocation(serial=6, time=NOW),
    ]
    for number in range(1, 4):
        der = maker.make(number=number, revocations=twice, now=NOW)
        at_once = crl_builder(issuer=as_issuer(signer), number=number, revocations=twice, now=NOW)
        assert content(der, signer) == content(signer.sign_crl(at_once), signer)
    assert not joined


def test_a_signature_that_does_not_hold_is_found_before_anyone_has_the_list(joined: list[int]) -> None:
    class Failing(KeySigner):
        fails = False

        def sign(self, data: bytes) -> bytes:
            return super().sign(data + b"!" if self.fails else data)

    signer = Failing.generate()
    maker = CrlMaker(as_issuer(signer), signer)
    listed = [Revocation(serial=serial, time=NOW) for serial in range(1, 9)]
    maker.make(number=1, revocations=listed[:6], now=NOW)
    signer.fails = True
    with pytest.raises(CertificateError, match="does not hold"):
        maker.make(number=2, revocations=listed[:7], now=NOW)
    signer.fails = False
    assert CrlFacts.parse(maker.make(number=3, revocations=listed, now=NOW)).serials == set(range(1, 9))
    assert joined == [6, 6]


def test_lists_say_what_the_ledger_holds_after_a_restart_and_a_rotation(
    tmp_path: Path, joined: list[int]
) -> None:
    """Also when the clock goes on past ends, and back."""
    ca, other = Ca(tmp_path), KeySigner.generate()
    (tmp_path / "other").mkdir()
    another = Ca(tmp_path / "other", site_id=ca.site_id)
    assert other.public_key != another.signer.public_key
    issuer, number, serials = ca.issuer(), 0, set()

    def revoke(issuer: LocalIssuer, now: int = NOW) -> list[frozenset[int]]:
        nonlocal number
        number += 1
        name = f"monitor-{number}"
        serial = issuer.issue_device(csr(name), name, now).serial
        serials.add(serial)
        revoked = [Revocation(serial=serial, time=now)]
        documents = split_crls(issuer.issue_crl(number=number, revocations=revoked, now=now))
        return [CrlFacts.parse(der).serials for der in documents]

    for _ in range(5):
        assert revoke(issuer) == [serials]
    issuer = ca.issuer()
    for _ in range(3):
        assert revoke(issuer) == [serials]
    issuer = issuer.arranged([another.certificate, ca.certificate], another.signer)
    for _ in range(3):
        assert revoke(issuer) == [serials, serials]
    first, later = set(serials), NOW + 89 * DAY
    assert revoke(issuer, later) == [serials, serials]
    past = NOW + 91 * DAY
    assert revoke(issuer, past) == [serials - first, serials - first]
    assert revoke(issuer, NOW + 2 * DAY) == [serials, serials]
    assert revoke(issuer, past) == [serials - first, serials - first]
    # Each CA puts its own together, and begins anew with the arrangement.
    assert len(joined) > 12
