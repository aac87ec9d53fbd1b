"""Parity as an operator writes it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealcast.errors import UsageError
from sealcast.pki.fec import Fec, format_fec, parse_fec


@pytest.mark.parametrize(
    ("text", "parity"),
    [
        ("off", "off"),
        ("auto", "auto"),
        ("8+2", (8, 2)),
        ("64+16", (64, 16)),
        ("1+1", (1, 1)),
        ("25%", (64, 16)),
        ("1%", (64, 1)),
        ("100%", (16, 16)),
        ("200%", (8, 16)),
    ],
)
def test_how_much_parity(text: str, parity: Fec) -> None:
    assert parse_fec(text) == parity


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8",
        "8+",
        "+2",
        "0+2",
        "8+0",
        "65+2",
        "8+17",
        "0%",
        "201%",
        "8-2",
        "-8+2",
        "8+2 ",
        "OFF",
        "\u0663+1",
        "x" * 500,
    ],
)
def test_no_parity_that_makes_sense(text: str) -> None:
    with pytest.raises(UsageError, match="fec is") as caught:
        parse_fec(text)
    assert "8+2" in str(caught.value.cure)


@given(st.sampled_from(["off", "auto"]) | st.tuples(st.integers(1, 64), st.integers(1, 16)))
def test_each_has_one_text(fec: Fec) -> None:
    assert parse_fec(format_fec(fec)) == fec
