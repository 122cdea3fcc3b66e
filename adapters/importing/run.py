"""`tally import`: a file becomes a lane of its own, complete by declaration, and goes the road of every other batch.

    read, decode ─▶ all rows good? ─▶ sort, digest (the epoch) ─▶ known already? ─▶ subjects ─▶ seal into the spool
                                                                  ─▶ intake accepts the last batch ─▶ listed

Nothing is written before all rows are good, so a refusal changes nothing. A kill after that leaves a lane that the same
command, given again, finds by the digest of the rows and goes on from its last sealed number; which rows were left out
as known is decided once and kept beside the lane, because a second look would see other batches.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import numpy as np
import pyarrow as pa

from adapters.importing import ledger
from adapters.importing.decode import Decoder
from adapters.importing.events import SubjectIds, event_columns, owned
from adapters.importing.formats import SourceFile, file_digest, open_source
from adapters.importing.known import DAY_US, Known, find_known
from adapters.importing.mapping import ImportOptions
from adapters.importing.rows import ScratchRows, SortedRows
from adapters.importing.scratch import scratch_folder
from adapters.importing.seal_lane import ImportPlace, LaneRows, seal_and_accept
from adapters.postgres.database import Database
from metering.durable import make_folder, replace_file
from metering.event import Totals
from metering.lane_folder import lane_path
from metering.refusal import Fault, Refusal

LISTED_FAULTS = 100


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
    """What became of it. `first` and `last` are the instants of the rows that were added (or would be)."""

    id: str
    events: int = 0
    batches: int = 0
    already_known: int = 0
    skipped: int = 0
    first: datetime | None = None
    last: datetime | None = None
    totals: Totals = field(default_factory=Totals)
    dry_run: bool = False


async def import_file(place: ImportPlace, asked: ImportRequest, now: datetime) -> ImportResult:
    """Imports a file and returns when intake has accepted its last batch. Refusals name file, line and remedy."""
    operator, node = await ledger.operator_of_node(place.database, asked.node)
    source = open_source(asked.path)
    with scratch_folder(place.scratch) as scratch:
        rows, skipped = await asyncio.to_thread(_read, source, asked, scratch, now, place.progress)
        epoch = await asyncio.to_thread(rows.epoch)
        raw = await asyncio.to_thread(file_digest, asked.path)
        earlier = await ledger.earlier_imports(place.database, operator, epoch, raw)
        repeated = _repeated(earlier, epoch, node)
        if repeated is not None:
            return ImportResult(repeated.id, already_known=rows.count, skipped=skipped)
        _refuse_known_file(earlier, asked, raw, node)
        lane = _lane_name(epoch, earlier)
        ids, unknown = await ledger.customers_of(place.database, operator, rows.distinct("customer"))
        if unknown and not asked.create_customers:
            _refuse_unknown_customers(unknown, operator)
        known = await _known(place, rows, operator, node, lane)
        wanted = rows.keep(~known.mask) if known.count else rows
        if asked.dry_run or wanted.count == 0:
            return _result(
                lane,
                wanted,
                _sums(wanted),
                batches=0,
                known=known.count,
                skipped=skipped,
                dry_run=asked.dry_run,
            )
        await asyncio.to_thread(_keep, known, _known_file(place, operator, node, lane))
        if unknown:
            await place.create_customers(operator, unknown)
            ids, still = await ledger.customers_of(place.database, operator, rows.distinct("customer"))
            assert not still, "customers were just created"
        subjects = await _subjects(place.database, operator, wanted, ids)

        def columns(start: int, count: int) -> dict[str, pa.Array]:
            return event_columns(wanted.slice(start, count), subjects)

        laid = LaneRows(operator, node, lane, epoch, wanted.count, wanted.last_us(), columns)
        state = await seal_and_accept(place, laid, now)
        result = _result(
            lane, wanted, _sums(wanted), batches=state.batches, known=known.count, skipped=skipped
        )
        await _remember(place, operator, node, epoch, raw, asked, result, now)
        return result


def _read(
    source: SourceFile,
    asked: ImportRequest,
    scratch: Path,
    now: datetime,
    progress: Callable[[str, int, int], None],
) -> tuple[SortedRows, int]:
    """All good rows in order, and how many bad ones were skipped. Refusals: bad_rows, empty_file."""
    decoder = Decoder(asked.options, source.where, now)
    spilled = ScratchRows(scratch / "rows.arrow")
    for chunk in source.chunks():
        rows, good = decoder.decode(chunk.columns, chunk.lines)
        spilled.append(rows if good.all() else rows.filter(pa.array(good)))
        progress("reading", source.bytes_read(), source.bytes_total)
    rows_in_order = spilled.sorted()
    faults = [*source.faults, *(fault for _, fault in sorted(decoder.faults, key=lambda pair: pair[0]))]
    if faults and asked.skip_bad is None:
        more = f" ({len(faults) - LISTED_FAULTS} more not listed)" if len(faults) > LISTED_FAULTS else ""
        raise Refusal(
            "bad_rows",
            f"{len(faults)} of the rows cannot be used{more}; nothing was imported",
            where=str(asked.path),
            remedy="mend them, or leave them out with --skip-bad FILE, which lists them there",
            faults=faults[:LISTED_FAULTS],
        )
    if faults and asked.skip_bad is not None:
        asked.skip_bad.write_text("".join(f"{fault}\n" for fault in faults))
    if rows_in_order.count == 0:
        raise Refusal("empty_file", "the file holds no usable row", where=str(asked.path))
    return rows_in_order, len(faults)


def _repeated(earlier: Sequence[ledger.EarlierImport], epoch: str, node: str) -> ledger.EarlierImport | None:
    """The accepted import of the same content into the same node, if there is one."""
    return next((e for e in earlier if e.epoch == epoch and e.node == node and e.state == "accepted"), None)


def _refuse_known_file(
    earlier: Sequence[ledger.EarlierImport], asked: ImportRequest, raw: str, node: str
) -> None:
    """The same raw file read in another way is most often a mistake, and would bill its rows twice."""
    options = asked.options.digest(node)
    other = [
        e for e in earlier if e.file_sha256 == raw and e.state == "accepted" and e.options_sha256 != options
    ]
    if other and not asked.also:
        raise Refusal(
            "known_file",
            f"this file was imported before under other options, as {other[0].id} into node {other[0].node}",
            where=str(asked.path),
            remedy=f"take that back with `tally import void {other[0].id} --reason …`, or import it as well with --also",
        )


def _lane_name(epoch: str, earlier: Sequence[ledger.EarlierImport]) -> str:
    """The import's id: by its content, and counted where the same content comes again after a void or for another node."""
    before = sum(1 for e in earlier if e.epoch == epoch)
    return f"import-{epoch[:16]}" + (f".{before + 1}" if before else "")


def _refuse_unknown_customers(unknown: Sequence[str], operator: str) -> None:
    more = f", {len(unknown) - LISTED_FAULTS} more not listed" if len(unknown) > LISTED_FAULTS else ""
    raise Refusal(
        "unknown_customer",
        f"{len(unknown)} customers are not declared for {operator}{more}",
        where="customer",
        remedy="declare them in a site file, or let --create-customers make private customers of them",
        faults=[Fault(f"no such customer: {slug}") for slug in unknown[:LISTED_FAULTS]],
    )


async def _known(place: ImportPlace, rows: SortedRows, operator: str, node: str, lane: str) -> Known:
    """Which rows are known already: decided once for a lane, and kept beside it."""
    kept = _known_file(place, operator, node, lane)
    if kept.exists():
        return Known(np.load(kept))
    if not rows.any_of("request_id"):
        return Known(np.zeros(rows.count, dtype=bool))
    since = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=rows.first_us() - DAY_US)
    until = rows.last_us() + DAY_US
    paths = await ledger.archived_paths(place.database, operator, node, since, but_lane=lane)
    slugs = await ledger.slugs_of(place.database, operator)

    def archived() -> Iterator[pa.Table]:
        for number, path in enumerate(paths, start=1):
            events = place.read_archived(path)
            place.progress("comparing request ids", number, len(paths))
            if events.column("time")[0].value <= until:
                yield events

    return await asyncio.to_thread(find_known, rows, archived(), slugs)


def _known_file(place: ImportPlace, operator: str, node: str, lane: str) -> Path:
    return lane_path(place.spool, operator, node, lane) / "known.npy"


def _keep(known: Known, kept: Path) -> None:
    """On disk before the first batch is sealed: from then on the choice stands."""
    make_folder(kept.parent)
    encoded = io.BytesIO()
    np.save(encoded, known.mask)
    replace_file(kept, encoded.getvalue())


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
        )
    return total


def _instant(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)


def _result(
    id: str, rows: SortedRows, sums: Totals, *, batches: int, known: int, skipped: int, dry_run: bool = False
) -> ImportResult:
    some = rows.count > 0
    return ImportResult(
        id=id,
        events=rows.count,
        batches=batches,
        already_known=known,
        skipped=skipped,
        first=_instant(rows.first_us()) if some else None,
        last=_instant(rows.last_us()) if some else None,
        totals=sums,
        dry_run=dry_run,
    )


async def _remember(
    place: ImportPlace,
    operator: str,
    node: str,
    epoch: str,
    raw: str,
    asked: ImportRequest,
    result: ImportResult,
    now: datetime,
) -> None:
    assert result.first is not None
    assert result.last is not None
    totals = {name: getattr(result.totals, name) for name in Totals.__dataclass_fields__}
    facts = ledger.FileFacts(
        result.id,
        node,
        epoch,
        raw,
        asked.options.digest(node),
        result.events,
        result.first,
        result.last,
        totals,
    )
    await ledger.remember(place.database, operator, facts, now)
