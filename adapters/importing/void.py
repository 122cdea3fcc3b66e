"""`tally import void`: takes an import back by negative facts that name its events, one for each, at the same times.

The void is a lane of its own, made from the archived batches of the import and from nothing else, so it is the same
whenever it is made: its epoch is the first 128 bits of SHA-256 over `tallygrid/void/v1`, the import's id and its epoch.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from adapters.importing import ledger
from adapters.importing.run import ImportResult
from adapters.importing.seal_lane import ImportPlace, LaneRows, seal_and_accept
from metering.event import QUANTITIES, QUANTITY_COLUMNS, Totals, totals
from metering.refusal import Refusal


async def void_import(place: ImportPlace, id: str, reason: str, now: datetime) -> ImportResult:
    """Takes the import back; twice is once. Refusals: unknown_import, empty_reason."""
    if not reason.strip():
        raise Refusal(
            "empty_reason", "taking usage back needs a reason", where="--reason", remedy="say why; it is kept"
        )
    operator, node, state = await ledger.import_of(place.database, id)
    if state == "voided":
        return ImportResult(id)
    paths = await ledger.archived_paths(place.database, operator, node, ledger.EVER, lane=id)
    batches = [place.read_archived(path) for path in paths]
    lane = id.replace("import-", "void-", 1)
    events = pa.concat_tables(batches).unify_dictionaries()
    back = _negated(events)
    times = events.column("time")
    laid = LaneRows(
        operator,
        node,
        lane,
        _epoch(id, paths),
        events.num_rows,
        times[-1].value,
        lambda start, count: dict(zip(back.column_names, back.slice(start, count).columns, strict=True)),
    )
    accepted = await seal_and_accept(place, laid, now)
    await ledger.mark_void(place.database, operator, id, reason, now)
    first, last = (datetime.fromtimestamp(times[at].value // 1_000_000, UTC) for at in (0, -1))
    taken_back = Totals()
    for part in batches:
        taken_back += totals(part)
    negative = Totals(**{name: -getattr(taken_back, name) for name in QUANTITIES})
    return ImportResult(id, events.num_rows, accepted.batches, 0, 0, first, last, negative)


def _epoch(id: str, paths: list[str]) -> str:
    return hashlib.sha256("\n".join(["tallygrid/void/v1", id, *paths]).encode()).hexdigest()[:32]


def _negated(events: pa.Table) -> pa.Table:
    """Each event turned into the void that takes it back, without the columns that the lane writes."""
    back = {name: events.column(name) for name in events.schema.names if name not in ("sequence", "request")}
    back["kind"] = pa.array(["void"] * events.num_rows).dictionary_encode()
    back["names"] = events.column("request")
    for name in QUANTITY_COLUMNS:
        back[name] = pc.negate(back[name])
    return pa.table(back)
