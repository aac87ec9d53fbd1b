"""Channels as rows: their settings, their policies, and who has to leave when a policy changes.

Every function runs inside the caller's transaction.

Spec: spec/trust.md TR-13; spec/keys.md KM-1.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from sealcast.authority import audit
from sealcast.authority.directory import StoredStream, load_streams
from sealcast.authority.keystore import draw_secret, load_keys, slot_clock, store_keys
from sealcast.authority.models import CertificateRow, ChannelRow, DeviceRow, PolicyRow
from sealcast.authority.site import Site
from sealcast.errors import ChannelError, UnknownChannelError, UnknownNameError, UsageError
from sealcast.keys import COUNTER_RESERVE, ChannelKeys, MemberKey, MemberRole, ObjectVersion
from sealcast.keys.epochs import RESTORE_JUMP
from sealcast.pki.channel_settings import SECOND
from sealcast.pki.channel_settings import ChannelSettings as ChannelSettings
from sealcast.pki.crl import GRACE, LIFE
from sealcast.pki.names import channel_id
from sealcast.pki.policy import Policy
from sealcast.pki.policy_rules import ChannelRules, Rule, Subject
from sealcast.pki.times import microseconds

FIRST_SLOT = 1
"""Number of a new channel's first slot; there is none before it that a joiner could be given."""

_BEYOND_PREFETCH = 48 * 3600 * SECOND
"""Design 7: the grace of a policy is at least the prefetch depth and 48 h."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPolicy:
    """The policy in force."""

    signed: bytes
    version: ObjectVersion
    next_update: int
    """Microseconds."""
    publishers: frozenset[str]
    subscribers: frozenset[str]

    def allows(self, device: str, role: MemberRole) -> bool:
        """Whether `device`, as a policy writes it, may do what `role` says."""
        return device in (self.publishers if role is MemberRole.PUBLISH else self.subscribers)

    def mentions(self, device: str) -> bool:
        """Whether `device` may do anything on the channel."""
        return device in self.publishers or device in self.subscribers


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
    sign_policy(session, site, row, now)
    audit.record(session, now, "add channel", row.name, group=row.group, port=row.port)
    session.flush()
    return load_channel(session, site, row)


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
    settle(session, site, row, now)
    return load_channel(session, site, row)


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
    row.publisher_limit = settings.publisher_limit
    row.publish_globs = [rule.text() for rule in rules.publish]
    row.subscribe_globs = [rule.text() for rule in rules.subscribe]
    row.deny_rules = [rule.text() for rule in rules.deny]
    audit.record(session, now, "change channel", row.name, group=row.group, port=row.port)
    keys = load_keys(session, row, site.vault)
    turned = keys.turned(now, draw_secret)
    if turned is not keys:
        store_keys(session, row, site.vault, keys, turned, now)
    settle(session, site, row, now, is_changed=True)
    return load_channel(session, site, row)


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
    session.flush()
    return settle_all(session, site, now)


def settle_all(session: Session, site: Site, now: int) -> list[StoredChannel]:
    """Bring every channel in line with the register of devices; returns those that changed."""
    rows = session.scalars(select(ChannelRow).order_by(ChannelRow.name)).all()
    devices = registered(session)
    return [
        load_channel(session, site, row) for row in rows if settle(session, site, row, now, devices=devices)
    ]


def settle(
    session: Session,
    site: Site,
    row: ChannelRow,
    now: int,
    *,
    is_changed: bool = False,
    devices: Sequence[Subject] | None = None,
) -> bool:
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
        devices: what `registered` gives, where it is known already.

    Returns:
        Whether anything changed.
    """
    signed = sign_policy(session, site, row, now, is_changed=is_changed, devices=devices)
    policy = load_policy(session, row)
    keys = load_keys(session, row, site.vault)
    alive = _devices_with_certificate(session, now)
    members = keys.membership.members.values()
    gone = {
        member.device
        for member in members
        if not policy.mentions(member.device) or (":" not in member.device and member.device not in alive)
    }
    lapsed = [
        member.key for member in members if not member.left and not policy.allows(member.device, member.role)
    ]
    after = keys.removed(sorted(gone), draw_secret).lapsed(lapsed)
    if after is not keys:
        store_keys(session, row, site.vault, keys, after, now)
        audit.record(
            session, now, "remove members", row.name, count=len(gone), generation=after.generation.number
        )
    session.flush()
    return signed or after is not keys


def sign_policy(
    session: Session,
    site: Site,
    row: ChannelRow,
    now: int,
    *,
    jump: int = 0,
    is_changed: bool = False,
    devices: Sequence[Subject] | None = None,
) -> bool:
    """Sign the next version of a channel's policy, if what it says changed or the present one is due.

    Args:
        session: the transaction.
        site: the site.
        row: the channel.
        now: microseconds.
        jump: versions to leave out, after a restore; then a version is signed in any case.
        is_changed: whether settings besides the members changed.
        devices: what `registered` gives, where it is known already.
    """
    devices, rules = registered(session) if devices is None else devices, channel_rules(row)
    publishers, subscribers = rules.publishers(devices), rules.subscribers(devices)
    present = _latest_policy(session, row)
    if (
        present is not None
        and (present.publishers, present.subscribers) == (list(publishers), list(subscribers))
        and now < present.issued + microseconds(LIFE)
        and not jump
        and not is_changed
    ):
        return False
    grace = max(microseconds(GRACE), row.slots_ahead * row.slot_length + _BEYOND_PREFETCH)
    policy = Policy(
        site_id=site.site_id,
        channel=row.name,
        version=present.version + 1 + jump if present else 1,
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
        publishers=publishers,
        subscribers=subscribers,
    )
    signed = site.issuer.sign_policy(policy)
    version = Policy.parse(signed, None).version
    session.add(
        PolicyRow(
            channel=row.name,
            version=version,
            issued=policy.issued,
            next_update=policy.next_update,
            publishers=list(publishers),
            subscribers=list(subscribers),
            signed=signed,
        )
    )
    session.flush()
    audit.record(session, now, "sign policy", row.name, version=version)
    return True


def registered(session: Session) -> list[Subject]:
    """The devices that rules may match: those of the register that are not revoked."""
    rows = session.execute(select(DeviceRow.name, DeviceRow.roles).where(DeviceRow.revoked.is_(None)))
    return [Subject(member=name, roles=frozenset(roles)) for name, roles in rows]


def channel_rules(row: ChannelRow) -> ChannelRules:
    """The rules of a channel."""
    return ChannelRules.stored(row.publish_globs, row.subscribe_globs, row.deny_rules)


def load_policy(session: Session, row: ChannelRow) -> StoredPolicy:
    """The policy in force on a channel; there is one from its first transaction on."""
    policy = _latest_policy(session, row)
    if policy is None:
        raise ChannelError(f"channel {row.name!r} has no policy", channel=row.name, cure="restore a backup")
    return StoredPolicy(
        signed=policy.signed,
        version=ObjectVersion(version=policy.version, digest=hashlib.sha256(policy.signed).digest()),
        next_update=policy.next_update,
        publishers=frozenset(policy.publishers),
        subscribers=frozenset(policy.subscribers),
    )


def load_channel(session: Session, site: Site, row: ChannelRow) -> StoredChannel:
    """A channel as it stands now in the transaction."""
    return StoredChannel(
        name=row.name,
        channel_id=row.channel_id,
        suite=row.suite,
        policy=load_policy(session, row),
        keys=load_keys(session, row, site.vault),
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
    """Admit those of `joins` that the policy allows at this moment, with one step together (SC-6)."""
    row = channel_row(session, name)
    policy = load_policy(session, row)
    keys = load_keys(session, row, site.vault)
    allowed = tuple((device, role) for device, role in joins if policy.allows(device, role))
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
    """Settings of a channel, and the version and members of its policy."""
    policy = load_policy(session, row)
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
        "publish": row.publish_globs,
        "subscribe": row.subscribe_globs,
        "deny": row.deny_rules,
        "policy_version": policy.version.version,
        "publishers": sorted(policy.publishers),
        "subscribers": sorted(policy.subscribers),
    }


def _latest_policy(session: Session, row: ChannelRow) -> PolicyRow | None:
    return session.scalars(
        select(PolicyRow).where(PolicyRow.channel == row.name).order_by(PolicyRow.version.desc()).limit(1)
    ).first()


def _devices_with_certificate(session: Session, now: int) -> set[str]:
    return set(
        session.scalars(
            select(CertificateRow.name)
            .where(
                CertificateRow.role == "device",
                CertificateRow.revoked.is_(None),
                CertificateRow.not_after > now,
            )
            .distinct()
        )
    )


def check_sites(rules: ChannelRules, site: Site) -> None:
    """Refuse rules that name this site as if it were another: a policy lists its devices by name alone.

    Raises:
        UsageError: one does.
    """
    for rule in (*rules.publish, *rules.subscribe, *rules.deny):
        if rule.site_id == site.site_id:
            name = rule.pattern.partition(":")[2]
            raise UsageError(f"{rule.text()} is a device of this very site", cure=f"write {name}")
