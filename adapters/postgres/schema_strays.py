"""What people dismissed of the batches that no enrolled key vouches for."""

from __future__ import annotations

from sqlalchemy import Column, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from adapters.postgres.schema_base import instant, metadata, operator_column

stray_dismissal = Table(
    "stray_dismissal",
    metadata,
    operator_column(),
    Column("id", Uuid, primary_key=True),
    Column("batches", JSONB, nullable=False),
    Column("reason", Text, nullable=False),
    instant("dismissed_at"),
)
