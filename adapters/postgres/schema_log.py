"""The log: leaves, their places in it, and its newest checkpoint. What makes the leaves is in 0001_first.log.sql."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Identity, Index, LargeBinary, Table, Text, UniqueConstraint

from adapters.postgres.schema_base import instant, metadata, operator_column

leaf = Table(
    "leaf",
    metadata,
    operator_column(registered=False),
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("nonce", LargeBinary),
    Column("content", Text),
    instant("made_at"),
)
Index("leaf_made_at", leaf.c.made_at, postgresql_using="brin", postgresql_with={"autosummarize": "on"})

leaf_waiting = Table(
    "leaf_waiting",
    metadata,
    operator_column(registered=False),
    Column("leaf", BigInteger, primary_key=True, autoincrement=False),
    Column("transaction", BigInteger, nullable=False),
)

log_entry = Table(
    "log_entry",
    metadata,
    operator_column(registered=False),
    Column("index", BigInteger, primary_key=True, autoincrement=False),
    Column("leaf", BigInteger, nullable=False),
    UniqueConstraint("operator", "leaf", name="log_entry_once"),
)

log_head = Table(
    "log_head",
    metadata,
    operator_column(),
    Column("size", BigInteger, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("checkpoint", Text, nullable=False),
    instant("signed_at"),
)
