"""What people decide about the archive: legal holds, and by which decisions bodies expired."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Date, Table, Text, Uuid

from adapters.postgres.schema_base import instant, metadata, operator_column

legal_hold = Table(
    "legal_hold",
    metadata,
    operator_column(),
    Column("id", Uuid, primary_key=True),
    Column("customer", Uuid),
    Column("period", Text),
    Column("reason", Text, nullable=False),
    instant("added_at"),
    instant("removed_at", nullable=True),
    Column("removed_reason", Text),
)

expiry = Table(
    "expiry",
    metadata,
    operator_column(),
    Column("id", Uuid, primary_key=True),
    Column("before", Date, nullable=False),
    Column("batches", BigInteger, nullable=False),
    Column("listed", Text, nullable=False),
    Column("reason", Text, nullable=False),
    instant("decided_at"),
)
