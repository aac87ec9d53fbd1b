"""What the ledger of the site CA tells: how far it was read, and serial numbers without a certificate.

Revision: 0003
After: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column and the table."""
    with op.batch_alter_table("site") as table:
        table.add_column(sa.Column("ledger_position", sa.BigInteger(), nullable=True))
    op.create_table(
        "unrecorded",
        sa.Column("serial", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("ends", sa.BigInteger(), nullable=False),
        sa.Column("revoked", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("serial", name=op.f("pk_unrecorded")),
    )
    op.create_index(op.f("ix_unrecorded_name"), "unrecorded", ["name"], unique=False)
