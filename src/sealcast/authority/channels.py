"""Channels as rows: their settings, their policies, and who has to leave when a policy changes.

Every function runs inside the caller's transaction.

Spec: spec/trust.md TR-13; spec/keys.md KM-1.
"""

import hashlib
import ipaddress
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from sealcast.authority import audit
from sealcast.authority.directory import StoredStream, load_streams
from sealcast.authority.keystore import draw_secret, load_keys, slot_clock, store_keys
from sealcast.authority.models import CertificateRow, ChannelRow, DeviceRow, PolicyRow
from sealcast.authority.site import Site
from sealcast.errors import ChannelError, UsageError
from sealcast.keys import COUNTER_RESERVE, ChannelKeys, MemberKey, MemberRole, ObjectVersion
from sealcast.keys.epochs import RESTORE_JUMP
from sealcast.keys.server import MAX_SLOTS_AHEAD
from sealcast.pki.crl import GRACE, LIFE
from sealcast.pki.names import channel_id, check_channel_name
from sealcast.pki.policy import SUITES, Policy, check_pattern, expand_members
from sealcast.pki.times import microseconds

SECOND = 1_000_000
"""Microseconds."""

FIRST_SLOT = 1
"""Number of a new channel's first slot; there is none before it that a joiner could be given."""

_BEYOND_PREFETCH = 48 * 3600 * SECOND
"""Design 7: the grace of a policy is at least the prefetch depth and 48 h."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSettings:
    """What an operator says about a channel; checked when made.

    Raises:
        UsageError: a value makes no sense; the text names it.
    """

    name: str
    group: str
    """IPv4 or IPv6 multicast address."""
    port: int
    """UDP port."""
    publish: tuple[str, ...]
    """Globs over device names."""
    subscribe: tuple[str, ...]
    """Globs over device names."""
    interface: str | None = None
    rate: int = 20_000_000
    """Most bits a second of one publisher. 20 Mbit/s does not hurt a network of 100 Mbit/s."""
    suite: int = 1
    slot: int = 3600 * SECOND
    """Slot length in microseconds."""
    slots_ahead: int = 24
    """Slots that members may prefetch: traffic outlives an absent authority for a day of hourly slots."""
    retention: int = 60 * SECOND
    """For how long a publisher keeps packets for repair, in microseconds."""
    retention_bytes: int = 256 * 1024 * 1024
    """How much it keeps, in bytes: 60 s at 20 Mbit/s are 150 MB."""
    publisher_limit: int = 30 * SECOND
    """How long after a removal packets of the old generation may still be sealed, in microseconds."""

    def __post_init__(self) -> None:
        check_channel_name(self.name)
        _check_group(self.group)
        if not 1 <= self.port <= 65535:
            raise UsageError(f"not a UDP port: {self.port}", cure="use one of 1 to 65535")
        for pattern in (*self.publish, *self.subscribe):
            check_pattern(pattern)
        if self.suite not in SUITES:
            raise UsageError(f"unknown suite {self.suite}", cure="use 1 (AES) or 2 (ChaCha20)")
        if self.rate < 1:
            raise UsageError(f"the rate must be positive: {self.rate}", cure="for example 20Mbit/s")
        if not 1 <= self.slots_ahead <= MAX_SLOTS_AHEAD:
            raise UsageError(f"slots ahead: {self.slots_ahead}", cure=f"use 1 to {MAX_SLOTS_AHEAD}")
        for what, value in (("slot", self.slot), ("retention", self.retention)):
            if value < SECOND // 10:
                raise UsageError(f"{what} of {value} µs is too short", cure="use at least 100ms")
        if min(self.retention_bytes, self.publisher_limit) < 0:
            raise UsageError("retention bytes and publisher limit must not be negative")


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
    """
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
        publish_globs=list(settings.publish),
        subscribe_globs=list(settings.subscribe),
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
    """Replace the globs of a channel; members that no longer match are removed under a fresh generation.

    Raises:
        UsageError: a glob makes no sense.
        ChannelError: no such channel.
    """
    row = session.get(ChannelRow, name)
    if row is None:
        raise ChannelError(f"unknown channel {name!r}", channel=name)
    for pattern in (*(publish or ()), *(subscribe or ())):
        check_pattern(pattern)
    if publish is not None:
        row.publish_globs = list(publish)
    if subscribe is not None:
        row.subscribe_globs = list(subscribe)
    audit.record(session, now, "set members", name)
    settle(session, site, row, now)
    return load_channel(session, site, row)


def settle_all(session: Session, site: Site, now: int) -> list[StoredChannel]:
    """Bring every channel in line with the register of devices; returns those that changed."""
    rows = session.scalars(select(ChannelRow).order_by(ChannelRow.name)).all()
    return [load_channel(session, site, row) for row in rows if settle(session, site, row, now)]


def settle(session: Session, site: Site, row: ChannelRow, now: int) -> bool:
    """Sign a new policy if its members changed or it is due, and remove members that are not in it.

    A member whose last certificate has ended is removed too, though the policy still lists it: what is
    expired must not go on reading (it can join again once it has a new certificate).

    Returns:
        Whether anything changed.
    """
    signed = sign_policy(session, site, row, now)
    policy = load_policy(session, row)
    keys = load_keys(session, row, site.vault)
    alive = _devices_with_certificate(session, now)
    gone = {
        member.device
        for member in keys.membership.members.values()
        if not policy.allows(member.device, member.role)
        or (":" not in member.device and member.device not in alive)
    }
    after = keys.removed(sorted(gone), draw_secret)
    if after is not keys:
        store_keys(session, row, site.vault, keys, after, now)
        audit.record(
            session, now, "remove members", row.name, count=len(gone), generation=after.generation.number
        )
    session.flush()
    return signed or after is not keys


def sign_policy(session: Session, site: Site, row: ChannelRow, now: int, *, jump: int = 0) -> bool:
    """Sign the next version of a channel's policy, if its members changed or the present one is due.

    Args:
        session: the transaction.
        site: the site.
        row: the channel.
        now: microseconds.
        jump: versions to leave out, after a restore; then a version is signed in any case.
    """
    devices = session.scalars(select(DeviceRow.name).where(DeviceRow.revoked.is_(None))).all()
    publishers = expand_members(row.publish_globs, devices)
    subscribers = expand_members(row.subscribe_globs, devices)
    present = _latest_policy(session, row)
    if (
        present is not None
        and (present.publishers, present.subscribers) == (list(publishers), list(subscribers))
        and now < present.issued + microseconds(LIFE)
        and not jump
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
        raise ChannelError(f"unknown channel {name!r}", channel=name)
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


def list_channels(session: Session) -> list[dict[str, object]]:
    """Settings of every channel, and the versions and members of its policy."""
    listed = []
    for row in session.scalars(select(ChannelRow).order_by(ChannelRow.name)):
        policy = load_policy(session, row)
        listed.append(
            {
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
                "policy_version": policy.version.version,
                "publishers": sorted(policy.publishers),
                "subscribers": sorted(policy.subscribers),
            }
        )
    return listed


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


def _check_group(group: str) -> None:
    cure = "use one of 239.192.0.0/14 or ff15::/16"
    try:
        address = ipaddress.ip_address(group)
    except ValueError:
        raise UsageError(f"not an IP address: {group[:80]!r}", cure=cure) from None
    if not address.is_multicast:
        raise UsageError(f"not a multicast address: {group!r}", cure=cure)
    if address in ipaddress.ip_network("224.0.0.0/24"):
        # RFC 5771 section 4: for routing protocols; switches flood it whoever has joined.
        raise UsageError(f"{group} is reserved for the network itself", cure=cure)
