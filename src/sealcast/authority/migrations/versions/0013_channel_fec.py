"""The parity that a channel's publishers send by default.

Revision: 0013
After: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column: none, as it was."""
    op.add_column("channels", sa.Column("fec", sa.String(), server_default="off", nullable=False))
