"""The policy of the whole site from its source: what would change, doing it, and why things are as they are.

Every function runs inside the caller's transaction. The source is not kept: the channels are, and `show`
writes them as a source again, whichever command made them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from sealcast.authority import audit, register
from sealcast.authority.channels import add_channel, change_channel, check_sites
from sealcast.authority.models import (
    CertificateRow,
    ChannelRow,
    DeviceRow,
    KnownSiteRow,
    MemberRow,
    StreamRow,
)
from sealcast.authority.policy_versions import StoredPolicy, load_policy
from sealcast.authority.site import Site
from sealcast.authority.stored_channel import StoredChannel, channel_row, channel_rows, channel_rules
from sealcast.errors import ChannelError
from sealcast.keys import MemberRole
from sealcast.pki.channel_settings import ChannelSettings
from sealcast.pki.policy_names import Names
from sealcast.pki.policy_rules import ChannelRules, Rule, Subject
from sealcast.pki.policy_source import PolicySource, write_source
from sealcast.pki.quantities import format_duration, format_rate, format_size

_AMOUNTS = {
    "rate": format_rate,
    "slot": format_duration,
    "retention": format_duration,
    "retention_bytes": format_size,
    "publisher_limit": format_duration,
}
_SETTINGS = ("group", "port", "interface", "suite", "slots_ahead", "fec", *_AMOUNTS)
_LISTS = ("publish", "subscribe", "deny")


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What comes to a list of names or rules, and what goes from it; both in order."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    @classmethod
    def between(cls, before: Sequence[str], after: Sequence[str]) -> "Changed":
        """The difference of two lists, whatever their order."""
        known, wanted = set(before), set(after)
        return cls(
            added=tuple(name for name in after if name not in known),
            removed=tuple(name for name in before if name not in wanted),
        )

    @classmethod
    def of_names(cls, before: Names, after: Names) -> "Changed":
        """The difference of two lists of a policy."""
        return cls(added=tuple(after.beyond(before)), removed=tuple(before.beyond(after)))

    def __bool__(self) -> bool:
        return bool(self.added or self.removed)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelChange:
    """What a source changes about one channel."""

    name: str
    is_new: bool
    settings: Mapping[str, tuple[str | None, str | None]]
    """Before and after, as they are written, by key."""
    rules: Mapping[str, Changed]
    """By list."""
    publishers: Changed
    """Names of devices, as the signed policy lists them."""
    subscribers: Changed

    @property
    def is_empty(self) -> bool:
        """Whether the channel stays as it is."""
        return not (self.is_new or self.settings or any(self.rules.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChange:
    """What a source changes."""

    channels: tuple[ChannelChange, ...] = ()
    """Those that change, in the order of the source."""
    sites: Changed = field(default_factory=Changed)
    """Names for other sites, each with its id."""
    untouched: tuple[str, ...] = ()
    """Channels of the site that the source does not name: they stay as they are."""
    idle: tuple[str, ...] = ()
    """Rules that match no device just now, each with its channel and list."""

    @property
    def is_empty(self) -> bool:
        """Whether everything stays as it is."""
        return not (self.channels or self.sites)

    def to_json(self) -> dict[str, Any]:
        """All of it, for the command line and for scripts."""
        return {"is_empty": self.is_empty, **asdict(self)}


def compare(session: Session, site: Site, source: PolicySource) -> PolicyChange:
    """Say what `source` would change.

    Raises:
        UsageError: a rule names this site as if it were another.
        ChannelError: a channel's suite would change.
    """
    rows = {row.name: row for row in channel_rows(session)}
    changes, idle = [], []
    # Many channels have the same rules.
    matches: dict[Rule, bool] = {}
    for settings in source.channels:
        rules = settings.rules()
        check_sites(rules, site)
        change = _compare_channel(session, rows.pop(settings.name, None), settings, rules)
        if not change.is_empty:
            changes.append(change)
        idle += _idle_rules(session, settings.name, rules, matches)
    before = [f"{name} = {site_id.hex()}" for name, site_id in known_sites(session).items()]
    after = [f"{name} = {site_id.hex()}" for name, site_id in sorted(source.sites.items())]
    return PolicyChange(
        channels=tuple(changes),
        sites=Changed.between(before, after),
        untouched=tuple(rows),
        idle=tuple(idle),
    )


def apply(
    session: Session, site: Site, source: PolicySource, now: int, *, force: bool
) -> tuple[PolicyChange, list[StoredChannel]]:
    """Make the site's channels what `source` says; devices that lose access are removed.

    Args:
        session: the transaction.
        site: the site.
        source: what is wanted.
        now: microseconds.
        force: also if that stops a channel that is in use.

    Returns:
        What has changed, and the channels that did.

    Raises:
        UsageError: a rule names this site as if it were another.
        ChannelError: a suite would change; or, without `force`, a channel in use would lose its last
            publisher, or a channel everybody.
    """
    change = compare(session, site, source)
    if not force:
        for channel in change.channels:
            _refuse_standstill(session, channel)
    if change.is_empty:
        return change, []
    wanted = {settings.name: settings for settings in source.channels}
    stored = [
        add_channel(session, site, wanted[channel.name], now)
        if channel.is_new
        else change_channel(session, site, wanted[channel.name], now)
        for channel in change.channels
    ]
    if change.sites:
        session.execute(delete(KnownSiteRow))
        session.add_all(KnownSiteRow(name=name, site_id=site_id) for name, site_id in source.sites.items())
    audit.record(session, now, "apply policy", site.name, channels=len(stored), force=force)
    session.flush()
    return change, stored


def show(session: Session) -> str:
    """The site's channels as a source; applied, it changes nothing."""
    return write_source(map(_fields, channel_rows(session)), known_sites(session))


def known_sites(session: Session) -> dict[str, bytes]:
    """Ids of other sites by the names that the operator gave them, sorted."""
    rows = session.scalars(select(KnownSiteRow).order_by(KnownSiteRow.name))
    return {row.name: row.site_id for row in rows}


def explain(session: Session, site: Site, device: str, channel: str, now: int) -> dict[str, Any]:
    """Say what a device may do on a channel, by which signed version and by which rule, and why not.

    Args:
        session: the transaction.
        site: the site.
        device: a name, or another site's as a rule names it.
        channel: its name.
        now: microseconds.

    Returns:
        `channel`, `device`, `roles`, `version`, `issued` and `next_update` (microseconds); `publish` and
        `subscribe`, each with `allowed`, `rule` and `reason`; `notes`.

    Raises:
        ChannelError: no such channel.
        UsageError: nothing like a device.
    """
    row = channel_row(session, channel)
    sites = known_sites(session)
    member = _member(device, sites, site)
    found = session.get(DeviceRow, member) if ":" not in member else None
    subject = Subject(member=member, roles=frozenset(found.roles if found else ()))
    policy = load_policy(session, row.name)
    rules = channel_rules(row)
    answer: dict[str, Any] = {
        "channel": row.name,
        "device": member,
        "roles": sorted(subject.roles),
        "version": policy.version.version,
        "issued": policy.issued,
        "next_update": policy.next_update,
    }
    for role, allow, listed in (
        (MemberRole.PUBLISH, rules.publish, policy.publishers),
        (MemberRole.SUBSCRIBE, rules.subscribe, policy.subscribers),
    ):
        verdict = rules.explain(subject, allow)
        rule = verdict.rule.text(sites) if verdict.rule is not None else None
        # The signed list decides; the rules say why it is as it is.
        is_allowed = member in listed
        if is_allowed:
            reason = f"{rule} in {role} allows it"
        elif ":" not in member and found is None:
            reason = "no device of this name is enrolled"
        elif found is not None and found.revoked is not None:
            reason = "the device is revoked"
        elif rule is not None:
            reason = f"{rule} in deny keeps it out"
        else:
            reason = f"no rule in {role} matches it"
        answer[str(role)] = {"allowed": is_allowed, "rule": rule, "reason": reason}
    answer["notes"] = _notes(session, policy, member, found, now)
    return answer


def _compare_channel(
    session: Session,
    row: ChannelRow | None,
    settings: ChannelSettings,
    rules: ChannelRules,
) -> ChannelChange:
    before = _fields(row) if row is not None else {}
    if row is not None and row.suite != settings.suite:
        raise ChannelError(
            f"channel {row.name!r} has suite {row.suite} for good, not {settings.suite}",
            channel=row.name,
            cure="make another channel with that suite",
        )
    before_names = after_names = Names(), Names()
    if row is None or channel_rules(row) != rules:
        if row is not None:
            policy = load_policy(session, row.name)
            before_names = policy.publishers, policy.subscribers
        after_names = register.publishers(session, rules), register.subscribers(session, rules)
    return ChannelChange(
        name=settings.name,
        is_new=row is None,
        settings={
            key.replace("_", "-"): (_written(key, before.get(key)), _written(key, getattr(settings, key)))
            for key in _SETTINGS
            if before.get(key) != getattr(settings, key)
        },
        rules={
            key: changed
            for key in _LISTS
            if (
                changed := Changed.between(
                    [Rule.stored(text).text() for text in before.get(key, ())],
                    [rule.text() for rule in getattr(rules, key)],
                )
            )
        },
        publishers=Changed.of_names(before_names[0], after_names[0]),
        subscribers=Changed.of_names(before_names[1], after_names[1]),
    )


def _refuse_standstill(session: Session, change: ChannelChange) -> None:
    """Refuse what would silence a channel that is in use, or shut everybody out of one."""
    if change.is_new or not (change.publishers.removed or change.subscribers.removed):
        return
    policy = load_policy(session, change.name)
    publishers = len(policy.publishers) + len(change.publishers.added) - len(change.publishers.removed)
    subscribers = len(policy.subscribers) + len(change.subscribers.added) - len(change.subscribers.removed)
    cure = "correct the file, or give --force if that is meant"
    if not publishers and not subscribers:
        raise ChannelError(
            f"nobody could use channel {change.name!r} any more", channel=change.name, cure=cure
        )
    if policy.publishers and not publishers and _is_in_use(session, change.name):
        last = ", ".join(policy.publishers[:3])
        raise ChannelError(
            f"channel {change.name!r} is in use and would lose its last publisher ({last})",
            channel=change.name,
            cure=cure,
        )


def _is_in_use(session: Session, channel: str) -> bool:
    members = select(MemberRow.device).where(MemberRow.channel == channel, MemberRow.left.is_(False))
    streams = select(StreamRow.device).where(StreamRow.channel == channel, StreamRow.final.is_(False))
    return any(session.scalars(query.limit(1)).first() is not None for query in (members, streams))


def _idle_rules(session: Session, channel: str, rules: ChannelRules, matches: dict[Rule, bool]) -> list[str]:
    """`matches`: what was found for rules that were looked at before."""
    idle = []
    for key in _LISTS:
        for rule in getattr(rules, key):
            if rule.site_id is not None:
                continue
            if rule not in matches:
                matches[rule] = register.matches_any(session, rule)
            if not matches[rule]:
                idle.append(f"channel {channel}: {rule.text()} in {key}")
    return idle


def _notes(
    session: Session, policy: StoredPolicy, member: str, found: DeviceRow | None, now: int
) -> list[str]:
    """What keeps a device out although the policy lists it."""
    notes = []
    if now >= policy.next_update:
        notes.append("the policy is past its nextUpdate: no peer accepts a new stream by it")
    if found is not None and found.revoked is None:
        alive = session.scalars(
            select(CertificateRow.serial)
            .where(
                CertificateRow.name == member,
                CertificateRow.role == "device",
                CertificateRow.revoked.is_(None),
                CertificateRow.not_after > now,
            )
            .limit(1)
        ).first()
        if alive is None:
            notes.append("the device has no certificate that is in force: it has to be renewed or enrolled")
    return notes


def _member(device: str, sites: Mapping[str, bytes], site: Site) -> str:
    """A device as a policy writes it."""
    if ":" not in device:
        return device
    rule = Rule.parse(device, sites)
    return rule.pattern.partition(":")[2] if rule.site_id == site.site_id else rule.pattern


def _fields(row: ChannelRow) -> dict[str, Any]:
    """The fields of `ChannelSettings`, as they are stored."""
    return {
        "name": row.name,
        "group": row.group,
        "port": row.port,
        "interface": row.interface,
        "rate": row.rate,
        "suite": row.suite,
        "slot": row.slot_length,
        "slots_ahead": row.slots_ahead,
        "retention": row.retention,
        "retention_bytes": row.retention_bytes,
        "publisher_limit": row.publisher_limit,
        "fec": row.fec,
        "publish": row.publish_globs,
        "subscribe": row.subscribe_globs,
        "deny": row.deny_rules,
    }


def _written(key: str, value: Any) -> str | None:
    """A setting as the source writes it."""
    if value is None:
        return None
    return _AMOUNTS[key](value) if key in _AMOUNTS else str(value)
