"""What is asked of all devices at once is told by an index, not by reading every row.

Revision: 0010
After: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns, filled from certificates and reports, and the indexes."""
    for column in ("ends", "bundle_version"):
        op.add_column("devices", sa.Column(column, sa.BigInteger(), server_default="0", nullable=False))
    op.add_column(
        "channels",
        sa.Column("keys_state", sa.LargeBinary(), server_default=sa.text("x''"), nullable=False),
    )
    devices = sa.table("devices", *map(sa.column, ("name", "ends", "bundle_version")))
    certificates = sa.table("certificates", *map(sa.column, ("name", "role", "not_after", "revoked")))
    reports = sa.table("reports", *map(sa.column, ("device", "bundle_version")))
    last = (
        sa.select(sa.func.max(certificates.c.not_after))
        .where(
            certificates.c.name == devices.c.name,
            certificates.c.role == "device",
            certificates.c.revoked.is_(None),
        )
        .scalar_subquery()
    )
    told = sa.select(reports.c.bundle_version).where(reports.c.device == devices.c.name).scalar_subquery()
    op.execute(
        sa.update(devices).values(ends=sa.func.coalesce(last, 0), bundle_version=sa.func.coalesce(told, 0))
    )
    op.create_index("ix_devices_standing", "devices", ["revoked", "name", "ends", "bundle_version"])
    op.create_index(
        "ix_certificates_revoked", "certificates", ["revoked"], sqlite_where=sa.text("revoked IS NOT NULL")
    )
    op.create_index("ix_tokens_unused", "tokens", ["expires"], sqlite_where=sa.text("used IS NULL"))
    op.create_index(op.f("ix_requests_time"), "requests", ["time"])
