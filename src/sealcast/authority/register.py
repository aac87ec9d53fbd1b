"""What rules match in the register of devices, asked of the database: it may hold a hundred thousand.

Says the same as `pki.policy_rules.expand`, which is given the devices themselves. Every function runs inside
the caller's transaction.
"""

import re
from collections.abc import Collection, Iterable, Sequence

from sqlalchemy import ColumnElement, String, and_, exists, func, or_, select, type_coerce
from sqlalchemy.orm import Session

from sealcast.authority.models import DeviceRow
from sealcast.pki.policy_names import Names
from sealcast.pki.policy_rules import ChannelRules, Rule, RuleKind, Subject

REPAIR_NODE_ROLE = "repair-node"
"""The role of a device that keeps packets for others, and is given no key that opens one (KM-21)."""

_RULES_AT_ONCE = 100
"""In one question; SQLite bounds the depth of an expression."""

_GLOB_WORDS = frozenset("*?[")
_BEGINNING = re.compile(r"[^*?\[]*")
_BEYOND = "\x7f"
"""Above every character of a name."""


def registered(session: Session) -> list[Subject]:
    """The devices that rules may match: those of the register that are not revoked."""
    rows = session.execute(select(DeviceRow.name, DeviceRow.roles).where(DeviceRow.revoked.is_(None)))
    return [Subject(member=name, roles=frozenset(roles)) for name, roles in rows]


def subjects(session: Session, devices: Collection[str]) -> dict[str, Subject]:
    """Devices as rules see them, by name; without those that the register lacks, or that are removed."""
    rows = session.execute(
        select(DeviceRow.name, DeviceRow.roles).where(
            DeviceRow.name.in_(devices), DeviceRow.revoked.is_(None)
        )
    )
    return {name: Subject(member=name, roles=frozenset(roles)) for name, roles in rows}


def repair_nodes(session: Session, devices: Collection[str] | None = None) -> set[str]:
    """The devices of this site with the role of repair nodes; `devices`: no others are looked at."""
    condition = DeviceRow.revoked.is_(None), _condition(Rule.parse(f"role:{REPAIR_NODE_ROLE}"))
    chosen = select(DeviceRow.name).where(*condition)
    if devices is not None:
        chosen = chosen.where(DeviceRow.name.in_(devices))
    return set(session.scalars(chosen))


def publishers(session: Session, rules: ChannelRules) -> Names:
    """The names that a signed policy lists as publishers."""
    return expand(session, rules.publish, rules.deny)


def subscribers(session: Session, rules: ChannelRules) -> Names:
    """The names that a signed policy lists as subscribers."""
    return expand(session, rules.subscribe, rules.deny)


def expand(session: Session, allow: Sequence[Rule], deny: Sequence[Rule]) -> Names:
    """As `pki.policy_rules.expand`, for the register as it stands in this transaction."""
    foreign = {rule.pattern for rule in allow if rule.kind is RuleKind.SITE}
    foreign -= {rule.pattern for rule in deny if rule.kind is RuleKind.SITE}
    names = matched(session, allow)
    if names and any(rule.kind is not RuleKind.SITE for rule in deny):
        denied = set(matched(session, deny))
        names = [name for name in names if name not in denied]
    return Names.of(sorted([*names, *foreign]))


def matches_any(session: Session, rule: Rule) -> bool:
    """Whether a rule about devices of this site means one that is there."""
    question = select(DeviceRow.name).where(DeviceRow.revoked.is_(None), _condition(rule)).limit(1)
    return session.scalars(question).first() is not None


def matched(session: Session, rules: Iterable[Rule]) -> list[str]:
    """Names that one of the rules means, each once."""
    own = [rule for rule in dict.fromkeys(rules) if rule.kind is not RuleKind.SITE]
    sound = [rule for rule in own if rule.is_sound]
    found = [
        _names(session, or_(*map(_condition, sound[start : start + _RULES_AT_ONCE])))
        for start in range(0, len(sound), _RULES_AT_ONCE)
    ]
    if len(sound) < len(own):
        # An earlier version let the others pass, and SQLite may read them in another way.
        others = [rule.matcher() for rule in own if not rule.is_sound]
        found.append([each.member for each in registered(session) if any(means(each) for means in others)])
    return found[0] if len(found) == 1 else list({name for names in found for name in names})


def _names(session: Session, condition: ColumnElement[bool]) -> list[str]:
    # One text in place of a hundred thousand rows: a name holds no newline (TR-2).
    chosen = select(DeviceRow.name).where(DeviceRow.revoked.is_(None), condition).subquery()
    text = session.scalar(select(func.group_concat(chosen.c.name, "\n")))
    return text.split("\n") if text else []


def _condition(rule: Rule) -> ColumnElement[bool]:
    # SQLite denies a set by ^ where an operator writes !, and reads all else as `fnmatch` does.
    glob = rule.pattern.replace("[!", "[^")
    if rule.kind is RuleKind.NAME:
        return DeviceRow.name == glob if _is_plain(glob) else _like(glob)
    if _is_plain(glob):
        # As JSON writes it; no role holds a quotation mark, or a letter that JSON writes in another way.
        return type_coerce(DeviceRow.roles, String).op("GLOB")(f'*"{glob}"*')
    role = func.json_each(DeviceRow.roles).table_valued("value")
    return exists(select(role.c.value).where(role.c.value.op("GLOB")(glob)))


def _like(glob: str) -> ColumnElement[bool]:
    """Names that match a glob; those that begin otherwise are not looked at."""
    found = DeviceRow.name.op("GLOB")(glob)
    start = _BEGINNING.match(glob)
    if start is None or not start[0]:
        return found
    return and_(DeviceRow.name >= start[0], DeviceRow.name < start[0] + _BEYOND, found)


def _is_plain(glob: str) -> bool:
    return _GLOB_WORDS.isdisjoint(glob)
