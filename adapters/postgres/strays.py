"""Strays: batches that no enrolled key vouches for, as a person sees them. What was dismissed is not among them.

A dismissal names them one by one, by the digest of their bytes, and what is only counted by its number: of that, what
comes later is listed again. Their files stay, and the rows by which intake takes them up when their lane is enrolled.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.schema import stray_dismissal
from billing.streams import AsideBatch
from metering.identity import new_id

_STRAYS = text("""
    SELECT s.operator, s.node, s.lane, s.code, s.what, s.path, s.digest, s.batches AS in_all,
        s.batches - coalesce(d.batches, 0) AS batches
    FROM set_aside s LEFT JOIN (
        SELECT operator, key AS digest, max(value::bigint) AS batches
        FROM stray_dismissal CROSS JOIN LATERAL jsonb_each_text(batches) GROUP BY operator, key) AS d
        USING (operator, digest)
    WHERE s.batches > coalesce(d.batches, 0)
    ORDER BY batches DESC, s.seen_at, s.digest
""")


async def strays(conn: AsyncConnection) -> list[AsideBatch]:
    """Those that the connection sees, the most first, then the oldest."""
    return [
        AsideBatch(row.operator, row.node, row.lane, row.code, row.what, row.path, row.batches)
        for row in await conn.execute(_STRAYS)
    ]


async def dismiss_strays(conn: AsyncConnection, operator: str, reason: str, at: datetime) -> int:
    """Dismisses all of an operator's that are there; returns how many batches."""
    found = (await conn.execute(_STRAYS)).all()
    if found:
        row = {
            "operator": operator,
            "id": UUID(bytes=new_id()),
            "batches": {each.digest: each.in_all for each in found},
            "reason": reason,
            "dismissed_at": at,
        }
        await conn.execute(insert(stray_dismissal), row)
    return sum(each.batches for each in found)
