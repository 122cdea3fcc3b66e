"""`tally import`: a file becomes a lane of its own, complete by declaration, and goes the road of every other batch.

    read, decode ─▶ all rows good? ─▶ sort, digest (the epoch) ─▶ known already? ─▶ subjects ─▶ listed as running
                                                ─▶ seal into the spool ─▶ intake accepts the last batch ─▶ accepted

Nothing is written before all rows are good, so a refusal changes nothing. A kill after that leaves an import that is
listed as running; the same command, given again, finds it by the digest of the rows and goes on from its last sealed
number. Which rows were left out as known is decided once and kept beside the lane before the import is listed, because
a second look would see other batches.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import numpy as np
import pyarrow as pa

from adapters.importing import ledger, listing
from adapters.importing.events import SubjectIds, event_columns, owned
from adapters.importing.formats import file_digest, open_source
from adapters.importing.known import DAY_US, Known, find_known
from adapters.importing.mapping import ImportOptions
from adapters.importing.reading import LISTED_FAULTS, read_rows
from adapters.importing.rows import SortedRows
from adapters.importing.scratch import scratch_folder
from adapters.importing.seal_lane import ImportPlace, LaneRows, seal_and_accept
from adapters.importing.stopped import stopped_by_its_id
from adapters.postgres.database import Database
from metering.durable import make_folder, replace_file
from metering.event import Totals
from metering.lane_folder import lane_path
from metering.refusal import Fault, Refusal
from metering.steps import step


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What the user asked for."""

    path: Path
    node: str | None
    options: ImportOptions
    create_customers: bool = False
    dry_run: bool = False
    also: bool = False
    skip_bad: Path | None = None


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What became of it. `first` and `last` are the instants of the rows that were added (or would be). `is_accepted` not:
    they are sealed, and on their way to intake."""

    id: str
    events: int = 0
    batches: int = 0
    already_known: int = 0
    skipped: int = 0
    first: datetime | None = None
    last: datetime | None = None
    totals: Totals = field(default_factory=Totals)
    dry_run: bool = False
    is_accepted: bool = True


@dataclass(frozen=True, slots=True)
class _Content:
    """A file that was read: its good rows, the bad ones' count, the digests of the rows and of the raw file."""

    operator: str
    node: str
    rows: SortedRows
    skipped: int
    epoch: str
    raw: str


async def import_file(place: ImportPlace, asked: ImportRequest, now: datetime) -> ImportResult:
    """Imports a file and returns when intake has accepted its last batch, or when that is sealed where nobody waits.
    Refusals name file, line and remedy."""
    operator, node = await ledger.operator_of_node(place.database, asked.node)
    source = open_source(asked.path)
    with scratch_folder(place.scratch) as scratch:
        rows, skipped = await asyncio.to_thread(
            read_rows, source, asked.path, asked.options, asked.skip_bad, scratch, now, place.progress
        )
        epoch = await asyncio.to_thread(rows.epoch)
        raw = await asyncio.to_thread(file_digest, asked.path)
        content = _Content(operator, node, rows, skipped, epoch, raw)
        async with listing.listing_lock(place.database, operator):
            return await _import_content(place, asked, content, now)


async def _import_content(
    place: ImportPlace, asked: ImportRequest, content: _Content, now: datetime
) -> ImportResult:
    """Decides what the content is to the list (a repeat, a killed import's, new), and imports what is to be."""
    operator, node, epoch, rows = content.operator, content.node, content.epoch, content.rows
    earlier = await listing.earlier_imports(place.database, operator, epoch, content.raw)
    standing = listing.standing_import(earlier, epoch, node)
    if standing is not None and standing.state == listing.ACCEPTED:
        return ImportResult(standing.id, already_known=rows.count, skipped=content.skipped)
    if not asked.also:
        options = asked.options.digest(node)
        listing.refuse_known_file(
            earlier, file_sha256=content.raw, options_sha256=options, where=str(asked.path)
        )
    customers, unknown = await ledger.customers_of(place.database, operator, rows.distinct("customer"))
    if unknown and not asked.create_customers:
        _refuse_unknown_customers(unknown, operator)
    lane = listing.next_id(epoch, earlier) if standing is None else standing.id
    kept = lane_path(place.spool, operator, node, lane) / "known.npy"
    if standing is None:
        known = await _known(place, content, lane)
    else:
        known = _kept(kept, standing.id)
    wanted = rows.keep(~known.mask) if known.count else rows
    result = _result(lane, wanted, known=known.count, skipped=content.skipped, dry_run=asked.dry_run)
    if asked.dry_run or wanted.count == 0:
        return result
    if unknown:
        await place.create_customers(operator, unknown)
        customers, still = await ledger.customers_of(place.database, operator, rows.distinct("customer"))
        assert not still, "customers were just created"
    if standing is None:
        await asyncio.to_thread(_keep, known, kept)
    with stopped_by_its_id(lane):
        if standing is None:
            await _list_running(place.database, content, asked, result, now)
        return await _seal(place, content, wanted, customers, result, now)


async def _seal(
    place: ImportPlace,
    content: _Content,
    wanted: SortedRows,
    customers: Mapping[str, UUID],
    result: ImportResult,
    now: datetime,
) -> ImportResult:
    """From listed to accepted, or on from wherever a kill left it."""
    operator = content.operator
    subjects = await _subjects(place.database, operator, wanted, customers)

    def columns(start: int, count: int) -> dict[str, pa.Array]:
        return event_columns(wanted.slice(start, count), subjects)

    laid = LaneRows(operator, content.node, result.id, content.epoch, wanted.count, wanted.last_us(), columns)
    sealed = await seal_and_accept(place, laid, now)
    if sealed.is_accepted:
        await listing.mark_accepted(place.database, operator, result.id)
    return replace(result, batches=sealed.batches, is_accepted=sealed.is_accepted)


def _refuse_unknown_customers(unknown: Sequence[str], operator: str) -> None:
    more = f", {len(unknown) - LISTED_FAULTS} more not listed" if len(unknown) > LISTED_FAULTS else ""
    raise Refusal(
        "unknown_customer",
        f"{len(unknown)} customers are not declared for {operator}{more}",
        where="customer",
        remedy="declare them in a site file, or let --create-customers make private customers of them",
        faults=[Fault(f"no such customer: {slug}") for slug in unknown[:LISTED_FAULTS]],
    )


async def _known(place: ImportPlace, content: _Content, lane: str) -> Known:
    """Which rows are known already."""
    rows, operator = content.rows, content.operator
    if not rows.any_of("request_id"):
        return Known(np.zeros(rows.count, dtype=bool))
    paths = await ledger.archived_paths(
        place.database,
        operator,
        content.node,
        _instant(rows.first_us() - DAY_US),
        _instant(rows.last_us() + DAY_US),
        but_lane=lane,
    )
    slugs = await ledger.slugs_of(place.database, operator)

    def archived() -> Iterator[pa.Table]:
        # A lane's day after the other: its batches may lie in one file, which is then read once.
        for number, path in enumerate(sorted(paths, key=lambda path: path.rpartition("/")[0]), start=1):
            yield place.read_archived(path)
            place.progress("comparing request ids", number, len(paths))

    return await asyncio.to_thread(find_known, rows, archived(), slugs)


def _keep(known: Known, kept: Path) -> None:
    """On disk before the import is listed: from then on the choice stands."""
    make_folder(kept.parent)
    encoded = io.BytesIO()
    np.save(encoded, known.mask)
    replace_file(kept, encoded.getvalue())


def _kept(kept: Path, id: str) -> Known:
    """What a killed try decided. Refusals: import_elsewhere, where it was another data folder's."""
    if not kept.exists():
        raise Refusal(
            "import_elsewhere",
            f"{id} was begun in another data folder and is not finished",
            where=id,
            remedy=f"give the command there, or take back what was accepted with `tally import void {id} --reason …`",
        )
    return Known(np.load(kept))


async def _subjects(
    database: Database, operator: str, rows: SortedRows, customers: Mapping[str, UUID]
) -> SubjectIds:
    wanted: dict[str, set[str]] = {"project": set(), "key": set()}
    for part in rows.slices():
        for kind, pairs in wanted.items():
            pairs.update(pair for pair in owned(part, kind).unique().to_pylist() if pair is not None)
    return SubjectIds(
        {slug: id.bytes for slug, id in customers.items()},
        await ledger.make_owned(database, operator, "project", customers, wanted["project"]),
        await ledger.make_owned(database, operator, "key", customers, wanted["key"]),
    )


def _sums(rows: SortedRows) -> Totals:
    """The quantities of the rows, as their events count."""
    total = Totals()
    for part in rows.slices():
        completion, reasoning = (
            np.asarray(part.column(name)) for name in ("completion_tokens", "reasoning_tokens")
        )
        given = part.column("generated_tokens")
        generated = np.where(np.asarray(given.is_valid()), np.asarray(given.fill_null(0)), completion)
        total += Totals(
            requests=part.num_rows,
            prompt_tokens=int(np.asarray(part.column("prompt_tokens")).sum()),
            cached_tokens=int(np.asarray(part.column("cached_tokens")).sum()),
            completion_tokens=int(completion.sum()),
            reasoning_tokens=int(reasoning.sum()),
            generated_tokens=int(generated.sum()),
            generated_reasoning_tokens=int(np.minimum(reasoning, generated).sum()),
            audio_seconds=int(np.asarray(part.column("audio_seconds")).sum()),
            unwitnessed_requests=given.null_count,
        )
    return total


def _instant(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)


def _result(id: str, rows: SortedRows, *, known: int, skipped: int, dry_run: bool) -> ImportResult:
    some = rows.count > 0
    return ImportResult(
        id=id,
        events=rows.count,
        already_known=known,
        skipped=skipped,
        first=_instant(rows.first_us()) if some else None,
        last=_instant(rows.last_us()) if some else None,
        totals=_sums(rows),
        dry_run=dry_run,
    )


async def _list_running(
    database: Database, content: _Content, asked: ImportRequest, result: ImportResult, now: datetime
) -> None:
    assert result.first is not None
    assert result.last is not None
    facts = listing.FileFacts(
        id=result.id,
        node=content.node,
        epoch=content.epoch,
        file_sha256=content.raw,
        options_sha256=asked.options.digest(content.node),
        events=result.events,
        first=result.first,
        last=result.last,
        totals=result.totals,
    )
    await listing.list_running(database, content.operator, facts, now)
    step("listed")
