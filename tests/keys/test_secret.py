"""Secrets cannot be shown by accident."""

import pickle

import pytest

from sealcast.keys import Secret

VALUE = bytes(range(32))


def test_it_reveals_its_value_only_when_asked() -> None:
    secret = Secret(VALUE)
    assert secret.reveal() == VALUE
    for text in (repr(secret), str(secret), f"{secret}", f"{[secret]}"):
        assert "…" in text
        assert VALUE.hex() not in text
        assert repr(VALUE) not in text


def test_it_compares_by_value_with_secrets_only() -> None:
    assert Secret(VALUE) == Secret(VALUE)
    assert Secret(VALUE) != Secret(bytes(32))
    assert Secret(VALUE) != VALUE


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Secret(bytes(length))


def test_it_is_neither_pickled_nor_hashed() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(Secret(VALUE))
    with pytest.raises(TypeError):
        hash(Secret(VALUE))
