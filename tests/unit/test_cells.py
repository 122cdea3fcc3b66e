"""Cells are what a plain dictionary of sums gives, however the events are cut into batches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing import cells
from billing.cells import CELL_SCHEMA, KEYS, cells_of, cells_of_batch, mark_late, merged
from metering.event import BANDS, MAX_QUANTITY, QUANTITIES, Event, events_table, quantities

START_US = 1_790_000_000_000_000
HOUR_US = 3_600_000_000
IDS = [bytes([n]) * 16 for n in range(1, 4)]

quantity = st.one_of(
    st.integers(0, 5),
    st.sampled_from([bound + step for bound in BANDS for step in (0, 1)]),
    st.just(MAX_QUANTITY),
)


@st.composite
def events(draw: st.DrawFn) -> Event:
    kind = draw(st.sampled_from(["usage", "usage", "amendment", "void"]))
    sign = {"usage": 1, "amendment": draw(st.sampled_from([1, -1])), "void": -1}[kind]
    prompt, completion = draw(quantity), draw(quantity)
    generated = draw(st.none() | quantity)
    return Event(
        kind=kind,
        time_us=START_US + draw(st.integers(0, 3 * HOUR_US)),
        request=b"r" * 16,
        names=None if kind == "usage" else b"n" * 16,
        customer=draw(st.sampled_from(IDS)),
        project=draw(st.none() | st.sampled_from(IDS)),
        key=draw(st.none() | st.sampled_from(IDS)),
        endpoint="chat",
        model=draw(st.sampled_from(["qwen3-8b", "qwen3-32b"])),
        outcome=draw(st.sampled_from(["finished", "aborted"])),
        prompt_tokens=sign * prompt,
        cached_tokens=sign * draw(st.integers(0, prompt)),
        completion_tokens=sign * completion,
        reasoning_tokens=sign * draw(st.integers(0, completion)),
        generated_tokens=None if generated is None else sign * generated,
        audio_seconds=sign * draw(quantity),
        request_digest=None,
        whole_prompt=None if kind == "usage" else draw(st.none() | quantity),
    )


batches = st.lists(
    st.tuples(st.sampled_from(["node-1", "node-2"]), st.lists(events(), max_size=12)), max_size=5
)
Batches = Sequence[tuple[str, list[Event]]]


def by_hand(given_batches: Batches) -> dict[tuple[object, ...], list[int]]:
    """The same sums as a person would write them down, event by event."""
    sums: dict[tuple[object, ...], list[int]] = defaultdict(lambda: [0] * len(QUANTITIES))
    for node, batch in given_batches:
        for event in batch:
            prompt = event.prompt_tokens if event.whole_prompt is None else event.whole_prompt
            band = max((b for b in BANDS if abs(prompt) > b), default=0)
            hour = datetime.fromtimestamp(event.time_us // HOUR_US * 3600, UTC)
            generated = event.completion_tokens if event.generated_tokens is None else event.generated_tokens
            both = min(abs(event.reasoning_tokens), abs(generated))
            negative = event.reasoning_tokens < 0 or generated < 0
            of_event = [
                {"usage": 1, "amendment": 0, "void": -1}[event.kind],
                event.prompt_tokens,
                event.cached_tokens,
                event.completion_tokens,
                event.reasoning_tokens,
                generated,
                -both if negative else both,
                event.audio_seconds,
                {"usage": 1, "amendment": 0, "void": -1}[event.kind]
                if event.generated_tokens is None
                else {"usage": 0, "amendment": -1, "void": 0}[event.kind],
            ]
            cell = (
                hour,
                event.customer,
                event.project,
                event.key,
                node,
                event.model,
                event.outcome,
                band,
            )
            sums[cell] = [a + b for a, b in zip(sums[cell], of_event, strict=True)]
    return dict(sums)


def tables(given_batches: Batches) -> list[tuple[str, pa.Table]]:
    return [(node, events_table(batch, 1)) for node, batch in given_batches]


def as_sums(table: pa.Table) -> dict[tuple[object, ...], list[int]]:
    rows = table.to_pylist()
    found = {tuple(row[key] for key in KEYS): [row[name] for name in QUANTITIES] for row in rows}
    assert len(found) == len(rows), "a cell is one row"
    return found


@given(batches)
@settings(max_examples=80, deadline=None)
def test_cells_are_the_sums_of_their_events(given_batches: Batches) -> None:
    found = cells_of(tables(given_batches))
    assert found.schema == CELL_SCHEMA
    assert as_sums(found) == by_hand(given_batches)


@given(batches)
@settings(max_examples=20, deadline=None)
def test_cells_that_fold_alike_are_told_apart(given_batches: Batches) -> None:
    """As if all keys folded into the same 64 bits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "_FOLD", np.uint64(0))
        assert as_sums(cells_of(tables(given_batches))) == by_hand(given_batches)


@given(batches)
@settings(max_examples=20, deadline=None)
def test_cells_are_the_same_where_small_keys_do_not_fit_into_one_number(given_batches: Batches) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "_MOST", 3)
        assert as_sums(cells_of(tables(given_batches))) == by_hand(given_batches)


def test_no_cells_make_none() -> None:
    empty = CELL_SCHEMA.empty_table()
    assert merged([empty, empty], always=True).num_rows == merged([empty]).num_rows == 0


def test_where_nearly_every_event_is_a_cell_rows_stay_as_they_are() -> None:
    """Summing would cost more than it saves; a rebuild asks for one row a cell all the same."""
    usage = Event(
        "usage",
        START_US,
        b"r" * 16,
        None,
        IDS[0],
        None,
        None,
        "chat",
        "m",
        "finished",
        1,
        0,
        1,
        0,
        None,
        0,
        None,
    )
    many = [usage._replace(customer=n.to_bytes(16, "big")) for n in range(2_000)]
    events = events_table([*many, *many[:100]], 1)
    rows = cells_of_batch("node-1", events, quantities(events))
    assert (rows.num_rows, merged([rows]).num_rows, cells_of([("node-1", events)]).num_rows) == (
        2_100,
        2_100,
        2_000,
    )
    twice = merged([rows, rows])
    assert as_sums(twice) == by_hand([("node-1", 2 * [*many, *many[:100]])])


def test_an_amendment_is_priced_by_the_whole_prompt_of_its_request_and_so_is_what_takes_it_back() -> None:
    usage = Event(
        "usage", START_US, b"r" * 16, None, IDS[0], None, None, "chat", "m",
        "finished", 150_000, 0, 50, 0, None, 0, None,
    )  # fmt: skip
    amendment = usage._replace(
        kind="amendment", names=b"r" * 16, prompt_tokens=0, cached_tokens=100_000, completion_tokens=0,
        generated_tokens=47, whole_prompt=150_000,
    )  # fmt: skip
    void = amendment._replace(
        kind="void", cached_tokens=-100_000, prompt_tokens=-100_000, generated_tokens=-47
    )
    [cell] = cells_of(tables([("node-1", [usage, amendment])])).to_pylist()
    assert (cell["band"], cell["prompt_tokens"], cell["cached_tokens"]) == (128_000, 150_000, 100_000)
    assert cells_of(tables([("node-1", [void])]))["band"].to_pylist() == [128_000]


def test_an_amendment_that_brings_the_prompt_itself_is_of_the_band_of_the_total() -> None:
    unknown = Event(
        "usage", START_US, b"r" * 16, None, IDS[0], None, None, "responses", "m",
        "aborted", 0, 0, 5, 0, None, 0, None,
    )  # fmt: skip
    amendment = unknown._replace(
        kind="amendment", names=b"r" * 16, prompt_tokens=150_000, completion_tokens=0, generated_tokens=2,
        whole_prompt=150_000,
    )  # fmt: skip
    found = cells_of(tables([("node-1", [unknown, amendment])])).to_pylist()
    assert {cell["band"]: cell["completion_tokens"] for cell in found} == {0: 5, 128_000: 0}


def test_more_keys_than_an_integer_holds_are_folded_all_the_same() -> None:
    """Eight key columns of 600 values each would need 74 bits."""
    many = [
        Event(
            kind="usage",
            time_us=START_US + n * HOUR_US,
            request=b"r" * 16,
            names=None,
            customer=n.to_bytes(16, "big"),
            project=n.to_bytes(16, "big"),
            key=n.to_bytes(16, "big"),
            endpoint="chat",
            model=f"model-{n}",
            outcome="finished",
            prompt_tokens=n,
            cached_tokens=0,
            completion_tokens=1,
            reasoning_tokens=0,
            generated_tokens=None,
            audio_seconds=0,
            request_digest=None,
        )
        for n in range(6000)
    ]
    given_batches = [(f"node-{n}", many[n::10] + many[:5]) for n in range(10)]
    assert as_sums(cells_of(tables(given_batches))) == by_hand(given_batches)


def test_lateness_is_asked_once_an_hour_and_marks_its_cells() -> None:
    batch = [
        Event(
            "usage", START_US + n * HOUR_US // 2, b"r" * 16, None, IDS[n % 2], None, None, "chat", "m",
            "finished", 1, 0, 1, 0, None, 0, None,
        )
        for n in range(6)
    ]  # fmt: skip
    asked: list[datetime] = []

    def is_late(hour: datetime) -> bool:
        asked.append(hour)
        return hour.hour % 2 == 0

    marked = mark_late(cells_of(tables([("node-1", batch)])), is_late)
    assert len(asked) == len(set(asked)) == len(set(marked["hour"].to_pylist()))
    assert all(row["late"] == (row["hour"].hour % 2 == 0) for row in marked.to_pylist())
