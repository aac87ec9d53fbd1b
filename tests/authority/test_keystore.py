"""Keys as rows: what is held in memory in their place is what is stored, and nothing that was taken back."""

import gc
from contextlib import suppress

import pytest
from sqlalchemy import select

from sealcast.authority import channels
from sealcast.authority.channels import ChannelSettings
from sealcast.authority.keystore import draw_secret, load_keys, store_keys
from sealcast.authority.models import ChannelRow
from sealcast.authority.site import Site
from sealcast.keys import ChannelKeys, MemberRole
from sealcast.pki.times import system_time
from tests.authority.conftest import make_site


class _TakeBackError(Exception):
    pass


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Site:
    site = Site.open(make_site(tmp_path_factory.mktemp("site") / "authority"))
    wanted = ChannelSettings(
        name="c", group="239.192.0.1", port=5000, publish=("p*",), subscribe=("s*",), slot=3_600_000_000
    )
    with site.storage.transaction() as session:
        channels.add_channel(session, site, wanted, system_time())
    return site


def change(site: Site, device: str, *, fails: bool = False) -> ChannelKeys:
    """Admit a device; returns what the keys became, or would have become."""
    made = []
    with suppress(_TakeBackError), site.storage.transaction() as session:
        row = session.scalars(select(ChannelRow)).one()
        keys = load_keys(session, row, site.vault)
        made.append(keys.admitted([(device, MemberRole.SUBSCRIBE)], system_time(), draw_secret))
        store_keys(session, row, site.vault, keys, made[0], system_time())
        if fails:
            raise _TakeBackError
    return made[0]


def read(site: Site) -> ChannelKeys:
    with site.storage.snapshot() as session:
        return load_keys(session, session.scalars(select(ChannelRow)).one(), site.vault)


def test_what_is_held_is_what_is_stored(opened: Site) -> None:
    stored = change(opened, "s1")
    position, members = stored.generation.position, dict(stored.membership.members)
    assert read(opened) is stored
    del stored
    gc.collect()
    again = read(opened)
    assert (again.generation.position, dict(again.membership.members)) == (position, members)


def test_what_was_taken_back_is_not_held(opened: Site) -> None:
    before = change(opened, "s2")
    failed = change(opened, "s3", fails=True)
    assert read(opened) is before
    assert change(opened, "s4").generation.position == failed.generation.position
    assert not read(opened).membership.is_present("s3")


def test_settings_of_the_channel_count_as_they_are_now(opened: Site) -> None:
    held = change(opened, "s5")
    with opened.storage.transaction() as session:
        session.scalars(select(ChannelRow)).one().slots_ahead = 7
    assert held.slots_ahead != 7 == read(opened).slots_ahead
