"""Rules: what they match, what they become in a signed policy, and why."""

import re
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealcast.errors import UsageError
from sealcast.pki.policy_rules import MAX_ROLES, ChannelRules, Rule, Subject, check_roles, expand
from tests.pki.test_names import DEVICE_NAMES, SITE_IDS

NORTH = bytes(range(16))
SITES = {"north": NORTH}
GLOBS = st.from_regex(r"([a-c0-1*?.-]|\[!?[a-c0]+\]){1,6}", fullmatch=True)
ROLE_NAMES = st.from_regex(r"[a-c][a-c0-1.-]{0,3}", fullmatch=True)
NAMES = st.from_regex(r"[a-c][a-c0-1.-]{0,3}", fullmatch=True)
RULES = st.one_of(
    GLOBS,
    GLOBS.map("role:{}".format),
    NAMES.map("site:north/{}".format),
    st.builds(lambda site, name: f"{site.hex()}:{name}", SITE_IDS, NAMES),
)
SUBJECTS = st.builds(
    lambda name, roles: Subject(member=name, roles=frozenset(roles)), NAMES, st.lists(ROLE_NAMES, max_size=3)
)


def devices(*names: str, **roles: str) -> list[Subject]:
    known = [Subject(member=name) for name in names]
    return known + [Subject(member=name, roles=frozenset(text.split())) for name, text in roles.items()]


def expanded(rules: list[str], among: list[Subject], deny: tuple[str, ...] = ()) -> tuple[str, ...]:
    return expand(
        [Rule.parse(rule, SITES) for rule in rules], [Rule.parse(rule, SITES) for rule in deny], among
    )


class TestWhatRulesMatch:
    def test_globs_match_names(self) -> None:
        ward = devices("monitor-2", "monitor-10", "monitor-1", "central", "Monitor-3")
        assert expanded(["monitor-*"], ward) == ("monitor-1", "monitor-10", "monitor-2")
        assert expanded(["monitor-?", "c*"], ward) == ("central", "monitor-1", "monitor-2")
        assert expanded(["monitor-[12]"], ward) == ("monitor-1", "monitor-2")
        assert expanded(["*"], ward) == tuple(sorted(device.member for device in ward))
        assert expanded(["absent"], ward) == expanded([], ward) == ()

    def test_roles_match_devices_that_have_them(self) -> None:
        ward = devices("plain", a="monitor bed", b="monitor-icu", c="display")
        assert expanded(["role:monitor"], ward) == ("a",)
        assert expanded(["role:monitor*"], ward) == ("a", "b")
        assert expanded(["role:*"], ward) == ("a", "b", "c")
        assert expanded(["monitor"], ward) == (), "a role is not a name"

    def test_devices_of_other_sites_are_named_in_full(self) -> None:
        member = f"{NORTH.hex()}:central"
        ward = devices("central")
        assert expanded(["site:north/central"], ward) == (member,)
        assert expanded([f"site:{NORTH.hex()}/central", member], ward) == (member,)
        assert expanded(["*"], [*ward, Subject(member=member)]) == ("central",), "a glob stays at home"

    def test_deny_wins(self) -> None:
        ward = devices("a1", "a2", b="loud", c="loud quiet")
        assert expanded(["*"], ward, deny=("a2", "role:quiet")) == ("a1", "b")
        assert expanded(["site:north/x"], ward, deny=("site:north/x",)) == ()
        assert expanded(["site:north/x"], ward, deny=("*",)) == (f"{NORTH.hex()}:x",)


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        "text",
        [
            "", "a b", "a/b", "ä*", "a\n", "xyz:a", "[abc", "abc]", "[]", "[!]", "a[z-a]", "!a", "role:",
            "role:[", "role:a b", "site:", "site:north", "site:north/", "site:north/*", "site:north/a[bc]",
            "site:south/a", "site:north/-a",
            f"{'0' * 32}:a*", f"{'0' * 32}:", "ROLE:a", "*" + "x" * 300 + "\0",
        ],
    )  # fmt: skip
    def test_what_could_never_match(self, text: str) -> None:
        with pytest.raises(UsageError) as caught:
            Rule.parse(text, SITES)
        assert caught.value.cure
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400

    def test_a_whole_site_is_refused_with_the_way_out(self) -> None:
        with pytest.raises(UsageError, match="does not know by name") as caught:
            Rule.parse("site:north/*", SITES)
        assert "site:SITE/NAME" in caught.value.cure

    def test_a_range_that_runs_backwards_is_shown_forwards(self) -> None:
        with pytest.raises(UsageError, match="'9-0'") as caught:
            Rule.parse("bed-[9-0]")
        assert "0-9" in caught.value.cure

    @pytest.mark.parametrize(
        "roles", [["a b"], [""], ["-a"], ["a" * 64], [f"r{n}" for n in range(MAX_ROLES + 1)]]
    )
    def test_roles_that_cannot_be(self, roles: list[str]) -> None:
        with pytest.raises(UsageError):
            check_roles(roles)

    def test_roles_are_kept_sorted_and_once(self) -> None:
        assert check_roles(["b", "a", "b"]) == ("a", "b")


@given(RULES)
def test_a_rule_is_stored_and_read_back(text: str) -> None:
    rule = Rule.parse(text, SITES)
    assert Rule.stored(rule.text()) == Rule.parse(rule.text()) == rule
    assert Rule.parse(rule.text(SITES), SITES) == rule


@given(st.text(max_size=30))
def test_any_text_is_a_rule_or_refused(text: str) -> None:
    try:
        Rule.parse(text, SITES)
    except UsageError:
        return
    assert re.fullmatch(r"[\x21-\x7e]+", text)


@given(st.text(max_size=20), st.lists(SUBJECTS, max_size=3))
def test_whatever_was_stored_can_be_tried(text: str, among: list[Subject]) -> None:
    """A rule that an earlier version let pass must not keep an authority from starting."""
    ChannelRules.stored([text], [], [text]).publishers(among)


def is_meant(text: str, subject: Subject) -> bool:
    """What a rule means, said another way."""
    if text.startswith("role:"):
        return any(fnmatchcase(role, text.removeprefix("role:")) for role in subject.roles)
    if text.startswith("site:north/"):
        return subject.member == text.replace("site:north/", f"{NORTH.hex()}:")
    if ":" in text:
        return subject.member == text
    return ":" not in subject.member and fnmatchcase(subject.member, text)


@given(st.lists(RULES, max_size=5), st.lists(RULES, max_size=3), st.lists(SUBJECTS, max_size=8))
def test_the_list_and_the_reason_agree(allow: list[str], deny: list[str], among: list[Subject]) -> None:
    among = list({subject.member: subject for subject in among}.values())
    rules = ChannelRules(
        publish=tuple(Rule.parse(text, SITES) for text in allow),
        deny=tuple(Rule.parse(text, SITES) for text in deny),
    )
    members = rules.publishers(among)
    assert list(members) == sorted(set(members))
    others = [
        Subject(member=rule.pattern) for rule in (*rules.publish, *rules.deny) if rule.site_id is not None
    ]
    for subject in (*among, *others):
        wanted = any(is_meant(text, subject) for text in allow) and not any(
            is_meant(text, subject) for text in deny
        )
        assert (subject.member in members) == wanted
        verdict = rules.explain(subject, rules.publish)
        assert verdict.is_allowed == wanted
        if verdict.rule is not None:
            assert verdict.rule.matcher()(subject)
            assert verdict.rule in (rules.publish if wanted else rules.deny)


@given(st.lists(DEVICE_NAMES, max_size=8))
def test_every_device_can_be_named_by_itself(names: list[str]) -> None:
    among = devices(*set(names))
    for name in names:
        assert expanded([name], among) == (name,)
