"""Site: operators, what they declared, the subjects behind opaque ids, and API keys."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Date,
    DateTime,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB

from adapters.postgres.schema_base import instant, metadata, operator_column

operator = Table("operator", metadata, Column("operator", Text, primary_key=True))

site_document = Table(
    "site_document",
    metadata,
    operator_column(),
    Column("kind", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("valid_from", Date, primary_key=True),  # date.min is -infinity: in force from ever
    Column("valid_until", Date),
    Column("body", JSON, nullable=False),
    instant("applied_at"),
    Column("places", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
)

superseded = Table(
    "superseded",
    metadata,
    operator_column(),
    Column("kind", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("valid_from", Date, primary_key=True),
    Column("superseded_at", DateTime(timezone=True), primary_key=True),
    Column("valid_until", Date),
    Column("body", JSON, nullable=False),
    instant("applied_at"),
    Column("places", JSONB, nullable=False),
    Column("reason", Text, nullable=False),
    ForeignKeyConstraint(
        ["operator", "kind", "id", "valid_from"],
        ["site_document.operator", "site_document.kind", "site_document.id", "site_document.valid_from"],
    ),
)

subject = Table(
    "subject",
    metadata,
    operator_column(),
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("slug", Text, nullable=False),
    Column("parent", Uuid),
    ForeignKeyConstraint(["operator", "parent"], ["subject.operator", "subject.id"]),
    UniqueConstraint("operator", "kind", "parent", "slug", name="subject_slug"),
)
Index("subject_customer_slug", subject.c.slug, unique=True, postgresql_where=subject.c.kind == "customer")

api_key = Table(
    "api_key",
    metadata,
    operator_column(),
    Column("id", Uuid, primary_key=True),
    Column("customer", Uuid),
    Column("project", Uuid),
    Column("role", Text),
    Column("secret_sha256", LargeBinary, nullable=False),
    instant("created_at"),
    instant("expires_at", nullable=True),
    instant("revoked_at", nullable=True),
    ForeignKeyConstraint(["operator", "customer"], ["subject.operator", "subject.id"]),
    ForeignKeyConstraint(["operator", "project"], ["subject.operator", "subject.id"]),
    UniqueConstraint("secret_sha256", name="api_key_secret"),
)
