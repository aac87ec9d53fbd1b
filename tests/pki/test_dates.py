"""H4: the dates at which others went wrong, in what we issue, judge and convert.

2038: seconds in 32 bits. 2050: RFC 5280 writes years from there on in another type. 9999: the last that there
is.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from sealcast.ca import KeySigner
from sealcast.errors import CertificateError
from sealcast.pki.certificates import certificate_der, parse_certificate
from sealcast.pki.credential import StreamCredential, ed25519_spki
from sealcast.pki.crl import GRACE, LIFE, CrlFacts, Revocation, crl_builder
from sealcast.pki.names import Role
from sealcast.pki.policy import Policy
from sealcast.pki.profiles import CertificateIssuer, device_builder, site_ca_builder
from sealcast.pki.times import microseconds, to_certificate_time, to_datetime
from sealcast.pki.validator import Validator
from tests.pki.test_policy import example as example_policy

SECOND = 1_000_000
HOUR = 3600 * SECOND
SITE_ID = bytes(16)

END_OF_TIME = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
EDGES = [
    datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC),
    datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),
    datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC),
    datetime(2050, 1, 1, tzinfo=UTC),
    datetime(2106, 2, 7, 6, 28, 16, tzinfo=UTC),
    END_OF_TIME,
]
edges = pytest.mark.parametrize("edge", EDGES, ids=lambda edge: f"{edge:%Y-%m-%dT%H-%M-%S}")


class Site:
    """A site CA, which is its own anchor, and a device; both end at one moment."""

    def __init__(self, end: datetime) -> None:
        now = microseconds(end) - HOUR
        self.signer = KeySigner.generate()
        public_key = self.signer.public_key
        own = CertificateIssuer.self_signed("Ward CA", "Ward", public_key, microseconds(end))
        ca = site_ca_builder(
            site_name="Ward", site_id=SITE_ID, public_key=public_key, issuer=own, serial=1, now=now
        )
        self.ca = certificate_der(self.signer.sign_certificate(ca))
        self.issuer = CertificateIssuer.of(parse_certificate(self.ca), public_key)
        device = device_builder(
            name="monitor-1",
            site_name="Ward",
            site_id=SITE_ID,
            public_key=KeySigner.generate().public_key,
            issuer=self.issuer,
            serial=2,
            now=now,
        )
        self.device = certificate_der(self.signer.sign_certificate(device))
        self.validator = Validator([self.ca])

    def crl(self, now: int, *serials: int) -> bytes:
        revoked = [Revocation(serial=serial, time=now) for serial in serials]
        return self.signer.sign_crl(crl_builder(issuer=self.issuer, number=1, revocations=revoked, now=now))

    def verdict(self, moment: datetime, crl: bytes | None = None, *, seconds_later: int = 0) -> str:
        now = microseconds(moment) + seconds_later * SECOND
        try:
            return self.validator.verify_peer([self.device], Role.DEVICE, now, crl).name
        except CertificateError as error:
            return error.reason


def encoded(moment: datetime) -> bytes:
    """RFC 5280 section 4.1.2.5: UTCTime through 2049, GeneralizedTime from 2050 on."""
    if moment.year < 2050:
        return b"\x17\x0d" + f"{moment:%y%m%d%H%M%SZ}".encode()
    return b"\x18\x0f" + f"{moment:%Y%m%d%H%M%SZ}".encode()


@edges
def test_h4_certificates_are_issued_and_judged_to_the_second(edge: datetime) -> None:
    site = Site(edge)
    for der in (site.ca, site.device):
        assert encoded(edge) in der
        assert parse_certificate(der).not_valid_after_utc == edge
    assert site.verdict(edge - timedelta(seconds=1)) == "monitor-1"
    assert site.verdict(edge) == "monitor-1"
    assert site.verdict(edge, seconds_later=1) in ("expired", "unknown-issuer")
    # The last number that a time may have, which no calendar has.
    with pytest.raises(CertificateError):
        site.validator.verify_peer([site.device], Role.DEVICE, 2**64 - 1)
    peer = site.validator.verify_peer([site.device], Role.DEVICE, microseconds(edge))
    assert peer.not_after == microseconds(edge)


@edges
def test_h4_a_life_may_span_it(edge: datetime) -> None:
    """From before an edge to after it, as far as there is an after."""
    end = min(edge + timedelta(minutes=30), END_OF_TIME) if edge != END_OF_TIME else edge
    site = Site(end)
    assert encoded(end) in site.device
    for moment in (edge - timedelta(seconds=1), edge):
        assert site.verdict(moment) == "monitor-1"
    assert site.verdict(end - timedelta(hours=1, minutes=2)) in ("not-yet-valid", "unknown-issuer")


@edges
def test_h4_lists_end_there(edge: datetime) -> None:
    site = Site(min(edge, END_OF_TIME - timedelta(hours=1)) + timedelta(hours=1))
    made = microseconds(edge - LIFE - GRACE)
    crl = site.crl(made, 7)
    facts = CrlFacts.parse(crl)
    assert (facts.this_update, facts.next_update) == (made, microseconds(edge))
    assert encoded(edge) in crl
    assert encoded(to_datetime(made)) in crl
    assert site.verdict(edge - timedelta(seconds=1), crl) == "monitor-1"
    assert site.verdict(edge - timedelta(seconds=1), site.crl(made, 2)) == "revoked"
    if edge != END_OF_TIME:
        assert site.verdict(edge + timedelta(seconds=1), crl) == "revocation-unknown"


@edges
def test_h4_policies_and_credentials_hold_it(edge: datetime) -> None:
    signer, moment = KeySigner.generate(), microseconds(edge)
    policy = replace(example_policy(), issued=moment - HOUR, next_update=moment)
    assert Policy.parse(policy.sign(signer), signer.public_key) == policy
    credential = StreamCredential(
        spki=ed25519_spki(bytes(range(32))),
        channel_id=bytes(32),
        suite=1,
        site_id=SITE_ID,
        device="monitor-1",
        certificate_hash=bytes(32),
        not_before=moment - HOUR,
        not_after=moment,
        start_nonce=bytes(16),
        instance="",
        succeeds=None,
    )
    assert StreamCredential.decode(credential.encode()) == credential


@edges
def test_h4_times_are_converted_without_loss(edge: datetime) -> None:
    moment = microseconds(edge)
    assert to_datetime(moment) == edge
    assert microseconds(to_datetime(moment + 999_999)) == moment + 999_999
    assert to_certificate_time(moment + 999_999) == edge
