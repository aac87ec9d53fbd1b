"""Where packets go: overrides, the channel's interface, loopback, and never the default route in silence."""

import pytest

from sealcast import _core
from sealcast.endpoint.routing import Route, is_loopback, network_error, parse_address
from sealcast.errors import ConfigError, UsageError

LOOPBACK_URL = "https://127.0.0.1:8444"
DISTANT_URL = "https://192.0.2.9:8444"


def policy(interface: str | None) -> "_core.Policy":
    return {
        "version": 1,
        "suite": 1,
        "group": "239.255.1.1",
        "port": 5000,
        "interface": interface,
        "rate": 1_000_000,
        "slot_length": 1,
        "retention": 1,
        "fec": "off",
        "publishers": [],
        "subscribers": [],
    }


def test_the_policy_says_where() -> None:
    route = Route.of(policy("eth7"), None, None, DISTANT_URL)
    assert (route.address, route.port, route.interface) == ("239.255.1.1", 5000, "eth7")


def test_an_override_comes_first() -> None:
    route = Route.of(policy("eth7"), ("239.255.9.9", 6000), "eth8", DISTANT_URL)
    assert (route.address, route.port, route.interface) == ("239.255.9.9", 6000, "eth8")


def test_loopback_if_the_authority_is_there() -> None:
    assert Route.of(policy(None), None, None, LOOPBACK_URL).interface in ("lo", "127.0.0.1")


def test_no_interface_is_an_error_that_lists_them() -> None:
    with pytest.raises(ConfigError) as caught:
        Route.of(policy(None), None, None, DISTANT_URL)
    assert "--interface" in caught.value.cure
    assert _core.list_interfaces()[0] in caught.value.cure


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("239.255.10.1:5000", ("239.255.10.1", 5000)),
        ("[ff15::1]:5000", ("ff15::1", 5000)),
        ("127.0.0.1:65535", ("127.0.0.1", 65535)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", ["", "239.255.10.1", "host:5000", "239.255.10.1:0", "239.255.10.1:70000"])
def test_bad_addresses(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("127.0.0.5", True), ("::1", True), ("192.0.2.1", False), ("example", False)],
)
def test_loopback_hosts(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_a_socket_that_cannot_be_had_names_the_value_and_the_cure() -> None:
    error = _core.NetworkError("no interface eth9")
    error.reason = "unknown-interface"
    told = network_error(error, Route(address="239.255.1.1", port=5, interface="eth9"))
    assert "eth9" in str(told)
    assert "--interface" in told.cure
