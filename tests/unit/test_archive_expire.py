"""Expiry: old, billed and under no hold, or it stays; a file goes whole or not at all."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from archive_examples import Archive
from intake_world import ACME, NODE, START, Writer

from adapters.archive_expire import (
    Bounds,
    Expirable,
    Hold,
    billed_until,
    expirable,
    expire,
    hold_of,
    months_between,
)
from billing.period import Period

OCTOBER, NOVEMBER = Period(2026, 10), Period(2026, 11)
OTHER = uuid.UUID(int=2)
VILNIUS = ZoneInfo("Europe/Vilnius")
LATER = datetime(2027, 1, 1, tzinfo=UTC)


def look(
    archive: Archive,
    *,
    before: date = date(2027, 1, 1),
    billed: Mapping[Period, datetime] | None = None,
    holds: Sequence[Hold] = (),
    unchecked: Collection[str] = (),
) -> Expirable:
    closed = {OCTOBER: LATER, NOVEMBER: LATER} if billed is None else billed
    return expirable(
        archive.objects,
        "telecentras",
        Bounds(before, VILNIUS, lambda period, _node, _lane: closed.get(period), holds, unchecked),
    )


@pytest.fixture
def archive() -> Archive:
    """Two batches of Acme's on 5 October, one of somebody else's at the turn of the month in Vilnius."""
    made, writer = Archive(), Writer()
    made.put(writer.seal(3), writer.seal(2), writer.seal(0))
    writer.time_us = us(datetime(2026, 10, 31, 21, 59, 58, tzinfo=UTC))
    made.put(writer.seal(4, customer=OTHER.bytes))
    return made


def us(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000


def test_what_is_old_billed_and_not_held_may_go(archive: Archive) -> None:
    found = look(archive)
    assert (len(found.files), found.batches, found.events, found.findings) == (3, 3, 9, [])
    assert all(file.endswith(".parquet") for file in found.files)


def test_what_the_second_pass_has_not_looked_at_stays(archive: Archive) -> None:
    went = sorted(look(archive).files)
    first = went[0].removesuffix(".parquet").rpartition("-")[2]
    found = look(archive, unchecked={first})
    assert (sorted(found.files), found.unchecked) == (went[1:], 1)


def test_what_is_too_young_stays(archive: Archive) -> None:
    assert look(archive, before=date(2026, 10, 31)).batches == 2
    assert look(archive, before=date(2026, 10, 5)).batches == 0


def test_a_batch_over_two_months_needs_both_closed_and_a_close_that_read_it(archive: Archive) -> None:
    found = look(archive, billed={OCTOBER: LATER})
    assert (found.batches, found.not_billed) == (2, 1)
    assert look(archive, billed={NOVEMBER: LATER}).not_billed == 3
    late = look(archive, billed={OCTOBER: START + timedelta(seconds=3), NOVEMBER: LATER})
    assert (late.batches, late.not_billed) == (1, 2)


@pytest.mark.parametrize(
    ("hold", "kept"),
    [
        (Hold(None, None), 3),
        (Hold(ACME, None), 2),
        (Hold(None, NOVEMBER), 1),
        (Hold(ACME, NOVEMBER), 0),
        (hold_of(OTHER, OCTOBER), 1),
        (hold_of(None, OCTOBER), 3),
    ],
)
def test_a_hold_keeps_whatever_has_an_event_of_its_customer_in_its_month(
    archive: Archive, hold: Hold, kept: int
) -> None:
    found = look(archive, holds=[hold])
    assert (found.held, found.batches) == (kept, 3 - kept)


def test_a_joined_file_stays_whole_while_one_of_its_batches_has_to(archive: Archive) -> None:
    writer = Writer(epoch="b" * 32, time_us=us(START) + 60_000_000)
    archive.put(writer.seal(1, customer=OTHER.bytes))
    archive.compact()
    assert look(archive, holds=[hold_of(OTHER, None)]).files == []
    assert len(look(archive).files) == 2


def test_a_damaged_batch_is_named_and_stays(archive: Archive) -> None:
    path = next(name for name in archive.objects.there if name.endswith(".parquet"))
    archive.objects.there[path] = b"PAR1"
    found = look(archive)
    assert [each.code for each in found.findings] == ["damaged"]
    assert path not in found.files


def test_seals_stay_and_nothing_is_looked_at_twice(archive: Archive) -> None:
    seals = {path for path in archive.objects.there if path.endswith(".seal")}
    assert list(expire(archive.objects, look(archive).files, at_once=2)) == [2, 3]
    assert set(archive.objects.there) == seals
    assert look(archive) == Expirable()


def test_a_close_has_read_a_lane_up_to_the_head_that_it_stored() -> None:
    until = billed_until({OCTOBER: {f"{NODE}/sidecar-0": "head"}}, {"head": START})
    assert until(OCTOBER, NODE, "sidecar-0") == START
    assert until(OCTOBER, NODE, "sidecar-1") is None
    assert until(NOVEMBER, NODE, "sidecar-0") is None


def test_months_are_the_operators() -> None:
    turn = us(datetime(2026, 10, 31, 22, tzinfo=UTC))
    assert months_between(turn - 1, turn - 1, VILNIUS) == [OCTOBER]
    assert months_between(turn - 1, turn, VILNIUS) == [OCTOBER, NOVEMBER]
    year = months_between(
        us(datetime(2025, 12, 5, tzinfo=UTC)), us(datetime(2027, 1, 5, tzinfo=UTC)), VILNIUS
    )
    assert (len(year), str(year[0]), str(year[-1])) == (14, "2025-12", "2027-01")
