"""Where intake goes on reading in Kafka."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, Table, Text

from adapters.postgres.schema_base import metadata, operator_column

kafka_position = Table(
    "kafka_position",
    metadata,
    operator_column(),
    Column("source", Text, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("next", BigInteger, nullable=False),
)
