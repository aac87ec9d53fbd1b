"""The latest signed time in the device's folder: what moves it, and how far (TR-27, H1 to H3)."""

from pathlib import Path

import pytest

from sealcast.device.floors import read_signed_time, take_signed_time
from sealcast.errors import StorageError
from sealcast.pki.tls import clock_problem

SECOND = 1_000_000
DAY = 86_400 * SECOND
YEAR = 365 * DAY
NOW = 56 * YEAR


@pytest.mark.parametrize("back", [10 * YEAR, DAY, 120 * SECOND])
def test_h1_it_is_kept_and_never_goes_back_when_the_clock_does(tmp_path: Path, back: int) -> None:
    assert read_signed_time(tmp_path) == 0
    assert take_signed_time(tmp_path, NOW - DAY, NOW) == NOW - DAY
    assert take_signed_time(tmp_path, NOW - 2 * DAY, NOW - back) == NOW - DAY
    assert read_signed_time(tmp_path) == NOW - DAY


def test_h2_an_authority_that_was_years_ahead_ends_no_life(tmp_path: Path) -> None:
    for _ in range(3):
        take_signed_time(tmp_path, NOW + 10 * YEAR, NOW)
    assert read_signed_time(tmp_path) == NOW + 600 * SECOND
    # A clock that was ahead itself, meanwhile, has moved nothing but to what was signed.
    assert take_signed_time(tmp_path, NOW + DAY, NOW + 10 * YEAR) == NOW + DAY


def test_h3_without_a_clock_it_moves_by_a_day_for_each_object(tmp_path: Path) -> None:
    # The first one comes at enrolment, for which the clock was right.
    take_signed_time(tmp_path, NOW, NOW)
    assert take_signed_time(tmp_path, NOW + 40 * DAY, 0) == NOW + DAY
    assert take_signed_time(tmp_path, NOW + 40 * DAY, 0) == NOW + 2 * DAY


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    take_signed_time(tmp_path, NOW, NOW)
    (tmp_path / "floors" / "time").write_bytes(b"\x81\x61x")
    with pytest.raises(StorageError, match="damaged") as caught:
        read_signed_time(tmp_path)
    assert "remove this file" in caught.value.cure


def test_a_certificate_that_tls_refuses_for_its_time_is_the_clocks_problem() -> None:
    cure = clock_problem("certificate is not yet valid", 0)
    assert cure is not None
    assert "1970-01-01T00:00:00Z" in cure
    assert clock_problem("certificate has expired", NOW) is not None
    assert clock_problem("unable to get local issuer certificate", NOW) is None
