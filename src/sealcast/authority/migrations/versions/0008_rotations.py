"""Rotations, and by which key a certificate was signed.

Revision: 0008
After: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table and the columns."""
    op.create_table(
        "rotations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("started", sa.BigInteger(), nullable=False),
        sa.Column("finished", sa.BigInteger(), nullable=True),
        sa.Column("request", sa.LargeBinary(), nullable=True),
        sa.Column("old", sa.LargeBinary(), nullable=False),
        sa.Column("new", sa.LargeBinary(), nullable=True),
        sa.Column("old_root", sa.LargeBinary(), nullable=True),
        sa.Column("new_root", sa.LargeBinary(), nullable=True),
        sa.Column("crosses", sa.LargeBinary(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=True),
        sa.Column("switched", sa.BigInteger(), nullable=True),
        sa.Column("forced", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rotations")),
    )
    # What is there was signed by the one key that there was, and is told from later ones by that.
    op.add_column("certificates", sa.Column("issuer", sa.LargeBinary(), nullable=True))
    op.add_column("renewal_windows", sa.Column("issuer", sa.LargeBinary(), nullable=True))
