"""Told and lines, in whatever order, become one event a request."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.engine_join import PATIENCE_S, SETTLE_S, Due, Joiner
from metering.engine_lines import Freed
from metering.engine_request import RequestLines
from metering.event import Event
from metering.told import Joined

R = bytes(range(16))


def told(request: bytes = R, **changed: object) -> Event:
    """A finished request, as HTTP told it: 7 prompt tokens, 3 of them cached, 5 completion tokens."""
    event = Event(
        "usage",
        1,
        request,
        None,
        b"C" * 16,
        None,
        None,
        "chat",
        "tiny",
        "finished",
        7,
        3,
        5,
        0,
        None,
        0,
        None,
    )
    return event._replace(**changed)  # type: ignore[arg-type]  # the tests' own words


SOUND = told(
    endpoint="transcriptions", prompt_tokens=0, cached_tokens=0, completion_tokens=0, audio_seconds=9
)


def line(request: bytes = R, *, child: int | None = None, **changed: object) -> Freed:
    """The engine's line: 31 prompt tokens, 16 of them cached, 12 output tokens."""
    external = f"chatcmpl-{request.hex()}"
    internal = f"{'' if child is None else f'{child}_'}{external}-1a2b3c4d"
    freed = Freed(0, "tiny", None, internal, external, "aborted", 31, 16, 12, True)
    return replace(freed, **changed)  # type: ignore[arg-type]


def joiner(**options: int) -> Joiner:
    numbers = count(1)
    return Joiner(mint=lambda: next(numbers).to_bytes(16), **options)


def joins(found: Due) -> list[Joined]:
    return [joined for _, joined in found.joined]


def due(it: Joiner, now_s: float) -> Due:
    return it.due(now_s, now_us=9)


def test_a_request_is_due_as_soon_as_its_line_is_there_whichever_came_first() -> None:
    for line_first in (True, False):
        it = joiner()
        it.opened(R)
        if line_first:
            it.line(R, line(), 0.0)
            assert not due(it, 100.0)
            it.told(told(), 1, 100.0)
        else:
            it.told(told(), 1, 100.0)
            assert not due(it, 100.0)
            it.line(R, line(), 100.0)
        assert joins(due(it, 100.0)) == [Joined(R, 12)]
        assert it.idle


def test_of_an_aborted_request_the_prompt_is_the_engines() -> None:
    it = joiner()
    it.told(told(outcome="aborted", prompt_tokens=0, cached_tokens=0, completion_tokens=2), 1, 0.0)
    it.line(R, line(), 0.1)
    assert joins(due(it, 0.1)) == [Joined(R, 12, 31, 16)]


def test_so_is_that_of_an_answer_whose_usage_could_not_be_read() -> None:
    it = joiner()
    it.told(told(reason="usage_unread", prompt_tokens=0, cached_tokens=0, completion_tokens=0), 1, 0.0)
    it.line(R, line(), 0.1)
    assert joins(due(it, 0.1)) == [Joined(R, 12, 31, 16, completion_tokens=12)]


def test_who_left_when_only_the_usage_was_missing_had_what_was_generated() -> None:
    it = joiner()
    it.told(told(outcome="aborted", reason="usage_unread", prompt_tokens=0, cached_tokens=0), 1, 0.0)
    it.line(R, line(), 0.1)
    assert joins(due(it, 0.1)) == [Joined(R, 12, 31, 16, completion_tokens=12)]


def test_what_the_client_had_of_such_an_answer_is_amended_by_a_late_line() -> None:
    it = joiner()
    it.told(told(reason="usage_unread", prompt_tokens=0, cached_tokens=0, completion_tokens=0), None, 0.0)
    it.line(R, line(child=0), 0.0)
    due(it, PATIENCE_S)
    it.line(R, line(child=1), 60.0)
    [amendment] = due(it, 66.0).amendments
    assert (amendment.event.completion_tokens, amendment.event.generated_tokens) == (12, 12)
    assert amendment.event.reason == "lines_late"


def test_so_is_that_of_a_stream_of_sound_which_says_that_of_its_last_piece() -> None:
    it = joiner()
    it.opened(R)
    it.told(told(endpoint="transcriptions"), 1, 0.0)
    it.line(R, line(status="stopped"), 0.0)
    assert joins(due(it, 0.0)) == [Joined(R, 12, 31, 16)]


def test_sound_of_which_the_seconds_are_known_is_charged_by_them_alone() -> None:
    it = joiner()
    it.told(SOUND, 2, 0.0)
    it.line(R, line(external=f"transcribe-{R.hex()}-0"), 0.0)
    it.line(R, line(external=f"transcribe-{R.hex()}-1"), 0.0)
    assert joins(due(it, 0.0)) == [Joined(R, 24, audio_prompt=62)]


def test_a_late_line_of_sound_says_what_the_engine_took_for_its_prompt() -> None:
    it = joiner()
    it.told(SOUND, None, 0.0)
    due(it, PATIENCE_S)
    it.line(R, line(), 60.0)
    [amendment] = due(it, 66.0).amendments
    assert (amendment.event.prompt_tokens, amendment.event.cached_tokens) == (0, 0)
    assert amendment.audio_prompt == 31


def test_three_choices_are_waited_for_and_their_prompt_counts_once() -> None:
    it = joiner()
    it.told(told(outcome="aborted"), 3, 0.0)
    for child in range(2):
        it.line(R, line(child=child), 0.1)
        assert not due(it, 0.1)
    it.line(R, line(child=2, sampled=False, output_tokens=0), 0.2)
    assert joins(due(it, 0.2)) == [Joined(R, 24, 31, 16)]


def test_lines_that_an_early_abort_kept_from_being_born_are_waited_for_a_second() -> None:
    it = joiner()
    it.told(told(outcome="aborted"), 3, 0.0)
    it.line(R, line(child=0), 0.5)
    assert not due(it, 0.5 + SETTLE_S - 0.01)
    assert joins(due(it, 0.5 + SETTLE_S)) == [Joined(R, 12, 31, 16)]


def test_without_a_line_the_event_goes_as_told_after_five_seconds() -> None:
    it = joiner()
    it.told(told(), 1, 0.0)
    assert not due(it, PATIENCE_S - 0.01)
    found = due(it, PATIENCE_S)
    assert found.joined == [(told(), Joined(R))]


def test_what_never_reached_the_engine_has_no_tokens_and_a_witness() -> None:
    it = joiner()
    it.told(told(outcome="failed"), 0, 0.0)
    assert joins(due(it, 0.0)) == [Joined(R, 0)]


def test_a_late_line_is_an_amendment_the_difference_to_what_was_written() -> None:
    it = joiner()
    it.told(told(outcome="aborted", prompt_tokens=7, cached_tokens=0, completion_tokens=2), 1, 0.0)
    due(it, PATIENCE_S)
    it.line(R, line(), 60.0)
    found = due(it, 60.0)
    [amended] = found.amendments
    amendment = amended.event
    assert (amendment.kind, amendment.names, amendment.request) == ("amendment", R, bytes(15) + b"\1")
    assert (amendment.prompt_tokens, amendment.cached_tokens) == (31 - 7, 16)
    assert (amendment.completion_tokens, amendment.generated_tokens) == (0, 12 - 2)  # 2 counted as generated
    assert amendment.whole_prompt == 31
    assert amended.told.request == R
    assert amended.brings_witness
    assert it.idle


def test_late_lines_are_one_amendment_and_a_line_after_it_is_only_counted() -> None:
    it = joiner()
    it.told(told(), None, 0.0)
    due(it, PATIENCE_S)
    it.line(R, line(child=0), 60.0)
    it.line(R, line(child=1), 62.0)
    assert not due(it, 62.0 + PATIENCE_S - 0.01)
    [amendment] = due(it, 62.0 + PATIENCE_S).amendments
    assert amendment.event.generated_tokens == 24 - 5
    it.line(R, line(child=2), 70.0)
    assert it.idle
    assert it.unjoined_lines == 1


def test_a_request_that_the_engine_had_nothing_of_is_witnessed_once_that_is_sure() -> None:
    it = joiner()
    something = bytes(16)
    it.told(told(outcome="aborted", prompt_tokens=0, cached_tokens=0, completion_tokens=0), 1, 0.0)
    it.told(told(something, outcome="aborted"), 1, 0.0)
    due(it, PATIENCE_S)
    it.had_nothing([R, something, b"unknown"])
    [amendment] = due(it, PATIENCE_S).amendments
    assert amendment.told.request == R
    assert (amendment.event.generated_tokens, amendment.event.prompt_tokens) == (0, 0)
    assert amendment.brings_witness
    assert it.idle


def test_figures_that_no_event_may_have_are_left_out() -> None:
    it = joiner()
    it.told(told(outcome="aborted"), 1, 0.0)
    it.line(R, line(cached_tokens=32), 0.0)
    assert joins(due(it, 0.0)) == [Joined(R)]


def test_lines_of_requests_that_are_not_ours_leave_nothing_behind() -> None:
    it = joiner()
    it.line(R, line(), 0.0)
    assert it.idle
    it.told(told(), 1, 1.0)
    assert not due(it, 1.0)


def test_only_so_many_ended_requests_are_remembered() -> None:
    it = joiner(remembered=2)
    requests = [bytes([n]) * 16 for n in range(3)]
    for request in requests:
        it.told(told(request), 1, 0.0)
    due(it, PATIENCE_S)
    for request in requests:
        it.line(request, line(request), 6.0)
    assert [each.event.names for each in due(it, 6.0).amendments] == requests[1:]


def test_lines_are_handed_over_a_restart() -> None:
    before, after = joiner(), joiner()
    before.opened(R)
    before.line(R, line(child=0), 0.0)
    handed = [(request, RequestLines.from_json(lines.to_json())) for request, lines in before.held()]
    after.opened(R)
    for request, lines in handed:
        after.hold(request, lines, 0.0)
    after.line(R, line(child=1), 0.1)
    after.told(told(outcome="aborted"), 2, 0.1)
    assert joins(due(after, 0.1)) == [Joined(R, 24, 31, 16)]


def test_at_the_end_everything_that_waits_goes() -> None:
    it = joiner()
    it.told(told(), 2, 0.0)
    it.line(R, line(child=0), 0.0)
    assert joins(it.due(0.0, now_us=9, all_of_it=True)) == [Joined(R, 12)]


def test_a_clients_name_for_the_model_is_learnt_once() -> None:
    it = joiner()
    for n in range(2):
        request = bytes([n]) * 16
        it.told(told(request, model="alias"), 1, 0.0)
        it.line(request, line(request), 0.0)
    due(it, 0.0)
    assert it.take_names() == [("tiny", "alias")]
    assert it.take_names() == []
    assert it.engine_model("alias") == "tiny"


def test_a_request_that_names_no_model_has_the_lines() -> None:
    it = joiner()
    it.told(told(model="unknown", outcome="aborted", prompt_tokens=0, completion_tokens=0), 1, 0.0)
    it.line(R, line(), 0.0)
    assert joins(due(it, 0.0)) == [Joined(R, 12, 31, 16, model="tiny")]
    assert it.take_names() == []


def test_the_model_of_an_adapter_is_its_name() -> None:
    it = joiner()
    it.told(told(model="unknown"), 1, 0.0)
    it.line(R, line(lora="support"), 0.0)
    assert joins(due(it, 0.0)) == [Joined(R, 12, model="support")]
    assert it.take_names() == [("tiny", "support")]


def test_a_late_line_names_the_model_of_the_amendment() -> None:
    it = joiner()
    it.told(told(model="unknown", outcome="aborted", prompt_tokens=0, completion_tokens=0), 1, 0.0)
    due(it, PATIENCE_S)
    it.line(R, line(), 60.0)
    [amendment] = due(it, 60.0).amendments
    assert (amendment.told.model, amendment.event.model) == ("unknown", "tiny")
    assert it.take_names() == []


def beam(step: int, tokens: int, *, sampled: bool = True) -> Freed:
    external = f"cmpl-{R.hex()}-{step:016x}-beam-0"
    return line(external=external, prompt_tokens=tokens, cached_tokens=0, output_tokens=1, sampled=sampled)


@pytest.mark.parametrize(
    ("found", "prompts", "repeated"),
    [
        ([beam(1, 5), beam(2, 6), beam(2, 6), beam(3, 7), beam(3, 7, sampled=False)], 5, 19),
        ([beam(1, 5), beam(2, 9), *[beam(3, 6)] * 2, *[beam(4, 10)] * 2], 14, 32),  # two prompts, two wide
        ([beam(1, 5), beam(2, 6), beam(3, 7)], 5, 13),  # one wide
        ([beam(1, 5), beam(2, 20), beam(3, 6), beam(4, 21), beam(5, 22)], 25, 49),  # two prompts, one wide
        ([line(external=f"cmpl-{R.hex()}-{n}") for n in range(3)], 93, 0),  # batched
    ],
)
def test_the_prompt_of_a_beam_search_is_that_of_its_first_step(
    found: list[Freed], prompts: int, repeated: int
) -> None:
    for order in (found, found[::-1]):
        lines = RequestLines()
        for each in order:
            lines.add(each)
        assert (lines.prompts().tokens, lines.repeated_prompt) == (prompts, repeated)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_the_order_and_the_delays_each_request_has_one_event_and_the_right_figures(
    data: st.DataObject,
) -> None:
    """Requests are opened, told and freed at any time; sums over events and amendments are those of the lines."""
    it, now_s = joiner(), 0.0
    todo: dict[bytes, list[tuple[str, Freed | None]]] = {}
    tells: dict[bytes, tuple[Event, int | None]] = {}
    for n in range(data.draw(st.integers(1, 6))):
        request = bytes([n + 1]) * 16
        tokens = data.draw(st.lists(st.integers(0, 9), max_size=3))
        outcome = data.draw(st.sampled_from(["finished", "aborted", "failed"]))
        expected = data.draw(st.sampled_from([len(tokens), None]))
        tells[request] = (told(request, outcome=outcome), expected)
        lines = [
            ("line", line(request, child=child, output_tokens=count, prompt_tokens=7, cached_tokens=3))
            for child, count in enumerate(tokens)
        ]
        todo[request] = data.draw(st.permutations([("told", None), *lines]))
        it.opened(request)
    joined: dict[bytes, Joined] = {}
    amendments: dict[bytes, Event] = {}

    def take(found: Due) -> None:
        for _, each in found.joined:
            assert each.request not in joined
            joined[each.request] = each
        for amendment in found.amendments:
            request = amendment.told.request
            assert request not in amendments
            amendments[request] = amendment.event

    said: dict[bytes, int] = dict.fromkeys(todo, 0)
    while todo:
        request = data.draw(st.sampled_from(sorted(todo)))
        what, freed = todo[request].pop(0)
        if what == "told":
            it.told(*tells[request], now_s)
        else:
            assert freed is not None
            before = it.unjoined_lines
            it.line(request, freed, now_s)
            said[request] += freed.output_tokens if it.unjoined_lines == before else 0
        if not todo[request]:
            del todo[request]
        now_s += data.draw(st.sampled_from([0.0, 0.05, 1.0, 5.0]))
        take(due(it, now_s))
    take(due(it, now_s + PATIENCE_S + 1))  # sums of floats may fall short of it
    assert it.idle
    assert joined.keys() == tells.keys()
    for request, each in joined.items():
        event, _ = tells[request]
        counted = event.completion_tokens if each.generated_tokens is None else each.generated_tokens
        if request in amendments:
            amendment = amendments[request]
            assert amendment.generated_tokens is not None
            counted += amendment.generated_tokens
            assert (amendment.prompt_tokens, amendment.cached_tokens) == (0, 0)
        elif each.generated_tokens is None:
            continue  # no line came at all
        assert counted == said[request]
        assert each.prompt_tokens in (None, 7)
