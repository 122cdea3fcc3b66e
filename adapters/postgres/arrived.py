"""What batches brought to a period since it was closed: what its next close will bill, as far as sums can tell."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from billing.rated_now import Arrived

# Of completions it is a tariff's choice whether what was delivered or what was generated is billed.
# A close keeps the head of each lane. What its chain holds beyond that came later; times of a lane's seals only rise.
_SINCE = text("""
    SELECT coalesce(sum(least(b.prompt_tokens, 0)), 0)::bigint AS prompt_taken,
           coalesce(sum(greatest(b.prompt_tokens, 0)), 0)::bigint AS prompt_added,
           coalesce(sum(least(b.completion_tokens, b.generated_tokens, 0)), 0)::bigint AS completion_taken,
           coalesce(sum(greatest(b.completion_tokens, b.generated_tokens, 0)), 0)::bigint AS completion_added
    FROM batch b
    LEFT JOIN batch h ON (h.operator, h.node, h.lane) = (b.operator, b.node, b.lane) AND h.hash = ANY(:heads)
    WHERE b.operator = :operator AND b.events > 0 AND (h.hash IS NULL OR b.complete_to > h.complete_to) AND (
        EXISTS (SELECT FROM seal_sum s
                WHERE (s.operator, s.node, s.lane, s.epoch, s.number)
                    = (b.operator, b.node, b.lane, b.epoch, b.number)
                  AND s.first_time < :end AND s.last_time >= :start)
        OR EXISTS (SELECT FROM import_file f
                   WHERE (f.operator, f.node) = (b.operator, b.node)
                     AND b.lane IN (f.id, replace(f.id, 'import-', 'void-'))
                     AND f.first < :end AND f.last >= :start))
""")


async def arrived_since(
    conn: AsyncConnection, operator: str, heads: Mapping[str, str], start: datetime, end: datetime
) -> Arrived:
    """Tokens of the batches with usage of [start, end) that stand behind `heads` ("node/lane" -> seal hash).

    A batch over the turn of a month counts whole for both.
    """
    found = await conn.execute(
        _SINCE, {"operator": operator, "heads": list(heads.values()), "start": start, "end": end}
    )
    row = found.one()
    return Arrived(
        (row.prompt_taken, row.prompt_added),
        (row.completion_taken, row.completion_added),
    )
