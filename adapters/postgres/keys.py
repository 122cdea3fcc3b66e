"""API keys: made, listed, revoked, found by the hash of their secret, and the book that a sidecar keeps of them.

A key opens either one customer's access to the engine or one role's access to the API. The secret is shown once, by
whoever made it; here is only its SHA-256.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, and_, or_, select, text, update
from sqlalchemy import insert as plain_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.schema import api_key, subject
from adapters.postgres.subjects import customer_id, ensure_subjects
from metering.keybook import KeyEntry
from metering.refusal import Refusal

ROLES = ("operator", "finance", "compliance", "auditor")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as `tally key list` shows it. `customer` and `project` are slugs; one of customer and role is there."""

    operator: str
    id: UUID
    customer: str | None
    project: str | None
    role: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    def holds(self, now: datetime) -> bool:
        """Whether it opens anything at that instant."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


async def create_customer_key(
    conn: AsyncConnection,
    operator: str,
    *,
    key: UUID,
    secret_sha256: bytes,
    customer: str,
    project: str | None,
    now: datetime,
    expires_at: datetime | None,
) -> None:
    """A key for a customer's requests; a project that is not there yet is made. Raises `Refusal` (`unknown_customer`).

    The key is a subject too, so that usage can be told by it.
    """
    owner = await customer_id(conn, operator, customer)
    projects = await ensure_subjects(conn, operator, "project", [project] if project else [], owner)
    await conn.execute(
        plain_insert(subject).values(operator=operator, id=key, kind="key", slug=str(key), parent=owner)
    )
    await conn.execute(
        plain_insert(api_key).values(
            operator=operator,
            id=key,
            customer=owner,
            project=projects[project] if project else None,
            secret_sha256=secret_sha256,
            created_at=now,
            expires_at=expires_at,
        )
    )


async def create_role_key(
    conn: AsyncConnection,
    operator: str,
    *,
    key: UUID,
    secret_sha256: bytes,
    role: str,
    now: datetime,
    expires_at: datetime | None,
) -> None:
    """A key for the API; `operator` is `*` for one that holds for every operator. `role`: a word of ROLES."""
    assert role in ROLES, role
    await conn.execute(
        plain_insert(api_key).values(
            operator=operator,
            id=key,
            role=role,
            secret_sha256=secret_sha256,
            created_at=now,
            expires_at=expires_at,
        )
    )


async def list_keys(conn: AsyncConnection, operator: str) -> list[ApiKey]:
    """All keys of the operator, revoked ones too, oldest first."""
    rows = await conn.execute(
        _named().where(api_key.c.operator == operator).order_by(api_key.c.created_at, api_key.c.id)
    )
    return [_key(row) for row in rows]


async def revoke_key(conn: AsyncConnection, operator: str, key: UUID, now: datetime) -> ApiKey:
    """Ends a key; one that was revoked before keeps its first instant. Raises `Refusal` (`unknown_key`)."""
    await conn.execute(
        update(api_key)
        .where(api_key.c.operator == operator, api_key.c.id == key, api_key.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    row = (
        await conn.execute(_named().where(api_key.c.operator == operator, api_key.c.id == key))
    ).one_or_none()
    if row is None:
        raise Refusal(
            "unknown_key",
            f"there is no key {key}",
            where=str(key),
            remedy="`tally key list` shows those there are",
        )
    return _key(row)


async def find_key(conn: AsyncConnection, secret_sha256: bytes) -> ApiKey | None:
    """The key with that secret, of whichever operator, revoked and expired ones too; any operator's transaction may ask.

    A customer's key is told by its opaque ids as text: names are read in its own operator's transaction.
    """
    found = await conn.execute(
        text(
            "SELECT operator, id, customer::text, project::text, role, created_at, expires_at, revoked_at"
            " FROM find_api_key(:digest)"
        ),
        {"digest": secret_sha256},
    )
    row = found.one_or_none()
    return None if row is None else _key(row)


async def key_book(conn: AsyncConnection, operator: str, now: datetime) -> dict[bytes, KeyEntry]:
    """SHA-256 of the secret -> entry, for every customer's key of the operator that is neither revoked nor expired."""
    rows = await conn.execute(
        select(api_key).where(
            api_key.c.operator == operator,
            api_key.c.customer.is_not(None),
            api_key.c.revoked_at.is_(None),
            or_(api_key.c.expires_at.is_(None), api_key.c.expires_at > now),
        )
    )
    return {
        row.secret_sha256: KeyEntry(
            id=row.id.bytes,
            customer=row.customer.bytes,
            project=row.project.bytes if row.project else None,
            expires_us=None
            if row.expires_at is None
            else (row.expires_at - _EPOCH) // timedelta(microseconds=1),
        )
        for row in rows
    }


def _named() -> Select[Any]:
    """Keys with their customers' and projects' slugs."""
    customer, project = subject.alias("customer_subject"), subject.alias("project_subject")
    key = api_key.c
    return select(
        key.operator,
        key.id,
        customer.c.slug.label("customer"),
        project.c.slug.label("project"),
        key.role,
        key.created_at,
        key.expires_at,
        key.revoked_at,
    ).select_from(
        api_key.outerjoin(
            customer, and_(customer.c.operator == key.operator, customer.c.id == key.customer)
        ).outerjoin(project, and_(project.c.operator == key.operator, project.c.id == key.project))
    )


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        operator=row.operator,
        id=row.id,
        customer=row.customer,
        project=row.project,
        role=row.role,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
