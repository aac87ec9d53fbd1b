"""The versions of a channel's policy as rows: what each says, and its names in blocks that versions share.

A policy may list every device of a large site, and gets a version whenever one of them comes or goes. So a
version writes the blocks of names that it changes (`pki.policy_names`), and no version is lost: each can be
put together again, byte for byte. Every function runs inside the caller's transaction.
"""

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from sqlalchemy import (
    ScalarSelect,
    String,
    bindparam,
    func,
    join,
    literal,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.orm import InstrumentedAttribute, Session

from sealcast.authority.models import ChannelRow, PolicyNamesRow, PolicyRow
from sealcast.errors import ChannelError
from sealcast.keys import LISTED_ROLES, MemberRole, ObjectVersion
from sealcast.pki.policy import Policy
from sealcast.pki.policy_names import NameBlock, Names
from sealcast.pki.signed import Algorithm, SignedObject


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class StoredPolicy:
    """A version of a policy, as a rule the one in force."""

    signed: bytes
    version: ObjectVersion
    issued: int
    next_update: int
    """Microseconds, as `issued`."""
    publishers: Names
    subscribers: Names

    def allows(self, device: str, role: MemberRole) -> bool:
        """Whether `device`, as a policy writes it, may do what `role` says."""
        return device in (self.publishers if role is MemberRole.PUBLISH else self.subscribers)

    def mentions(self, device: str) -> bool:
        """Whether `device` may do anything on the channel."""
        return device in self.publishers or device in self.subscribers


_held: WeakValueDictionary[bytes, StoredPolicy] = WeakValueDictionary()
"""By digest, which says all that there is of a version: a service holds those in force."""


def latest_row(session: Session, channel: str) -> PolicyRow | None:
    """The row of the version in force; None before there is any."""
    return session.scalars(
        select(PolicyRow).where(PolicyRow.channel == channel).order_by(PolicyRow.version.desc()).limit(1)
    ).first()


def load_policy(session: Session, channel: str) -> StoredPolicy:
    """The policy in force on a channel; there is one from its first transaction on."""
    row = latest_row(session, channel)
    if row is None:
        raise ChannelError(f"channel {channel!r} has no policy", channel=channel, cure="restore a backup")
    return load_version(session, row)


def load_version(session: Session, row: PolicyRow) -> StoredPolicy:
    """A version as it was signed; one that somebody still holds in this process is not read again."""
    if (held := _held.get(row.digest)) is not None:
        return held
    publishers = load_names(session, row.channel, MemberRole.PUBLISH, row.version)
    subscribers = load_names(session, row.channel, MemberRole.SUBSCRIBE, row.version)
    signed = SignedObject(
        tbs=b"".join([row.head, publishers.encode(), subscribers.encode()]),
        algorithm=Algorithm(row.algorithm),
        signature=row.signature,
    )
    policy = StoredPolicy(
        signed=signed.serialize(),
        version=ObjectVersion(version=row.version, digest=row.digest),
        issued=row.issued,
        next_update=row.next_update,
        publishers=publishers,
        subscribers=subscribers,
    )
    _held[row.digest] = policy
    return policy


def load_names(session: Session, channel: str, role: MemberRole, version: int) -> Names:
    """The names that a version lists under a role; of the version in force they are found fastest."""
    rows = session.execute(
        select(PolicyNamesRow.first, PolicyNamesRow.count, PolicyNamesRow.names)
        .where(
            PolicyNamesRow.channel == channel,
            PolicyNamesRow.role == str(role),
            PolicyNamesRow.since <= version,
            or_(PolicyNamesRow.until.is_(None), PolicyNamesRow.until > version),
        )
        .order_by(PolicyNamesRow.first)
    )
    return Names(NameBlock(first, count, encoded) for first, count, encoded in rows)


def listings(session: Session, names: Collection[str]) -> set[tuple[str, MemberRole, str]]:
    """Channel, role and name wherever a policy in force lists one of `names`; reads no more than the blocks
    where they would stand.
    """
    blocks: dict[bytes, NameBlock] = {}
    found = set()
    for name, channel, role, first, count, encoded in session.execute(
        _BLOCK_OF, {"names": json.dumps(list(names))}
    ):
        if encoded is None:
            continue
        block = blocks.setdefault(encoded, NameBlock(first, count, encoded))
        if name in block.names:
            found.add((channel, MemberRole(role), name))
    return found


def store_version(
    session: Session, before: StoredPolicy | None, policy: Policy, signed: SignedObject, data: bytes
) -> StoredPolicy:
    """Store a version as the one in force.

    Args:
        session: the transaction.
        before: the one in force until now, if there is one.
        policy: the new one.
        signed: its signature.
        data: the signed object, as peers get it.
    """
    stored = StoredPolicy(
        signed=data,
        version=ObjectVersion(version=policy.version, digest=hashlib.sha256(data).digest()),
        issued=policy.issued,
        next_update=policy.next_update,
        publishers=policy.publishers,
        subscribers=policy.subscribers,
    )
    _held[stored.version.digest] = stored
    session.add(
        PolicyRow(
            channel=policy.channel,
            version=policy.version,
            issued=policy.issued,
            next_update=policy.next_update,
            head=policy.encode_head(),
            algorithm=int(signed.algorithm),
            signature=signed.signature,
            digest=stored.version.digest,
        )
    )
    session.flush()
    for role in LISTED_ROLES:
        old, new = _listed(before, role), _listed(stored, role)
        if old is not new:
            _store_names(session, policy.channel, role, old, new, policy.version)
    return stored


_ROLE = union_all(*(select(literal(str(role)).label("role")) for role in LISTED_ROLES)).subquery()
_NAME = func.json_each(bindparam("names", type_=String)).table_valued("value")


def _of_its_block(column: InstrumentedAttribute[Any]) -> ScalarSelect[Any]:
    """Of the block in force with the highest first name that is not above the name."""
    return (
        select(column)
        .where(
            PolicyNamesRow.channel == ChannelRow.name,
            PolicyNamesRow.role == _ROLE.c.role,
            PolicyNamesRow.until.is_(None),
            PolicyNamesRow.first <= _NAME.c.value,
        )
        .order_by(PolicyNamesRow.first.desc())
        .limit(1)
        .correlate(ChannelRow, _ROLE, _NAME)
        .scalar_subquery()
    )


# Not as a join: SQLite would read every block of every version, and look for the names in each.
_BLOCK_OF = select(
    _NAME.c.value,
    ChannelRow.name,
    _ROLE.c.role,
    _of_its_block(PolicyNamesRow.first),
    _of_its_block(PolicyNamesRow.count),
    _of_its_block(PolicyNamesRow.names),
).select_from(join(join(_NAME, ChannelRow, true()), _ROLE, true()))
"""For each name, of each list in force the block where it would stand."""


_INSERT_BLOCK = (
    "INSERT INTO policy_names (channel, role, first, since, until, count, names) "
    "VALUES (?, ?, ?, ?, NULL, ?, ?)"
)


_END_BLOCK = (
    "UPDATE policy_names SET until = ? WHERE channel = ? AND role = ? AND until IS NULL AND first = ?"
)


def _listed(policy: StoredPolicy | None, role: MemberRole) -> Names:
    if policy is None:
        return Names()
    return policy.publishers if role is MemberRole.PUBLISH else policy.subscribers


def _store_names(
    session: Session, channel: str, role: MemberRole, old: Names, new: Names, version: int
) -> None:
    known = {block.first: block.encoded for block in old.blocks}
    wanted = {block.first: block.encoded for block in new.blocks}
    ended = [first for first, encoded in known.items() if wanted.get(first) != encoded]
    begun = [block for block in new.blocks if known.get(block.first) != block.encoded]
    # As the driver takes them: there may be a thousand, and none is ever an object.
    connection = session.connection()
    if ended:
        connection.exec_driver_sql(_END_BLOCK, [(version, channel, str(role), first) for first in ended])
    if begun:
        connection.exec_driver_sql(
            _INSERT_BLOCK,
            [(channel, str(role), block.first, version, block.count, block.encoded) for block in begun],
        )
