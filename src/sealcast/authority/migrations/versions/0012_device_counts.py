"""How many devices have reported what is kept as a number, and who ends soon is told by an index.

Revision: 0012
After: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_ONE_MORE = (
    "INSERT INTO device_counts (bundle_version, devices) "
    "SELECT NEW.bundle_version, 1 WHERE NEW.revoked IS NULL "
    "ON CONFLICT (bundle_version) DO UPDATE SET devices = devices + 1;"
)
_ONE_LESS = (
    "UPDATE device_counts SET devices = devices - 1 "
    "WHERE bundle_version = OLD.bundle_version AND OLD.revoked IS NULL;"
)


def upgrade() -> None:
    """Make table and index, count what is there; from now on each change of a device counts itself."""
    op.create_table(
        "device_counts",
        sa.Column("bundle_version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("devices", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("bundle_version", name=op.f("pk_device_counts")),
    )
    op.execute(
        "INSERT INTO device_counts (bundle_version, devices) "
        "SELECT bundle_version, count(*) FROM devices WHERE revoked IS NULL GROUP BY bundle_version"
    )
    for verb, effect in (
        ("INSERT", _ONE_MORE),
        ("DELETE", _ONE_LESS),
        ("UPDATE OF revoked, bundle_version", _ONE_LESS + _ONE_MORE),
    ):
        name = f"devices_counted_{verb.split()[0].lower()}"
        op.execute(f"CREATE TRIGGER {name} AFTER {verb} ON devices BEGIN {effect} END")
    op.create_index("ix_devices_ends", "devices", ["revoked", "ends", "bundle_version"])
