"""What an event must be to be written down at all, one event at a time, on the hot path.

body.py asks the same of a whole table. An event that no reader would accept must not reach the write-ahead file: it
could not be sealed, and nothing behind it either.
"""

from __future__ import annotations

from metering.event import EARLIEST_TIME_US, END_OF_TIME_US, KINDS, MAX_QUANTITY, OUTCOMES, REASONS, Event
from metering.refusal import Refusal

MAX_WORD_BYTES = 1_024

# A letter has four bytes at most, so that most names need not be encoded to be measured.
_SHORT = MAX_WORD_BYTES // 4
_ID_BYTES = 16

NO_WORD = f"is empty, has a NUL or is longer than {MAX_WORD_BYTES} bytes"

_KINDS = frozenset(KINDS)
_OUTCOMES = frozenset(OUTCOMES)
_REASONS = frozenset((None, *REASONS))


def is_word(word: str) -> bool:
    """Whether a model or endpoint may be named so. PostgreSQL keeps no NUL in text: such an event could be sealed and
    never be taken in.
    """
    short = len(word) <= _SHORT or len(word.encode()) <= MAX_WORD_BYTES
    return bool(word) and short and "\0" not in word


def check_event(event: Event) -> None:
    """Refusal `bad_event` unless the event can be sealed."""
    model, endpoint = event.model, event.endpoint
    # What nearly every event is, asked without a call; who fails here is asked again below, with words for it.
    if (
        event.kind == "usage"
        and 0 <= event.cached_tokens <= event.prompt_tokens <= MAX_QUANTITY
        and 0 <= event.reasoning_tokens <= event.completion_tokens <= MAX_QUANTITY
        and 0 <= (event.generated_tokens or 0) <= MAX_QUANTITY
        and 0 <= event.audio_seconds <= MAX_QUANTITY
        and event.names is None
        and event.whole_prompt is None
        and event.outcome in _OUTCOMES
        and event.reason in _REASONS
        and 0 < len(model) <= _SHORT
        and 0 < len(endpoint) <= _SHORT
        and "\0" not in model
        and "\0" not in endpoint
        and len(event.request) == len(event.customer) == _ID_BYTES
        and EARLIEST_TIME_US <= event.time_us < END_OF_TIME_US
    ):
        return
    _check_words(event)
    _check_quantities(event)


def _check_words(event: Event) -> None:
    if event.outcome not in _OUTCOMES or event.kind not in _KINDS:
        raise _bad(f"{event.kind!r}, {event.outcome!r} is no kind and outcome")
    if event.reason not in _REASONS:
        raise _bad(f"{event.reason!r} is no reason of an event")
    if not (is_word(event.model) and is_word(event.endpoint)):
        raise _bad(f"the name of a model or endpoint {NO_WORD}")
    if len(event.request) != _ID_BYTES or len(event.customer) != _ID_BYTES:
        raise _bad("an id has 16 bytes")
    if not EARLIEST_TIME_US <= event.time_us < END_OF_TIME_US:
        raise _bad("the event lies outside 2020 to 2099")


def _check_quantities(event: Event) -> None:
    """The rare kinds, and the words for what is wrong with the common one."""
    figures = {
        "prompt_tokens": event.prompt_tokens,
        "cached_tokens": event.cached_tokens,
        "completion_tokens": event.completion_tokens,
        "reasoning_tokens": event.reasoning_tokens,
        "generated_tokens": event.generated_tokens or 0,
        "audio_seconds": event.audio_seconds,
    }
    if (event.names is None) != (event.kind == "usage"):
        raise _bad("an amendment or void names a request, a usage event does not")
    whole_prompt = event.whole_prompt
    if whole_prompt is not None and (event.kind == "usage" or not 0 <= whole_prompt <= MAX_QUANTITY):
        raise _bad(f"whole_prompt is {whole_prompt} in an event of kind {event.kind}")
    sign = {"usage": 1, "void": -1}.get(event.kind)
    for name, figure in figures.items():
        if abs(figure) > MAX_QUANTITY or (sign and figure * sign < 0):
            raise _bad(f"{name} is {figure} in an event of kind {event.kind}")
    if sign:
        for part, whole in (("cached_tokens", "prompt_tokens"), ("reasoning_tokens", "completion_tokens")):
            if abs(figures[part]) > abs(figures[whole]):
                raise _bad(f"{part} {figures[part]} is more than {whole} {figures[whole]}")


def _bad(what: str) -> Refusal:
    return Refusal("bad_event", what)
