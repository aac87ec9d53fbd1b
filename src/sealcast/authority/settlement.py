"""Channels brought in line with their rules, with the register and with time: a policy that says so, and the
members that it does not list any more removed.

Every function runs inside the caller's transaction.

Spec: spec/trust.md TR-13; spec/keys.md KM-21.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from sealcast.authority import audit, policy_versions, register
from sealcast.authority.keystore import draw_secret, load_keys, slot_clock, store_keys
from sealcast.authority.models import ChannelRow, DeviceRow, GuestRow, MemberRow
from sealcast.authority.policy_versions import StoredPolicy
from sealcast.authority.site import Site
from sealcast.authority.stored_channel import StoredChannel, channel_row, channel_rows, channel_rules
from sealcast.keys import MemberRole
from sealcast.pki.channel_settings import SECOND
from sealcast.pki.crl import GRACE, LIFE, is_due
from sealcast.pki.fec import parse_fec
from sealcast.pki.policy import Policy, is_of_this_form
from sealcast.pki.policy_names import Names
from sealcast.pki.times import microseconds

_BEYOND_PREFETCH = 48 * 3600 * SECOND
"""Design 7: the grace of a policy is at least the prefetch depth and 48 h."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A channel that is in line with its rules and with the register."""

    channel: StoredChannel
    is_changed: bool
    """Whether it was not before."""


def settle_all(session: Session, site: Site, now: int) -> list[StoredChannel]:
    """Bring every channel in line with the register of devices; returns those that changed."""
    rows = channel_rows(session)
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
    for row in channel_rows(session):
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


def _moved(names: Names, moved: Mapping[str, bool]) -> Names:
    """A list with each of some names in it, or not."""
    for name, is_meant in moved.items():
        names = names.adding(name) if is_meant else names.removing(name)
    return names


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
    for row in channel_rows(session):
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
    for row in channel_rows(session):
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
        channel=StoredChannel.of(session, row, policy, after),
        is_changed=is_signed or after is not keys,
    )


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
