"""The policy of a site from its source: difference, one transaction, refusals, reasons; roles in service."""

import asyncio
from collections.abc import Iterable

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from sealcast.authority import policies
from sealcast.authority.models import AuditRow, CertificateRow, DeviceRow
from sealcast.authority.policies import PolicyChange
from sealcast.authority.site import Site as StoredSite
from sealcast.errors import ChannelError, NotAllowedError, UsageError
from sealcast.est import EnrolmentRequest
from sealcast.keys import MemberRole
from sealcast.pki.csr import CertificateRequest, make_csr
from sealcast.pki.policy import Policy
from sealcast.pki.policy_rules import Subject
from sealcast.pki.policy_source import PolicySource, read_source
from tests.authority.conftest import DAY, HOUR, Site, beacon_counter, make_site
from tests.pki.test_policy_rules import NAMES, ROLE_NAMES, RULES, is_meant

ECG = "ward/ecg"
NORTH = "00112233445566778899aabbccddeeff"
SUBSCRIBE, PUBLISH = MemberRole.SUBSCRIBE, MemberRole.PUBLISH


def source(
    publish: Iterable[str] = ("monitor-*",),
    subscribe: Iterable[str] = ("monitor-*", "display-*"),
    deny: Iterable[str] = (),
    name: str = ECG,
    rest: str = "",
) -> str:
    lists = {"publish": publish, "subscribe": subscribe, "deny": deny}
    lines = [f"{key} = {[*rules]}" for key, rules in lists.items()]
    head = [f'[channel."{name}"]', 'group = "239.192.0.1"', "port = 5000"]
    return "\n".join([*head, *lines, rest, ""])


def parsed(text: str) -> PolicySource:
    return read_source(text.encode()).accepted("policy.toml")


async def apply(site: Site, *texts: str, force: bool = False) -> PolicyChange:
    return await site.authority.apply_policy(parsed("\n".join(texts)), force=force)


def difference(site: Site, *texts: str) -> PolicyChange:
    with site.authority.site.storage.snapshot() as session:
        return policies.compare(session, site.authority.site, parsed("\n".join(texts)))


def shown(site: Site) -> str:
    with site.authority.site.storage.snapshot() as session:
        return policies.show(session)


def in_force(site: Site, channel: str = ECG) -> Policy:
    live = site.authority.channel(channel)
    assert live is not None
    return Policy.parse(live.policy.signed, site.authority.site.issuer.public_key)


def generation(site: Site, channel: str = ECG) -> int:
    live = site.authority.channel(channel)
    assert live is not None
    return live.keys.generation.number


class TestDifference:
    async def test_it_names_what_changes_and_changes_nothing(self, site: Site) -> None:
        await site.add_channel()
        await site.enrol("monitor-1")
        await site.enrol("display-1")
        before = shown(site)
        text = source(publish=["display-*"], subscribe=["*"], deny=["monitor-1"], rest='rate = "1Mbit/s"')
        change = difference(site, text, source(name="ward/new"))
        ecg, new = change.channels
        assert (ecg.name, ecg.is_new, new.name, new.is_new) == (ECG, False, "ward/new", True)
        assert ecg.settings == {"rate": ("20Mbit/s", "1Mbit/s")}
        assert (ecg.rules["publish"].added, ecg.rules["publish"].removed) == (("display-*",), ("monitor-*",))
        assert ecg.rules["deny"].added == ("monitor-1",)
        assert (ecg.publishers.added, ecg.publishers.removed) == (("display-1",), ("monitor-1",))
        assert (ecg.subscribers.added, ecg.subscribers.removed) == ((), ("monitor-1",))
        assert new.publishers.added == ("monitor-1",)
        assert shown(site) == before
        assert difference(site, before).is_empty

    async def test_order_and_doubles_are_no_difference(self, site: Site) -> None:
        await site.add_channel()
        assert difference(site, source(subscribe=["display-*", "monitor-*", "display-*"])).is_empty

    async def test_channels_that_are_not_named_stay(self, site: Site) -> None:
        await site.add_channel()
        await site.add_channel("ward/other")
        change = difference(site, source())
        assert change.is_empty
        assert change.untouched == ("ward/other",)

    async def test_rules_that_match_nobody_are_told(self, site: Site) -> None:
        await site.enrol("monitor-1")
        change = difference(site, source(subscribe=["monitor-*", "role:none"]))
        assert change.idle == (f"channel {ECG}: role:none in subscribe",)


class TestApply:
    async def test_it_is_what_was_said_and_applying_again_changes_nothing(self, site: Site) -> None:
        await site.add_channel()
        await site.enrol("monitor-1")
        text = (
            source(publish=["monitor-*", "site:north/a"], rest='slot = "30m"')
            + f'[sites]\nnorth = "{NORTH}"\n'
        )
        wanted = difference(site, text, source(name="ward/new"))
        assert await apply(site, text, source(name="ward/new")) == wanted
        policy = in_force(site)
        assert (policy.version, policy.slots.length) == (3, HOUR // 2)
        assert policy.publishers == (f"{NORTH}:a", "monitor-1")
        assert in_force(site, "ward/new").publishers == ("monitor-1",)
        assert "site:north/a" in shown(site)
        versions = [in_force(site, name).version for name in (ECG, "ward/new")]
        assert (await apply(site, shown(site))).is_empty
        assert [in_force(site, name).version for name in (ECG, "ward/new")] == versions

    async def test_a_device_that_loses_everything_is_removed(self, site: Site) -> None:
        await site.add_channel()
        gone = await site.member("display-1", ECG)
        stays = await site.member("monitor-1", ECG)
        counter = beacon_counter((await stays.keys(ECG)).beacon)
        poll = asyncio.ensure_future(gone.poll(ECG, counter))
        await apply(site, source(subscribe=["monitor-*"]))
        with pytest.raises(NotAllowedError):
            await asyncio.wait_for(poll, 2)
        assert generation(site) == 2
        with pytest.raises(NotAllowedError):
            await gone.keys(ECG)
        assert (await stays.keys(ECG)).generation == 2

    async def test_a_device_that_may_still_read_goes_on_reading(self, site: Site) -> None:
        """It keeps its keys, which are the same; what it must not do any more the policy keeps it from."""
        await site.add_channel()
        await site.member("monitor-2", ECG, PUBLISH)
        client = await site.member("monitor-1", ECG, PUBLISH)
        await client.join(ECG, SUBSCRIBE)
        await apply(site, source(publish=["monitor-2"]))
        assert generation(site) == 1
        assert (await client.keys(ECG)).generation == 1
        with pytest.raises(NotAllowedError):
            await client.join(ECG, PUBLISH)
        live = site.authority.channel(ECG)
        assert live is not None
        assert [member.role for member in live.keys.membership.present() if member.device == "monitor-1"] == [
            SUBSCRIBE
        ]

    async def test_one_that_only_published_still_holds_keys(self, site: Site) -> None:
        """It never joined to read: its removal later on turns the generation all the same."""
        await site.add_channel()
        await site.member("monitor-2", ECG, PUBLISH)
        client = await site.member("monitor-1", ECG, PUBLISH)
        await apply(site, source(publish=["monitor-2"]))
        with pytest.raises(NotAllowedError):
            await client.keys(ECG)
        assert generation(site) == 1
        await site.authority.revoke_device("monitor-1")
        assert generation(site) == 2

    async def test_everything_or_nothing(self, site: Site) -> None:
        """A fault in one channel leaves all as they were."""
        await site.add_channel()
        own = site.authority.site.site_id.hex()
        before = shown(site)
        for bad in (
            source(name="ward/z", publish=[f"site:{own}/a"]),
            source(name="ward/z", rest="suite = 2"),
        ):
            if "suite" in bad:
                await site.add_channel("ward/z")
                before = shown(site)
            with pytest.raises((UsageError, ChannelError)):
                await apply(site, source(publish=["*"]), bad)
            assert shown(site) == before
            assert in_force(site).version == 1

    async def test_slots_of_another_length_go_on_in_number(self, site: Site) -> None:
        await site.add_channel(slot=HOUR)
        client = await site.member("monitor-1", ECG)
        site.clock.ahead = 5 * HOUR + HOUR // 2
        await site.authority.turn_slots()
        before = await client.keys(ECG)
        live = site.authority.channel(ECG)
        assert live is not None
        present = live.keys.slots.present
        for length, text in ((HOUR // 60, "1m"), (2 * HOUR, "2h")):
            await apply(site, source(rest=f'slot = "{text}"'))
            clock = in_force(site).slots
            assert (clock.length, clock.slot(site.clock())) == (length, present)
            after = await client.keys(ECG)
            # A member refuses a second secret for a number that it holds (KM-8).
            shared = dict(before.slots).keys() & dict(after.slots).keys()
            assert {present - 1, present, present + 1} <= shared
            assert all(dict(before.slots)[slot] == dict(after.slots)[slot] for slot in shared)
            assert live.keys.slots.present == present
        site.clock.ahead += 2 * HOUR
        await site.authority.turn_slots()
        assert live.keys.slots.present == present + 1

    async def test_it_is_in_the_audit_log(self, site: Site) -> None:
        await apply(site, source())
        with site.authority.site.storage.snapshot() as session:
            rows = session.scalars(select(AuditRow).where(AuditRow.action == "apply policy")).all()
        assert [row.detail["channels"] for row in rows] == [1]


class TestStandstill:
    async def test_the_last_publisher_of_a_channel_in_use_is_kept(self, site: Site) -> None:
        await site.add_channel()
        await site.member("monitor-1", ECG)
        with pytest.raises(ChannelError, match="monitor-1") as caught:
            await apply(site, source(publish=["absent"]))
        assert "--force" in caught.value.cure
        assert in_force(site).publishers == ("monitor-1",)
        await apply(site, source(publish=["absent"]), force=True)
        assert in_force(site).publishers == ()

    async def test_one_that_nobody_uses_may_lose_it(self, site: Site) -> None:
        await site.add_channel()
        await site.enrol("monitor-1")
        await apply(site, source(publish=["absent"]))
        assert in_force(site).publishers == ()

    async def test_nobody_is_locked_out_of_a_whole_channel_by_mistake(self, site: Site) -> None:
        await site.add_channel()
        await site.enrol("monitor-1")
        for text in (source(publish=[], subscribe=[]), source(deny=["*"])):
            with pytest.raises(ChannelError, match="nobody"):
                await apply(site, text)
        await apply(site, source(deny=["*"]), force=True)
        assert in_force(site).subscribers == ()

    async def test_another_takes_its_place(self, site: Site) -> None:
        await site.add_channel()
        await site.member("monitor-1", ECG)
        await site.enrol("display-1")
        await apply(site, source(publish=["display-1"]))
        assert in_force(site).publishers == ("display-1",)


class TestRoles:
    async def test_a_token_gives_them_and_the_operator_changes_them(self, site: Site) -> None:
        await apply(site, source(publish=["role:monitor"], subscribe=["role:*"]))
        token = await site.authority.create_token("a", HOUR, ["monitor", "bed"])
        identity = await site.enrol("a", token)
        client = await site.client(identity)
        await client.join(ECG, PUBLISH)
        await site.authority.set_roles("a", ["display"])
        with pytest.raises(NotAllowedError):
            await client.join(ECG, PUBLISH)
        await client.join(ECG, SUBSCRIBE)
        await site.authority.set_roles("a", ["monitor"])
        await client.join(ECG, PUBLISH)
        # Without a new certificate.
        with site.authority.site.storage.snapshot() as session:
            certificates = session.scalars(
                select(CertificateRow.name).where(CertificateRow.name == "a")
            ).all()
        assert len(certificates) == 1

    async def test_a_later_token_keeps_or_replaces_them(self, site: Site) -> None:
        def roles() -> list[str]:
            with site.authority.site.storage.snapshot() as session:
                return session.get_one(DeviceRow, "a").roles

        async def again(given: list[str] | None) -> None:
            token = await site.authority.create_token("a", HOUR, given)
            csr = CertificateRequest.parse(make_csr(generate_private_key(SECP256R1()), "a"))
            await site.authority.est.enroll(EnrolmentRequest(csr=csr, name="a", token=token))

        await again(["one"])
        assert roles() == ["one"]
        await again(None)
        assert roles() == ["one"]
        await site.authority.revoke_device("a")
        await again(["two", "one"])
        assert roles() == ["one", "two"]
        await again([])
        assert roles() == []

    async def test_mistakes_are_named(self, site: Site) -> None:
        await site.enrol("a")
        with pytest.raises(UsageError, match="'nobody'"):
            await site.authority.set_roles("nobody", ["x"])
        with pytest.raises(UsageError, match="'a b'"):
            await site.authority.set_roles("a", ["a b"])
        with pytest.raises(UsageError, match="'a b'"):
            await site.authority.create_token("a", HOUR, ["a b"])

    async def test_the_same_again_changes_nothing(self, site: Site) -> None:
        await apply(site, source(publish=["role:monitor"]))
        await site.enrol("a", await site.authority.create_token("a", HOUR, ["monitor"]))
        version = in_force(site).version
        await site.authority.set_roles("a", ["monitor", "monitor"])
        assert in_force(site).version == version


class TestExplain:
    def explain(self, site: Site, device: str, channel: str = ECG) -> dict[str, object]:
        with site.authority.site.storage.snapshot() as session:
            return policies.explain(session, site.authority.site, device, channel, site.clock())

    def reason(self, site: Site, device: str, action: str) -> tuple[object, object]:
        verdict = self.explain(site, device)[action]
        assert isinstance(verdict, dict)
        return verdict["allowed"], verdict["reason"]

    async def test_it_says_which_rule_in_which_version(self, site: Site) -> None:
        await apply(
            site,
            source(
                publish=["x", "role:monitor"], subscribe=["*", "site:north/c"], deny=["b", "site:north/d"]
            ),
            f'[sites]\nnorth = "{NORTH}"\n',
        )
        for name in ("a", "b", "c"):
            await site.enrol(
                name, await site.authority.create_token(name, HOUR, ["monitor"] if name == "a" else [])
            )
        await site.authority.revoke_device("c")
        assert self.reason(site, "a", "publish") == (True, "role:monitor in publish allows it")
        assert self.reason(site, "a", "subscribe") == (True, "* in subscribe allows it")
        assert self.reason(site, "b", "subscribe") == (False, "b in deny keeps it out")
        assert self.reason(site, "c", "subscribe") == (False, "the device is revoked")
        assert self.reason(site, "nobody", "subscribe") == (False, "no device of this name is enrolled")
        assert self.reason(site, "site:north/c", "subscribe") == (True, "site:north/c in subscribe allows it")
        assert self.reason(site, f"{NORTH}:c", "publish") == (False, "no rule in publish matches it")
        assert self.reason(site, "site:north/d", "subscribe") == (False, "site:north/d in deny keeps it out")
        answer = self.explain(site, "a")
        policy = in_force(site)
        assert (answer["version"], answer["issued"]) == (policy.version, policy.issued)
        assert answer["roles"] == ["monitor"]

    async def test_it_says_what_else_keeps_a_device_out(self, site: Site) -> None:
        await site.add_channel()
        await site.enrol("monitor-1")
        assert self.explain(site, "monitor-1")["notes"] == []
        site.clock.ahead = 91 * DAY
        notes = self.explain(site, "monitor-1")["notes"]
        assert isinstance(notes, list)
        assert "nextUpdate" in notes[0]
        assert "no certificate" in notes[1]

    async def test_mistakes_are_named(self, site: Site) -> None:
        await site.add_channel()
        with pytest.raises(ChannelError, match="'none'"):
            self.explain(site, "a", "none")
        with pytest.raises(UsageError, match="'south'"):
            self.explain(site, "site:south/a")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StoredSite:
    """A site without a service, for many small transactions."""
    return StoredSite.open(make_site(tmp_path_factory.mktemp("site") / "authority"))


DEVICES = st.dictionaries(NAMES, st.tuples(st.lists(ROLE_NAMES, max_size=3), st.booleans()), max_size=6)
LISTS = st.lists(RULES, max_size=4)
NOW = 2 * 10**15
"""In 2033."""


@given(DEVICES, LISTS, LISTS, LISTS)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_source_signed_policy_and_explanation_agree(
    stored: StoredSite,
    devices: dict[str, tuple[list[str], bool]],
    publish: list[str],
    subscribe: list[str],
    deny: list[str],
) -> None:
    """For whatever rules and devices: what is signed is what the rules say, and `explain` says the same."""
    sites = '[sites]\nnorth = "000102030405060708090a0b0c0d0e0f"\n'
    wanted = parsed(source(publish, subscribe, deny) + sites)
    with stored.storage.transaction() as session:
        undone = session.begin_nested()
        for name, (roles, is_revoked) in devices.items():
            revoked = 2 if is_revoked else None
            session.add(DeviceRow(name=name, enrolled=1, revoked=revoked, roles=sorted(set(roles))))
        session.flush()
        policies.apply(session, stored, wanted, NOW, force=False)
        assert policies.compare(session, stored, parsed(policies.show(session))).is_empty
        rules = wanted.channels[0].rules()
        named = [rule.pattern for rule in (*rules.publish, *rules.subscribe, *rules.deny) if rule.site_id]
        for device in {*devices, *named, "nobody-at-all"}:
            answer = policies.explain(session, stored, device, ECG, NOW)
            roles, is_revoked = devices.get(device, ([], False))
            subject = Subject(member=device, roles=frozenset(roles))
            for action, allow in (("publish", publish), ("subscribe", subscribe)):
                expected = (
                    (device in devices or ":" in device)
                    and not is_revoked
                    and any(is_meant(rule, subject) for rule in allow)
                    and not any(is_meant(rule, subject) for rule in deny)
                )
                assert answer[action]["allowed"] == expected, (device, action, answer)
        undone.rollback()
