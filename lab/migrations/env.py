"""Alembic's environment: runs inside the transaction that ``Database.migrate`` has opened."""

from alembic import context

from lab import tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables.metadata,
    render_as_batch=True,
    transactional_ddl=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
