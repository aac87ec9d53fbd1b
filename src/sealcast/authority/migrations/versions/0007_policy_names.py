"""The names of a policy in blocks that versions share, in place of a copy in each version.

Revision: 0007
After: 0006
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import cbor2
import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_BLOCK = 128


def upgrade() -> None:
    """Take each version apart, in order: what it signs, the signature, runs of names that are new."""
    op.create_table(
        "policy_names",
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("first", sa.String(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=True),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("names", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["channel"], ["channels.name"], name=op.f("fk_policy_names_channel_channels")
        ),
        sa.PrimaryKeyConstraint("channel", "role", "first", "since", name=op.f("pk_policy_names")),
    )
    op.create_index("ix_policy_names_in_force", "policy_names", ["channel", "role", "until", "first"])
    columns: list[sa.Column[Any]] = [
        sa.Column("head", sa.LargeBinary(), nullable=False, server_default=""),
        sa.Column("algorithm", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("signature", sa.LargeBinary(), nullable=False, server_default=""),
        sa.Column("digest", sa.LargeBinary(), nullable=False, server_default=""),
    ]
    for column in columns:
        op.add_column("policies", column)
    _convert(op.get_bind())
    with op.batch_alter_table("policies") as policies:
        for column in columns:
            policies.alter_column(column.name, server_default=None)
        for name in ("publishers", "subscribers", "signed"):
            policies.drop_column(name)


def _convert(connection: sa.Connection) -> None:
    policies = sa.table(
        "policies",
        *map(sa.column, ("channel", "version", "signed", "head", "algorithm", "signature", "digest")),
    )
    names = sa.table(
        "policy_names", *map(sa.column, ("channel", "role", "first", "since", "until", "count", "names"))
    )
    known: dict[tuple[str, str, str], bytes] = {}
    keys = connection.execute(
        sa.select(policies.c.channel, policies.c.version).order_by(policies.c.channel, policies.c.version)
    ).all()
    for channel, version in keys:
        here = sa.and_(policies.c.channel == channel, policies.c.version == version)
        signed = connection.execute(sa.select(policies.c.signed).where(here)).scalar_one()
        tbs, algorithm, signature = cbor2.loads(signed)
        *_, publishers, subscribers = cbor2.loads(tbs)
        lists = cbor2.dumps(publishers) + cbor2.dumps(subscribers)
        connection.execute(
            sa.update(policies)
            .where(here)
            .values(
                head=tbs[: len(tbs) - len(lists)],
                algorithm=algorithm,
                signature=signature,
                digest=hashlib.sha256(signed).digest(),
            )
        )
        wanted = {
            (channel, role, block[0]): (len(block), b"".join(map(cbor2.dumps, block)))
            for role, listed in (("publish", publishers), ("subscribe", subscribers))
            for block in _blocks(listed)
        }
        for key in [key for key in known if key[0] == channel and wanted.get(key, (0, b""))[1] != known[key]]:
            connection.execute(
                sa.update(names)
                .where(
                    names.c.channel == channel,
                    names.c.role == key[1],
                    names.c.first == key[2],
                    names.c.until.is_(None),
                )
                .values(until=version)
            )
            del known[key]
        for key, (count, encoded) in wanted.items():
            if key not in known:
                known[key] = encoded
                connection.execute(
                    sa.insert(names).values(
                        channel=channel,
                        role=key[1],
                        first=key[2],
                        since=version,
                        until=None,
                        count=count,
                        names=encoded,
                    )
                )


def _blocks(listed: list[Any]) -> Iterator[list[Any]]:
    return (listed[start : start + _BLOCK] for start in range(0, len(listed), _BLOCK))
