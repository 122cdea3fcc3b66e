"""Rows into the spool as a lane of their own, and from there, by intake, into the ledger."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path

import pyarrow as pa

from adapters.importing import ledger
from adapters.importing.rows import SLICE_ROWS
from adapters.postgres.database import Database
from adapters.postgres.lane_keys import enroll_lane
from metering.identity import LaneKey
from metering.import_lane import ImportLane
from metering.lane_folder import LaneFolder, lane_path
from metering.refusal import Fault, Refusal, Unavailable
from metering.spool import LaneRef, Spool

SWEEP_EVERY_S = 0.2
PATIENCE_SWEEPS = (
    50  # sweeps without progress, once everything is sealed, before we say that intake does not take it
)


@dataclass(frozen=True, slots=True)
class ImportPlace:
    """Where imports work. `sweep` makes intake take what waits in the spool; `read_archived` opens an archived body;
    `create_customers` makes private customers of an operator; `progress` is told (what, done, of how many).

    `is_shipped`: the spool's batches go to intake over Kafka, and leave it when intake's acknowledgement has come; that is
    waited for however long it takes. `waits` not: what is sealed is enough."""

    database: Database
    spool: Path
    keys: Path
    scratch: Path
    sweep: Callable[[], Awaitable[object]]
    read_archived: Callable[[str], pa.Table]
    create_customers: Callable[[str, list[str]], Awaitable[None]]
    progress: Callable[[str, int, int], None] = lambda _what, _done, _total: None
    is_shipped: bool = False
    waits: bool = True


@dataclass(frozen=True, slots=True)
class Sealed:
    """What became of a lane: how many of its batches hold events, and whether intake has accepted all of them."""

    batches: int
    is_accepted: bool


@dataclass(frozen=True, slots=True)
class LaneRows:
    """The rows of a lane: `columns(start, count)` gives EVENT_SCHEMA's columns, but `sequence` and `request`, of up to
    `count` rows from rank `start`, the same whenever it is asked."""

    operator: str
    node: str
    lane: str
    epoch: str
    count: int
    last_us: int
    columns: Callable[[int, int], dict[str, pa.Array]]


async def seal_and_accept(place: ImportPlace, rows: LaneRows, now: datetime) -> Sealed:
    """Seals what is not sealed yet while intake takes what is; returns when the last batch is accepted, or is sealed
    where nobody waits.

    Refusals: batch_held, where intake cannot accept one of the lane's batches; lane_in_use, by another import of the
    same content that runs now.
    """
    key = LaneKey.load_or_create(place.keys / "imports.key")
    public = LaneKey.public_bytes(key)
    async with place.database.app(rows.operator) as connection:
        await enroll_lane(connection, rows.operator, rows.node, rows.lane, "import", public, now)
    writer = ImportLane.open(
        place.spool, operator=rows.operator, node=rows.node, lane=rows.lane, epoch=rows.epoch, key=key
    )
    stop = threading.Event()
    # A future, not a task: who is cancelled has to wait for the thread, or the lane is let go of while it still seals.
    sealing = asyncio.get_running_loop().run_in_executor(None, _seal_all, writer, rows, place.progress, stop)
    try:
        while not sealing.done():
            await place.sweep()
            await asyncio.wait([sealing], timeout=SWEEP_EVERY_S)
        await sealing
    finally:
        stop.set()
        await asyncio.wait([sealing])
        sealing.exception()  # it was raised above, or what was raised there came first
        writer.close()
    if not place.waits:
        return Sealed(writer.batches, is_accepted=False)
    state = await _accepted(place, rows.operator, rows.node, rows.lane, lambda state: state.ended)
    return Sealed(state.batches, is_accepted=True)


async def accept_sealed(place: ImportPlace, operator: str, node: str, lane: str) -> None:
    """Lets intake take what a killed import had sealed; returns when it has. Nothing more is sealed.

    Refusals: batch_held; lane_in_use.
    """
    if not lane_path(place.spool, operator, node, lane).exists():
        return
    taken = LaneFolder.open(place.spool, operator, node, lane)
    try:
        if taken.head is None:
            return
        sealed = taken.head.seal.number
        await _accepted(
            place, operator, node, lane, lambda state: state.number is not None and state.number >= sealed
        )
    finally:
        taken.close()


def _seal_all(
    writer: ImportLane, rows: LaneRows, progress: Callable[[str, int, int], None], stop: threading.Event
) -> None:
    while not writer.finished and not stop.is_set():
        start = writer.next_sequence - 1
        part = pa.table(rows.columns(start, SLICE_ROWS))
        writer.seal_rows(part, rows.last_us, final=start + part.num_rows == rows.count)
        progress("sealing", writer.next_sequence - 1, rows.count)


async def _accepted(
    place: ImportPlace,
    operator: str,
    node: str,
    lane: str,
    reached: Callable[[ledger.LaneState], bool],
) -> ledger.LaneState:
    spooled = Spool(place.spool)
    patience = count() if place.is_shipped else range(PATIENCE_SWEEPS)
    for _ in patience:
        await place.sweep()
        state = await ledger.lane_state(place.database, operator, node, lane)
        if state is not None and state.held:
            raise Refusal(
                "batch_held",
                f"intake holds {len(state.held)} batches of {lane}",
                where=f"{operator}/{node}",
                remedy="`tally streams` shows them",
                faults=[Fault(what) for what in state.held],
            )
        left = len(spooled.waiting(LaneRef(operator, node, lane))) if place.is_shipped else 0
        if state is not None and reached(state) and not left:
            return state
        place.progress("waiting for intake", 0, left)
        await asyncio.sleep(SWEEP_EVERY_S)
    raise Unavailable(
        "intake_waits",
        f"the batches of {lane} are sealed and not accepted yet",
        where=str(place.spool),
        remedy="give the same command again: it goes on where it stands",
    )
