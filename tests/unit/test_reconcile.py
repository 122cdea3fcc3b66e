"""The arithmetic of reconciliation, on worlds whose truth is known: what was served, sealed and scraped when."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, replace

import pytest
from event_examples import START_US
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.fact import SERIES, Serves, Span
from metering.reconcile import (
    BEFORE_FIRST_SPAN,
    COUNTERS_LOST,
    HOUR_US,
    NO_SPANS,
    SINCE_QUIET_POINT,
    NodeReconciled,
    Numbers,
    SealedServes,
    reconcile_node,
    whole_rows,
)
from metering.reconcile_row import Row
from metering.stretch import STILL_WRITTEN_US, SealedSpan, SealedSum

SECOND = 1_000_000
FIRST, OTHER = "sidecar-0", "sidecar-1"


def span(number: int, begins_s: float, ends_s: float, **said: object) -> SealedSpan:
    """A span of the model m, in seconds from 08:00, with only what is said of it."""
    figures: dict[str, object] = {
        name: 0
        for name in Span.__slots__
        if name.startswith(
            ("engine_", "late_", "repeated_", "audio_", "unmetered_", "lost_", "lines", "unwitnessed_")
        )
    }
    times = {"from_us": START_US + int(begins_s * SECOND), "to_us": START_US + int(ends_s * SECOND)}
    fixed = {"number": number, "model": "m", "ended": "quiet", "witness": "yes"}
    return SealedSpan(FIRST, Span(**{**fixed, **times, **figures, **said}))  # type: ignore[arg-type]  # by name


def batch(
    first_s: float, last_s: float, prompt: int, generated: int, *, lane: str = FIRST, model: str = "m"
) -> SealedSum:
    return SealedSum(
        lane,
        model,
        START_US + int(first_s * SECOND),
        START_US + int(last_s * SECOND),
        1,
        prompt,
        generated,
        0,
    )


def only(found: NodeReconciled) -> Row:
    [row] = found.rows
    return row


def test_what_the_engine_counted_is_what_was_written_down() -> None:
    found = reconcile_node(
        [span(0, 0, 100, engine_prompt=30, engine_generated=9)], [batch(1, 5, 10, 4), batch(6, 9, 20, 5)]
    )
    row = only(found)
    assert (row.requests, row.engine_prompt, row.events_prompt, row.events_generated) == (2, 30, 30, 9)
    assert (row.unaccounted_prompt, row.unaccounted_generated, found.unchecked) == (0, 0, ())
    assert not found.differs


def test_each_known_cause_is_taken_as_it_was_measured() -> None:
    said = span(
        0, 0, 100, engine_prompt=1_000, engine_generated=500, late_prompt=7, late_generated=3, repeated_prompt=150,
        audio_prompt=50, unmetered_prompt=50, unmetered_generated=20,
    )  # fmt: skip
    row = only(reconcile_node([said], [batch(1, 5, 1_000 + 7 - 200 - 50, 500 + 3 - 20)]))
    assert (row.unaccounted_prompt, row.unaccounted_generated) == (0, 0)


def test_the_sound_of_another_lane_is_taken_where_it_was_heard_and_hinders_no_cut() -> None:
    """It says its own, from the first to the last of its events."""
    spans = [
        span(0, 0, 3_500, engine_prompt=10 + 31),
        span(1, 3_500, 7_100, engine_prompt=20 + 31),
        replace(span(0, 100, 101, audio_prompt=31), lane=OTHER),
        replace(span(1, 4_000, 4_000, audio_prompt=31), lane=OTHER),
    ]
    sums = [
        batch(50, 60, 10, 0),
        batch(100, 101, 0, 0, lane=OTHER),
        batch(3_700, 3_710, 20, 0),
        batch(4_000, 4_000, 0, 0, lane=OTHER),
    ]
    found = reconcile_node(spans, sums)
    assert [(row.audio_prompt, row.unaccounted, row.requests) for row in found.rows] == [(31, 0, 2)] * 2
    assert not found.differs


def test_where_counters_were_lost_the_lines_stand_for_them() -> None:
    said = span(0, 0, 100, ended="restart", lost_prompt=40, lost_generated=11, lines=3)
    row = only(reconcile_node([said], [batch(1, 5, 40, 11)]))
    assert (row.unaccounted, row.restarts, row.unscraped) == (0, 1, 0)


@pytest.mark.parametrize(
    ("said", "prompt", "generated"),
    [
        ({"engine_generated": 500 + 7}, 0, 7),
        ({"engine_prompt": 1_000 + 12, "engine_generated": 500 + 30}, 12, 30),
        ({"engine_generated": 500 - 2}, 0, -2),
    ],
)
def test_what_is_left_has_a_sign_and_is_a_difference(
    said: dict[str, object], prompt: int, generated: int
) -> None:
    found = reconcile_node(
        [span(0, 0, 100, **{"engine_prompt": 1_000, "engine_generated": 500, **said})],
        [batch(1, 5, 1_000, 500)],
    )
    assert (only(found).unaccounted_prompt, only(found).unaccounted_generated) == (prompt, generated)
    assert found.differs


def test_a_missing_line_is_a_difference_even_where_the_sums_agree() -> None:
    assert reconcile_node(
        [span(0, 0, 100, engine_prompt=1, engine_generated=1, lines_missing=1)], [batch(1, 5, 1, 1)]
    ).differs


def test_a_span_that_was_sealed_twice_counts_once() -> None:
    said = span(0, 0, 100, engine_prompt=30, engine_generated=9)
    assert reconcile_node([said, said], [batch(1, 5, 30, 9)]) == reconcile_node([said], [batch(1, 5, 30, 9)])


def test_a_number_that_is_missing_or_stands_for_two_spans_is_named() -> None:
    spans = [span(n, n * 10, n * 10 + 9, engine_prompt=1) for n in (3, 4, 7)]
    sums = [batch(n * 10 + 1, n * 10 + 2, 1, 0) for n in (3, 4, 7)]
    found = reconcile_node(spans, sums)
    assert (found.missing_spans, found.differs) == ((Numbers(FIRST, 5, 6),), True)
    other = replace(spans[1], span=replace(spans[1].span, late_prompt=1))
    assert reconcile_node([*spans, other], sums).doubled_spans == (Numbers(FIRST, 4, 4),)


def test_a_lane_that_lost_what_it_kept_of_its_engine_counts_its_spans_in_another_series() -> None:
    numbered = (0, 1, 7 * SERIES, 7 * SERIES + 1)
    spans = [span(n, at * 10, at * 10 + 9, engine_prompt=1) for at, n in enumerate(numbered)]
    sums = [batch(at * 10 + 1, at * 10 + 2, 1, 0) for at in range(4)]
    assert not reconcile_node(spans, sums).differs
    missing = reconcile_node([*spans, span(7 * SERIES + 4, 40, 49, engine_prompt=1)], sums).missing_spans
    assert missing == (Numbers(FIRST, 7 * SERIES + 2, 7 * SERIES + 3),)


def test_an_alias_counts_under_the_model_that_the_engine_counts_it_under() -> None:
    spans = [
        span(0, 0, 100, engine_prompt=5, engine_generated=1),
        span(1, 0, 100, model="other", engine_prompt=9),
    ]
    sums = [batch(1, 2, 5, 1, model="support"), batch(3, 4, 9, 0, model="moved")]
    serves = [
        SealedServes(Serves("m", "support"), START_US + 50 * SECOND),
        SealedServes(Serves("m", "moved"), START_US),
        SealedServes(Serves("other", "moved"), START_US + 2 * SECOND),
    ]
    found = reconcile_node(spans, sums, serves)
    assert [(row.model, row.unaccounted) for row in found.rows] == [("m", 0), ("other", 0)]
    assert reconcile_node(spans, sums).differs


def test_hours_are_rows_and_a_span_across_their_turn_belongs_to_the_hour_of_its_first_event() -> None:
    spans = [
        span(0, 0, 3_500, engine_prompt=10),
        span(1, 3_500, 3_700, engine_prompt=20),
        span(2, 3_700, 7_100, engine_prompt=40),
    ]
    sums = [batch(100, 110, 10, 0), batch(3_550, 3_650, 20, 0), batch(4_000, 4_001, 40, 0)]
    found = reconcile_node(spans, sums)
    assert [(row.hour_us - START_US, row.events_prompt) for row in found.rows] == [(0, 30), (HOUR_US, 40)]
    assert found.rows[0].to_us == START_US + 3_700 * SECOND
    assert (whole_rows(found.rows)[0].events_prompt, found.differs) == (70, False)


def test_one_hour_alone_is_what_it_is_among_the_others() -> None:
    spans = [
        span(0, 0, 3_500, engine_prompt=10),
        span(1, 3_500, 7_100, engine_prompt=40),
        span(2, 7_100, 7_300),
    ]
    sums = [batch(100, 110, 10, 0), batch(4_000, 4_001, 40, 0), batch(8_000, 8_001, 5, 0)]
    whole = reconcile_node(spans, sums)
    second = reconcile_node(spans, sums, within_us=(START_US + HOUR_US, START_US + 2 * HOUR_US))
    assert (second.rows, second.unchecked) == (whole.rows[1:], ())
    third = reconcile_node(spans, sums, within_us=(START_US + 2 * HOUR_US, START_US + 3 * HOUR_US))
    assert (third.rows, third.unchecked) == ((), whole.unchecked)


def test_an_error_of_one_hour_is_not_hidden_by_its_opposite_in_another() -> None:
    spans = [span(0, 0, 100, engine_prompt=11), span(1, 4_000, 4_100, engine_prompt=9)]
    found = reconcile_node(spans, [batch(1, 2, 10, 0), batch(4_001, 4_002, 10, 0)])
    assert [row.unaccounted_prompt for row in found.rows] == [1, -1]
    assert (whole_rows(found.rows)[0].unaccounted, found.differs) == (0, True)


def test_a_quiet_point_inside_a_batch_compares_nothing_there() -> None:
    """The batch holds requests of both spans, so only both together can be compared."""
    spans = [span(0, 0, 100, engine_prompt=10), span(1, 100, 4_000, engine_prompt=20)]
    found = reconcile_node(spans, [batch(95, 105, 18, 0), batch(200, 201, 12, 0)])
    assert (only(found).events_prompt, found.differs) == (30, False)


def test_what_came_since_the_last_quiet_point_is_unchecked_and_no_difference() -> None:
    found = reconcile_node([span(0, 0, 100, engine_prompt=10)], [batch(1, 2, 10, 0), batch(101, 102, 7, 3)])
    [tail] = found.unchecked
    assert (tail.why, tail.requests, tail.prompt_tokens, tail.generated_tokens) == (
        SINCE_QUIET_POINT,
        1,
        7,
        3,
    )
    assert (tail.from_us, found.differs) == (START_US + 101 * SECOND, False)


def test_what_was_served_before_anything_was_scraped_is_unchecked() -> None:
    found = reconcile_node([span(0, 50, 100, engine_prompt=10)], [batch(1, 2, 7, 3), batch(60, 61, 10, 0)])
    assert [(each.why, each.prompt_tokens) for each in found.unchecked] == [(BEFORE_FIRST_SPAN, 7)]
    assert [each.why for each in reconcile_node([], [batch(1, 2, 7, 3)]).unchecked] == [NO_SPANS]
    assert reconcile_node([], []) == NodeReconciled((), ())


def test_another_lane_may_write_for_some_seconds_after_the_last_quiet_point() -> None:
    said = [span(0, 0, 100, engine_prompt=10)]
    before = reconcile_node(said, [batch(1, 2, 4, 0), batch(99, 105, 6, 0, lane=OTHER)])
    assert (only(before).events_prompt, before.unchecked, before.differs) == (10, (), False)


def test_another_lane_writes_of_a_response_in_the_background_most_of_a_minute_later() -> None:
    """Asked for at pauses, and read to its end."""
    spans = [span(0, 0, 3_590, engine_prompt=10), span(1, 3_590, 3_800, engine_prompt=3)]
    sums = [batch(1, 2, 4, 0), batch(3_601, 3_640, 6, 0, lane=OTHER), batch(3_700, 3_701, 3, 0)]
    assert not reconcile_node(spans, sums).differs


def test_whether_another_lanes_seconds_are_of_before_is_told_by_the_next_quiet_point() -> None:
    """Its 3 tokens may be of a request that began after the quiet point: nothing is compared until that is known."""
    sums = [batch(1, 2, 10, 0), batch(103, 104, 3, 0, lane=OTHER)]
    found = reconcile_node([span(0, 0, 100, engine_prompt=10)], sums)
    assert (found.rows, [each.prompt_tokens for each in found.unchecked]) == ((), [13])
    found = reconcile_node([span(0, 0, 100, engine_prompt=10), span(1, 100, 200, engine_prompt=3)], sums)
    assert (only(found).events_prompt, found.unchecked, found.differs) == (13, (), False)


@pytest.mark.parametrize(
    "said",
    [
        {"ended": "unscraped", "witness": "no", "unwitnessed_requests": 1},
        {"ended": "restart", "witness": "no", "unwitnessed_requests": 1},
        {"ended": "restart", "witness": "aside", "unwitnessed_requests": 1},
        {"ended": "unscraped", "witness": "yes", "unwitnessed_requests": 1},
    ],
)
def test_events_explain_nothing_where_nobody_else_tells_of_the_engine(said: dict[str, object]) -> None:
    """Whatever the engine did, the span says just what the events say: they are not compared with themselves."""
    spans = [
        span(0, 0, 100, lost_prompt=10, lost_generated=4, **said),
        span(1, 100, 200, engine_prompt=20, engine_generated=5),
    ]
    found = reconcile_node(spans, [batch(1, 5, 10, 4), batch(101, 102, 20, 5)])
    assert (only(found).events_prompt, only(found).unaccounted, found.differs) == (20, 0, False)
    [lost] = found.unchecked
    assert (lost.why, lost.requests, lost.prompt_tokens, lost.generated_tokens) == (COUNTERS_LOST, 1, 10, 4)
    assert lost.waits_from_us == START_US + SECOND


def test_a_line_that_is_missing_is_a_difference_also_where_nothing_can_be_compared() -> None:
    said = span(0, 0, 100, ended="restart", witness="aside", lost_prompt=10, lines=3, lines_missing=1)
    found = reconcile_node([said], [batch(1, 5, 10, 4)])
    assert (only(found).lines_missing, only(found).requests, only(found).unaccounted) == (1, 0, 0)
    assert found.differs


def test_requests_without_a_token_wait_for_nothing() -> None:
    [tail] = reconcile_node(
        [span(0, 0, 100, engine_prompt=1)], [batch(1, 2, 1, 0), batch(101, 102, 0, 0)]
    ).unchecked
    assert (tail.why, tail.requests, tail.waits_from_us) == (SINCE_QUIET_POINT, 1, None)


@dataclass(frozen=True)
class Served:
    """One request as it happened: tokens, and when its event was written."""

    period: int
    lane: str
    model: str
    at_us: int
    prompt: int
    generated: int


def world(seed: int, lanes: int) -> tuple[list[SealedSpan], list[SealedSum], list[Served]]:
    """Some hours of service on a node: periods of requests, each followed by a quiet point but the last; what each
    lane wrote is sealed in batches, cut anywhere."""
    chance = random.Random(seed)
    now_us = START_US
    spans: list[SealedSpan] = []
    served: list[Served] = []
    periods = chance.randint(1, 40)
    for period in range(periods):
        begins_us = now_us
        now_us += chance.randint(1, 600) * SECOND
        counted: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for _ in range(chance.randint(0, 12)):
            lane = chance.randrange(lanes)
            after_us = chance.choice([0, chance.randint(0, STILL_WRITTEN_US)]) if lane else 0
            at_us = chance.randint(begins_us + 1, now_us) + after_us
            model = chance.choice("mn")
            served.append(
                Served(period, f"sidecar-{lane}", model, at_us, chance.randint(1, 99), chance.randint(0, 99))
            )
            counted[model][0] += served[-1].prompt
            counted[model][1] += served[-1].generated
        if period < periods - 1 or chance.random() < 0.5:
            for model, (prompt, generated) in sorted(counted.items()):
                said = span(len(spans), 0, 0, model=model, engine_prompt=prompt, engine_generated=generated)
                spans.append(replace(said, span=replace(said.span, from_us=begins_us, to_us=now_us)))
            now_us += 1
        now_us += chance.choice([0, 0, chance.randint(0, 3_000) * SECOND])
    return spans, sealed(served, chance), served


def sealed(served: list[Served], chance: random.Random) -> list[SealedSum]:
    sums = []
    for lane in sorted({each.lane for each in served}):
        of_lane = sorted((each for each in served if each.lane == lane), key=lambda each: each.at_us)
        while of_lane:
            count = chance.randint(1, 5)
            taken, of_lane = of_lane[:count], of_lane[count:]
            for model in sorted({each.model for each in taken}):
                of_model = [each for each in taken if each.model == model]
                sums.append(
                    SealedSum(
                        lane,
                        model,
                        of_model[0].at_us,
                        of_model[-1].at_us,
                        len(of_model),
                        sum(each.prompt for each in of_model),
                        sum(each.generated for each in of_model),
                        0,
                    )
                )
    return sums


@given(st.integers(0, 2**32), st.integers(1, 3))
@settings(max_examples=300, deadline=None)
def test_whatever_was_served_and_sealed_nothing_true_is_called_a_difference(seed: int, lanes: int) -> None:
    spans, sums, served = world(seed, lanes)
    found = reconcile_node(spans, sums)
    assert not found.differs, [row for row in found.rows if row.differs]
    in_rows = sum(row.events_prompt for row in found.rows)
    unchecked = sum(each.prompt_tokens for each in found.unchecked)
    assert in_rows + unchecked == sum(each.prompt for each in served), "every event is somewhere, once"


@given(st.integers(0, 2**32), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_neither_order_nor_repeats_change_anything(seed: int, chance: random.Random) -> None:
    spans, sums, _ = world(seed, 2)
    shuffled_spans, shuffled_sums = spans * 2, list(sums)
    chance.shuffle(shuffled_spans)
    chance.shuffle(shuffled_sums)
    assert reconcile_node(shuffled_spans, shuffled_sums) == reconcile_node(spans, sums)


@given(st.integers(0, 2**32), st.integers(1, 50))
@settings(max_examples=200, deadline=None)
def test_tokens_added_to_a_counter_and_events_that_are_gone_show_as_exactly_that(
    seed: int, tokens: int
) -> None:
    spans, sums, served = world(seed, 1)
    chance = random.Random(seed + 1)
    if not spans:
        return
    whole = reconcile_node(spans, sums)
    checked = {row.model for row in whole.rows}
    at = chance.randrange(len(spans))
    more = replace(spans[at].span, engine_generated=spans[at].span.engine_generated + tokens)
    found = reconcile_node([*spans[:at], replace(spans[at], span=more), *spans[at + 1 :]], sums)
    assert sum(row.unaccounted_generated for row in found.rows) in (tokens, 0)
    if not whole.unchecked:
        assert (sum(row.unaccounted for row in found.rows), found.differs) == (tokens, True)
        gone = chance.choice(served)
        assert gone.model in checked
        without = [each for each in served if each is not gone]
        found = reconcile_node(spans, sealed(without, chance))
        assert sum(row.unaccounted_prompt for row in found.rows) == gone.prompt
        assert sum(row.unaccounted_generated for row in found.rows) == gone.generated
