"""From sealed batches through intake to `tally reconcile`: facts are kept, compared, and each thing that was tampered
with is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from intake_world import NODE, OPERATOR, START, World, Writer, make_world, us
from small_books import BASE, TARIFF
from usage_cells import site_documents

from adapters.postgres.database import Database
from adapters.postgres.site import site_store
from adapters.postgres.streams import read_streams
from adapters.reconciling import Asked, has_difference, reconciliation
from billing.period import Period
from billing.streams import has_difference as streams_differ
from metering.fact import Fact, Serves, Sibling, Span, Unmetered
from metering.refusal import Refusal

pytestmark = pytest.mark.anyio

SECOND = 1_000_000
OCTOBER = Period(2026, 10)


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> World:
    made = await make_world(database, tmp_path)
    async with site_store(database) as store:
        await store.save(site_documents(BASE + TARIFF))
    return made


def span(number: int, writer: Writer, begins_us: int, **said: Any) -> Span:
    """A span up to now, of a model that engine and events call alike; nothing was counted but what is said."""
    figures = dict.fromkeys(Span.__slots__, 0)
    return Span(
        **{
            **figures,
            "number": number,
            "model": "qwen3-32b",
            "from_us": begins_us,
            "to_us": writer.time_us,
            "ended": "quiet",
            "witness": "yes",
            **said,
        }
    )


class Node:
    """A sidecar that serves and an engine that counts: each `serve` is sealed, followed by the span's own seal."""

    def __init__(self, world: World, writer: Writer | None = None) -> None:
        self.world, self.writer = world, writer or Writer()
        self.number = 0

    async def serve(
        self, count: int, *, facts: Sequence[Fact] = (), events: dict[str, Any] | None = None, **said: Any
    ) -> None:
        """`count` requests of 100 prompt and 10 generated tokens; `said` instead of what the engine counted of them."""
        begins_us = self.writer.time_us
        batch = self.writer.seal(count, **(events or {}))
        counted = {"engine_prompt": 100 * count, "engine_generated": 10 * count, "lines": count, **said}
        self.writer.time_us += SECOND
        made = span(self.number, self.writer, begins_us, **counted)
        self.number += 1
        self.world.wire.send(batch, self.writer.seal(0, facts=[made, *facts]))
        await self.world.intake().take_pending()


async def node(world: World) -> Node:
    made = Node(world)
    await world.enrol(made.writer)
    return made


async def ask(world: World, **asked: Any) -> dict[str, Any]:
    return await reconciliation(world.database, Asked(**{"now": START + timedelta(hours=2), **asked}))


async def test_what_was_sealed_of_the_engine_is_what_was_sealed_of_requests(world: World) -> None:
    served = await node(world)
    await served.serve(3)
    await served.serve(2, engine_prompt=250, repeated_prompt=50, engine_generated=19, late_generated=1)
    found = await ask(world)
    [row] = found["nodes"]
    assert {name: row[name] for name in ("operator", "node", "model", "requests", "witness", "lines")} == {
        "operator": OPERATOR, "node": NODE, "model": "qwen3-32b", "requests": 5, "witness": "yes", "lines": 5,
    }  # fmt: skip
    assert (row["engine_prompt"], row["events_prompt"], row["unaccounted_prompt"]) == (550, 500, 0)
    assert (row["engine_generated"], row["events_generated"], row["unaccounted_generated"]) == (49, 50, 0)
    assert (row["causes"]["repeated_prompt"], row["causes"]["late_generated"]) == (50, 1)
    assert row["unwitnessed_requests"] == 5, "usage_event has no engine's figure"
    assert (found["unaccounted"], found["differences"], has_difference(found)) == (0, [], False)


async def test_an_event_that_is_not_there_a_raised_counter_and_a_deleted_line_each_show(world: World) -> None:
    served = await node(world)
    await served.serve(3, engine_prompt=400, engine_generated=40)
    found = await ask(world)
    [row] = found["differences"]
    assert (row["unaccounted_prompt"], row["unaccounted_generated"], found["unaccounted"]) == (100, 10, 110)
    assert row["hour"] == "2026-10-05T11:00:00+03:00"
    assert "beside the sidecar" in row["likely"][0]
    await served.serve(1, engine_generated=17)
    assert (await ask(world))["unaccounted"] == 117
    served.writer.time_us += 3_600 * SECOND
    await served.serve(2, lines=1, lines_missing=1)
    found = await ask(world)
    assert [(row["hour"], row["lines_missing"]) for row in found["differences"]] == [
        ("2026-10-05T11:00:00+03:00", 0),
        ("2026-10-05T12:00:00+03:00", 1),
    ]
    assert found["unaccounted"] == 117
    assert has_difference(found)


async def test_hours_are_told_apart_where_they_are_asked_for(world: World) -> None:
    served = await node(world)
    await served.serve(1)
    served.writer.time_us += 2 * 3_600 * SECOND
    await served.serve(4)
    rows = (await ask(world, by_hour=True))["nodes"]
    assert [(row["hour"], row["requests"]) for row in rows] == [
        ("2026-10-05T11:00:00+03:00", 1),
        ("2026-10-05T13:00:00+03:00", 4),
    ]
    assert (await ask(world, period=Period(2026, 9)))["nodes"] == []
    assert (await ask(world, period=OCTOBER))["nodes"][0]["requests"] == 5


async def test_an_import_on_the_same_node_is_nothing_that_its_engine_counted(world: World) -> None:
    served, imported = await node(world), Writer("import-1", kind="import", epoch="b" * 32)
    await world.enrol(imported)
    await served.serve(2)
    world.wire.send(imported.seal(7, final=True))
    await world.intake().take_pending()
    found = await ask(world)
    assert [row["requests"] for row in found["nodes"]] == [2]
    assert (found["unchecked"], has_difference(found)) == ([], False)


async def test_a_batch_that_came_twice_and_a_span_that_was_sealed_twice_count_once(world: World) -> None:
    served = await node(world)
    begins_us = served.writer.time_us
    batch = served.writer.seal(3)
    made = span(0, served.writer, begins_us, engine_prompt=300, engine_generated=30)
    beats = [served.writer.seal(0, facts=[made]), served.writer.seal(0, facts=[made])]
    world.wire.send(batch, *beats, batch)
    await world.intake().take_pending()
    found = await ask(world)
    assert (found["nodes"][0]["engine_prompt"], has_difference(found)) == (300, False)


async def test_a_name_that_the_engine_does_not_count_by_is_counted_under_its_model(world: World) -> None:
    served = await node(world)
    await served.serve(2, events={"model": "support"}, facts=[Serves("qwen3-32b", "support")])
    found = await ask(world)
    assert ([row["model"] for row in found["nodes"]], has_difference(found)) == (["qwen3-32b"], False)


async def test_a_node_that_nobody_scraped_and_what_came_since_are_named_and_no_difference(
    world: World,
) -> None:
    silent = Writer(node="kaunas-1")
    served = await node(world)
    await world.enrol(silent)
    await served.serve(2)
    world.wire.send(silent.seal(1), served.writer.seal(3))
    await world.intake().take_pending()
    found = await ask(world)
    assert [(each["node"], each["why"], each["requests"]) for each in found["unchecked"]] == [
        ("kaunas-1", "no_spans", 1),
        (NODE, "since_quiet_point", 3),
    ]
    assert (found["compared_requests"], found["unchecked_requests"]) == (2, 4)
    assert not has_difference(found)
    assert (await ask(world, node=NODE))["unchecked"][0]["node"] == NODE


async def test_what_stays_unchecked_for_more_than_a_day_is_a_difference(world: World) -> None:
    served = await node(world)
    await served.serve(2)
    world.wire.send(served.writer.seal(3))
    await world.intake().take_pending()
    for hours, overdue in ((24, False), (24.1, True)):
        found = await ask(world, now=START + timedelta(hours=hours))
        assert ([each["overdue"] for each in found["unchecked"]], has_difference(found)) == (
            [overdue],
            overdue,
        )
        assert (found["differences"], found["unaccounted"]) == ([], 0)


async def test_an_unmetered_interval_is_a_difference_until_it_is_accepted(world: World) -> None:
    served = await node(world)
    at_us = us(START)
    await served.serve(1, facts=[Unmetered(at_us, at_us + 60 * SECOND, 9)])
    found = await ask(world, period=OCTOBER)
    [gap] = found["unmetered"]
    assert (gap["node"], gap["requests"], gap["reason"]) == (NODE, 9, None)
    assert has_difference(found)


async def test_two_lanes_that_both_speak_for_a_node_are_named_as_what_is_wrong(world: World) -> None:
    """They do not share a data folder, so neither knows of the other."""
    one, other = Node(world), Node(world, Writer("west", epoch="b" * 32))
    await world.enrol(one.writer, other.writer)
    other.writer.time_us += 2 * SECOND
    await one.serve(2, engine_prompt=300, engine_generated=30)
    await other.serve(1, engine_prompt=300, engine_generated=30)
    [row] = (await ask(world))["differences"]
    assert (row["unaccounted_prompt"], row["unaccounted_generated"]) == (300, 30)
    assert row["likely"][0].startswith("several lanes said what the engine counted (sidecar-0, west)")


async def test_spans_whose_numbers_do_not_add_up_are_named(world: World) -> None:
    served = await node(world)
    await served.serve(1)
    served.number = 3
    await served.serve(1)
    found = await ask(world)
    assert found["missing_spans"] == [
        {"operator": OPERATOR, "node": NODE, "lane": "sidecar-0", "first": 1, "last": 2}
    ]
    assert has_difference(found)


async def test_a_node_that_nobody_declared_is_refused(world: World) -> None:
    with pytest.raises(Refusal) as refused:
        await ask(world, node="nowhere")
    assert (refused.value.code, NODE in refused.value.remedy) == ("unknown_node", True)


async def test_every_fact_of_an_accepted_seal_is_a_row_with_its_time(world: World) -> None:
    served = await node(world)
    sibling = Sibling("sidecar-1", "b" * 32, 4, "c" * 64)
    await served.serve(
        1, facts=[Unmetered(us(START), us(START) + SECOND, 2), Serves("qwen3-32b", "x"), sibling]
    )
    rows = await world.rows("SELECT number, rank, kind, begins, ends FROM seal_fact ORDER BY number, rank")
    sealed_at = START + timedelta(seconds=3)
    assert rows == [
        (1, 0, "span", START, START + timedelta(seconds=2)),
        (1, 1, "unmetered", START, START + timedelta(seconds=1)),
        (1, 2, "serves", sealed_at, sealed_at),
    ]
    [told] = await world.rows("SELECT lane, epoch, number, hash, first_told, told FROM sibling")
    assert told == ("sidecar-1", "b" * 32, 4, "c" * 64, sealed_at, sealed_at)
    sums = await world.rows("SELECT model, first_time, last_time, requests, prompt_tokens FROM seal_sum")
    assert sums == [("qwen3-32b", START + timedelta(seconds=1), START + timedelta(seconds=1), 1, 100)]


async def test_a_lane_that_vanished_is_named_by_what_its_sibling_told(world: World) -> None:
    first, other = Writer(), Writer("sidecar-1", epoch="b" * 32)
    await world.enrol(first, other)
    gone = [other.seal(1) for _ in range(3)]
    told = Sibling("sidecar-1", "b" * 32, 2, gone[-1].hash)
    world.wire.send(
        first.seal(1, facts=[replace(told, number=0, hash=gone[0].hash)]), first.seal(1, facts=[told])
    )
    world.wire.send(gone[0])
    await world.intake().take_pending()
    found: dict[str, Any] = await read_streams(world.database, world.now)
    [missing] = found["missing_siblings"]
    assert (missing["lane"], missing["number"], missing["said"]) == (
        "sidecar-1",
        2,
        "2026-10-05T08:00:02.000000Z",
    )
    assert streams_differ(found)
    just_told = await read_streams(world.database, START + timedelta(seconds=30))
    assert just_told["missing_siblings"] == [], "two lanes' batches travel apart"
    world.wire.send(*gone[1:])
    await world.intake().take_pending()
    found = await read_streams(world.database, world.now)
    assert (found["missing_siblings"], streams_differ(found)) == ([], False)
