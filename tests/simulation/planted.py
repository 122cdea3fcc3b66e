"""Bugs that were once nearly written, planted in the code under test: a simulation that finds none of them proves nothing.

Each plant changes one thing for the life of one seed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

import pytest
from kafka_twin import TwinSource
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from turns import Turns
from workers import SteppedAcceptance

from adapters.postgres import roll_up
from adapters.postgres.schema import QUANTITY_COLUMNS
from billing import acceptance, intake
from billing.acceptance import Verdicts
from billing.intake_ports import Position, Taking
from metering.lane_folder import LaneFolder
from metering.lane_progress import LaneProgress, acknowledged
from metering.shipper import Shipper

Plant = Callable[[pytest.MonkeyPatch, Turns], None]


def acknowledged_before_the_commit(monkeypatch: pytest.MonkeyPatch, turns: Turns) -> None:
    """The shipper is told as soon as the transaction is written, not when it is committed."""
    write = SteppedAcceptance.write

    async def hasty(self: SteppedAcceptance, taking: Taking, accepted_at: datetime) -> Sequence[str]:
        settled = await write(self, taking, accepted_at)
        source = _source.get(id(turns))
        if source is not None:
            source.acknowledge((), taking.marks)
        await turns.turn("before the commit, acknowledged")
        return settled

    _source: dict[int, TwinSource] = {}
    deliveries = TwinSource.deliveries

    def noted(self: TwinSource) -> Any:
        _source[id(turns)] = self
        return deliveries(self)

    monkeypatch.setattr(TwinSource, "deliveries", noted)
    monkeypatch.setattr(SteppedAcceptance, "write", hasty)


def positions_moved_before(monkeypatch: pytest.MonkeyPatch, turns: Turns) -> None:
    """The positions move in a transaction of their own, before the one that takes what was read; and nothing that was
    acknowledged by Kafka is sent again."""
    accept = intake.Intake._accept

    async def early(self: intake.Intake, inspected: Any, positions: Sequence[Position], *more: Any) -> Any:
        await self._ledger.move(positions)
        await turns.turn("positions moved")
        return await accept(self, inspected, positions, *more)

    monkeypatch.setattr(intake.Intake, "_accept", early)
    _never_again(monkeypatch)


def _never_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka's word is believed for ever."""
    monkeypatch.setattr("metering.lane_progress.PATIENCE_US", 1 << 60)
    monkeypatch.setattr("metering.lane_progress.LONGEST_PATIENCE_US", 1 << 60)


def _sum_then_delete(turns: Turns) -> Callable[..., Awaitable[None]]:
    keys = "operator, hour, customer, project, key, node, model, outcome, band, late"
    sums = ", ".join(f"sum({name})::bigint" for name in QUANTITY_COLUMNS)
    names = ", ".join(QUANTITY_COLUMNS)

    async def roll_up_hours(conn: AsyncConnection, operator: str, hours: Sequence[datetime]) -> None:
        asked = {"operator": operator, "hours": list(hours)}
        of = "WHERE operator = :operator AND hour = ANY(CAST(:hours AS timestamptz[]))"
        await conn.execute(
            text(
                f"CREATE TEMPORARY TABLE made ON COMMIT DROP AS SELECT {keys}, {names} FROM usage_cell {of}"
            ),
            asked,
        )
        await turns.turn("summed, not deleted")
        for table in ("partial_sum", "partial_hour", "hourly_usage"):
            await conn.execute(text(f"DELETE FROM {table} {of}"), asked)
        await conn.execute(
            text(
                f"INSERT INTO hourly_usage ({keys}, {names}) SELECT {keys}, {sums} FROM made GROUP BY {keys}"
            )
        )

    return roll_up_hours


def roll_up_in_two_statements(monkeypatch: pytest.MonkeyPatch, turns: Turns) -> None:
    """A SUM, and then a DELETE of what was summed and of what came meanwhile."""
    monkeypatch.setattr(roll_up, "roll_up_hours", _sum_then_delete(turns))


def repeats_count_again(monkeypatch: pytest.MonkeyPatch, turns: Turns) -> None:
    """The cells of a repeat are added once more."""
    follow = acceptance.follow

    def generous(*arguments: Any) -> Verdicts:
        verdicts = follow(*arguments)
        _again.extend(verdicts.repeats)
        return verdicts

    cells = intake.Intake._cells

    async def more(self: intake.Intake, accepted: Any, *rest: Any) -> Any:
        again, _again[:] = list(_again), []
        return await cells(self, [*accepted, *again], *rest)

    _again: list[Any] = []
    monkeypatch.setattr("billing.intake.follow", generous)
    monkeypatch.setattr(intake.Intake, "_cells", more)


def names_begin_anew(monkeypatch: pytest.MonkeyPatch, turns: Turns) -> None:
    """A lane that starts with nothing in its spool names its batches from one again, and its shipper, which has seen those
    names, does not forget them when everything is acknowledged."""

    def remembered(progress: LaneProgress, newest: str, now_us: int) -> LaneProgress:
        after = acknowledged(progress, newest, now_us)
        return LaneProgress(sent_to=newest) if after == LaneProgress() else after

    monkeypatch.setattr(LaneFolder, "_ordinal_on_disk", lambda _: 0)
    monkeypatch.setattr(Shipper, "_forget", lambda *_: None)
    monkeypatch.setattr("metering.shipper.acknowledged", remembered)


#: By name: the plant, and a seed that found it.
PLANTED: dict[str, tuple[Plant, int]] = {
    "acknowledged before the commit": (acknowledged_before_the_commit, 0),
    "positions moved before": (positions_moved_before, 20),
    "roll-up in two statements": (roll_up_in_two_statements, 21),
    "repeats count again": (repeats_count_again, 0),
    "names begin anew": (names_begin_anew, 11),
}
