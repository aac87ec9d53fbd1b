"""The exception tree: exit codes, cures, fields."""

import inspect
import pickle

import pytest

from sealcast import errors
from sealcast.errors import SealcastError

CODES = {
    "SealcastError": 1,
    "InternalError": 1,
    "UsageError": 2,
    "UnknownNameError": 2,
    "ConflictError": 2,
    "ConfigError": 3,
    "EnrolmentError": 4,
    "TokenError": 4,
    "CsrError": 4,
    "CertificateError": 5,
    "ChannelError": 6,
    "UnknownChannelError": 6,
    "NotAllowedError": 6,
    "PeerError": 6,
    "RoleError": 6,
    "NetworkError": 7,
    "UnreachableError": 7,
    "StorageError": 8,
    "OutboxFullError": 8,
    "IncompleteError": 9,
}
CLASSES: list[type[SealcastError]] = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, SealcastError)
]


def test_exit_codes_are_pinned_and_drawn() -> None:
    assert {kind.__name__: kind.exit_code for kind in CLASSES} == CODES
    drawing = (errors.__doc__ or "").splitlines()
    for kind in CLASSES:
        line = next(line for line in drawing if f" {kind.__name__} " in f"{line} ")
        if kind is not SealcastError:
            assert f" {kind.exit_code} " in line


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if kind is not SealcastError])
def test_every_error_has_a_cure(kind: type[SealcastError]) -> None:
    assert kind.default_cure


def test_texts_name_the_value() -> None:
    assert str(errors.UnknownChannelError("ecg")) == "unknown channel 'ecg'"
    refused = errors.NotAllowedError("ecg", device="pump-1", action="publish")
    assert str(refused) == "device 'pump-1' may not publish on channel 'ecg'"
    assert str(errors.UnreachableError("https://a:1", "refused")) == "cannot reach https://a:1: refused"
    assert str(errors.StorageError("/a", "is full")) == "/a: is full"
    assert errors.EnrolmentError("later", retry_after=5).retry_after == 5


def test_an_own_cure_comes_first() -> None:
    assert SealcastError("a").cure == ""
    assert errors.UsageError("a", cure="b").cure == "b"


def test_errors_imports_nothing_of_ours() -> None:
    assert "from sealcast" not in inspect.getsource(errors)


def test_plain_errors_survive_a_process_boundary() -> None:
    copy = pickle.loads(pickle.dumps(errors.ConfigError("a", cure="b")))  # noqa: S301
    assert (str(copy), copy.cure) == ("a", "b")
