"""What a database holds of a log, and whether its sums are those that were sealed: asked while it is brought forward."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from adapters.postgres.dump import Connection
from billing.log_growth import GrowingLog

_AT_ONCE = 10_000  # rows that are fetched together
_DATA = """
    SELECT l.data FROM log_entry e JOIN leaf l ON (l.operator, l.id) = (e.operator, e.leaf)
    WHERE e.operator = $1 AND e.index >= $2 AND e.index < $3 ORDER BY e.index
"""
_TOTALS = (
    "requests",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "generated_tokens",
    "generated_reasoning_tokens",
    "audio_seconds",
    "unwitnessed_requests",
)


async def numbered(connection: Connection, operator: str) -> int:
    """How many leaves of the log have a number."""
    found: int = await connection.fetchval(
        "SELECT coalesce(max(index), -1) + 1 FROM log_entry WHERE operator = $1", operator
    )
    return found


async def grow(connection: Connection, operator: str, grown: GrowingLog, end: int) -> None:
    """Adds the numbered leaves from the log's size on, up to `end`; whatever their number, few are in memory."""
    leaves: list[bytes] = []
    async for row in connection.cursor(_DATA, operator, grown.size, end, prefetch=_AT_ONCE):
        leaves.append(row["data"])
        if len(leaves) == _AT_ONCE:
            grown.add(leaves)
            leaves = []
    grown.add(leaves)


async def waiting_leaves(connection: Connection, operator: str) -> dict[bytes, int]:
    """The leaves that have no number, by their data."""
    found = await connection.fetch(
        "SELECT l.data, l.id FROM leaf_waiting w JOIN leaf l ON (l.operator, l.id) = (w.operator, w.leaf)"
        " WHERE w.operator = $1",
        operator,
    )
    return {row["data"]: row["id"] for row in found}


async def known_commitments(connection: Connection, operator: str, since: datetime) -> set[bytes]:
    """What the change leaves that were made since then commit to, numbered or not."""
    found = await connection.fetch(
        "SELECT data FROM leaf WHERE operator = $1 AND kind <> 'batch' AND made_at >= $2", operator, since
    )
    return {bytes.fromhex(row["data"].split()[-1].decode()) for row in found}


async def newest_leaf_at(connection: Connection, operator: str) -> datetime | None:
    """When the newest leaf was made, numbered or not."""
    found: datetime | None = await connection.fetchval(
        "SELECT max(made_at) FROM leaf WHERE operator = $1", operator
    )
    return found


async def bounds_passed(connection: Connection, operator: str, since: datetime, until: datetime) -> list[str]:
    """The periods whose usage came too late to be billed from some instant between the two on."""
    found = await connection.fetch(
        "SELECT period FROM late_bound WHERE operator = $1 AND late_after > $2 AND late_after <= $3 ORDER BY period",
        operator,
        since,
        until,
    )
    return [row["period"] for row in found]


async def why_not_accepted(connection: Connection, operator: str, seal_hash: str) -> str:
    """What intake says of a batch that it did not take."""
    held: str | None = await connection.fetchval(
        "SELECT code || ': ' || what FROM held WHERE operator = $1 AND hash = $2", operator, seal_hash
    )
    return held or "no enrolled key vouches for it"


async def control_totals_differ(connection: Connection, operator: str) -> str | None:
    """Where the sums of hourly usage are not those that the seals of the accepted batches say; None if they are."""
    sums = ", ".join(f"coalesce(sum({name}), 0)::numeric AS {name}" for name in _TOTALS)
    sealed = await connection.fetchrow(f"SELECT {sums} FROM batch WHERE operator = $1", operator)  # noqa: S608 - our own columns
    counted = await connection.fetchrow(f"SELECT {sums} FROM usage_cell WHERE operator = $1", operator)  # noqa: S608 - our own columns
    assert sealed is not None
    assert counted is not None
    differing = [
        f"{name} {counted[name]} for {sealed[name]}" for name in _TOTALS if counted[name] != sealed[name]
    ]
    return ", ".join(differing) or None


async def marks_differ(connection: Connection, operator: str) -> Sequence[str]:
    """Lanes whose mark is not the last of their batches."""
    found = await connection.fetch(
        "SELECT l.node || '/' || l.lane AS lane FROM lane l WHERE l.operator = $1 AND l.head IS NOT NULL"
        " AND NOT EXISTS (SELECT FROM batch b WHERE (b.operator, b.node, b.lane, b.epoch, b.number, b.hash)"
        " = (l.operator, l.node, l.lane, l.epoch, l.number, l.head)) ORDER BY 1",
        operator,
    )
    return [row["lane"] for row in found]
