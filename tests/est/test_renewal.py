"""The renewal hint: the id and the window of RFC 9773, and what a client makes of them."""

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealcast.errors import NetworkError, UsageError
from sealcast.est import CertificateId, EstClient, RenewalWindow
from tests.est.site import SECOND, Site, TokenService, serving
from tests.est.wire import Wire, tls

ARI = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"
"""The example of RFC 9773 section 4.1."""


def test_the_example_of_rfc_9773() -> None:
    known = CertificateId.parse(ARI)
    assert known.key_identifier.hex(":").upper() == (
        "69:88:5B:6B:87:46:40:41:E1:B3:7B:84:7B:A0:AE:2C:DE:01:C8:D4"
    )
    assert known.serial == 0x87654321
    assert known.serialize() == ARI


@given(st.binary(min_size=1, max_size=40), st.integers(0, 2**160))
def test_an_id_is_read_as_it_was_written(key_identifier: bytes, serial: int) -> None:
    known = CertificateId(key_identifier=key_identifier, serial=serial)
    assert CertificateId.parse(known.serialize()) == known


@pytest.mark.parametrize(
    "text", ["", ".", "AA", "AA.", ".AA", "AA.A", "AA==.AA==", "A+A.AA", "AA.A/A", "ä.AA", "A" * 200 + ".AA"]
)
def test_another_id_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        CertificateId.parse(text)


def test_the_window_follows_the_life() -> None:
    window = RenewalWindow.by_life(0, 90 * SECOND)
    assert (window.start, window.end) == (60 * SECOND, 90 * SECOND)
    assert [window.choose(fraction) for fraction in (0, 0.5, 1)] == [60 * SECOND, 75 * SECOND, 90 * SECOND]


def test_the_form_is_that_of_rfc_9773() -> None:
    window = RenewalWindow(start=1_800_000_000 * SECOND, end=1_800_086_400 * SECOND)
    assert window.serialize() == (
        b'{"suggestedWindow": {"start": "2027-01-15T08:00:00Z", "end": "2027-01-16T08:00:00Z"}}'
    )
    assert RenewalWindow.parse(window.serialize()) == window


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"suggestedWindow": 1}',
        b'{"suggestedWindow": {"start": "2027-01-15T08:00:00Z"}}',
        b'{"suggestedWindow": {"start": "soon", "end": "later"}}',
        b'{"suggestedWindow": {"start": "2027-01-15T08:00:00", "end": "2027-01-16T08:00:00"}}',
        b'{"suggestedWindow": {"start": "2027-01-16T08:00:00Z", "end": "2027-01-15T08:00:00Z"}}',
        b'{"suggestedWindow": {"start": 1, "end": 2}}',
    ],
)
def test_another_answer_is_an_error(body: bytes) -> None:
    with pytest.raises(NetworkError):
        RenewalWindow.parse(body)


async def test_server_and_client(tmp_path: Path) -> None:
    service = TokenService(Site(tmp_path))
    certificate = service.site.device("monitor-1").der
    window = RenewalWindow(start=1_800_000_000 * SECOND, end=1_800_086_400 * SECOND)
    async with serving(service) as url:
        client = EstClient(url, [service.site.root_der])
        assert await client.renewal_info(certificate) is None
        known = CertificateId.of(certificate)
        service.windows[known] = window
        hint = await client.renewal_info(certificate)
        assert hint is not None
        assert (hint.window, hint.retry_after) == (window, 6 * 3600)
        # Not base64, unlike all else in EST.
        wire = Wire(int(url.rpartition(":")[2]), tls([service.site.root_der]))
        reply = await wire.get(f"/.well-known/est/renewal-info/{known.serialize()}")
        assert reply.headers["Content-Type"] == "application/json"
        assert reply.body == window.serialize()
        assert (await wire.get("/.well-known/est/renewal-info/nonsense")).status == 400
        padded = base64.urlsafe_b64encode(known.key_identifier).decode()
        assert (await wire.get(f"/.well-known/est/renewal-info/{padded}.AA")).status == 400
