"""Runs migrations on the connection, and in the transaction, that `storage.py` has opened."""

from alembic import context

from sealcast.authority.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # SQLite alters a table by copying it.
    render_as_batch=True,
    transactional_ddl=True,
)
context.run_migrations()
