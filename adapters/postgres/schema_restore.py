"""Restores that are not complete; a database with such a row is read-only."""

from __future__ import annotations

from sqlalchemy import Table

from adapters.postgres.schema_base import instant, metadata, operator_column

unfinished_restore = Table(
    "unfinished_restore",
    metadata,
    operator_column(),
    instant("made_at", nullable=True),
    instant("begun_at"),
)
