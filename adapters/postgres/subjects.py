"""Subjects: the opaque ids of customers, projects and keys, and the names behind them.

Sealed events carry only the ids; names live here, in the one table that can be erased.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.schema import subject
from adapters.postgres.schema_base import one_of
from metering.identity import new_id
from metering.refusal import Refusal


async def find_subjects(
    conn: AsyncConnection, operator: str, kind: str, slugs: Collection[str], parent: UUID | None = None
) -> dict[str, UUID]:
    """Slug -> id of those of `slugs` that are there: customers (no parent), or a customer's projects or keys."""
    rows = await conn.execute(
        select(subject.c.slug, subject.c.id).where(
            subject.c.operator == operator,
            subject.c.kind == kind,
            subject.c.parent.is_not_distinct_from(parent),
            one_of(subject.c.slug, slugs),
        )
    )
    return {row.slug: row.id for row in rows}


async def ensure_subjects(
    conn: AsyncConnection, operator: str, kind: str, slugs: Collection[str], parent: UUID | None = None
) -> Mapping[str, UUID]:
    """Slug -> id of all of `slugs`; those that are not there are made, with a random id that they keep.

    Two that make the same one at once get the same id. Raises `Refusal` (`customer_taken`) for a customer's id that
    another operator of the installation has.
    """
    wanted = sorted(set(slugs))
    if not wanted:
        return {}
    rows = [
        {"operator": operator, "id": UUID(bytes=new_id()), "kind": kind, "slug": slug, "parent": parent}
        for slug in wanted
    ]
    await conn.execute(insert(subject).on_conflict_do_nothing(), rows)
    found = await find_subjects(conn, operator, kind, wanted, parent)
    taken = [slug for slug in wanted if slug not in found]
    if taken:
        raise Refusal(
            "customer_taken",
            f"another operator of this installation has a customer {taken[0]!r}",
            where=", ".join(taken),
            remedy="ids of customers are unique in an installation; choose others",
        )
    return found


async def customer_id(conn: AsyncConnection, operator: str, slug: str) -> UUID:
    """The opaque id of a declared customer. Raises `Refusal` (`unknown_customer`)."""
    found = await find_subjects(conn, operator, "customer", [slug])
    if slug not in found:
        raise Refusal(
            "unknown_customer",
            f"operator {operator} has no customer {slug!r}",
            where=slug,
            remedy="declare the customer in a site file and `tally apply` it",
        )
    return found[slug]
