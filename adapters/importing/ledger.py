"""What an import asks of PostgreSQL: where the node belongs, which subjects there are, what was imported before."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import text

from adapters.importing.events import BETWEEN
from adapters.postgres.database import Database
from adapters.postgres.subjects import ensure_subjects, find_subjects
from metering.refusal import Refusal

EVER = datetime(2020, 1, 1, tzinfo=UTC)  # no event is older

_REMEMBER = text("""
    INSERT INTO import_file (operator, id, epoch, node, lane, file_sha256, options_sha256, events, first, last, totals,
                             state, imported_at)
    VALUES (:o, :id, :epoch, :node, :id, :file, :options, :events, :first, :last, CAST(:totals AS jsonb),
            'accepted', :now)
    ON CONFLICT DO NOTHING
""")
_MARK_VOID = text("""
    UPDATE import_file SET state = 'voided', voided_at = :now, void_reason = :reason
    WHERE operator = :o AND id = :id AND state = 'accepted'
""")
_MARK = text("SELECT ended FROM lane WHERE operator = :o AND node = :n AND lane = :l")
_ACCEPTED = text("""
    SELECT coalesce(sum(events), 0)::bigint AS events, count(*) FILTER (WHERE events > 0) AS batches
    FROM batch WHERE operator = :o AND node = :n AND lane = :l
""")
_HELD = text("SELECT code, what FROM held WHERE operator = :o AND node = :n AND lane = :l ORDER BY number")
_PATHS = text("""
    SELECT path FROM batch
    WHERE operator = :o AND node = :n AND events > 0 AND complete_to >= :since
      AND (CAST(:lane AS text) IS NULL OR lane = :lane) AND (CAST(:but AS text) IS NULL OR lane <> :but)
    ORDER BY accepted_at, lane, epoch, number
""")


@dataclass(frozen=True, slots=True)
class EarlierImport:
    """A file that was imported before, on whichever node of the operator."""

    id: str
    node: str
    epoch: str
    file_sha256: str
    options_sha256: str
    state: str
    events: int


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


async def earlier_imports(
    database: Database, operator: str, epoch: str, file_sha256: str
) -> list[EarlierImport]:
    """Imports of the same content or of the same raw file, oldest first."""
    async with database.app(operator) as connection:
        rows = await connection.execute(
            text(
                "SELECT id, node, epoch, file_sha256, options_sha256, state, events FROM import_file"
                " WHERE operator = :o AND (epoch = :epoch OR file_sha256 = :file) ORDER BY imported_at, id"
            ),
            {"o": operator, "epoch": epoch, "file": file_sha256},
        )
        return [EarlierImport(**row._mapping) for row in rows]


async def import_of(database: Database, id: str) -> tuple[str, str, str]:
    """(operator, node, state) of an import. Refusals: unknown_import."""
    for operator in await database.operators():
        async with database.app(operator) as connection:
            rows = await connection.execute(
                text("SELECT node, state FROM import_file WHERE operator = :o AND id = :id"),
                {"o": operator, "id": id},
            )
            for row in rows:
                return operator, row.node, row.state
    raise Refusal(
        "unknown_import",
        f"no such import: {id}",
        where="ID",
        remedy="`tally import` printed its id when it was made",
    )


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What is remembered of an imported file: digests and sums, never its name."""

    id: str
    node: str
    epoch: str
    file_sha256: str
    options_sha256: str
    events: int
    first: datetime
    last: datetime
    totals: Mapping[str, int]


async def remember(database: Database, operator: str, facts: FileFacts, now: datetime) -> None:
    """Lists the import as accepted; doing it twice changes nothing."""
    async with database.intake() as connection:
        await connection.execute(
            _REMEMBER,
            {
                "o": operator,
                "id": facts.id,
                "epoch": facts.epoch,
                "node": facts.node,
                "file": facts.file_sha256,
                "options": facts.options_sha256,
                "events": facts.events,
                "first": facts.first,
                "last": facts.last,
                "totals": json.dumps(dict(facts.totals)),
                "now": now,
            },
        )


async def mark_void(database: Database, operator: str, id: str, reason: str, now: datetime) -> None:
    """The import was taken back, and why."""
    async with database.app(operator) as connection:
        await connection.execute(
            _MARK_VOID,
            {"o": operator, "id": id, "reason": reason, "now": now},
        )


@dataclass(frozen=True, slots=True)
class LaneState:
    """How far a lane has been accepted, and what of it is held."""

    ended: bool
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
            mark.ended, int(sums.events), int(sums.batches), [f"{row.code}: {row.what}" for row in held]
        )


async def archived_paths(
    database: Database,
    operator: str,
    node: str,
    since: datetime,
    *,
    lane: str | None = None,
    but_lane: str | None = None,
) -> list[str]:
    """Archive paths of a node's batches with events that are complete to `since` or later, as they were accepted."""
    async with database.app(operator) as connection:
        rows = await connection.execute(
            _PATHS,
            {"o": operator, "n": node, "since": since, "lane": lane, "but": but_lane},
        )
        return [row.path for row in rows]
