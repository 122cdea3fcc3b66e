"""Spans: counters, lines and events between two quiet points."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from metering.engine_amend import Amendment
from metering.engine_counters import Counts, Look, Scrape
from metering.engine_join import Due
from metering.engine_lines import Freed, Late, Opened, SteppedAside
from metering.engine_span import STALE_LOOKS, UNSCRAPED_AFTER_US, Spans
from metering.event import Event
from metering.fact import Span
from metering.node_word import Speaker
from metering.told import Joined

T0 = 1_760_000_000_000_000
ENGINE = "127.0.0.1:8000"
OPENED = Opened("scheduler", 0, 4711, 0, "tiny", "0.1.0", "0.32.0")


def told(n: int = 1, **changed: object) -> Event:
    """An aborted request, 31 prompt tokens and 10 output tokens of which HTTP saw."""
    event = Event(
        *("usage", T0, bytes([n]) * 16, None, b"C" * 16, None, None, "chat", "tiny", "aborted"),
        *(31, 0, 10, 0, None, 0, None),
    )
    return event._replace(**changed)  # type: ignore[arg-type]  # the tests' own words


def freed(n: int = 1, *, child: int | None = None, **changed: object) -> Freed:
    """Its line: 12 output tokens."""
    external = f"chatcmpl-{bytes([n]).hex() * 16}"
    internal = f"{'' if child is None else f'{child}_'}{external}-1a2b3c4d"
    line = Freed(0, "tiny", None, internal, external, "aborted", 31, 0, 12, True)
    return replace(line, **changed)  # type: ignore[arg-type]


class Engine:
    """An engine's counters, and a span that watches them."""

    def __init__(self, spans: Spans | None = None, *, witness: bool = True, first_lane: bool = True) -> None:
        self.spans = spans or Spans(T0, witness=witness)
        self.spans.speaker = Speaker.OURS if first_lane else Speaker.ANOTHER
        self.shown: Scrape | None = Scrape({"tiny": Counts(1000, 2000)}, 0, (1.0,))
        self.at_us = T0
        self.in_air = 0
        self.settled = True

    def counts(self, prompt: int, generated: int, model: str = "tiny") -> None:
        assert self.shown is not None
        before = self.shown.counts.get(model, Counts())
        now = Counts(before.prompt + prompt, before.generated + generated)
        self.shown = replace(self.shown, counts={**self.shown.counts, model: now})

    def begins_anew(self, born: float = 2.0) -> None:
        self.shown = Scrape({"tiny": Counts()}, 0, (born,))

    def look(self) -> list[Span]:
        self.at_us += 10_000_000
        return self.spans.look(Look({ENGINE: self.shown}, self.at_us, self.in_air, self.settled))

    def quiet(self) -> list[Span]:
        return [*self.look(), *self.look()]

    def request(self, n: int = 1) -> None:
        """One that runs and is joined."""
        self.counts(31, 12)
        self.spans.line("s", freed(n))
        self.writes(told(n), Joined(told(n).request, 12, 31, 0))

    def writes(self, event: Event, joined: Joined) -> None:
        self.spans.due(Due([(event, joined)]), lambda model: model)


def begun(*, witness: bool = True, first_lane: bool = True) -> Engine:
    """An engine that was seen quiet once."""
    engine = Engine(witness=witness, first_lane=first_lane)
    assert engine.quiet() == []
    return engine


def values(span: Span) -> dict[str, Any]:
    """What is not zero, without the times."""
    names = (name for name in Span.__slots__ if name not in ("from_us", "to_us"))
    return {name: getattr(span, name) for name in names if getattr(span, name) != 0}


def test_a_span_ends_at_the_second_look_alike_and_the_sums_agree() -> None:
    engine = begun()
    engine.request()
    assert engine.look() == []
    [span] = engine.look()
    assert values(span) == {
        "model": "tiny",
        "ended": "quiet",
        "lines": 1,
        "engine_prompt": 31,
        "engine_generated": 12,
        "witness": "yes",
    }
    assert (span.from_us, span.to_us) == (T0 + 20_000_000, T0 + 40_000_000)
    assert engine.spans.unaccounted == {("tiny", "prompt"): 0, ("tiny", "generated"): 0}
    engine.request(2)
    [following] = engine.quiet()
    assert (following.number, following.from_us) == (1, span.to_us)


def test_nothing_is_said_of_a_span_in_which_nothing_happened() -> None:
    engine = begun()
    assert [engine.look() for _ in range(5)] == [[]] * 5


@pytest.mark.parametrize("what", ["line", "count", "unsettled", "running"])
def test_it_is_not_quiet_while_anything_goes_on(what: str) -> None:
    engine = begun()
    engine.request()
    for n in range(5):
        match what:
            case "line":
                engine.spans.line("s", freed(n + 2))
            case "count":
                engine.counts(1, 1)
            case "unsettled":
                engine.settled = False
            case "running":
                assert engine.shown is not None
                engine.shown = replace(engine.shown, busy=1)
                engine.in_air = 1
        assert engine.look() == []


def test_a_gauge_that_stayed_up_is_outweighed_by_a_minute_with_nothing_in_the_air() -> None:
    engine = begun()
    engine.request()
    assert engine.shown is not None
    engine.shown = replace(engine.shown, busy=1)
    looks = [engine.look() for _ in range(STALE_LOOKS + 1)]
    assert [len(each) for each in looks] == [0] * STALE_LOOKS + [1]


def test_late_repeated_and_unmetered_tokens_have_fields_of_their_own() -> None:
    engine = begun()
    for child in range(3):
        engine.spans.line("s", freed(child=child, output_tokens=4))
    engine.spans.line("s", freed(2, external="chatcmpl-unmetered-" + "02" * 16, output_tokens=5))
    engine.spans.line("f", Late("tiny", freed().id, freed().external, 0, 1))
    engine.counts(4 * 31, 3 * 4 + 5 - 1)
    engine.writes(told(), Joined(told().request, 12, 31, 0))
    [span] = engine.quiet()
    assert values(span) == {
        "model": "tiny",
        "ended": "quiet",
        "lines": 4,
        "engine_prompt": 124,
        "engine_generated": 16,
        "late_generated": 1,
        "repeated_prompt": 62,
        "unmetered_prompt": 31,
        "unmetered_generated": 5,
        "witness": "yes",
    }
    assert set(engine.spans.unaccounted.values()) == {0}


def test_what_no_line_and_no_event_says_is_unaccounted() -> None:
    engine = begun()
    engine.request()
    engine.counts(0, 7)
    engine.quiet()
    assert engine.spans.unaccounted == {("tiny", "prompt"): 0, ("tiny", "generated"): 7}


def test_an_event_without_a_line_is_counted_and_an_amendment_takes_that_back() -> None:
    engine = begun()
    engine.counts(62, 24)
    for n in (1, 2):
        engine.writes(told(n), Joined(told(n).request))
    engine.spans.line("s", freed(1))
    amendment = told(1)._replace(
        kind="amendment",
        names=told(1).request,
        prompt_tokens=0,
        completion_tokens=0,
        generated_tokens=2,
    )
    engine.spans.due(Due([], [Amendment(told(1), amendment, True)]), lambda model: model)
    [span] = engine.quiet()
    assert (span.unwitnessed_requests, span.lines, span.ended) == (1, 1, "quiet")
    assert engine.spans.unaccounted == {("tiny", "prompt"): 0, ("tiny", "generated"): 2}


def test_a_finished_request_without_a_line_means_that_a_line_is_missing() -> None:
    engine = begun()
    engine.request(2)
    engine.counts(31, 12)
    engine.writes(told(outcome="finished"), Joined(told().request))
    assert [span.lines_missing for span in engine.quiet()] == [1]


def test_lines_missing_by_their_numbers_are_said() -> None:
    engine = begun()
    engine.spans.missing(3)
    [span] = engine.quiet()
    assert (span.model, span.lines_missing) == ("tiny", 3)


@pytest.mark.parametrize("noticed", ["birth", "fall", "line"])
def test_an_engine_that_starts_anew_loses_its_counters_and_the_lines_say_what_they_were(noticed: str) -> None:
    engine = begun()
    engine.request(1)
    engine.look()
    if noticed == "line":
        engine.spans.line("s2", OPENED)
    else:
        engine.begins_anew(1.0 if noticed == "fall" else 2.0)
    engine.request(2)
    engine.writes(told(3), Joined(told(3).request))  # it ran when the engine was killed: no line
    engine.spans.line("f", Late(None, "x", "x", 0, 1))
    [span] = engine.quiet()
    assert values(span) == {
        "model": "tiny",
        "ended": "restart",
        "lines": 2,
        "late_generated": 1,
        "lost_prompt": 3 * 31,
        "lost_generated": 12 + 12 + 10 - 1,
        "unwitnessed_requests": 1,
        "witness": "yes",
    }
    assert set(engine.spans.unaccounted.values()) == {0}
    engine.request(4)
    assert [each.ended for each in engine.quiet()] == ["quiet"]


@pytest.mark.parametrize("noticed", ["birth", "line"])
def test_an_engine_that_starts_anew_while_nothing_happened_loses_nothing(noticed: str) -> None:
    engine = begun()
    engine.begins_anew()
    if noticed == "line":
        engine.spans.line("s2", OPENED)
        engine.request()
    else:
        engine.look()
        engine.request()
    [span] = engine.quiet()
    assert (span.ended, span.engine_prompt, span.engine_generated) == ("quiet", 31, 12)


def test_an_engine_that_comes_after_the_sidecar_is_counted_from_its_first_token() -> None:
    engine = Engine()
    engine.shown = None
    assert engine.quiet() == []
    engine.begins_anew()
    engine.spans.line("s", OPENED)
    engine.request()
    [span] = engine.quiet()
    assert (span.ended, span.engine_prompt) == ("quiet", 31)


def test_what_happened_before_the_first_quiet_point_has_no_counters() -> None:
    engine = Engine()
    engine.request()
    [span] = engine.quiet()
    assert (span.ended, span.engine_prompt, span.lost_prompt, span.lost_generated) == ("unscraped", 0, 31, 12)


def test_an_engine_of_which_no_line_ever_came_has_no_witness_whatever_became_of_its_counters() -> None:
    engine = begun()
    event = told(outcome="finished")
    engine.writes(event, Joined(event.request, None, None, None))
    engine.shown = None
    [span] = [span for _ in range(UNSCRAPED_AFTER_US // 10_000_000 + 1) for span in engine.look()]
    assert (span.ended, span.witness, span.lines, span.lost_prompt) == ("unscraped", "aside", 0, 31)


def test_an_engine_that_never_answers_again_ends_its_span_after_ten_minutes() -> None:
    engine = begun()
    engine.request()
    engine.shown = None
    spans = [span for _ in range(UNSCRAPED_AFTER_US // 10_000_000 + 1) for span in engine.look()]
    assert [(span.ended, span.lost_generated) for span in spans] == [("unscraped", 12)]


def test_an_engine_that_was_out_of_reach_for_a_while_goes_on_where_it_was() -> None:
    engine = begun()
    engine.request()
    shown, engine.shown = engine.shown, None
    assert engine.quiet() == []
    engine.shown = shown
    assert [span.ended for span in engine.quiet()] == ["quiet"]


def test_a_witness_that_stepped_aside_or_keeps_silent_is_named() -> None:
    engine = begun()
    engine.spans.line("s", OPENED)
    engine.spans.line("s", SteppedAside("0.40.0", "not known"))
    engine.counts(31, 12)
    engine.writes(told(), Joined(told().request))
    assert [span.witness for span in engine.quiet()] == ["aside"]
    silent = begun()
    silent.counts(31, 12)
    assert [span.witness for span in silent.quiet()] == ["aside"]
    none = begun(witness=False)
    none.counts(31, 12)
    none.spans.event(told())
    [span] = none.quiet()
    assert (span.witness, span.unwitnessed_requests) == ("no", 1)


def test_what_had_no_line_is_known_to_have_had_nothing_only_where_no_line_can_be_missing() -> None:
    early = told(5, prompt_tokens=0, completion_tokens=0)
    engine = begun()
    engine.request()
    engine.writes(early, Joined(early.request))
    assert engine.quiet() == []  # the span waits for what is written of it
    assert engine.spans.take_unseen() == [early.request]
    amendment = early._replace(kind="amendment", names=early.request, generated_tokens=0)
    engine.spans.due(Due([], [Amendment(early, amendment, True)]), lambda model: model)
    assert [span.unwitnessed_requests for span in engine.look()] == [0]
    for spoilt in ("missing", "restart", "aside"):
        engine = begun()
        engine.request()
        engine.writes(early, Joined(early.request))
        match spoilt:
            case "missing":
                engine.spans.missing(1)
            case "restart":
                engine.begins_anew()
            case "aside":
                engine.spans.line("s", SteppedAside("0.40.0", "not known"))
        assert [span.unwitnessed_requests for span in engine.quiet()] == [1]
        assert engine.spans.take_unseen() == []


def test_another_lane_tells_only_of_its_own_events_that_lost_counters_would_have_shown() -> None:
    engine = begun(first_lane=False)
    engine.request()
    assert engine.quiet() == []
    engine.request(2)
    engine.writes(told(3), Joined(told(3).request))
    engine.begins_anew()
    [span] = engine.quiet()
    assert values(span) == {
        "model": "tiny",
        "ended": "restart",
        "lost_prompt": 31,
        "lost_generated": 10,
        "unwitnessed_requests": 1,
        "witness": "yes",
    }


def sound(engine: Engine, n: int, at_us: int = T0) -> None:
    """A transcription, charged by its seconds."""
    engine.spans.line("s", freed(n))
    event = told(n, time_us=at_us, outcome="finished", prompt_tokens=0, completion_tokens=0, audio_seconds=9)
    engine.writes(event, Joined(event.request, 12, audio_prompt=31))


def test_what_the_engine_took_for_the_prompt_of_sound_is_a_cause_of_its_own() -> None:
    engine = begun()
    engine.request()
    engine.counts(31, 12)
    sound(engine, 2)
    [span] = engine.quiet()
    assert (span.engine_prompt, span.audio_prompt) == (62, 31)
    assert engine.spans.unaccounted == {("tiny", "prompt"): 0, ("tiny", "generated"): 0}


def test_while_nobody_speaks_for_the_node_a_span_goes_on_until_somebody_does() -> None:
    engine = begun()
    engine.spans.speaker = Speaker.NOBODY
    engine.request()
    assert (engine.quiet(), engine.spans.begun) == ([], False)
    engine.request(2)
    assert engine.quiet() == []
    engine.spans.speaker = Speaker.OURS
    [span] = engine.look()
    assert (span.engine_prompt, span.lines) == (62, 2)
    assert engine.spans.unaccounted == {("tiny", "prompt"): 0, ("tiny", "generated"): 0}


def test_another_lane_tells_of_its_own_sound_from_its_first_to_its_last() -> None:
    engine = begun(first_lane=False)
    engine.counts(3 * 31, 3 * 12)
    engine.request()
    sound(engine, 2, T0 + 21_000_000)
    kept = json.loads(json.dumps(engine.spans.to_json()))
    engine.spans.take_json(kept)
    sound(engine, 3, T0 + 22_000_000)
    [span] = engine.quiet()
    assert values(span) == {"model": "tiny", "ended": "quiet", "audio_prompt": 62, "witness": "yes"}
    assert (span.from_us, span.to_us) == (T0 + 21_000_000, T0 + 22_000_000)
    engine.request(4)
    assert engine.quiet() == []


def test_two_models_have_a_span_each_and_a_late_line_finds_its_own() -> None:
    engine = begun()
    engine.counts(31, 11, "other")
    engine.request(1)
    line = freed(2, model="other")
    engine.spans.line("t", line)
    engine.spans.line("f", Late("other", line.id, line.external, 0, 1))
    spans = engine.quiet()
    assert [(span.model, span.number, span.late_generated) for span in spans] == [
        ("other", 0, 1),
        ("tiny", 1, 0),
    ]


def test_a_span_goes_on_over_a_restart_of_the_sidecar() -> None:
    before = begun()
    before.request(1)
    before.spans.line("s", freed(2, child=0))
    before.counts(62, 24)
    kept = json.loads(json.dumps(before.spans.to_json()))
    after = Engine(Spans(T0 + 1, witness=True))
    after.spans.take_json(kept)
    after.shown = before.shown
    after.spans.line("s", freed(2, child=1))
    [span] = after.quiet()
    assert (span.from_us, span.lines, span.repeated_prompt) == (T0 + 20_000_000, 3, 31)
    assert (span.engine_prompt, span.engine_generated) == (93, 36)
