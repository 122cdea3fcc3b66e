"""Intake's words as rows of its tables, and back."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pyarrow as pa
from sqlalchemy import Row, bindparam, update

from adapters.postgres.database import INSTALLATION
from adapters.postgres.schema import lane
from billing.acceptance import Mark
from billing.aside import NOT_KEPT
from billing.inspection import LaneName, signing_key_hash
from billing.intake_ports import Accepted, Held, SetAside
from billing.model_sums import SUMMED
from metering.fact import Sibling, Span, Unmetered, kind_of, parse_fact

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_PLACE = ("operator", "node", "lane", "epoch", "number")
_MARK_COLUMNS = (
    "epoch",
    "number",
    "head",
    "last_sequence",
    "complete_to",
    "opened",
    "closed",
    "ended",
    "key_rank",
    "last_accepted_at",
)

#: Moves the mark of a lane, by the parameters of `mark_row`.
MOVE_MARK = (
    update(lane)
    .where(*(lane.c[name] == bindparam(f"of_{name}") for name in ("operator", "node", "lane")))
    .values({name: bindparam(name) for name in _MARK_COLUMNS})
)


def lane_name(row: Row[Any]) -> LaneName:
    return LaneName(row.operator, row.node, row.lane)


def mark(row: Row[Any]) -> Mark:
    """The high-water mark of a lane's row."""
    if row.epoch is None:
        return Mark(row.kind, key_rank=row.key_rank)
    return Mark(
        kind=row.kind,
        epoch=row.epoch,
        number=row.number,
        head=row.head,
        last_sequence=row.last_sequence,
        complete_to_us=(row.complete_to - _EPOCH) // _MICROSECOND,
        opened=row.opened,
        closed=row.closed,
        ended=row.ended,
        key_rank=row.key_rank,
    )


def mark_row(name: LaneName, moved: Mark, accepted_at: datetime) -> dict[str, object]:
    assert moved.complete_to_us is not None
    return {
        "of_operator": name.operator,
        "of_node": name.node,
        "of_lane": name.lane,
        "epoch": moved.epoch,
        "number": moved.number,
        "head": moved.head,
        "last_sequence": moved.last_sequence,
        "complete_to": _EPOCH + timedelta(microseconds=moved.complete_to_us),
        "opened": moved.opened,
        "closed": moved.closed,
        "ended": moved.ended,
        "key_rank": moved.key_rank,
        "last_accepted_at": accepted_at,
    }


def batch_row(entry: Accepted, accepted_at: datetime) -> dict[str, object]:
    seal, delivery = entry.inspected.seal, entry.inspected.delivery
    return {
        "operator": seal.operator,
        "node": seal.node,
        "lane": seal.lane,
        "epoch": seal.epoch,
        "number": seal.number,
        "hash": entry.inspected.hash,
        "previous": seal.previous,
        "first": seal.first,
        "last": seal.last,
        "events": seal.events,
        "complete_to": _EPOCH + timedelta(microseconds=seal.complete_to_us),
        **asdict(seal.totals),
        "path": entry.path,
        "bytes": len(delivery.note) + seal.body_bytes,
        "accepted_at": accepted_at,
        "root_checked": entry.inspected.root_checked,
        "adopted": entry.inspected.adopted,
        "final": seal.final,
    }


def fact_rows(entry: Accepted) -> list[dict[str, object]]:
    """The facts of the batch's seal, each with the time that it speaks of; `sibling_rows` has those of siblings."""
    seal = entry.inspected.seal
    rows: list[dict[str, object]] = []
    for rank, fact in enumerate(map(parse_fact, seal.facts)):
        match fact:
            case Sibling():
                continue
            case Span():
                begins_us, ends_us = fact.from_us, fact.to_us
            case Unmetered():
                begins_us, ends_us = fact.start_us, fact.end_us
            case _:
                begins_us = ends_us = seal.complete_to_us
        rows.append(
            {
                **_place(entry),
                "rank": rank,
                "kind": kind_of(fact),
                "begins": _EPOCH + timedelta(microseconds=begins_us),
                "ends": _EPOCH + timedelta(microseconds=ends_us),
                "content": asdict(fact),
            }
        )
    return rows


def sibling_rows(entries: Sequence[Accepted]) -> list[dict[str, object]]:
    """The lanes that these batches' seals tell of, each once with its newest seal, in the order of their keys."""
    found: dict[LaneName, dict[str, object]] = {}
    for seal in sorted((entry.inspected.seal for entry in entries), key=lambda seal: seal.complete_to_us):
        at = _EPOCH + timedelta(microseconds=seal.complete_to_us)
        for fact in map(parse_fact, seal.facts):
            if isinstance(fact, Sibling):
                name = LaneName(seal.operator, seal.node, fact.lane)
                first = found[name]["first_told"] if name in found else at
                found[name] = {**name._asdict(), **asdict(fact), "first_told": first, "told": at}
    return [found[name] for name in sorted(found)]


def sum_rows(entries: Sequence[Accepted]) -> pa.Table:
    """The sums by model of the sidecars' batches, as columns of `seal_sum`."""
    sums = [(entry.inspected.seal, found) for entry in entries for found in entry.sums]
    instant = pa.timestamp("us", "UTC")
    columns: dict[str, pa.Array] = {
        name: pa.array([getattr(seal, name) for seal, _ in sums]) for name in _PLACE
    }
    columns["model"] = pa.array([found.model for _, found in sums], pa.string())
    columns["first_time"] = pa.array([found.first_time_us for _, found in sums], pa.int64()).view(instant)
    columns["last_time"] = pa.array([found.last_time_us for _, found in sums], pa.int64()).view(instant)
    for name in SUMMED:
        columns[name] = pa.array([getattr(found, name) for _, found in sums], pa.int64())
    return pa.table(columns)


def _place(entry: Accepted) -> dict[str, object]:
    seal = entry.inspected.seal
    return {name: getattr(seal, name) for name in _PLACE}


def held_row(entry: Held, held_at: datetime) -> dict[str, object]:
    seal = entry.inspected.seal
    return {
        "operator": seal.operator,
        "node": seal.node,
        "lane": seal.lane,
        "epoch": seal.epoch,
        "number": seal.number,
        "hash": entry.inspected.hash,
        "previous": seal.previous,
        "code": entry.refusal.code,
        "what": entry.refusal.what,
        "path": entry.path,
        "held_at": held_at,
        "due_at": entry.due_at,
        "missing": [UUID(bytes=customer) for customer in sorted(entry.missing)] or None,
        "key_rank": entry.inspected.key_rank,
    }


def set_aside_row(entry: SetAside, registered: Collection[str], seen_at: datetime) -> dict[str, object]:
    """`registered`: the operators that there are; a claim of another one is listed under the installation
    until that operator is there and the lane enrolled."""
    claimed = entry.claimed or LaneName(INSTALLATION, "", "")
    return {
        "operator": claimed.operator if claimed.operator in registered else INSTALLATION,
        "digest": entry.digest,
        "claimed": entry.claimed.operator if entry.claimed else "",
        "node": claimed.node,
        "lane": claimed.lane,
        "code": entry.refusal.code,
        "what": entry.refusal.what,
        "key_hash": signing_key_hash(entry.delivery.note),
        "path": entry.path,
        "seen_at": seen_at,
    }


def not_kept_row(claimed: LaneName | None, batches: int, seen_at: datetime) -> dict[str, object]:
    """So many batches that claim to be of this enrolled lane, or of any other, came beyond what is kept."""
    name = claimed or LaneName("", "", "")
    return {
        "operator": name.operator or INSTALLATION,
        "digest": f"more/{name}" if claimed else "more",
        "claimed": name.operator,
        "node": name.node,
        "lane": name.lane,
        "code": NOT_KEPT,
        "what": "came beyond what is kept, and is only counted",
        "key_hash": "",
        "path": "",
        "seen_at": seen_at,
        "batches": batches,
    }


def hour_rows(operator: str, cells: pa.Table) -> list[dict[str, object]]:
    """The hours of the cells, as rows of `partial_hour`."""
    return [{"operator": operator, "hour": hour} for hour in cells["hour"].unique().to_pylist()]
