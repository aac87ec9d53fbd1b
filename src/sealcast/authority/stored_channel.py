"""A channel as it stands in the database: its row, its rules, and all of it together.

Every function runs inside the caller's transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from sqlalchemy import select
from sqlalchemy.orm import Session

from sealcast.authority import policy_versions
from sealcast.authority.directory import StoredStream, load_streams
from sealcast.authority.keystore import load_keys
from sealcast.authority.models import ChannelRow
from sealcast.authority.policy_versions import StoredPolicy
from sealcast.authority.site import Site
from sealcast.errors import UnknownChannelError
from sealcast.keys import ChannelKeys
from sealcast.pki.policy_rules import ChannelRules


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

    @classmethod
    def of(cls, session: Session, row: ChannelRow, policy: StoredPolicy, keys: ChannelKeys) -> Self:
        """A channel whose policy and keys are loaded already."""
        return cls(
            name=row.name,
            channel_id=row.channel_id,
            suite=row.suite,
            policy=policy,
            keys=keys,
            streams=load_streams(session, row.name),
            beacon_limit=row.beacon_limit,
        )


def load_channel(session: Session, site: Site, row: ChannelRow) -> StoredChannel:
    """A channel as it stands now in the transaction."""
    policy = policy_versions.load_policy(session, row.name)
    return StoredChannel.of(session, row, policy, load_keys(session, row, site.vault))


def channel_row(session: Session, name: str) -> ChannelRow:
    """The row of a channel.

    Raises:
        ChannelError: no such channel.
    """
    row = session.get(ChannelRow, name)
    if row is None:
        raise UnknownChannelError(name)
    return row


def channel_rows(session: Session) -> Sequence[ChannelRow]:
    """Of every channel, by name."""
    return session.scalars(select(ChannelRow).order_by(ChannelRow.name)).all()


def channel_rules(row: ChannelRow) -> ChannelRules:
    """The rules of a channel."""
    return ChannelRules.stored(row.publish_globs, row.subscribe_globs, row.deny_rules)
