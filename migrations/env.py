"""Where Alembic begins. `adapters.postgres.migrate` hands over a connection as `config.attributes["connection"]`;
`alembic upgrade head --sql` prints the SQL instead. Each migration is one transaction."""

from __future__ import annotations

from alembic import context

from adapters.postgres.schema import metadata


def run() -> None:
    """Runs the migrations on the connection that was handed over, or prints them."""
    if context.is_offline_mode():
        context.configure(dialect_name="postgresql", target_metadata=metadata, literal_binds=True)
    else:
        context.configure(
            connection=context.config.attributes["connection"],
            target_metadata=metadata,
            transaction_per_migration=True,
        )
    with context.begin_transaction():
        context.run_migrations()


run()
