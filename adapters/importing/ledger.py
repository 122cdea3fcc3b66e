"""What an import asks of PostgreSQL: where the node belongs, which subjects there are, what lanes hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import text

from adapters.importing.events import BETWEEN
from adapters.postgres.database import Database
from adapters.postgres.subjects import ensure_subjects, find_subjects
from metering.event import QUANTITIES, Totals
from metering.refusal import Refusal

EVER = datetime(2020, 1, 1, tzinfo=UTC)  # no event is older

_MARK = text("SELECT ended, number FROM lane WHERE operator = :o AND node = :n AND lane = :l")
_ACCEPTED = text("""
    SELECT coalesce(sum(events), 0)::bigint AS events, count(*) FILTER (WHERE events > 0) AS batches
    FROM batch WHERE operator = :o AND node = :n AND lane = :l
""")
# A hole ends by itself, with the batch that is still on its way.
_HELD = text("""
    SELECT code, what FROM held WHERE operator = :o AND node = :n AND lane = :l AND code <> 'hole' ORDER BY number
""")
# What follows a seal is later than the seal's complete_to: so much is known of a batch's first event without reading it.
_PATHS = text("""
    SELECT path FROM (
        SELECT *, lag(complete_to) OVER (PARTITION BY lane, epoch ORDER BY number) AS complete_before
        FROM batch WHERE operator = :o AND node = :n
    ) AS ordered
    WHERE events > 0 AND complete_to >= :since
      AND (CAST(:until AS timestamptz) IS NULL OR complete_before IS NULL OR complete_before < :until)
      AND (CAST(:but AS text) IS NULL OR lane <> :but)
    ORDER BY accepted_at, lane, epoch, number
""")
_BATCHES = text("""
    SELECT path, events, requests, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens, generated_tokens,
           generated_reasoning_tokens, audio_seconds, unwitnessed_requests
    FROM batch WHERE operator = :o AND node = :n AND lane = :l AND events > 0 ORDER BY number
""")


async def operator_of_node(database: Database, node: str | None) -> tuple[str, str]:
    """(operator, node); without a name the only node there is. Refusals: unknown_node, no_node, which_node."""
    found: list[tuple[str, str]] = []
    for operator in await database.operators():
        async with database.app(operator) as connection:
            rows = await connection.execute(
                text(
                    "SELECT DISTINCT id FROM site_document WHERE operator = :o AND kind = 'node' ORDER BY id"
                ),
                {"o": operator},
            )
            found += [(operator, row.id) for row in rows]
    named = [pair for pair in found if node is None or pair[1] == node]
    if len(named) == 1:
        return named[0]
    nodes = ", ".join(pair[1] for pair in found)
    if not found:
        raise Refusal(
            "no_node",
            "no node is declared",
            remedy="declare one in a site file: tally apply examples/vilnius",
        )
    if node is None:
        raise Refusal(
            "which_node", f"there are several nodes: {nodes}", where="--node", remedy="name one with --node"
        )
    raise Refusal("unknown_node", f"no such node: {node}", where="--node", remedy=f"declared are: {nodes}")


async def customers_of(
    database: Database, operator: str, slugs: Sequence[str]
) -> tuple[dict[str, UUID], list[str]]:
    """Ids of this operator's customers among `slugs`, and the slugs that are no customer of its."""
    async with database.app(operator) as connection:
        ids = await find_subjects(connection, operator, "customer", slugs)
    return ids, [slug for slug in slugs if slug not in ids]


async def make_owned(
    database: Database, operator: str, kind: str, customers: Mapping[str, UUID], wanted: Iterable[str]
) -> dict[str, bytes]:
    """Ids of projects or keys, `customer BETWEEN slug` → id; those that are not there yet are made."""
    owned: dict[str, list[str]] = defaultdict(list)
    for pair in sorted(wanted):
        customer, _, slug = pair.partition(BETWEEN)
        owned[customer].append(slug)
    ids: dict[str, bytes] = {}
    async with database.app(operator) as connection:
        for customer, slugs in owned.items():
            made = await ensure_subjects(connection, operator, kind, slugs, customers[customer])
            ids.update({f"{customer}{BETWEEN}{slug}": id.bytes for slug, id in made.items()})
    return ids


async def slugs_of(database: Database, operator: str) -> dict[bytes, str]:
    """Every subject's slug by its id, to compare archived events with a file's rows."""
    async with database.app(operator) as connection:
        rows = await connection.execute(
            text("SELECT id, slug FROM subject WHERE operator = :o"), {"o": operator}
        )
        return {row.id.bytes: row.slug for row in rows}


@dataclass(frozen=True, slots=True)
class LaneState:
    """How far a lane has been accepted (`number`: of its newest batch), and what of it is held until a person decides."""

    ended: bool
    number: int | None
    events: int
    batches: int
    held: list[str]


async def lane_state(database: Database, operator: str, node: str, lane: str) -> LaneState | None:
    """None: the lane is not enrolled."""
    at = {"o": operator, "n": node, "l": lane}
    async with database.app(operator, snapshot=True) as connection:
        mark = (await connection.execute(_MARK, at)).one_or_none()
        if mark is None:
            return None
        sums = (
            await connection.execute(
                _ACCEPTED,
                at,
            )
        ).one()
        held = await connection.execute(
            _HELD,
            at,
        )
        return LaneState(
            mark.ended,
            mark.number,
            int(sums.events),
            int(sums.batches),
            [f"{row.code}: {row.what}" for row in held],
        )


async def archived_paths(
    database: Database,
    operator: str,
    node: str,
    since: datetime,
    until: datetime | None = None,
    *,
    but_lane: str | None = None,
) -> list[str]:
    """Archive paths of a node's batches with events that are complete to `since` or later, as they were accepted; without
    those that can be known to begin after `until`."""
    async with database.app(operator) as connection:
        rows = await connection.execute(
            _PATHS, {"o": operator, "n": node, "since": since, "until": until, "but": but_lane}
        )
        return [row.path for row in rows]


@dataclass(frozen=True, slots=True)
class LaneBatch:
    """An accepted batch: where it is archived, how many events it holds, their sums."""

    path: str
    events: int
    totals: Totals


async def lane_batches(database: Database, operator: str, node: str, lane: str) -> list[LaneBatch]:
    """A lane's accepted batches with events, in their order."""
    async with database.app(operator) as connection:
        rows = await connection.execute(_BATCHES, {"o": operator, "n": node, "l": lane})
        return [
            LaneBatch(row.path, row.events, Totals(**{name: int(row._mapping[name]) for name in QUANTITIES}))
            for row in rows
        ]
