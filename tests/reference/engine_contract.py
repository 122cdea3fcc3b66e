"""The contract that recordings of a real vLLM hold an engine to: the simulated one, or the real one of today.

What is the same between two engines: status, headers and their order, every key of every body in its order
with its type and null-ness, all of an error's body, which event of a stream carries what, all usage
figures, and the exact differences of the usage counters. What is not: words, random ids, instants, and into
how many events an engine cuts the tokens between a stream's first and last. After an abort the counters are
held to rules instead: the prompt counted once a choice, at least the tokens that the client saw, fewer than
were asked for, nothing finished.

Two framings of streams are known: OpenAI's older one, `data: {…}` up to `data: [DONE]`, and the one of responses and
messages, whose events are named by a line `event: …` and by their own `type`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from engine_exchange import Answer, Request
from engine_recordings import Recording, made_constant

_VARIABLE_HEADERS = ("content-length",)
_EXACT = (
    *("object", "model", "index", "finish_reason", "stop_reason", "role", "created", "id"),
    *("type", "status", "reason", "created_at", "background", "truncation", "item_id", "content_index", "output_index"),
    *("input_tokens", "count", "max_model_len", "label", "num_classes"),
)  # fmt: skip
_DELTAS = ("response.output_text.delta", "content_block_delta")


def hold(recording: Recording, answer: Answer, counters: Mapping[str, int]) -> None:
    """Raise `AssertionError` where an engine's answer, or what it did to the counters, breaks the
    contract."""
    recorded = recording.answer
    answer = made_constant(answer)
    assert (answer.status, answer.reason) == (recorded.status, recorded.reason)
    assert _headers(answer) == _headers(recorded)
    if answer.header("content-length") is not None:
        assert int(answer.header("content-length") or "") == len(answer.body.encode())
    if "event-stream" in (recorded.header("content-type") or ""):
        _hold_stream(recorded, answer)
    elif recorded.status >= 400:
        assert answer.body == recorded.body
    elif recorded.body:
        _hold_body(json.loads(recorded.body), json.loads(answer.body))
    if recording.counters is None:
        return
    if recording.request.hang_up_after is None:
        assert counters == recording.counters
    else:
        _hold_aborted(recording.request, recorded, answer, recording.counters, counters)


def shape(value: Any, key: str = "") -> Any:
    """A body without what differs between engines: types for values, but for figures and words of the
    protocol."""
    if isinstance(value, dict):
        return [(name, shape(part, name)) for name, part in value.items()]
    if isinstance(value, list) and value and all(isinstance(part, float) for part in value):
        return ["float"]  # an embedding is as long as the model's layers are wide
    if isinstance(value, list):
        return [shape(part) for part in value]
    if key in _EXACT and isinstance(value, (str, int)):
        return value
    return type(value).__name__


def _headers(answer: Answer) -> list[tuple[str, str]]:
    return [(name, "" if name in _VARIABLE_HEADERS else value) for name, value in answer.headers]


def _hold_body(recorded: Any, given: Any) -> None:
    assert shape(given) == shape(recorded)
    if isinstance(recorded, dict) and recorded.get("usage") is not None:
        _hold_usage(recorded["usage"], given["usage"])


def _hold_usage(recorded: dict[str, Any], given: dict[str, Any]) -> None:
    _hold_total(given)
    # Its figures are of the parser's making (see REASONING in engine_requests); its shape was compared.
    details = "completion_tokens_details"
    assert {**given, details: None} == {**recorded, details: None}


def _hold_total(usage: dict[str, Any]) -> None:
    if "total_tokens" in usage:
        told = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")
        assert usage["total_tokens"] == sum(usage.get(name, 0) for name in told)


def _events(answer: Answer) -> list[dict[str, Any] | None]:
    """The events of a stream, None for `[DONE]`. Each piece is exactly one event."""
    events: list[dict[str, Any] | None] = []
    for piece in answer.pieces:
        framed = re.fullmatch(r"(?:event: (.*)\n)?data: (.*)\n\n", piece)
        assert framed is not None, piece
        events.append(None if framed[2] == "[DONE]" else json.loads(framed[2]))
        if (event := events[-1]) is not None:
            assert _spelled(event) == framed[2]
            assert event.get("type") == framed[1]
    return events


def _spelled(event: Any) -> str:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"))


def _hold_stream(recorded: Answer, given: Answer) -> None:
    assert given.whole == recorded.whole
    ours, theirs = _events(given), _events(recorded)
    if theirs[0] is not None and "type" in theirs[0]:
        _hold_named_events([event or {} for event in theirs], [event or {} for event in ours])
    else:
        _hold_chunks(theirs, ours, whole=recorded.whole)


def _hold_named_events(theirs: list[dict[str, Any]], ours: list[dict[str, Any]]) -> None:
    """Responses and messages: the same events in the same order, but for how many deltas there are."""
    assert [kind for kind, _ in groupby(ours, _type)] == [kind for kind, _ in groupby(theirs, _type)]
    for kind in {_type(event) for event in theirs}:
        assert _shapes_of_type(ours, kind) == _shapes_of_type(theirs, kind)
    assert [_usage(event) for event in ours if _usage(event)] == [
        _usage(event) for event in theirs if _usage(event)
    ]
    if "sequence_number" in theirs[0]:
        first = theirs[0]["sequence_number"]
        assert [event["sequence_number"] for event in ours] == list(range(first, first + len(ours)))
        said = "".join(event["delta"] for event in ours if _type(event) in _DELTAS)
        assert all(
            event["text"].endswith(said) for event in ours if _type(event) == "response.output_text.done"
        )


def _type(event: dict[str, Any]) -> str:
    return str(event["type"])


def _shapes_of_type(events: list[dict[str, Any]], kind: str) -> set[str]:
    return {str(shape(event)) for event in events if _type(event) == kind}


def _usage(event: dict[str, Any]) -> Any:
    """An event's usage, wherever its dialect puts it."""
    within = event.get("response") or event.get("message") or event
    return within.get("usage")


def _hold_chunks(theirs: list[Any], ours: list[Any], *, whole: bool) -> None:
    kinds, recorded_kinds = "".join(map(_kind, ours)), "".join(map(_kind, theirs))
    assert re.fullmatch("r*[tl]*u?d?", kinds), kinds
    if whole:
        assert [kinds.count(kind) for kind in "rlud"] == [recorded_kinds.count(kind) for kind in "rlud"]
    for kind in set(kinds) - {"d"}:
        assert _shapes(ours, kind) == _shapes(theirs, kind)
    _hold_chunk_usage(theirs, ours, whole=whole)


def _kind(event: dict[str, Any] | None) -> str:
    """r: the role, t: tokens, l: a choice's last tokens, u: usage, d: done."""
    if event is None:
        return "d"
    if not event["choices"]:
        return "u"
    choice = event["choices"][0]
    if choice.get("finish_reason") is not None:
        return "l"
    return "r" if "role" in choice.get("delta", {}) else "t"


def _shapes(events: list[dict[str, Any] | None], kind: str) -> set[str]:
    found = set()
    for event in events:
        if _kind(event) == kind and event is not None:
            for choice in event["choices"]:
                # Which choice a chunk belongs to is a matter of turns.
                if "index" in choice and kind in "tl":
                    choice["index"] = "any"
            found.add(str(shape(event)))
    return found


def _hold_chunk_usage(theirs: list[Any], ours: list[Any], *, whole: bool) -> None:
    recorded = [event["usage"] for event in theirs if event is not None and "usage" in event]
    given = [event["usage"] for event in ours if event is not None and "usage" in event]
    assert bool(given) == bool(recorded)
    for usage in given:
        _hold_total(usage)
    if given and whole:
        _hold_usage(recorded[-1], given[-1])
        # With usage on every chunk, the last ones of all choices add up to the stream's.
        last = [event["usage"] for event in ours if _kind(event) == "l" and "usage" in event]
        if last:
            assert sum(usage["completion_tokens"] for usage in last) == given[-1]["completion_tokens"]


def _hold_aborted(
    request: Request,
    recorded: Answer,
    answer: Answer,
    recorded_counters: Mapping[str, int],
    counters: Mapping[str, int],
) -> None:
    assert set(counters) == set(recorded_counters)
    generated = "vllm:generation_tokens_total"
    for name in set(counters) - {generated}:
        assert counters[name] == recorded_counters[name], name
    body = json.loads(request.body or "")
    seen = sum(_carries_tokens(event) for event in _events(answer)) if recorded.pieces else 0
    asked = body.get("max_tokens") or body["max_output_tokens"]
    assert seen <= counters[generated] < asked * body.get("n", 1)


def _carries_tokens(event: dict[str, Any] | None) -> bool:
    return event is not None and (_type(event) in _DELTAS if "type" in event else _kind(event) == "t")
