"""Roles of devices and of tokens, rules that deny, names for other sites.

Revision: 0004
After: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns, empty, and the table."""
    for table, column in (("devices", "roles"), ("channels", "deny_rules")):
        op.add_column(table, sa.Column(column, sa.JSON(), server_default="[]", nullable=False))
    op.add_column("tokens", sa.Column("roles", sa.JSON(), nullable=True))
    op.create_table(
        "known_sites",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("site_id", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_known_sites")),
    )
