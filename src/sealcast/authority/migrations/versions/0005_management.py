"""Management: admins, requests under an Idempotency-Key, tokens for admins, the audit log as a chain.

Revision: 0005
After: 0004
"""

import hashlib
import json

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables, and chain the entries that are there."""
    op.create_table(
        "admins",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("added", sa.BigInteger(), nullable=False),
        sa.Column("enrolled", sa.BigInteger(), nullable=True),
        sa.Column("revoked", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_admins")),
    )
    op.create_table(
        "requests",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.BigInteger(), nullable=False),
        sa.Column("sealed_answer", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_requests")),
    )
    op.add_column("tokens", sa.Column("kind", sa.String(), nullable=False, server_default="device"))
    _chain_audit()


def _chain_audit() -> None:
    connection = op.get_bind()
    rows = connection.execute(sa.text("SELECT time, action, subject, detail FROM audit ORDER BY id")).all()
    op.drop_table("audit")
    table = op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("previous", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    previous = bytes(32)
    # Who did it was not written down before; from here on it is.
    for number, (time, action, subject, detail) in enumerate(rows, start=1):
        fields = [number, time, "unknown", action, subject, "done", json.loads(detail)]
        content = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(b"sealcast/1 audit\x00" + previous + content.encode("ascii")).digest()
        connection.execute(
            table.insert(),
            {
                **dict(
                    zip(
                        ("id", "time", "actor", "action", "subject", "outcome", "detail"), fields, strict=True
                    )
                ),
                "previous": previous,
                "hash": digest,
            },
        )
        previous = digest
    for event in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER audit_no_{event.lower()} BEFORE {event} ON audit "
            "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        )
    # INSERT OR REPLACE would delete without asking the trigger above; so a number can only be the next one.
    op.execute(
        "CREATE TRIGGER audit_continues BEFORE INSERT ON audit "
        "WHEN NEW.id IS NOT (SELECT coalesce(max(id), 0) + 1 FROM audit) "
        "OR NEW.previous IS NOT coalesce((SELECT hash FROM audit ORDER BY id DESC LIMIT 1), zeroblob(32)) "
        "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
    )
