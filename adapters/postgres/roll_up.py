"""Roll-up: the partial sums of a whole hour become one row a cell, and a late batch's are added in the same way.

One statement deletes an hour's partial sums, marks and rolled-up cells and inserts their sums. A SUM followed by a DELETE
would lose what a late batch commits between the two (under READ COMMITTED each statement has its own snapshot: 30 was
kept of 35); here what is deleted is what is summed. Whoever reads `usage_cell` sees the hour before or after.

An hour is whole when every lane of the operator that still speaks is complete beyond it. A lane that was silent for an
hour is not waited for, and nothing is wrong if it speaks after all: its partial sums mark their hour again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.database import Database
from adapters.postgres.schema import QUANTITY_COLUMNS
from metering.steps import step

logger = logging.getLogger(__name__)

SILENT = timedelta(hours=1)
_HOURS_AT_ONCE = 24

_KEYS = "operator, hour, customer, project, key, node, model, outcome, band, late"
_QUANTITIES = ", ".join(QUANTITY_COLUMNS)
_SUMS = ", ".join(f"sum({name})::bigint" for name in QUANTITY_COLUMNS)
# What a partial sum's null stands for is said where the table is made, and in the view `usage_cell`.
_ARRAYS = ("customer", "project", "key", *QUANTITY_COLUMNS)
_UNNESTED = ", ".join(f"unnest({name}) AS {name}" for name in _ARRAYS)
_MEANT = """coalesce(requests, 1), coalesce(prompt_tokens, 0), coalesce(cached_tokens, 0), coalesce(completion_tokens, 0),
            coalesce(reasoning_tokens, 0), coalesce(generated_tokens, completion_tokens, 0),
            coalesce(generated_reasoning_tokens, reasoning_tokens, 0), coalesce(audio_seconds, 0),
            coalesce(unwitnessed_requests, 0)"""

# Up to when an operator's hours are whole: the least complete of its lanes that still speak, else now.
_WHOLE_TO = text("""
    SELECT o.operator, least(CAST(:now AS timestamptz), min(l.complete_to)) AS whole_to
    FROM operator o LEFT JOIN lane l ON l.operator = o.operator AND NOT l.ended AND l.last_accepted_at > :silent_since
    WHERE o.operator <> '*' GROUP BY o.operator ORDER BY o.operator
""")
_HOURS = text("""
    SELECT DISTINCT hour FROM partial_hour WHERE operator = :operator AND hour < :bound ORDER BY hour LIMIT :most
""")
_ROLL_UP = text(f"""
    WITH marks AS (
        DELETE FROM partial_hour WHERE operator = :operator AND hour = ANY(CAST(:hours AS timestamptz[]))),
    parts AS (
        DELETE FROM partial_sum WHERE operator = :operator AND hour = ANY(CAST(:hours AS timestamptz[]))
            AND hour BETWEEN :first AND :last
            RETURNING operator, hour, node, model, outcome, band, late, {", ".join(_ARRAYS)}),
    cells AS (SELECT operator, hour, node, model, outcome, band, late, {_UNNESTED} FROM parts),
    before AS (
        DELETE FROM hourly_usage WHERE operator = :operator AND hour = ANY(CAST(:hours AS timestamptz[]))
            AND hour BETWEEN :first AND :last RETURNING {_KEYS}, {_QUANTITIES})
    INSERT INTO hourly_usage ({_KEYS}, {_QUANTITIES})
    SELECT {_KEYS}, {_SUMS} FROM (
        SELECT * FROM before UNION ALL SELECT {_KEYS}, {_MEANT} FROM cells) AS rows
    GROUP BY {_KEYS}
""")  # noqa: S608 - only names of our own columns are put in
_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended('tally.roll_up/' || :operator, 0))")


async def roll_up(database: Database, now: datetime) -> int:
    """Rolls up every whole hour of every operator that has partial sums; returns how many hours.

    An operator at whom another worker is just now is left to it. One whose sums the database refuses is logged and
    passed over. Some hours a transaction, so that a kill loses little.
    """
    async with database.intake() as conn:
        whole = (await conn.execute(_WHOLE_TO, {"now": now, "silent_since": now - SILENT})).all()
    hours = 0
    for row in whole:
        bound = row.whole_to.replace(minute=0, second=0, microsecond=0)
        try:
            while rolled := await _some_hours(database, row.operator, bound):
                hours += rolled
        except DBAPIError as fault:
            # A sum beyond 64 bits, say. Its partial sums stay, and readers add them up as before.
            logger.error("hours of operator %s are not rolled up: %s", row.operator, fault.orig)
    return hours


async def _some_hours(database: Database, operator: str, bound: datetime) -> int:
    async with database.intake() as conn:
        # Taken before the statement whose snapshot must see what the last holder has made.
        if not (await conn.execute(_LOCK, {"operator": operator})).scalar_one():
            return 0
        asked = {"operator": operator, "bound": bound, "most": _HOURS_AT_ONCE}
        hours = list((await conn.execute(_HOURS, asked)).scalars())
        if hours:
            await roll_up_hours(conn, operator, hours)
            step("roll-up")
        return len(hours)


async def roll_up_hours(conn: AsyncConnection, operator: str, hours: Sequence[datetime]) -> None:
    """Rolls up these hours (ascending), whole or not, in the connection's transaction and in one statement."""
    await conn.execute(
        _ROLL_UP, {"operator": operator, "hours": list(hours), "first": hours[0], "last": hours[-1]}
    )
