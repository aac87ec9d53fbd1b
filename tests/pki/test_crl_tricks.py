"""F10: revocation tricks.

A device that was revoked is never believed by a list that somebody has tampered with, and a list that says
nothing about a device refuses it (TR-9). None of them is a panic.
"""

from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography import x509

from sealcast.ca import KeySigner
from sealcast.errors import CertificateError
from sealcast.pki.crl import GRACE, LIFE, Revocation, crl_builder
from sealcast.pki.names import Role
from sealcast.pki.times import microseconds, to_datetime
from sealcast.pki.validator import Validator
from tests.pki.test_anchors import LAB, NOW, SECOND, WARD, Ca, der, new_ca, new_root

REVOKED, GOOD = 7, 8


class World:
    """A root, two site CAs below it, and two devices of the first with the serials above."""

    def __init__(self) -> None:
        self.root = new_root()
        self.ward, self.lab = new_ca(self.root, WARD, "Ward"), new_ca(self.root, LAB, "Lab")
        self.validator = Validator([der(self.root)], [self.ward.certificate, self.lab.certificate])
        self.revoked = self.ward.device("revoked", serial=REVOKED)
        self.good = self.ward.device("good", serial=GOOD)
        self.crl = self.ward.crl(5, REVOKED)

    def verdict(self, device: bytes, crl: bytes, *, now: int = NOW) -> str:
        """The device's name, or the reason. A panic would be no CertificateError."""
        try:
            return self.validator.verify_peer([device], Role.DEVICE, now, crl).name
        except CertificateError as error:
            return error.reason


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def signed(
    ca: Ca,
    *extensions: tuple[x509.ExtensionType, bool],
    number: int | None = 5,
    now: int = NOW,
    signer: KeySigner | None = None,
    next_update: timedelta = LIFE + GRACE,
) -> bytes:
    """A list of `ca` on which the revoked device stands, and whatever else is wanted."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.issuer.subject)
        .last_update(to_datetime(now))
        .next_update(to_datetime(now) + next_update)
        .add_revoked_certificate(
            x509.RevokedCertificateBuilder().serial_number(REVOKED).revocation_date(to_datetime(now)).build()
        )
    )
    if number is not None:
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, critical=is_critical)
    return (signer or ca.signer).sign_crl(builder)


def test_f10_the_list_as_it_should_be(world: World) -> None:
    assert world.verdict(world.good, world.crl) == "good"
    assert world.verdict(world.revoked, world.crl) == "revoked"
    assert world.verdict(world.revoked, signed(world.ward)) == "revoked"


def test_f10_a_stale_list_refuses_everybody(world: World) -> None:
    end = NOW + microseconds(LIFE + GRACE)
    for device in (world.good, world.revoked):
        assert world.verdict(device, world.crl, now=end + SECOND) != "good"
    assert world.verdict(world.good, world.crl, now=end - SECOND) == "good"
    assert world.verdict(world.good, world.crl, now=end + SECOND) == "revocation-unknown"


def test_f10_another_issuers_list_with_the_same_serial(world: World) -> None:
    other = world.lab.crl(9, REVOKED, GOOD)
    assert world.verdict(world.good, world.crl + other) == "good"
    assert world.verdict(world.lab.device("x", serial=REVOKED), world.crl + other) == "revoked"
    # It revokes nobody of the ward, and says nothing of them either.
    assert world.verdict(world.good, other) == "revocation-unknown"
    assert world.verdict(world.revoked, other) == "revocation-unknown"


def test_f10_a_missing_list_refuses(world: World) -> None:
    assert world.verdict(world.good, world.lab.crl(9)) == "revocation-unknown"
    assert world.verdict(world.good, b"") == "malformed"


def test_f10_a_list_that_another_key_has_signed(world: World) -> None:
    """Under the issuer's name; alone, before and after the genuine one, empty or not."""
    forger = KeySigner.generate()
    empty = forger.sign_crl(crl_builder(issuer=world.ward.issuer, number=99, revocations=[], now=NOW))
    full = forger.sign_crl(
        crl_builder(
            issuer=world.ward.issuer, number=99, revocations=[Revocation(serial=GOOD, time=NOW)], now=NOW
        )
    )
    for forged in (empty, full):
        assert world.verdict(world.good, forged) == "revocation-unknown"
        for document in (forged + world.crl, world.crl + forged, forged + forged):
            assert world.verdict(world.revoked, document) in ("revoked", "revocation-unknown")
            assert world.verdict(world.good, document) in ("good", "revocation-unknown")
    assert world.verdict(world.revoked, signed(world.ward, signer=forger)) == "revocation-unknown"


NOT_OURS: dict[str, Callable[[World], bytes]] = {
    "no number": lambda world: signed(world.ward, number=None),
    "a critical number": lambda world: signed(world.ward, (x509.CRLNumber(5), True), number=None),
    "a number of 65 bits": lambda world: signed(world.ward, number=2**64),
    "a delta list": lambda world: signed(world.ward, (x509.DeltaCRLIndicator(1), True)),
    "an indirect list": lambda world: signed(world.ward, (_scope(indirect=True), True)),
    "for CAs alone": lambda world: signed(world.ward, (_scope(only_cas=True), True)),
    "for attribute certificates": lambda world: signed(world.ward, (_scope(only_attributes=True), True)),
    "for one reason": lambda world: signed(
        world.ward, (_scope(reasons=frozenset({x509.ReasonFlags.key_compromise})), True)
    ),
    "an unknown critical extension": lambda world: signed(
        world.ward, (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)
    ),
}


def _scope(
    *,
    indirect: bool = False,
    only_cas: bool = False,
    only_attributes: bool = False,
    reasons: frozenset[x509.ReasonFlags] | None = None,
) -> x509.IssuingDistributionPoint:
    place = x509.UniformResourceIdentifier("https://ward.example/crl")
    return x509.IssuingDistributionPoint(
        full_name=[place],
        relative_name=None,
        only_contains_user_certs=False,
        only_contains_ca_certs=only_cas,
        only_some_reasons=reasons,
        indirect_crl=indirect,
        only_contains_attribute_certs=only_attributes,
    )


@pytest.mark.parametrize("kind", NOT_OURS)
def test_f10_lists_of_other_kinds_refuse(world: World, kind: str) -> None:
    """Signed by the right key; what they mean is not what we would take them for."""
    crl = NOT_OURS[kind](world)
    for device in (world.good, world.revoked):
        assert world.verdict(device, crl) in ("malformed", "revocation-unknown", "other")


def test_f10_no_byte_of_a_list_can_be_changed(world: World) -> None:
    """Every byte of it, to three other values."""
    for position in range(len(world.crl)):
        for change in (0x01, 0x80, 0xFF):
            tampered = bytearray(world.crl)
            tampered[position] ^= change
            assert world.verdict(world.revoked, bytes(tampered)) not in ("revoked", "good")


def test_f10_a_list_is_whole(world: World) -> None:
    for length in range(len(world.crl)):
        assert world.verdict(world.revoked, world.crl[:length]) == "malformed"
    for rest in (b"\x00", b"\x30", b"\x30\x80", world.crl[:-1]):
        assert world.verdict(world.revoked, world.crl + rest) == "malformed"


def test_f10_more_lists_than_there_may_be(world: World) -> None:
    assert world.verdict(world.good, world.crl * 64) == "good"
    assert world.verdict(world.good, world.crl * 65) == "malformed"
