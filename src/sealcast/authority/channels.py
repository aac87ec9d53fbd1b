"""Channels as rows: made, given other settings and rules, started; their slots and who joins and leaves.

Every function runs inside the caller's transaction.

Spec: spec/keys.md KM-1.
"""

from itertools import islice

from sqlalchemy import select
from sqlalchemy.orm import Session

from sealcast.authority import audit, policy_versions, register
from sealcast.authority.keystore import draw_secret, load_keys, slot_clock, store_keys
from sealcast.authority.models import ChannelRow, DeviceRow
from sealcast.authority.settlement import settle, settle_devices, sign_policy
from sealcast.authority.site import Site
from sealcast.authority.stored_channel import (
    StoredChannel,
    channel_row,
    channel_rows,
    channel_rules,
    load_channel,
)
from sealcast.errors import ChannelError, UnknownNameError, UsageError
from sealcast.keys import COUNTER_RESERVE, ChannelKeys, MemberKey, MemberRole
from sealcast.keys.epochs import RESTORE_JUMP
from sealcast.pki.channel_settings import ChannelSettings as ChannelSettings
from sealcast.pki.names import channel_id
from sealcast.pki.policy_names import Names
from sealcast.pki.policy_rules import ChannelRules, Rule

FIRST_SLOT = 1
"""Number of a new channel's first slot; there is none before it that a joiner could be given."""

MOST_DESCRIBED = 1000
"""Names of either kind in the description of a channel; its policy has all of them."""


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
    return StoredChannel.of(session, row, policy, load_keys(session, row, site.vault))


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


def start_channels(session: Session, site: Site, now: int, *, restored: bool) -> list[StoredChannel]:
    """Every channel made ready for a start of the key server.

    Slots are moved on, beacon counters reserved (so that none is used twice across a crash), policies
    renewed when due. After a restore every number jumps, before anything else is said, above all that the
    lost history may have used (invariant 8).
    """
    channels = []
    for row in channel_rows(session):
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
    for row in channel_rows(session):
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


def check_sites(rules: ChannelRules, site: Site) -> None:
    """Refuse rules that name this site as if it were another: a policy lists its devices by name alone.

    Raises:
        UsageError: one does.
    """
    for rule in (*rules.publish, *rules.subscribe, *rules.deny):
        if rule.site_id == site.site_id:
            name = rule.pattern.partition(":")[2]
            raise UsageError(f"{rule.text()} is a device of this very site", cure=f"write {name}")
