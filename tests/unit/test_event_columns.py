from __future__ import annotations

import numpy as np
from event_examples import ABORTED, CHAT, START_US, VOID, three_events

from metering.event import BANDS, EVENT_SCHEMA, Totals, bands, events_table, quantities, totals


def test_events_become_columns_numbered_from_the_first_sequence() -> None:
    table = events_table([CHAT, ABORTED], 11)
    assert table.schema == EVENT_SCHEMA
    assert table.column("sequence").to_pylist() == [11, 12]
    assert table.column("model").to_pylist() == ["m", "lėtas-modelis"]
    assert table.column("project").to_pylist() == [None, b"\x66" * 16]
    assert table.column("time").to_pylist()[0].isoformat() == "2026-10-05T08:00:00+00:00"


def test_a_void_takes_back_exactly_what_its_usage_event_counted() -> None:
    assert totals(events_table([CHAT, VOID], 1)) == Totals()


def test_unwitnessed_generated_tokens_count_as_completion_tokens() -> None:
    assert totals(three_events()) == Totals(
        requests=1,
        prompt_tokens=130_000,
        cached_tokens=200,
        completion_tokens=40,
        generated_tokens=25,
        reasoning_tokens=30,
        generated_reasoning_tokens=25,
        unwitnessed_requests=0,
    )


def test_an_amendment_counts_no_request_and_moves_reasoning_only_with_generated() -> None:
    amendment = CHAT._replace(
        kind="amendment", names=CHAT.request, request=b"\x88" * 16, time_us=START_US + 1
    )
    less = amendment._replace(prompt_tokens=0, cached_tokens=0, completion_tokens=0, generated_tokens=-5)
    columns = quantities(events_table([less], 1))
    assert columns["requests"].tolist() == [0]
    assert columns["generated_tokens"].tolist() == [-5]
    assert columns["generated_reasoning_tokens"].tolist() == [0]


def test_the_engines_later_figure_takes_back_that_nobody_witnessed_the_request() -> None:
    amendment = CHAT._replace(
        kind="amendment",
        names=CHAT.request,
        prompt_tokens=0,
        cached_tokens=0,
        completion_tokens=0,
        generated_tokens=5,
    )
    without_figure = amendment._replace(generated_tokens=None)
    assert totals(events_table([CHAT], 1)).unwitnessed_requests == 1
    assert totals(events_table([VOID], 1)).unwitnessed_requests == -1
    assert totals(events_table([ABORTED], 1)).unwitnessed_requests == 0
    assert totals(events_table([without_figure], 1)).unwitnessed_requests == 0
    both = totals(events_table([CHAT, amendment], 1))
    assert (both.requests, both.generated_tokens, both.unwitnessed_requests) == (1, 55, 0)


def test_sums_of_no_events_are_zero() -> None:
    assert totals(EVENT_SCHEMA.empty_table()) == Totals()


def test_totals_add_up() -> None:
    assert Totals(requests=1, audio_seconds=2) + Totals(requests=2) == Totals(requests=3, audio_seconds=2)


def test_a_prompt_is_in_the_band_whose_bound_it_exceeds() -> None:
    prompts = np.array([0, 1, 32_000, 32_001, -32_001, 128_000, 256_001, 1_000_000, 1_000_001, 10**12])
    assert bands(prompts).tolist() == [
        0,
        0,
        0,
        32_000,
        32_000,
        32_000,
        256_000,
        512_000,
        1_000_000,
        1_000_000,
    ]
    assert BANDS[0] == 0
