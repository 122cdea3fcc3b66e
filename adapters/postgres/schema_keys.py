"""Keys of nodes and lanes, and what people decided about lanes."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)

from adapters.postgres.schema_base import instant, metadata, operator_column

node_key = Table(
    "node_key",
    metadata,
    operator_column(),
    Column("node", Text, primary_key=True),
    Column("rank", Integer, primary_key=True),
    Column("public_key", LargeBinary, nullable=False),
    instant("enrolled_at"),
    UniqueConstraint("operator", "node", "public_key", name="node_key_once"),
)

lane_key = Table(
    "lane_key",
    metadata,
    operator_column(registered=False),
    Column("node", Text, primary_key=True),
    Column("lane", Text, primary_key=True),
    Column("rank", Integer, primary_key=True),
    Column("public_key", LargeBinary, nullable=False),
    Column("key_hash", Text, nullable=False),
    instant("made_at"),
    instant("enrolled_at"),
    instant("revoked_at", nullable=True),
    Column("last_good_epoch", Text),
    Column("last_good_number", BigInteger),
    Column("last_good_hash", Text),
    ForeignKeyConstraint(["operator", "node", "lane"], ["lane.operator", "lane.node", "lane.lane"]),
    UniqueConstraint("operator", "node", "lane", "public_key", name="lane_key_once"),
)

decision = Table(
    "decision",
    metadata,
    operator_column(registered=False),
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("node", Text, nullable=False),
    Column("lane", Text, nullable=False),
    Column("epoch", Text),
    Column("number", BigInteger),
    Column("hash", Text),
    Column("after", Text),
    instant("begins", nullable=True),
    instant("ends", nullable=True),
    Column("requests", BigInteger),
    Column("reason", Text, nullable=False),
    instant("decided_at"),
    ForeignKeyConstraint(["operator", "node", "lane"], ["lane.operator", "lane.node", "lane.lane"]),
)
Index("decision_hash", decision.c.operator, decision.c.node, decision.c.lane, decision.c.hash)
