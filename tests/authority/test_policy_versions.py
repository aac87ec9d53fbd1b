"""Versions of a policy: a step at a time says what a full expansion says, and none is lost."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, select, text
from sqlalchemy.orm import Session

from sealcast.authority import channels, policy_versions, register, settlement, stored_channel
from sealcast.authority.channels import ChannelSettings
from sealcast.authority.models import ChannelRow, DeviceRow, PolicyRow
from sealcast.authority.site import Site
from sealcast.authority.storage import DATABASE_FILE, Storage, migrations
from sealcast.keys import MemberRole
from sealcast.pki.policy import Policy
from sealcast.pki.policy_names import Names
from sealcast.pki.policy_rules import ChannelRules, Rule
from sealcast.pki.times import system_time
from tests.authority.conftest import make_site
from tests.pki.test_policy import example
from tests.pki.test_policy_rules import NAMES, ROLE_NAMES, RULES, SITES

ROLES = st.lists(ROLE_NAMES, max_size=2, unique=True).map(sorted)
DEVICES = st.dictionaries(NAMES, ROLES, max_size=6)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site.open(make_site(tmp_path_factory.mktemp("site") / "authority"))


class _TakeBackError(Exception):
    pass


@contextmanager
def undone(site: Site) -> Iterator[Session]:
    """A transaction that is not kept."""
    with suppress(_TakeBackError), site.storage.transaction() as session:
        yield session
        raise _TakeBackError


@pytest.fixture
def session(opened: Site) -> Iterator[Session]:
    with undone(opened) as session:
        yield session


def put(session: Session, name: str, roles: list[str], revoked: int | None = None) -> None:
    session.merge(DeviceRow(name=name, enrolled=1, revoked=revoked, roles=roles, maker_key=None))
    session.flush()


def add_channel(session: Session, site: Site, name: str, *rules: list[str]) -> None:
    publish, subscribe, deny = (tuple(Rule.parse(rule, SITES).text() for rule in each) for each in rules)
    wanted = ChannelSettings(
        name=name, group="239.192.0.1", port=5000, publish=publish, subscribe=subscribe, deny=deny
    )
    channels.add_channel(session, site, wanted, system_time())


ONCE = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@ONCE
@given(
    st.lists(RULES, max_size=4),
    st.lists(RULES, max_size=2),
    st.lists(st.text(min_size=1, max_size=6), max_size=1),
    DEVICES,
)
def test_the_register_says_what_the_rules_say(
    opened: Site, allow: list[str], deny: list[str], odd: list[str], devices: dict[str, list[str]]
) -> None:
    """SQLite's reading of a glob is `fnmatch`'s, of whatever was stored too."""
    rules = [Rule.parse(rule, SITES) for rule in allow] + [Rule.stored(rule) for rule in odd]
    denied = [Rule.parse(rule, SITES) for rule in deny]
    with undone(opened) as session:
        for place, (name, roles) in enumerate(devices.items()):
            put(session, name, roles, revoked=1 if place == 5 else None)
        subjects = register.registered(session)
        plain = ChannelRules(publish=tuple(rules), deny=tuple(denied)).publishers(subjects)
        if all(rule.is_sound for rule in rules):
            assert register.expand(session, rules, denied) == plain
        else:
            assert set(register.matched(session, rules)) == {
                subject.member for subject in subjects if any(rule.matcher()(subject) for rule in rules)
            }
        for rule in rules:
            assert register.matches_any(session, rule) == any(map(rule.matcher(), subjects))


@ONCE
@given(
    st.lists(st.tuples(st.lists(RULES, max_size=3), st.lists(RULES, max_size=3), st.lists(RULES, max_size=1)),
             min_size=1, max_size=3),
    st.lists(st.tuples(NAMES, ROLES, st.booleans()), min_size=1, max_size=8),
)  # fmt: skip
def test_a_step_at_a_time_signs_what_a_full_expansion_signs(
    opened: Site,
    rules: list[tuple[list[str], list[str], list[str]]],
    changes: list[tuple[str, list[str], bool]],
) -> None:
    with undone(opened) as session:
        for number, lists in enumerate(rules):
            add_channel(session, opened, f"c{number}", *lists)
        history: dict[tuple[str, int], bytes] = {}
        for name, roles, is_revoked in changes:
            put(session, name, roles, revoked=1 if is_revoked else None)
            changed = settlement.settle_devices(session, opened, [name], system_time())
            history |= {(each.name, each.policy.version.version): each.policy.signed for each in changed}
            assert settlement.settle_all(session, opened, system_time()) == [], "the full expansion agrees"
            subjects = register.registered(session)
            for row in session.scalars(select(ChannelRow)):
                policy = Policy.parse(
                    policy_versions.load_policy(session, row.name).signed, opened.issuer.public_key
                )
                wanted = stored_channel.channel_rules(row)
                assert policy.publishers == wanted.publishers(subjects)
                assert policy.subscribers == wanted.subscribers(subjects)
                listed = {
                    (row.name, role, name)
                    for role, names in (
                        (MemberRole.PUBLISH, policy.publishers), (MemberRole.SUBSCRIBE, policy.subscribers)
                    )
                    if name in names
                }  # fmt: skip
                assert {
                    each for each in policy_versions.listings(session, [name, "z"]) if each[0] == row.name
                } == (listed)
        for (channel, version), signed in history.items():
            stored = session.get_one(PolicyRow, (channel, version))
            assert policy_versions.load_version(session, stored).signed == signed


class TestLargePolicy:
    def test_a_version_writes_the_block_that_it_changes(self, session: Session, opened: Site) -> None:
        for number in range(600):
            session.add(DeviceRow(name=f"d{number:03}", enrolled=1, revoked=None, roles=[], maker_key=None))
        session.flush()
        add_channel(session, opened, "c", [], ["d*"], [])
        count = "SELECT count(*) FROM policy_names WHERE channel = 'c'"
        assert session.scalar(text(count)) == 5
        put(session, "d300", [], revoked=1)
        (changed,) = settlement.settle_devices(session, opened, ["d300"], system_time())
        assert len(changed.policy.subscribers) == 599
        assert session.scalar(text(count)) == 6
        first = policy_versions.load_version(session, session.get_one(PolicyRow, ("c", 1)))
        assert "d300" in Policy.parse(first.signed, opened.issuer.public_key).subscribers

    def test_a_channel_of_the_same_rules_lists_the_same(self, session: Session, opened: Site) -> None:
        for name in ("d1", "d2", "e1"):
            put(session, name, [])
        add_channel(session, opened, "c", ["e*"], ["d*"], [])
        put(session, "d2", [], revoked=1)
        settlement.settle_devices(session, opened, ["d2"], system_time())
        add_channel(session, opened, "alike", ["d*"], ["d*"], [])
        add_channel(session, opened, "other", ["e*"], ["d*"], ["d1"])
        lists = [policy_versions.load_policy(session, name).subscribers for name in ("c", "alike", "other")]
        assert lists == [("d1",), ("d1",), ()]
        assert policy_versions.load_policy(session, "alike").publishers == ("d1",)

    def test_one_that_is_not_concerned_is_left_alone(self, session: Session, opened: Site) -> None:
        add_channel(session, opened, "c", ["a"], ["b"], [])
        put(session, "d", [])
        assert settlement.settle_devices(session, opened, ["d"], system_time()) == []


class TestMigration:
    def test_versions_from_before_are_what_they_were(self, tmp_path: Path, opened: Site) -> None:
        path = tmp_path / DATABASE_FILE
        lists = [["a", "b"], [f"d{number:03}" for number in range(300)], [f"d{n:03}" for n in range(1, 300)]]
        signed = []
        with create_engine(f"sqlite:///{path}").begin() as connection:
            command.upgrade(migrations(connection), "0006")
            _fill(connection, "channels", name="c")
            for version, names in enumerate(lists, 1):
                policy = opened.issuer.sign_policy(_large(opened, version, names))
                signed.append(policy)
                connection.exec_driver_sql(
                    "INSERT INTO policies VALUES ('c', ?, 1, 2, '[]', '[]', ?)", (version, policy)
                )
        with Storage.open(path).snapshot() as session:
            rows = session.scalars(select(PolicyRow).order_by(PolicyRow.version)).all()
            found = [policy_versions.load_version(session, row) for row in rows]
            assert [version.signed for version in found] == signed
            assert policy_versions.load_policy(session, "c").subscribers == tuple(lists[-1])
            assert session.scalar(text("SELECT count(*) FROM policy_names WHERE role = 'publish'")) == 2


def test_no_block_is_read_but_those_where_a_name_would_stand(session: Session) -> None:
    """There may be a thousand of each channel, and more that only older versions have."""
    connection = session.connection()
    asked = policy_versions._BLOCK_OF.params(names="[]")
    statement = asked.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
    plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")
    steps = [row[-1] for row in plan if "policy_names" in row[-1]]
    assert len(steps) == 3
    assert all("first<?" in step for step in steps)


def _fill(connection: Connection, table: str, **values: object) -> None:
    """Add a row in which everything else is something."""
    columns = connection.exec_driver_sql(f"PRAGMA table_info({table})").all()
    row = {name: values.get(name, "1") for _, name, *_ in columns}
    places = ", ".join("?" for _ in row)
    connection.exec_driver_sql(f"INSERT INTO {table} VALUES ({places})", tuple(row.values()))  # noqa: S608


def _large(site: Site, version: int, subscribers: list[str]) -> Policy:
    now = system_time()
    return replace(
        example(),
        site_id=site.site_id,
        channel="c",
        version=version,
        issued=now,
        next_update=now + 1,
        publishers=Names.of(["d000", "d001"][version - 1 :]),
        subscribers=Names.of(subscribers),
    )


def test_a_policy_of_an_earlier_form_is_signed_anew_at_the_start(opened: Site, session: Session) -> None:
    """Peers of this release would not read it (TR-13)."""
    settings = ChannelSettings(
        name="old", group="239.192.1.1", port=5000, publish=("*",), subscribe=(), fec="8+2"
    )
    channels.add_channel(session, opened, settings, system_time())
    row = policy_versions.latest_row(session, "old")
    assert row is not None
    row.head = bytes([row.head[0] - 1]) + row.head[1:]
    session.flush()
    for _ in range(2):
        started = channels.start_channels(session, opened, system_time(), restored=False)
        (policy,) = (channel.policy for channel in started if channel.name == "old")
        assert policy.version.version == 2
        assert Policy.parse(policy.signed, None).fec == (8, 2)
