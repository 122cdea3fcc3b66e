"""Streams and usage: lanes and their marks, accepted and held batches, imports, and hourly usage."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from adapters.postgres.schema_base import instant, metadata, operator_column

# The quantities of an event, of a control total and of a cell, in this order (metering.event.QUANTITIES).
QUANTITY_COLUMNS = (
    "requests",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "generated_tokens",
    "generated_reasoning_tokens",
    "audio_seconds",
    "unwitnessed_requests",
)


def _quantities() -> list[Column[int]]:
    return [Column(name, BigInteger, nullable=False) for name in QUANTITY_COLUMNS]


lane = Table(
    "lane",
    metadata,
    operator_column(),
    Column("node", Text, primary_key=True),
    Column("lane", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    instant("enrolled_at"),
    Column("key_rank", Integer, nullable=False, server_default=text("0")),
    Column("epoch", Text),
    Column("number", BigInteger),
    Column("head", Text),
    Column("last_sequence", BigInteger, nullable=False, server_default=text("0")),
    instant("complete_to", nullable=True),
    Column("opened", BigInteger, nullable=False, server_default=text("0")),
    Column("closed", BigInteger, nullable=False, server_default=text("0")),
    Column("ended", Boolean, nullable=False, server_default=false()),
    instant("last_accepted_at", nullable=True),
)

batch = Table(
    "batch",
    metadata,
    operator_column(registered=False),
    Column("node", Text, primary_key=True),
    Column("lane", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("hash", Text, nullable=False),
    Column("previous", Text, nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),
    instant("complete_to"),
    *_quantities(),
    Column("path", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    instant("accepted_at"),
    Column("root_checked", Boolean, nullable=False, server_default=false()),
    Column("adopted", Boolean, nullable=False, server_default=false()),
    Column("final", Boolean, nullable=False, server_default=false()),
    ForeignKeyConstraint(["operator", "node", "lane"], ["lane.operator", "lane.node", "lane.lane"]),
)
Index(
    "batch_successor",
    batch.c.operator,
    batch.c.node,
    batch.c.lane,
    batch.c.previous,
    unique=True,
    postgresql_where=text("NOT adopted"),
)

Index("batch_root_unchecked", batch.c.accepted_at, postgresql_where=text("NOT root_checked"))

_BATCH_KEY = ["operator", "node", "lane", "epoch", "number"]

root_fault = Table(
    "root_fault",
    metadata,
    operator_column(registered=False),
    Column("node", Text, primary_key=True),
    Column("lane", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("what", Text, nullable=False),
    Column("found_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    instant("looked_at"),
    ForeignKeyConstraint(_BATCH_KEY, [f"batch.{name}" for name in _BATCH_KEY]),
)

seal_fact = Table(
    "seal_fact",
    metadata,
    operator_column(registered=False),
    Column("node", Text, primary_key=True),
    Column("lane", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("rank", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    instant("begins"),
    instant("ends"),
    Column("content", JSONB, nullable=False),
    ForeignKeyConstraint(_BATCH_KEY, [f"batch.{name}" for name in _BATCH_KEY]),
)
Index(
    "seal_fact_ends",
    seal_fact.c.operator,
    seal_fact.c.kind,
    seal_fact.c.node,
    seal_fact.c.ends,
)

sibling = Table(
    "sibling",
    metadata,
    operator_column(),
    Column("node", Text, primary_key=True),
    Column("lane", Text, primary_key=True),
    Column("epoch", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
    instant("first_told"),
    instant("told"),
)

seal_sum = Table(
    "seal_sum",
    metadata,
    operator_column(registered=False),
    Column("node", Text, primary_key=True),
    Column("lane", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("model", Text, primary_key=True),
    instant("first_time"),
    instant("last_time"),
    Column("requests", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("generated_tokens", BigInteger, nullable=False),
    Column("unwitnessed_requests", BigInteger, nullable=False),
    ForeignKeyConstraint(_BATCH_KEY, [f"batch.{name}" for name in _BATCH_KEY]),
)
Index("seal_sum_time", seal_sum.c.operator, seal_sum.c.node, seal_sum.c.last_time)

held = Table(
    "held",
    metadata,
    operator_column(registered=False),
    Column("node", Text, primary_key=True),
    Column("lane", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("hash", Text, primary_key=True),
    Column("previous", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("path", Text, nullable=False),
    instant("held_at"),
    instant("due_at", nullable=True),
    Column("missing", ARRAY(Uuid)),
    Column("key_rank", Integer, nullable=False, server_default=text("0")),
    ForeignKeyConstraint(["operator", "node", "lane"], ["lane.operator", "lane.node", "lane.lane"]),
)

set_aside = Table(
    "set_aside",
    metadata,
    operator_column(),
    Column("digest", Text, primary_key=True),
    Column("claimed", Text, nullable=False),
    Column("node", Text, nullable=False),
    Column("lane", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("key_hash", Text, nullable=False),
    Column("path", Text, nullable=False),
    instant("seen_at"),
    Column("batches", BigInteger, nullable=False, server_default=text("1")),
)

import_file = Table(
    "import_file",
    metadata,
    operator_column(),
    Column("id", Text, primary_key=True),
    Column("epoch", Text, nullable=False),
    Column("node", Text, nullable=False),
    Column("lane", Text, nullable=False),
    Column("file_sha256", Text, nullable=False),
    Column("options_sha256", Text, nullable=False),
    Column("events", BigInteger, nullable=False),
    instant("first", nullable=True),
    instant("last", nullable=True),
    Column("totals", JSONB, nullable=False),
    Column("state", Text, nullable=False),
    instant("imported_at"),
    instant("voided_at", nullable=True),
    Column("void_reason", Text),
)
Index(
    "import_file_stands_once",
    import_file.c.operator,
    import_file.c.node,
    import_file.c.epoch,
    unique=True,
    postgresql_where=text("state <> 'voided'"),
)


def _usage(name: str, into: MetaData) -> Table:
    """A table of cells: no key, because a cell is the sum of its rows."""
    return Table(
        name,
        into,
        Column("operator", Text, nullable=False),
        instant("hour"),
        Column("customer", Uuid, nullable=False),
        Column("project", Uuid),
        Column("key", Uuid),
        Column("node", Text, nullable=False),
        Column("model", Text, nullable=False),
        Column("outcome", Text, nullable=False),
        Column("band", Integer, nullable=False),
        Column("late", Boolean, nullable=False),
        *_quantities(),
    )


partial_sum = Table(
    "partial_sum",
    metadata,
    Column("operator", Text, nullable=False),
    instant("hour"),
    Column("node", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("band", Integer, nullable=False),
    Column("late", Boolean, nullable=False),
    Column("customer", ARRAY(Uuid), nullable=False),
    Column("project", ARRAY(Uuid)),
    Column("key", ARRAY(Uuid)),
    *(Column(name, ARRAY(BigInteger)) for name in QUANTITY_COLUMNS),
)
hourly_usage = _usage("hourly_usage", metadata)
Index(
    "partial_sum_hour",
    partial_sum.c.hour,
    postgresql_using="brin",
    postgresql_with={"autosummarize": "on"},
)
partial_hour = Table("partial_hour", metadata, Column("operator", Text, nullable=False), instant("hour"))
Index("partial_hour_hour", partial_hour.c.operator, partial_hour.c.hour)
Index(
    "hourly_usage_hour",
    hourly_usage.c.hour,
    postgresql_using="brin",
    postgresql_with={"autosummarize": "on"},
)
Index("hourly_usage_customer", hourly_usage.c.customer, hourly_usage.c.hour)

# The view over both; kept out of `metadata`, which speaks of tables only.
usage_cell = _usage("usage_cell", MetaData())
