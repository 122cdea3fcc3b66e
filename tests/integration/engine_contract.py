"""The contract that recordings of a real vLLM hold an engine to: the simulated one, or the real one of today.

What is the same between two engines: status, headers and their order, every key of every body in its order
with its type and null-ness, all of an error's body, which chunk of a stream carries what, all usage
figures, and the exact differences of the usage counters. What is not: words, random ids, instants, and into
how many chunks an engine cuts the tokens between a stream's first and last. After an abort the counters are
held to rules instead: the prompt counted once a choice, at least the tokens that the client saw, fewer than
were asked for, nothing finished.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from engine_exchange import Answer, Request
from engine_recordings import Recording, made_constant

_VARIABLE_HEADERS = ("content-length",)
_EXACT = ("object", "model", "index", "finish_reason", "stop_reason", "role", "created", "id")


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
    if recording.request.hang_up_after is None:
        assert counters == recording.counters
    else:
        _hold_aborted(recording.request, recorded, answer, recording.counters, counters)


def shape(value: Any, key: str = "") -> Any:
    """A body without what differs between engines: types for values, but for figures and words of the
    protocol."""
    if isinstance(value, dict):
        return [(name, shape(part, name)) for name, part in value.items()]
    if isinstance(value, list):
        return [shape(part) for part in value]
    if key in _EXACT and isinstance(value, (str, int)):
        return value
    return type(value).__name__


def _headers(answer: Answer) -> list[tuple[str, str]]:
    return [(name, "" if name in _VARIABLE_HEADERS else value) for name, value in answer.headers]


def _hold_body(recorded: Any, given: Any) -> None:
    assert shape(given) == shape(recorded)
    if isinstance(recorded, dict) and "usage" in recorded:
        _hold_usage(recorded["usage"], given["usage"])


def _hold_usage(recorded: dict[str, Any], given: dict[str, Any]) -> None:
    assert given["total_tokens"] == given["prompt_tokens"] + given["completion_tokens"]
    # Its figures are of the parser's making (see REASONING in engine_requests); its shape was compared.
    details = "completion_tokens_details"
    assert {**given, details: None} == {**recorded, details: None}


def _events(answer: Answer) -> list[dict[str, Any] | None]:
    """The events of a stream, None for `[DONE]`. Each piece is exactly one event."""
    events: list[dict[str, Any] | None] = []
    for piece in answer.pieces:
        framed = re.fullmatch(r"data: (.*)\n\n", piece)
        assert framed is not None, piece
        events.append(None if framed[1] == "[DONE]" else json.loads(framed[1]))
        if events[-1] is not None:
            assert _spelled(events[-1]) == framed[1]
    return events


def _spelled(event: Any) -> str:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"))


def _kind(event: dict[str, Any] | None) -> str:
    """r: the role, t: tokens, l: a choice's last tokens, u: usage, d: done."""
    if event is None:
        return "d"
    if not event["choices"]:
        return "u"
    choice = event["choices"][0]
    if choice["finish_reason"] is not None:
        return "l"
    return "r" if "role" in choice.get("delta", {}) else "t"


def _hold_stream(recorded: Answer, given: Answer) -> None:
    ours, theirs = _events(given), _events(recorded)
    kinds, recorded_kinds = "".join(map(_kind, ours)), "".join(map(_kind, theirs))
    assert given.whole == recorded.whole
    assert re.fullmatch("r*[tl]*u?d?", kinds), kinds
    if recorded.whole:
        assert [kinds.count(kind) for kind in "rlud"] == [recorded_kinds.count(kind) for kind in "rlud"]
    for kind in set(kinds) - {"d"}:
        assert _shapes(ours, kind) == _shapes(theirs, kind)
    _hold_stream_usage(theirs, ours, whole=recorded.whole)


def _shapes(events: list[dict[str, Any] | None], kind: str) -> set[str]:
    found = set()
    for event in events:
        if _kind(event) == kind and event is not None:
            for choice in event["choices"]:
                # Which choice a chunk belongs to is a matter of turns.
                choice["index"] = "any" if kind in "tl" else choice["index"]
            found.add(str(shape(event)))
    return found


def _hold_stream_usage(theirs: list[Any], ours: list[Any], *, whole: bool) -> None:
    recorded = [event["usage"] for event in theirs if event is not None and "usage" in event]
    given = [event["usage"] for event in ours if event is not None and "usage" in event]
    assert bool(given) == bool(recorded)
    for usage in given:
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
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
    seen = sum(_kind(event) == "t" for event in _events(answer)) if recorded.pieces else 0
    assert seen <= counters[generated] < body["max_tokens"] * body.get("n", 1)
