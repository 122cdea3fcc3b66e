"""What the tables of every subject share: one `MetaData`, the operator's column that every key begins with, and how a
query names many values."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Column, ColumnElement, DateTime, ForeignKey, MetaData, Text, any_, literal
from sqlalchemy.dialects.postgresql import ARRAY

metadata = MetaData()


def operator_column(*, registered: bool = True) -> Column[str]:
    """The operator, first in the key; `registered=False` where another foreign key leads to the registry, or none."""
    registry = [ForeignKey("operator.operator")] if registered else []
    return Column("operator", Text, *registry, primary_key=True)


def instant(name: str, *, nullable: bool = False) -> Column[datetime]:
    """A `timestamptz`."""
    return Column(name, DateTime(timezone=True), nullable=nullable)


def one_of(
    column: ColumnElement[str] | ColumnElement[str | None], values: Collection[str]
) -> ColumnElement[bool]:
    """`column = ANY (values)`: one parameter however many there are; IN has one for each, and PostgreSQL takes 32,767."""
    return column == any_(literal(list(values), ARRAY(Text)))
