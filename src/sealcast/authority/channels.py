"""Channels as rows: their settings, their policies, and who has to leave when a policy changes.

Every function runs inside the caller's transaction.

Spec: spec/trust.md TR-13; spec/keys.md KM-1.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from sealcast.authority import audit, policy_versions, register
from sealcast.authority.directory import StoredStream, load_streams
from sealcast.authority.keystore import draw_secret, load_keys, slot_clock, store_keys
from sealcast.authority.models import ChannelRow, DeviceRow, GuestRow, MemberRow
from sealcast.authority.policy_versions import StoredPolicy as StoredPolicy
from sealcast.authority.site import Site
from sealcast.errors import ChannelError, UnknownChannelError, UnknownNameError, UsageError
from sealcast.keys import COUNTER_RESERVE, ChannelKeys, MemberKey, MemberRole
from sealcast.keys.epochs import RESTORE_JUMP
from sealcast.pki.channel_settings import SECOND
from sealcast.pki.channel_settings import ChannelSettings as ChannelSettings
from sealcast.pki.crl import GRACE, LIFE, is_due
from sealcast.pki.fec import parse_fec
from sealcast.pki.names import channel_id
from sealcast.pki.policy import Policy, is_of_this_form
from sealcast.pki.policy_names import Names
from sealcast.pki.policy_rules import ChannelRules, Rule
from sealcast.pki.times import microseconds

FIRST_SLOT = 1
"""Number of a new channel's first slot; there is none before it that a joiner could be given."""

MOST_DESCRIBED = 1000
"""Names of either kind in the description of a channel; its policy has all of them."""

_BEYOND_PREFETCH = 48 * 3600 * SECOND
"""Design 7: the grace of a policy is at least the prefetch depth and 48 h."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredChannel:
    """A channel as it stands in the database after a transaction."""

    name: str
    channel_id: bytes
    suite: int
    policy: StoredPolicy
    keys: ChannelKeys
    streams: tuple[StoredStream, ...]
    beacon_limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A channel that is in line with its rules and with the register."""

    channel: StoredChannel
    is_changed: bool
    """Whether it was not before."""


def add_channel(session: Session, site: Site, settings: ChannelSettings, now: int) -> StoredChannel:
    """Make a channel with its first policy and its first keys.

    Raises:
        ChannelError: there is one of that name.
        UsageError: a rule names this site as if it were another.
    """
    rules = settings.rules()
    check_sites(rules, site)
    if session.get(ChannelRow, settings.name) is not None:
        raise ChannelError(
            f"channel {settings.name!r} exists already", channel=settings.name, cure="choose another name"
        )
    row = ChannelRow(
        name=settings.name,
        channel_id=channel_id(site.site_id, settings.name),
        created=now,
        suite=settings.suite,
        group=settings.group,
        port=settings.port,
        interface=settings.interface,
        rate=settings.rate,
        origin_time=now - now % settings.slot,
        origin_number=FIRST_SLOT,
        slot_length=settings.slot,
        slots_ahead=settings.slots_ahead,
        retention=settings.retention,
        retention_bytes=settings.retention_bytes,
        publisher_limit=settings.publisher_limit,
        fec=settings.fec,
        publish_globs=[rule.text() for rule in rules.publish],
        subscribe_globs=[rule.text() for rule in rules.subscribe],
        deny_rules=[rule.text() for rule in rules.deny],
        present_slot=FIRST_SLOT,
        beacon_limit=1 + COUNTER_RESERVE,
    )
    session.add(row)
    session.flush()
    keys = ChannelKeys.create(
        row.channel_id, slot_clock(row), slots_ahead=row.slots_ahead, now=now, draw=draw_secret
    )
    store_keys(session, row, site.vault, None, keys, now)
    names = _names(session, row, MemberRole.PUBLISH), _names(session, row, MemberRole.SUBSCRIBE)
    signed = sign_policy(session, site, row, now, names=names)
    audit.record(session, now, "add channel", row.name, group=row.group, port=row.port)
    session.flush()
    # What was signed is held until here, so that it is not read again.
    policy = signed or policy_versions.load_policy(session, row.name)
    return _stored_channel(session, row, policy, load_keys(session, row, site.vault))


def _names(session: Session, row: ChannelRow, role: MemberRole) -> Names:
    """The names that a new channel's rules mean under a role.

    Every other channel is in line with its rules: what one of the same rules lists is not looked for again.
    """
    rules = ChannelRow.publish_globs if role is MemberRole.PUBLISH else ChannelRow.subscribe_globs
    alike = session.scalar(
        select(ChannelRow.name)
        .where(
            ChannelRow.name != row.name,
            rules == getattr(row, rules.key),
            ChannelRow.deny_rules == row.deny_rules,
        )
        .limit(1)
    )
    if alike is not None:
        policy = policy_versions.load_policy(session, alike)
        return policy.publishers if role is MemberRole.PUBLISH else policy.subscribers
    means = register.publishers if role is MemberRole.PUBLISH else register.subscribers
    return means(session, channel_rules(row))


def set_members(
    session: Session,
    site: Site,
    name: str,
    *,
    publish: tuple[str, ...] | None,
    subscribe: tuple[str, ...] | None,
    now: int,
) -> StoredChannel:
    """Replace the rules of a channel; members that no longer match are removed under a fresh generation.

    Raises:
        UsageError: a rule makes no sense.
        ChannelError: no such channel.
    """
    row = channel_row(session, name)
    rules = ChannelRules(
        publish=tuple(map(Rule.parse, publish or ())), subscribe=tuple(map(Rule.parse, subscribe or ()))
    )
    check_sites(rules, site)
    if publish is not None:
        row.publish_globs = [rule.text() for rule in rules.publish]
    if subscribe is not None:
        row.subscribe_globs = [rule.text() for rule in rules.subscribe]
    audit.record(session, now, "set members", name)
    return settle(session, site, row, now).channel


def change_channel(session: Session, site: Site, settings: ChannelSettings, now: int) -> StoredChannel:
    """Give a channel other settings and rules; a new version of its policy tells its members.

    Slots of another length begin now, under the number of the present one, so that numbers go on.

    Raises:
        UsageError: a rule names this site as if it were another.
        ChannelError: no such channel, or another suite: keys and credentials of a channel are for one.
    """
    row = channel_row(session, settings.name)
    rules = settings.rules()
    check_sites(rules, site)
    if settings.suite != row.suite:
        raise ChannelError(
            f"channel {row.name!r} has suite {row.suite} for good, not {settings.suite}",
            channel=row.name,
            cure="make another channel with that suite",
        )
    if settings.slot != row.slot_length:
        present = load_keys(session, row, site.vault).slots.at(slot_clock(row), now)
        # The slot before stays in the count: joiners are given it too, for clocks that lag (KM-10).
        before = present - max(row.origin_number, present - 1)
        row.origin_number, row.origin_time = present - before, now - before * settings.slot
        row.slot_length = settings.slot
    row.group, row.port, row.interface = settings.group, settings.port, settings.interface
    row.rate, row.slots_ahead = settings.rate, settings.slots_ahead
    row.retention, row.retention_bytes = settings.retention, settings.retention_bytes
    row.publisher_limit, row.fec = settings.publisher_limit, settings.fec
    policy = policy_versions.load_policy(session, row.name)
    names = (policy.publishers, policy.subscribers) if channel_rules(row) == rules else None
    row.publish_globs = [rule.text() for rule in rules.publish]
    row.subscribe_globs = [rule.text() for rule in rules.subscribe]
    row.deny_rules = [rule.text() for rule in rules.deny]
    audit.record(session, now, "change channel", row.name, group=row.group, port=row.port)
    keys = load_keys(session, row, site.vault)
    turned = keys.turned(now, draw_secret)
    if turned is not keys:
        store_keys(session, row, site.vault, keys, turned, now)
    return settle(session, site, row, now, is_changed=True, names=names, before=policy).channel


def set_roles(
    session: Session, site: Site, device: str, roles: tuple[str, ...], now: int
) -> list[StoredChannel]:
    """Give a device other roles; returns the channels where that changed anything.

    Args:
        session: the transaction.
        site: the site.
        device: its name.
        roles: as `check_roles` gave them.
        now: microseconds.

    Raises:
        UnknownNameError: nobody knows the device.
    """
    row = session.get(DeviceRow, device)
    if row is None:
        raise UnknownNameError(
            f"unknown device {device[:80]!r}", cure="see: sealcast authority device list DIR"
        )
    if list(roles) == row.roles:
        return []
    row.roles = list(roles)
    audit.record(session, now, "set roles", device, roles=" ".join(roles))
    return settle_devices(session, site, [device], now)


def settle_all(session: Session, site: Site, now: int) -> list[StoredChannel]:
    """Bring every channel in line with the register of devices; returns those that changed."""
    rows = session.scalars(select(ChannelRow).order_by(ChannelRow.name)).all()
    settled = [settle(session, site, row, now) for row in rows]
    return [each.channel for each in settled if each.is_changed]


def settle_devices(session: Session, site: Site, devices: Iterable[str], now: int) -> list[StoredChannel]:
    """Bring the channels in line with what has changed of some devices; returns those that changed.

    The same as `settle_all` after it, but for what time alone has changed: a channel that says of these
    devices what its rules say is not read.

    Args:
        session: the transaction.
        site: the site.
        devices: names of those that came, went, or have other roles.
        now: microseconds.
    """
    session.flush()
    names = list(devices)
    subjects = register.subjects(session, names)
    listed = policy_versions.listings(session, names)
    asked: list[tuple[ChannelRow, StoredPolicy, Policy]] = []
    for row in session.scalars(select(ChannelRow).order_by(ChannelRow.name)).all():
        rules = channel_rules(row)
        moved = {
            role: {
                name: is_meant
                for name in names
                if (is_meant := name in subjects and rules.permits(subjects[name], allow))
                is not ((row.name, role, name) in listed)
            }
            for role, allow in ((MemberRole.PUBLISH, rules.publish), (MemberRole.SUBSCRIBE, rules.subscribe))
        }
        if any(moved.values()):
            before = policy_versions.load_policy(session, row.name)
            lists = (
                _moved(before.publishers, moved[MemberRole.PUBLISH]),
                _moved(before.subscribers, moved[MemberRole.SUBSCRIBE]),
            )
            asked.append((row, before, _next_policy(site, row, before, lists, now)))
    # All at once: the issuer waits for the disk before it signs.
    signed = site.issuer.sign_policies([policy for _, _, policy in asked])
    settled = [
        _settled(
            session, site, row, _store_signed(session, row, before, policy, data, now), now, True, names
        ).channel
        for (row, before, policy), data in zip(asked, signed, strict=True)
    ]
    for name in sorted(_of_another_kind(session, names) - {channel.name for channel in settled}):
        row, policy = channel_row(session, name), policy_versions.load_policy(session, name)
        settled.append(_settled(session, site, row, policy, now, False, names).channel)
    return settled


def _of_another_kind(session: Session, devices: Collection[str]) -> set[str]:
    """Channels where some of `devices` became members before they became repair nodes, or as such and are
    none any more.
    """
    rows = session.execute(
        select(MemberRow.channel, MemberRow.device, MemberRow.role).where(MemberRow.device.in_(devices))
    ).all()
    if not rows:
        return set()
    nodes = register.repair_nodes(session, devices)
    return {channel for channel, device, role in rows if (role == MemberRole.REPAIR) != (device in nodes)}


def settle_due(session: Session, site: Site, now: int) -> list[StoredChannel]:
    """Sign the policies anew that are due, and remove members whose certificates have ended; returns the
    channels that changed.
    """
    changed = []
    for row in session.scalars(select(ChannelRow).order_by(ChannelRow.name)).all():
        latest = policy_versions.latest_row(session, row.name)
        if latest is not None and not is_due(latest.issued, now) and not _ended_members(session, row, now):
            continue
        before = policy_versions.load_policy(session, row.name)
        names = before.publishers, before.subscribers
        settled = settle(session, site, row, now, names=names, before=before)
        if settled.is_changed:
            changed.append(settled.channel)
    return changed


def sign_all(session: Session, site: Site, now: int) -> list[StoredChannel]:
    """Sign the policy of every channel anew, as another site CA issues now."""
    stored = []
    for row in session.scalars(select(ChannelRow).order_by(ChannelRow.name)).all():
        before = policy_versions.load_policy(session, row.name)
        names = before.publishers, before.subscribers
        settled = settle(session, site, row, now, is_changed=True, names=names, before=before)
        stored.append(settled.channel)
    return stored


def settle(
    session: Session,
    site: Site,
    row: ChannelRow,
    now: int,
    *,
    is_changed: bool = False,
    names: tuple[Names, Names] | None = None,
    before: StoredPolicy | None = None,
) -> Settled:
    """Sign a new policy if its members changed or it is due, and remove members that are not in it.

    A member whose last certificate has ended is removed too, though the policy still lists it: what is
    expired must not go on reading (it can join again once it has a new certificate). One that may still do
    the other of the two things goes on with the keys, which are the same for both.

    Args:
        session: the transaction.
        site: the site.
        row: the channel.
        now: microseconds.
        is_changed: whether other settings of the channel changed, which the policy has to say.
        names: publishers and subscribers, where they are known already.
        before: the policy in force, where it is loaded already.
    """
    signed = sign_policy(session, site, row, now, is_changed=is_changed, names=names, before=before)
    policy = signed or before or policy_versions.load_policy(session, row.name)
    return _settled(session, site, row, policy, now, signed is not None)


def _settled(
    session: Session,
    site: Site,
    row: ChannelRow,
    policy: StoredPolicy,
    now: int,
    is_signed: bool,
    concerned: Collection[str] | None = None,
) -> Settled:
    """Remove the members that must not take part any more.

    `is_signed`: whether the policy is a new one. `concerned`: the only devices of which anything changed.
    """
    keys = load_keys(session, row, site.vault)
    known = keys.membership.members
    if concerned is None:
        members = list(known.values())
    else:
        members = [known[name, role] for name in concerned for role in MemberRole if (name, role) in known]
    ended = _ended_members(session, row, now, concerned) if members else set()
    # As sets: there may be as many members as names.
    may = {
        MemberRole.PUBLISH: set(policy.publishers) if concerned is None and members else policy.publishers,
        MemberRole.SUBSCRIBE: set(policy.subscribers)
        if concerned is None and members
        else policy.subscribers,
    }
    may[MemberRole.REPAIR] = may[MemberRole.SUBSCRIBE]
    nodes = register.repair_nodes(session, concerned) if members else set()
    gone = {
        member.device
        for member in members
        if member.device in ended
        or not any(member.device in names for names in may.values())
        or (member.role is not MemberRole.REPAIR and member.device in nodes)
    }
    lapsed = [
        member.key
        for member in members
        if not member.left
        and (
            member.device not in may[member.role]
            or (member.role is MemberRole.REPAIR and member.device not in nodes)
        )
    ]
    after = keys.removed(sorted(gone), draw_secret).lapsed(lapsed)
    if after is not keys:
        store_keys(session, row, site.vault, keys, after, now)
        audit.record(
            session, now, "remove members", row.name, count=len(gone), generation=after.generation.number
        )
    session.flush()
    return Settled(
        channel=_stored_channel(session, row, policy, after),
        is_changed=is_signed or after is not keys,
    )


def sign_policy(
    session: Session,
    site: Site,
    row: ChannelRow,
    now: int,
    *,
    jump: int = 0,
    is_changed: bool = False,
    names: tuple[Names, Names] | None = None,
    before: StoredPolicy | None = None,
) -> StoredPolicy | None:
    """Sign the next version of a channel's policy, if what it says changed or the present one is due.

    Args:
        session: the transaction.
        site: the site.
        row: the channel.
        now: microseconds.
        jump: versions to leave out, after a restore; then a version is signed in any case.
        is_changed: whether settings besides the members changed.
        names: publishers and subscribers, where they are known already.
        before: the policy in force, where it is loaded already.

    Returns:
        The new version, if there is one.
    """
    if names is None:
        rules = channel_rules(row)
        names = register.publishers(session, rules), register.subscribers(session, rules)
    latest = policy_versions.latest_row(session, row.name)
    if before is None and latest is not None:
        before = policy_versions.load_version(session, latest)
    if (
        before is not None
        and latest is not None
        and is_of_this_form(latest.head)
        and (before.publishers, before.subscribers) == names
        and not is_due(before.issued, now)
        and not jump
        and not is_changed
    ):
        return None
    asked = _next_policy(site, row, before, names, now, jump)
    return _store_signed(session, row, before, asked, site.issuer.sign_policy(asked), now)


def _next_policy(
    site: Site,
    row: ChannelRow,
    before: StoredPolicy | None,
    names: tuple[Names, Names],
    now: int,
    jump: int = 0,
) -> Policy:
    grace = max(microseconds(GRACE), row.slots_ahead * row.slot_length + _BEYOND_PREFETCH)
    return Policy(
        site_id=site.site_id,
        channel=row.name,
        version=before.version.version + 1 + jump if before else 1,
        issued=now,
        next_update=now + microseconds(LIFE) + grace,
        suite=row.suite,
        group=row.group,
        port=row.port,
        interface=row.interface,
        rate=row.rate,
        slots=slot_clock(row),
        retention=row.retention,
        retention_bytes=row.retention_bytes,
        publisher_limit=row.publisher_limit,
        fec=parse_fec(row.fec),
        publishers=names[0],
        subscribers=names[1],
    )


def _store_signed(
    session: Session, row: ChannelRow, before: StoredPolicy | None, asked: Policy, data: bytes, now: int
) -> StoredPolicy:
    policy, signed = asked.signed_as(data)
    stored = policy_versions.store_version(session, before, policy, signed, data)
    audit.record(session, now, "sign policy", row.name, version=policy.version)
    return stored


def channel_rules(row: ChannelRow) -> ChannelRules:
    """The rules of a channel."""
    return ChannelRules.stored(row.publish_globs, row.subscribe_globs, row.deny_rules)


def load_channel(session: Session, site: Site, row: ChannelRow) -> StoredChannel:
    """A channel as it stands now in the transaction."""
    policy = policy_versions.load_policy(session, row.name)
    return _stored_channel(session, row, policy, load_keys(session, row, site.vault))


def _stored_channel(
    session: Session, row: ChannelRow, policy: StoredPolicy, keys: ChannelKeys
) -> StoredChannel:
    return StoredChannel(
        name=row.name,
        channel_id=row.channel_id,
        suite=row.suite,
        policy=policy,
        keys=keys,
        streams=load_streams(session, row.name),
        beacon_limit=row.beacon_limit,
    )


def channel_row(session: Session, name: str) -> ChannelRow:
    """The row of a channel.

    Raises:
        ChannelError: no such channel.
    """
    row = session.get(ChannelRow, name)
    if row is None:
        raise UnknownChannelError(name)
    return row


def start_channels(session: Session, site: Site, now: int, *, restored: bool) -> list[StoredChannel]:
    """Every channel made ready for a start of the key server.

    Slots are moved on, beacon counters reserved (so that none is used twice across a crash), policies
    renewed when due. After a restore every number jumps, before anything else is said, above all that the
    lost history may have used (invariant 8).
    """
    channels = []
    for row in session.scalars(select(ChannelRow).order_by(ChannelRow.name)).all():
        keys = load_keys(session, row, site.vault)
        after = keys.restored(draw_secret) if restored else keys
        after = after.turned(now, draw_secret)
        if after is not keys:
            store_keys(session, row, site.vault, keys, after, now)
            session.flush()
        if restored:
            sign_policy(session, site, row, now, jump=RESTORE_JUMP)
            row.beacon_limit += RESTORE_JUMP * COUNTER_RESERVE
        settle(session, site, row, now)
        row.beacon_limit += COUNTER_RESERVE
        session.flush()
        channels.append(load_channel(session, site, row))
    return channels


def turn_slots(session: Session, site: Site, now: int) -> list[StoredChannel]:
    """Move the slots of every channel on to `now`; returns the channels that changed."""
    changed = []
    for row in session.scalars(select(ChannelRow).order_by(ChannelRow.name)).all():
        keys = load_keys(session, row, site.vault)
        after = keys.turned(now, draw_secret)
        if after is not keys:
            store_keys(session, row, site.vault, keys, after, now)
            session.flush()
            changed.append(load_channel(session, site, row))
    return changed


def admit(session: Session, site: Site, name: str, joins: tuple[MemberKey, ...], now: int) -> StoredChannel:
    """Admit those of `joins` that the policy allows at this moment, with one step together (SC-6).

    A repair node takes part as one and as nothing else: it must hold no key that opens (KM-21).
    """
    row = channel_row(session, name)
    policy = policy_versions.load_policy(session, row.name)
    keys = load_keys(session, row, site.vault)
    nodes = register.repair_nodes(session, {device for device, _ in joins})
    allowed = tuple(
        (device, role)
        for device, role in joins
        if policy.allows(device, role) and (role is MemberRole.REPAIR) is (device in nodes)
    )
    after = keys.turned(now, draw_secret).admitted(allowed, now, draw_secret)
    if after is not keys:
        store_keys(session, row, site.vault, keys, after, now)
        session.flush()
    return load_channel(session, site, row)


def leave(session: Session, site: Site, name: str, device: str, now: int) -> StoredChannel:
    """Note that `device` leaves."""
    row = channel_row(session, name)
    keys = load_keys(session, row, site.vault)
    after = keys.left(device)
    if after is not keys:
        store_keys(session, row, site.vault, keys, after, now)
        session.flush()
    return load_channel(session, site, row)


def describe_channel(session: Session, row: ChannelRow) -> dict[str, object]:
    """Settings of a channel, and the version of its policy with the first names that it lists."""
    policy = policy_versions.load_policy(session, row.name)
    return {
        "name": row.name,
        "channel_id": row.channel_id.hex(),
        "group": row.group,
        "port": row.port,
        "interface": row.interface,
        "rate": row.rate,
        "suite": row.suite,
        "slot_us": row.slot_length,
        "slots_ahead": row.slots_ahead,
        "retention_us": row.retention,
        "retention_bytes": row.retention_bytes,
        "publisher_limit_us": row.publisher_limit,
        "fec": row.fec,
        "publish": row.publish_globs,
        "subscribe": row.subscribe_globs,
        "deny": row.deny_rules,
        "policy_version": policy.version.version,
        "publishers": list(islice(policy.publishers, MOST_DESCRIBED)),
        "publisher_count": len(policy.publishers),
        "subscribers": list(islice(policy.subscribers, MOST_DESCRIBED)),
        "subscriber_count": len(policy.subscribers),
    }


def _moved(names: Names, moved: Mapping[str, bool]) -> Names:
    """A list with each of some names in it, or not."""
    for name, is_meant in moved.items():
        names = names.adding(name) if is_meant else names.removing(name)
    return names


def _ended_members(
    session: Session, row: ChannelRow, now: int, concerned: Collection[str] | None = None
) -> set[str]:
    """Devices, or those `concerned`, that are members and hold no certificate in force; one of another site,
    as far as it has shown one.
    """
    alive = (
        select(DeviceRow.name)
        .where(DeviceRow.name == MemberRow.device, DeviceRow.revoked.is_(None), DeviceRow.ends > now)
        .exists()
    )
    shown = (
        select(GuestRow.serial)
        .where(GuestRow.device == MemberRow.device, GuestRow.revoked.is_(None), GuestRow.not_after > now)
        .exists()
    )
    is_guest = MemberRow.device.like("%:%")
    chosen = select(MemberRow.device).where(
        MemberRow.channel == row.name, or_(and_(is_guest, ~shown), and_(~is_guest, ~alive))
    )
    if concerned is not None:
        chosen = chosen.where(MemberRow.device.in_(concerned))
    return set(session.scalars(chosen.distinct()))


def check_sites(rules: ChannelRules, site: Site) -> None:
    """Refuse rules that name this site as if it were another: a policy lists its devices by name alone.

    Raises:
        UsageError: one does.
    """
    for rule in (*rules.publish, *rules.subscribe, *rules.deny):
        if rule.site_id == site.site_id:
            name = rule.pattern.partition(":")[2]
            raise UsageError(f"{rule.text()} is a device of this very site", cure=f"write {name}")
