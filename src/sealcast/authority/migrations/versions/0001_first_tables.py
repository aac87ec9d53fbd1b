"""The first tables: site, devices, certificates, tokens, channels and their keys, directory, CRL, audit.

Revision: 0001
After: nothing
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make every table."""
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_table(
        "certificates",
        sa.Column("serial", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.Column("revoked", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("serial", name=op.f("pk_certificates")),
    )
    op.create_index(op.f("ix_certificates_name"), "certificates", ["name"], unique=False)
    op.create_table(
        "channels",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("channel_id", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("suite", sa.BigInteger(), nullable=False),
        sa.Column("group_address", sa.String(), nullable=False),
        sa.Column("port", sa.BigInteger(), nullable=False),
        sa.Column("interface", sa.String(), nullable=True),
        sa.Column("rate", sa.BigInteger(), nullable=False),
        sa.Column("origin_time", sa.BigInteger(), nullable=False),
        sa.Column("origin_number", sa.BigInteger(), nullable=False),
        sa.Column("slot_length", sa.BigInteger(), nullable=False),
        sa.Column("slots_ahead", sa.BigInteger(), nullable=False),
        sa.Column("retention", sa.BigInteger(), nullable=False),
        sa.Column("retention_bytes", sa.BigInteger(), nullable=False),
        sa.Column("publisher_limit", sa.BigInteger(), nullable=False),
        sa.Column("publish_globs", sa.JSON(), nullable=False),
        sa.Column("subscribe_globs", sa.JSON(), nullable=False),
        sa.Column("present_slot", sa.BigInteger(), nullable=False),
        sa.Column("beacon_limit", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_channels")),
        sa.UniqueConstraint("channel_id", name=op.f("uq_channels_channel_id")),
    )
    op.create_table(
        "crl",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("issued", sa.BigInteger(), nullable=False),
        sa.Column("next_update", sa.BigInteger(), nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_crl")),
    )
    op.create_table(
        "devices",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("enrolled", sa.BigInteger(), nullable=False),
        sa.Column("revoked", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_devices")),
    )
    op.create_table(
        "site",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("site_id", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("key_server_name", sa.String(), nullable=False),
        sa.Column("hosts", sa.JSON(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("restored", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_site")),
    )
    op.create_table(
        "generations",
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("started", sa.BigInteger(), nullable=False),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["channel"], ["channels.name"], name=op.f("fk_generations_channel_channels")),
        sa.PrimaryKeyConstraint("channel", "number", name=op.f("pk_generations")),
    )
    op.create_table(
        "members",
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("joined", sa.BigInteger(), nullable=False),
        sa.Column("left", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["channel"], ["channels.name"], name=op.f("fk_members_channel_channels")),
        sa.PrimaryKeyConstraint("channel", "device", "role", name=op.f("pk_members")),
    )
    op.create_table(
        "policies",
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("issued", sa.BigInteger(), nullable=False),
        sa.Column("next_update", sa.BigInteger(), nullable=False),
        sa.Column("publishers", sa.JSON(), nullable=False),
        sa.Column("subscribers", sa.JSON(), nullable=False),
        sa.Column("signed", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["channel"], ["channels.name"], name=op.f("fk_policies_channel_channels")),
        sa.PrimaryKeyConstraint("channel", "version", name=op.f("pk_policies")),
    )
    op.create_table(
        "slots",
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["channel"], ["channels.name"], name=op.f("fk_slots_channel_channels")),
        sa.PrimaryKeyConstraint("channel", "number", name=op.f("pk_slots")),
    )
    op.create_table(
        "streams",
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("stream_id", sa.LargeBinary(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("instance", sa.String(), nullable=False),
        sa.Column("credential", sa.LargeBinary(), nullable=False),
        sa.Column("head", sa.LargeBinary(), nullable=True),
        sa.Column("next_sequence", sa.BigInteger(), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.Column("host", sa.String(), nullable=True),
        sa.Column("port", sa.BigInteger(), nullable=True),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["channel"], ["channels.name"], name=op.f("fk_streams_channel_channels")),
        sa.PrimaryKeyConstraint("channel", "stream_id", name=op.f("pk_streams")),
    )
    op.create_index(op.f("ix_streams_device"), "streams", ["device"], unique=False)
    op.create_table(
        "tokens",
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=True),
        sa.Column("serial", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["serial"], ["certificates.serial"], name=op.f("fk_tokens_serial_certificates")
        ),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_tokens")),
    )
    op.create_index(op.f("ix_tokens_device"), "tokens", ["device"], unique=False)
