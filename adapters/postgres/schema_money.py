"""Money: documents and their numbers, adjustments, settlements, the journal, and closes. Amounts in minor units."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB

from adapters.postgres.schema_base import instant, metadata, operator_column

document = Table(
    "document",
    metadata,
    operator_column(),
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("number", Text),
    Column("customer", Text),
    Column("party", Text),
    Column("period", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("line_total", BigInteger),
    Column("net", BigInteger, nullable=False),
    Column("tax", BigInteger, nullable=False),
    Column("gross", BigInteger, nullable=False),
    Column("sign", SmallInteger, nullable=False),
    Column("issue_date", Date),
    Column("content", JSONB, nullable=False),
    instant("created_at"),
    instant("issued_at", nullable=True),
    UniqueConstraint("operator", "number", name="document_number"),
)
Index("document_period", document.c.operator, document.c.period, document.c.customer)

number_series = Table(
    "number_series",
    metadata,
    operator_column(),
    Column("entity", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("year", Integer, primary_key=True, autoincrement=False),
    Column("next", BigInteger, nullable=False),
)

adjustment = Table(
    "adjustment",
    metadata,
    operator_column(),
    Column("id", Text, primary_key=True),
    Column("customer", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("net", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("document", Text),
    instant("made_at"),
    ForeignKeyConstraint(["operator", "document"], ["document.operator", "document.id"]),
)
Index("adjustment_period", adjustment.c.operator, adjustment.c.period, adjustment.c.customer)

settlement = Table(
    "settlement",
    metadata,
    operator_column(),
    Column("id", Text, primary_key=True),
    Column("period", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("content", JSONB, nullable=False),
    instant("made_at"),
    UniqueConstraint("operator", "period", "number", name="settlement_number"),
)

journal_entry = Table(
    "journal_entry",
    metadata,
    operator_column(),
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    instant("posted_at"),
    Column("period", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("document", Text),
    Column("settlement", Text),
    Column("reverses", BigInteger),
    Column("postings", Integer, nullable=False),
    ForeignKeyConstraint(["operator", "document"], ["document.operator", "document.id"]),
    ForeignKeyConstraint(["operator", "settlement"], ["settlement.operator", "settlement.id"]),
    ForeignKeyConstraint(["operator", "reverses"], ["journal_entry.operator", "journal_entry.id"]),
    UniqueConstraint("operator", "document", "kind", name="journal_entry_document"),
    UniqueConstraint("operator", "settlement", "kind", name="journal_entry_settlement"),
    UniqueConstraint("operator", "reverses", name="journal_entry_reverses"),
)

posting = Table(
    "posting",
    metadata,
    operator_column(registered=False),
    Column("entry", BigInteger, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("account", Text, nullable=False),
    Column("subject", Text),
    Column("currency", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    ForeignKeyConstraint(["operator", "entry"], ["journal_entry.operator", "journal_entry.id"]),
)

period_close = Table(
    "period_close",
    metadata,
    operator_column(),
    Column("period", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    instant("closed_at"),
    Column("heads", JSONB, nullable=False),
    Column("facts", JSONB, nullable=False),
    Column("result", JSONB, nullable=False),
    Column("unfinished", Boolean, nullable=False),
    Column("checkpoint", Text),
)

late_bound = Table(
    "late_bound",
    metadata,
    operator_column(),
    Column("period", Text, primary_key=True),
    instant("late_after"),
)
