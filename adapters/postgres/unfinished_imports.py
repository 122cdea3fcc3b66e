"""Reads which imports have begun and not ended, and how much of each counts as usage: as tally_app, of one operator."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from billing.unfinished_import import UnfinishedImport

# An import's lane has its id as its name, a void's the same with the other word before it.
_UNFINISHED = text("""
    SELECT i.operator, i.node, i.id, i.file_sha256, i.state = 'voiding' AS is_voiding, i.events AS rows,
        coalesce((SELECT sum(b.events) FROM batch b
            WHERE (b.operator, b.node, b.lane) = (i.operator, i.node, i.id)), 0)::bigint AS accepted,
        coalesce((SELECT sum(b.events) FROM batch b
            WHERE (b.operator, b.node, b.lane) = (i.operator, i.node, regexp_replace(i.id, '^import-', 'void-'))),
            0)::bigint AS taken_back
    FROM import_file i
    WHERE i.operator = :o AND i.state IN ('running', 'voiding')
      AND (CAST(:end AS timestamptz) IS NULL OR i.first < :end)
      AND (CAST(:start AS timestamptz) IS NULL OR i.last >= :start)
    ORDER BY i.imported_at, i.id
""")


async def unfinished_imports(
    conn: AsyncConnection, operator: str, start: datetime | None = None, end: datetime | None = None
) -> list[UnfinishedImport]:
    """The operator's imports with rows in [start, end), None being open, of which only a part is accepted, or taken back;
    oldest first."""
    rows = await conn.execute(_UNFINISHED, {"o": operator, "start": start, "end": end})
    return [UnfinishedImport(**row._mapping) for row in rows]
