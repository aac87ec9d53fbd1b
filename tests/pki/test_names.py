"""TR-1 to TR-3 and DP-3: names, identities, channel ids."""

import hashlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealcast.errors import CertificateError, UsageError
from sealcast.pki.names import (
    Identity,
    Role,
    channel_id,
    check_channel_name,
    check_device_name,
    check_host_name,
    check_instance_name,
    check_site_name,
    member_name,
    new_site_id,
    parse_member,
    parse_site_id,
)

ALNUM = string.ascii_letters + string.digits
SITE_IDS = st.binary(min_size=16, max_size=16)
DEVICE_NAMES = st.builds(str.__add__, st.sampled_from(ALNUM), st.text(alphabet=ALNUM + "._-", max_size=62))
CHANNEL_NAMES = st.builds(str.__add__, st.sampled_from(ALNUM), st.text(alphabet=ALNUM + "._/-", max_size=126))


@given(DEVICE_NAMES)
def test_device_names_of_the_spec_pass(name: str) -> None:
    assert check_device_name(name) == name
    assert check_instance_name(name) == name


@given(CHANNEL_NAMES)
def test_channel_names_of_the_spec_pass(name: str) -> None:
    assert check_channel_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".a", "-a", "_a", "a b", "a/b", "a\n", "ä", "a" * 64, "a:b", "a\x00", "\u0661"],
)
def test_other_device_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_device_name(name)
    assert caught.value.cure


@pytest.mark.parametrize("name", ["", "/a", "a b", "a\n", "a" * 128, "ü", "a:b", "a?"])
def test_other_channel_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        check_channel_name(name)


def test_an_instance_may_be_unnamed() -> None:
    assert check_instance_name("") == ""
    with pytest.raises(UsageError, match="not an instance name: 'a,b'"):
        check_instance_name("a,b")


@pytest.mark.parametrize(
    "name", ["localhost", "keys.ward.example", "a-1", "192.0.2.7", "::1", "größe.example", "a" * 63 + ".b"]
)
def test_host_names_and_addresses_pass(name: str) -> None:
    assert check_host_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "bad name!!", "a_b", "-a", "a-", ".a", "a..b", "a" * 64, "a." * 127 + "b", "a\n"]
)
def test_other_host_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="not a host name or an IP address"):
        check_host_name(name)


@pytest.mark.parametrize("name", ["", " a", "a ", "a\n", "a" * 59, "\u202eab"])
def test_site_names_must_fit_a_certificate(name: str) -> None:
    with pytest.raises(UsageError):
        check_site_name(name)


@pytest.mark.parametrize("text", ["", "0" * 31, "0" * 33, "A" * 32, "g" * 32, "0" * 32 + "\n"])
def test_site_ids_are_32_lower_case_hexadecimal_digits(text: str) -> None:
    with pytest.raises(UsageError):
        parse_site_id(text)


def test_site_ids_are_random() -> None:
    assert len(new_site_id()) == 16
    assert new_site_id() != new_site_id()


@given(SITE_IDS, DEVICE_NAMES, st.sampled_from([Role.DEVICE, Role.KEY_SERVER]))
def test_identity_and_uri_are_one_pair(site_id: bytes, name: str, role: Role) -> None:
    identity = Identity(role=role, site_id=site_id, name=name)
    assert identity.uri == f"sealcast:{role.value}:{site_id.hex()}:{name}"
    assert Identity.from_uri(identity.uri) == identity


@given(SITE_IDS)
def test_a_site_has_no_name(site_id: bytes) -> None:
    identity = Identity(role=Role.SITE, site_id=site_id, name="")
    assert Identity.from_uri(identity.uri) == identity
    with pytest.raises(UsageError):
        Identity(role=Role.SITE, site_id=site_id, name="a")


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "sealcast:device",
        f"sealcast:device:{'0' * 32}",
        f"sealcast:device:{'0' * 32}:",
        f"sealcast:device:{'0' * 32}:a:b",
        f"sealcast:device:{'0' * 32}:a b",
        f"sealcast:device:{'A' * 32}:a",
        f"sealcast:site:{'0' * 32}:a",
        f"Sealcast:device:{'0' * 32}:a",
        f"sealcast:root:{'0' * 32}:a",
        f"urn:device:{'0' * 32}:a",
    ],
)
def test_other_uris_are_no_identity(uri: str) -> None:
    with pytest.raises(CertificateError):
        Identity.from_uri(uri)


@given(st.text(max_size=100))
def test_any_text_is_an_identity_or_refused(uri: str) -> None:
    try:
        identity = Identity.from_uri(uri)
    except CertificateError:
        return
    assert identity.uri == uri


def test_channel_id_is_the_hash_of_site_and_name() -> None:
    site_id = bytes(range(16))
    expected = hashlib.sha256(b"sealcast/1 channel\x00" + site_id + b"icu3/vitals").digest()
    assert channel_id(site_id, "icu3/vitals") == expected
    assert channel_id(bytes(16), "icu3/vitals") != expected


FEW_SITES = st.sampled_from([bytes(16), bytes(15) + b"\1"]) | SITE_IDS
FEW_NAMES = st.sampled_from(["bed12", "0" * 32]) | DEVICE_NAMES


@given(FEW_SITES, st.tuples(FEW_SITES, FEW_NAMES), st.tuples(FEW_SITES, FEW_NAMES))
def test_f6_two_devices_are_never_written_alike(
    channel_site: bytes, one: tuple[bytes, str], other: tuple[bytes, str]
) -> None:
    """TR-26: whatever sites and names there are, also of one name at two sites."""
    written = member_name(channel_site, *one)
    assert (written == member_name(channel_site, *other)) == (one == other)
    assert parse_member(channel_site, written) == one


@given(SITE_IDS, DEVICE_NAMES)
def test_a_device_has_no_second_spelling(site: bytes, name: str) -> None:
    for text in (f"{site.hex()}:{name}", f"{site.hex().upper()}x:{name}", f":{name}", f"{name}:", ""):
        with pytest.raises(UsageError):
            parse_member(site, text)
