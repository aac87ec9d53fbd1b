"""What the extension's engines refuse to be given, and what they hand out to be stored."""

import os
from typing import Any

import pytest

from sealcast import _core
from sealcast.testing import START
from sealcast.testing.site import Site


def usual(**changed: Any) -> dict[str, Any]:
    site = Site(seed=1)
    given = {
        "site_id": site.site_id,
        "channel": "ward-3/vitals",
        "device_site_id": site.site_id,
        "device": "bed12",
        "anchors": [site.root],
        "issuers": [site.ca],
        "now": START,
        "jitter_seed": 1,
    }
    return given | changed


def publisher(**changed: Any) -> _core.SendEngine:
    return _core.SendEngine(**usual(seed=os.urandom(32), start_nonce=os.urandom(16), **changed))


@pytest.mark.parametrize("length", [0, 1, 16, 31, 33, 64])
def test_blocks_are_sealed_with_32_fresh_bytes_or_not_at_all(length: int) -> None:
    with pytest.raises(ValueError, match="randomness"):
        publisher().handle_deadline(START, os.urandom(length))


def test_the_right_number_of_bytes_is_taken() -> None:
    publisher().handle_deadline(START, os.urandom(32))


@pytest.mark.parametrize("make", [publisher, lambda **changed: _core.ReceiveEngine(**usual(**changed))])
def test_floors_are_handed_in_and_out(make: Any) -> None:
    assert make().floors() == (0, 0, 0)
    engine = make(policy_version_floor=3, crl_number_floor=4, generation_floor=5)
    assert engine.floors() == (3, 4, 5)


def test_an_mtu_too_small_for_the_credential_is_named_with_the_one_that_is_not() -> None:
    chain = [bytes(1200), bytes(1200)]
    with pytest.raises(_core.SendError, match="needs an MTU of 614 bytes, more than 576") as raised:
        publisher(mtu=576, fec="off").set_credential(bytes(128), chain, START, START)
    assert raised.value.reason == "mtu-too-small"
    publisher(mtu=614, fec="off").set_credential(bytes(128), chain, START, START)
    # With parity, or before the policy tells whether there is any (TR-13), a packet has less room.
    for options in ({"fec": (8, 2)}, {}):
        with pytest.raises(_core.SendError, match="needs an MTU of 640 bytes, more than 614"):
            publisher(mtu=614, **options).set_credential(bytes(128), chain, START, START)


def test_a_credential_that_no_subscriber_takes_is_refused_at_any_mtu() -> None:
    with pytest.raises(_core.SendError, match="more than 9632") as raised:
        publisher(mtu=9000).set_credential(bytes(128), [bytes(9600)], START, START)
    assert raised.value.reason == "credential-too-long"


@pytest.mark.parametrize("fec", ["off", "auto", (8, 2), (64, 16)])
def test_parity_of_its_own(fec: Any) -> None:
    assert publisher(fec=fec).fec == fec


@pytest.mark.parametrize("fec", ["on", (0, 2), (8, 17), (65, 1)])
def test_no_parity_that_there_is(fec: Any) -> None:
    with pytest.raises(ValueError, match="no parity"):
        publisher(fec=fec)
