"""Written requests whose lines may still come, put into words for a restart."""

from __future__ import annotations

import pytest
from event_examples import CHAT

from metering.engine_amend import KEPT, Amender, Written
from metering.engine_lacking import LackingLines
from metering.engine_lines import Freed
from metering.engine_request import RequestLines
from metering.lane_recovery import LastWritten
from metering.told import Joined


def amender() -> Amender:
    return Amender(10_000, lambda: b"A" * 16)


def line(request: bytes) -> Freed:
    external = f"chatcmpl-{request.hex()}"
    return Freed(0, "tiny", None, external, external, "aborted", 1_000, 200, 12, True)


def kept(before: Amender) -> Amender:
    """What it is after a restart."""
    after = amender()
    LackingLines(after).take(LackingLines(before).texts(), 0.0)
    return after


def test_a_line_after_the_restart_makes_the_amendment_that_it_would_have_made_before() -> None:
    it = amender()
    partly = RequestLines()
    partly.add(line(CHAT.request))
    joined = Joined(CHAT.request, 12, model="tiny")
    it.remember(Written(CHAT, joined, 2, partly), whole=False)
    it = kept(kept(it))
    it.line(CHAT.request, line(CHAT.request), 1.0)
    ((amendment, _),) = it.due(1.0, CHAT.time_us + 1, all_of_it=False)
    assert amendment.told == CHAT
    assert (amendment.event.generated_tokens, amendment.event.names) == (12, CHAT.request)


def test_what_was_to_be_amended_still_is() -> None:
    it = amender()
    it.remember(Written(CHAT, Joined(CHAT.request), 2, RequestLines()), whole=False)
    it.line(CHAT.request, line(CHAT.request), 1.0)
    it = kept(it)
    assert len(it) == 1
    ((amendment, _),) = it.due(100.0, CHAT.time_us + 1, all_of_it=False)
    assert amendment.event.generated_tokens == 12 - CHAT.completion_tokens


def test_the_newest_are_kept_and_no_text_is_made_twice() -> None:
    it = amender()
    for number in range(KEPT + 5):
        told = CHAT._replace(request=number.to_bytes(16))
        it.remember(Written(told, Joined(told.request), 1, RequestLines()), whole=False)
    lacking = LackingLines(it)
    texts = lacking.texts()
    assert len(texts) == KEPT
    assert all(one is other for one, other in zip(texts, lacking.texts(), strict=True))
    assert [written.told.request for written, _ in kept(it).lacking()] == [
        number.to_bytes(16) for number in range(5, KEPT + 5)
    ]


def test_what_was_written_last_is_remembered_unless_it_is_amended() -> None:
    it = amender()
    other = CHAT._replace(request=b"\x55" * 16)
    LackingLines(it).take_last(LastWritten((CHAT, other), frozenset({other.request})), 0.0)
    it.line(other.request, line(other.request), 0.0)
    it.line(CHAT.request, line(CHAT.request), 0.0)
    assert [each.told.request for each, _ in it.due(9.0, CHAT.time_us + 1, all_of_it=False)] == [CHAT.request]


@pytest.mark.parametrize(
    "text",
    ["{}", "7", '{"told":"00","joined":{},"expected":null,"late":false,"lines":{}}', '{"told":"zz"}'],
)
def test_anything_else_is_no_such_text(text: str) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        LackingLines(amender()).take([text], 0.0)
