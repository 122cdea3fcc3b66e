"""What the tables of every subject share: one `MetaData`, and the operator's column that every key begins with."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Column, DateTime, ForeignKey, MetaData, Text

metadata = MetaData()


def operator_column(*, registered: bool = True) -> Column[str]:
    """The operator, first in the key; `registered=False` where another foreign key leads to the registry, or none."""
    registry = [ForeignKey("operator.operator")] if registered else []
    return Column("operator", Text, *registry, primary_key=True)


def instant(name: str, *, nullable: bool = False) -> Column[datetime]:
    """A `timestamptz`."""
    return Column(name, DateTime(timezone=True), nullable=nullable)
