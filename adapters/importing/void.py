"""`tally import void`: takes an import back by negative facts that name its events, one for each, at the same times.

The void is a lane of its own, made from the archived batches of the import and from nothing else, so it is the same
whenever it is made: its epoch is the first 128 bits of SHA-256 over `tallygrid/void/v1`, the import's id and its batches.
One batch is in memory at a time. An import that was not finished is taken back as far as it was sealed, and never goes
on: it is listed as `voiding` before the first event is taken back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import accumulate

import pyarrow as pa
import pyarrow.compute as pc

from adapters.importing import ledger, listing
from adapters.importing.run import ImportResult
from adapters.importing.seal_lane import ImportPlace, LaneRows, accept_sealed, seal_and_accept
from adapters.importing.stopped import stopped_by_its_id
from metering.event import QUANTITIES, QUANTITY_COLUMNS, Totals
from metering.refusal import Refusal


async def void_import(place: ImportPlace, id: str, reason: str, now: datetime) -> ImportResult:
    """Takes back what was accepted of the import; twice is once. Refusals: unknown_import, empty_reason, batch_held."""
    if not reason.strip():
        raise Refusal(
            "empty_reason", "taking usage back needs a reason", where="--reason", remedy="say why; it is kept"
        )
    operator, node, _ = await listing.import_of(place.database, id)
    async with listing.listing_lock(place.database, operator):
        _, _, state = await listing.import_of(place.database, id)
        if state == listing.VOIDED:
            return ImportResult(id)
        if state == listing.RUNNING:
            await accept_sealed(place, operator, node, id)
        with stopped_by_its_id(id):
            await listing.mark_voiding(place.database, operator, id, reason, now)
            batches = await ledger.lane_batches(place.database, operator, node, id)
            result = (
                await _take_back(place, operator, node, id, batches, now) if batches else ImportResult(id)
            )
            if result.is_accepted:
                await listing.mark_voided(place.database, operator, id)
            return result


async def _take_back(
    place: ImportPlace, operator: str, node: str, id: str, batches: Sequence[ledger.LaneBatch], now: datetime
) -> ImportResult:
    first, last = (place.read_archived(batches[at].path).column("time") for at in (0, -1))
    laid = LaneRows(
        operator,
        node,
        id.replace("import-", "void-", 1),
        _epoch(id, batches),
        sum(batch.events for batch in batches),
        last[-1].value,
        _negative_columns(batches, place.read_archived),
    )
    sealed = await seal_and_accept(place, laid, now)
    taken_back = Totals()
    for batch in batches:
        taken_back += batch.totals
    return ImportResult(
        id,
        laid.count,
        sealed.batches,
        first=datetime.fromtimestamp(first[0].value // 1_000_000, UTC),
        last=datetime.fromtimestamp(last[-1].value // 1_000_000, UTC),
        totals=Totals(**{name: -getattr(taken_back, name) for name in QUANTITIES}),
        is_accepted=sealed.is_accepted,
    )


def _epoch(id: str, batches: Sequence[ledger.LaneBatch]) -> str:
    parts = ["tallygrid/void/v1", id, *(batch.path for batch in batches)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _negative_columns(
    batches: Sequence[ledger.LaneBatch], read: Callable[[str], pa.Table]
) -> Callable[[int, int], dict[str, pa.Array]]:
    """`LaneRows.columns` of the void: never beyond the end of the batch that holds its first row."""
    ends = list(accumulate(batch.events for batch in batches))

    @lru_cache(maxsize=1)
    def negated(at: int) -> pa.Table:
        return _negated(read(batches[at].path))

    def columns(start: int, count: int) -> dict[str, pa.Array]:
        at = next(place for place, end in enumerate(ends) if start < end)
        rows = negated(at).slice(start - (ends[at] - batches[at].events), count)
        return dict(zip(rows.column_names, rows.columns, strict=True))

    return columns


def _negated(events: pa.Table) -> pa.Table:
    """Each event turned into the void that takes it back, without the columns that the lane writes."""
    back = {name: events.column(name) for name in events.schema.names if name not in ("sequence", "request")}
    back["kind"] = pa.array(["void"] * events.num_rows).dictionary_encode()
    back["names"] = events.column("request")
    for name in QUANTITY_COLUMNS:
        back[name] = pc.negate(back[name])
    return pa.table(back)
