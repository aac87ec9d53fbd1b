"""Who a policy lets publish and subscribe, as an operator says it: rules over device names, roles and sites.

| rule | means |
|---|---|
| `monitor-*` | devices of this site whose name matches the glob (`*`, `?`, `[abc]`, `[!a-z]`; case counts) |
| `role:monitor` | devices of this site that have a role which matches the glob |
| `site:<site>/central` | the device `central` of another site, by its id or by a name for it |

A rule is never signed: `expand` makes the list of names that is (TR-13). Devices of another site are not in
this site's register, so they are named one by one.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import translate
from functools import lru_cache
from typing import Self

from sealcast.errors import UsageError
from sealcast.pki.names import check_device_name, parse_site_id

MAX_RULES = 1000
"""In one list. Each is tried on each device, whenever a device comes or goes."""

MAX_ROLES = 16
"""Of one device."""

_ROLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_GLOB_PART = re.compile(r"[A-Za-z0-9._*?-]|\[!?(?P<set>[A-Za-z0-9._-]+)\]")
_RANGE = re.compile(r"(.)-(.)")
_ROLE, _SITE = "role:", "site:"


class RuleKind(StrEnum):
    """What a rule looks at."""

    NAME = "name"
    ROLE = "role"
    SITE = "site"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A device as rules see it."""

    member: str
    """As a policy writes it: its name, or `<site id>:<name>` of another site (TR-13)."""
    roles: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One line of a list of rules. `parse` checks it; `text` is its one way to be written."""

    kind: RuleKind
    pattern: str
    """A glob; of another site's device `<site id>:<name>`."""

    @classmethod
    def parse(cls, text: str, sites: Mapping[str, bytes] | None = None) -> Self:
        """Read what an operator writes.

        Args:
            text: one of the forms above; `<site id>:<name>` is taken for `site:<site id>/<name>` too.
            sites: ids of other sites by the names that the operator gives them.

        Raises:
            UsageError: it could never match anything; the text says why.
        """
        if text.startswith(_SITE):
            return cls(kind=RuleKind.SITE, pattern=_foreign_member(text, sites or {}))
        if text.startswith(_ROLE):
            return cls(kind=RuleKind.ROLE, pattern=_check_glob(text.removeprefix(_ROLE), text, "roles"))
        if ":" in text:
            site, _, name = text.partition(":")
            return cls(kind=RuleKind.SITE, pattern=f"{parse_site_id(site).hex()}:{check_device_name(name)}")
        return cls(kind=RuleKind.NAME, pattern=_check_glob(text, text, "device names"))

    @classmethod
    def stored(cls, text: str) -> Self:
        """Read what was stored: a rule that an earlier version let pass matches what it matched then."""
        if text.startswith(_SITE):
            site, _, name = text.removeprefix(_SITE).partition("/")
            return cls(kind=RuleKind.SITE, pattern=f"{site}:{name}")
        if text.startswith(_ROLE):
            return cls(kind=RuleKind.ROLE, pattern=text.removeprefix(_ROLE))
        return cls(kind=RuleKind.SITE if ":" in text else RuleKind.NAME, pattern=text)

    @property
    def site_id(self) -> bytes | None:
        """Of the other site that the rule names, if it does."""
        return bytes.fromhex(self.pattern.partition(":")[0]) if self.kind is RuleKind.SITE else None

    @property
    def is_sound(self) -> bool:
        """Whether `parse` would take it; what was stored by an earlier version may not be."""
        try:
            Rule.parse(self.text())
        except UsageError:
            return False
        return True

    def text(self, sites: Mapping[str, bytes] | None = None) -> str:
        """How the rule is written; another site by its name in `sites` if it has one there."""
        if self.kind is RuleKind.NAME:
            return self.pattern
        if self.kind is RuleKind.ROLE:
            return _ROLE + self.pattern
        site, _, name = self.pattern.partition(":")
        named = next((known for known, site_id in (sites or {}).items() if site_id.hex() == site), site)
        return f"{_SITE}{named}/{name}"

    def matcher(self) -> Callable[[Subject], bool]:
        """What tells whether a device is meant; made once for many devices."""
        if self.kind is RuleKind.SITE:
            return lambda subject: subject.member == self.pattern
        is_match = _compiled(self.pattern).match
        if self.kind is RuleKind.ROLE:
            # A role of a device elsewhere is that site's business, and not known here.
            return lambda subject: any(is_match(role) is not None for role in subject.roles)
        return lambda subject: ":" not in subject.member and is_match(subject.member) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a device may do one thing, and by which rule."""

    is_allowed: bool
    rule: Rule | None
    """The first that allows it, or the first that denies it; None where no rule speaks of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelRules:
    """The three lists of a channel. What `deny` matches is out, whatever the others say."""

    publish: tuple[Rule, ...] = field(default=())
    subscribe: tuple[Rule, ...] = field(default=())
    deny: tuple[Rule, ...] = field(default=())

    @classmethod
    def stored(cls, publish: Iterable[str], subscribe: Iterable[str], deny: Iterable[str]) -> Self:
        """Read what was stored."""
        return cls(
            publish=tuple(map(Rule.stored, publish)),
            subscribe=tuple(map(Rule.stored, subscribe)),
            deny=tuple(map(Rule.stored, deny)),
        )

    def publishers(self, devices: Iterable[Subject]) -> tuple[str, ...]:
        """The names that the signed policy lists as publishers; see `expand`."""
        return expand(self.publish, self.deny, devices)

    def subscribers(self, devices: Iterable[Subject]) -> tuple[str, ...]:
        """The names that the signed policy lists as subscribers; see `expand`."""
        return expand(self.subscribe, self.deny, devices)

    def permits(self, subject: Subject, allow: tuple[Rule, ...]) -> bool:
        """Whether a device of this site may do what `allow` (one of the lists) is about."""
        return any(rule.matcher()(subject) for rule in allow) and not any(
            rule.matcher()(subject) for rule in self.deny
        )

    def explain(self, subject: Subject, allow: tuple[Rule, ...]) -> Verdict:
        """Say by which rule a device may do what `allow` (one of the lists) is about, or why not."""
        denied = next((rule for rule in self.deny if rule.matcher()(subject)), None)
        if denied is not None:
            return Verdict(is_allowed=False, rule=denied)
        allowed = next((rule for rule in allow if rule.matcher()(subject)), None)
        return Verdict(is_allowed=allowed is not None, rule=allowed)


def expand(allow: Iterable[Rule], deny: Iterable[Rule], devices: Iterable[Subject]) -> tuple[str, ...]:
    """Return the names that a signed policy lists, sorted by their bytes, none twice.

    Args:
        allow: rules, any of which lets a device in.
        deny: rules, any of which keeps it out.
        devices: of this site, those that are not revoked. Devices of other sites follow from the rules alone.
    """
    allow = tuple(allow)
    denying = [rule.matcher() for rule in deny]
    allowing = [rule.matcher() for rule in allow if rule.kind is not RuleKind.SITE]
    named = [Subject(member=rule.pattern) for rule in allow if rule.kind is RuleKind.SITE]
    admitted = [device for device in devices if any(allows(device) for allows in allowing)]
    return tuple(
        sorted(
            {
                subject.member
                for subject in (*admitted, *named)
                if not any(denies(subject) for denies in denying)
            }
        )
    )


@lru_cache(maxsize=4096)
def _compiled(glob: str) -> re.Pattern[str]:
    """The expression of a glob; rules are tried anew whenever a device comes or goes."""
    return re.compile(translate(glob))


def check_role_name(role: str) -> str:
    """Return `role` if a device can have it; raise UsageError otherwise."""
    if _ROLE_NAME.fullmatch(role) is None:
        raise UsageError(
            f"not a role: {role[:80]!r}",
            cure="use 1 to 63 letters, digits, dots, underscores and hyphens, a letter or digit first",
        )
    return role


def check_roles(roles: Iterable[str]) -> tuple[str, ...]:
    """Return roles of one device, sorted, none twice; raise UsageError for a bad one, or too many."""
    checked = tuple(sorted({check_role_name(role) for role in roles}))
    if len(checked) > MAX_ROLES:
        raise UsageError(f"{len(checked)} roles for one device", cure=f"give at most {MAX_ROLES}")
    return checked


def _foreign_member(text: str, sites: Mapping[str, bytes]) -> str:
    site, slash, name = text.removeprefix(_SITE).partition("/")
    if not slash or not name or any(c in "*?[]" for c in name):
        raise UsageError(
            f"{text[:120]!r} means devices that this site does not know by name",
            cure="a signed policy lists names: write site:SITE/NAME for each device of another site",
        )
    site_id = sites.get(site)
    if site_id is None:
        try:
            site_id = parse_site_id(site)
        except UsageError:
            raise UsageError(
                f"unknown site {site[:80]!r} in {text[:120]!r}",
                cure="write its id (32 hexadecimal digits), or add its name and id under [sites]",
            ) from None
    return f"{site_id.hex()}:{check_device_name(name)}"


def _check_glob(pattern: str, text: str, what: str) -> str:
    """Return a glob that can match a name at all."""
    position = 0
    while position < len(pattern) and (part := _GLOB_PART.match(pattern, position)) is not None:
        position = part.end()
        backwards = next((pair for pair in _RANGE.finditer(part["set"] or "") if pair[1] > pair[2]), None)
        if backwards is not None:
            raise UsageError(
                f"not a pattern for {what}: {text[:80]!r}: {backwards[0]!r} is no range",
                cure=f"write {backwards[2]}-{backwards[1]}",
            )
    if position < len(pattern) or not pattern:
        rest = f": it cannot go on with {pattern[position : position + 20]!r}" if pattern else ""
        raise UsageError(
            f"not a pattern for {what}: {text[:80]!r}{rest}",
            cure="use letters, digits, . _ - * ? and sets such as [abc] or [!0-9]",
        )
    return pattern
