"""Facts: what a lane knows beside its events, one line each in its seals.

What is not a request's usage but has to reach the ledger by the same road (sealed, numbered, archived) is a fact. A
fact is one line, `fact KIND name=value name=value …`, its names all there, once, in this order, one space between:

    fact sibling lane=sidecar-1 epoch=000102030405060708090a0b0c0d0e0f number=41 hash=<64 hex digits>
    fact unmetered start=2026-10-05T08:00:00.000000Z end=2026-10-05T08:03:20.000000Z requests=17
    fact serves model=qwen3-8b name=support-adapter
    fact span number=7 model=qwen3-8b from=… to=… ended=quiet lines=12 lines_missing=0 engine_prompt=4200 …

    sibling    another lane of the node, and its newest seal: a lane can't vanish without being missed
    unmetered  between start and end, `requests` requests were served without being written down one by one
    serves     requests for `name` (an alias, an adapter) are counted by the engine under `model`
    span       what the engine's counters and lines said of one model between two quiet points (`Span`)

Integers are decimal without leading zeroes and never negative; instants are those of instant.py; the name of a model
is percent-encoded (RFC 3986: letters, digits and `-._~/:@` stand for themselves, every other byte of its UTF-8 is
%XX). As with seals, a parser reads a line, writes it again and compares: a fact has one spelling. A span may be sealed
more than once (its writer can't know which seal survived a crash): (node, lane, number) says which one it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import quote, unquote

from metering.event import EARLIEST_TIME_US, END_OF_TIME_US
from metering.event_check import is_word
from metering.instant import time_text, time_us_of
from metering.refusal import Refusal

ENDINGS = ("quiet", "restart", "unscraped")
WITNESSES = ("yes", "no", "aside")

#: At most so many facts are in one seal, and so many bytes of them, newlines included: with body and seal they stay
#: below the megabyte that a broker takes by default.
MAX_FACTS = 256
MAX_FACTS_BYTES = 60_000

#: Numbers of spans from one multiple of this to the next are a series.
SERIES = 10**8

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_HEX_128 = re.compile(r"[0-9a-f]{32}")
_HEX_256 = re.compile(r"[0-9a-f]{64}")
_INTEGER = re.compile(r"0|[1-9][0-9]{0,18}")
_MAX_COUNT = 2**62
_SAFE = "/:@"


@dataclass(frozen=True, slots=True)
class Sibling:
    """Another lane of the node and its newest seal, in the seals of the lane that speaks for the node."""

    lane: str
    epoch: str
    number: int
    hash: str


@dataclass(frozen=True, slots=True)
class Unmetered:
    """An interval (µs, UTC) in which so many requests were served without an event of their own."""

    start_us: int
    end_us: int
    requests: int


@dataclass(frozen=True, slots=True)
class Serves:
    """Requests for `name` (an alias or an adapter) are counted by the engine under `model`."""

    model: str
    name: str


@dataclass(frozen=True, slots=True)
class Span:
    """What the engine's counters and lines said of one model between two quiet points (µs, UTC).

    `number` is dense per node, lane and series (`number // SERIES`): a lane that lost what it kept of its engine begins
    another series. `ended`: `quiet` at a quiet point; `restart` where the engine went away with
    its counters; `unscraped` where they could not be read. All that follows counts tokens, but for lines and requests:

    engine_*            increase of the engine's counters over the span, resets handled; 0 unless it ended quiet
    late_*              outputs that the front end dropped after it had let the request go: in lines, not in counters
    repeated_prompt     prompts of sampled lines beyond the first of each prompt: the engine counts them for each sample
    audio_prompt        prompts of sound that is charged by its seconds: the engine counts them, and events do not. A lane
                        that does not speak for the node says those of its own events, from the first to the last of them
    unmetered_*         lines of requests that were served unmetered
    lost_*              unless it ended quiet: what lines (events where no line came) said instead of the counters
    lines_missing       lines that must exist (their request's event or the numbers around them say so) and did not come
    unwitnessed_requests  requests whose event went without the engine's figure
    witness             `yes`: lines were read; `aside`: the plugin stepped aside; `no`: there is none
    """

    number: int
    model: str
    from_us: int
    to_us: int
    ended: str
    lines: int
    lines_missing: int
    engine_prompt: int
    engine_generated: int
    late_prompt: int
    late_generated: int
    repeated_prompt: int
    audio_prompt: int
    unmetered_prompt: int
    unmetered_generated: int
    lost_prompt: int
    lost_generated: int
    unwitnessed_requests: int
    witness: str


Fact = Sibling | Unmetered | Serves | Span

_KINDS: dict[str, type[Fact]] = {
    "sibling": Sibling,
    "unmetered": Unmetered,
    "serves": Serves,
    "span": Span,
}
_KIND_OF = {kind: name for name, kind in _KINDS.items()}
_TEXTS = frozenset(("model", "name"))
_PATTERNS = {"lane": _ID, "epoch": _HEX_128, "hash": _HEX_256}
_WORDS = {"ended": ENDINGS, "witness": WITNESSES}


def kind_of(fact: Fact) -> str:
    """sibling, unmetered, serves or span."""
    return _KIND_OF[type(fact)]


def fact_line(fact: Fact) -> str:
    """The one line of a fact, without a newline. What `parse_fact` would refuse is an assertion."""
    line = _line(fact)
    assert parse_fact(line) == fact
    return line


def parse_fact(line: str) -> Fact:
    """The fact whose line this is, letter for letter; Refusal `bad_fact` otherwise."""
    word, kind, *pairs = [*line.split(" "), ""]
    made = _KINDS.get(kind)
    if word != "fact" or made is None:
        raise _bad(line, "it is of no kind that is known")
    names = [_name_in_line(field.name) for field in fields(made)]
    values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    if list(values) != names:
        raise _bad(line, f"a fact of kind {kind} has the values {', '.join(names)}")
    typed: dict[str, Any] = {field.name: _value(line, field.name, values) for field in fields(made)}
    fact = made(**typed)
    fault = _fault(fact)
    if fault:
        raise _bad(line, fault)
    if _line(fact) != line:
        raise _bad(line, "a value is not spelled as a fact spells it")
    return fact


def how_many_fit(lines: Iterable[str]) -> int:
    """How many of the lines, from the first on, one seal can hold."""
    count = size = 0
    for line in lines:
        size += len(line.encode()) + 1
        if count == MAX_FACTS or size > MAX_FACTS_BYTES:
            break
        count += 1
    return count


def _line(fact: Fact) -> str:
    pairs = [
        f"{_name_in_line(field.name)}={_text(field.name, getattr(fact, field.name))}"
        for field in fields(fact)
    ]
    return " ".join(["fact", kind_of(fact), *pairs])


def _name_in_line(name: str) -> str:
    return name.removesuffix("_us")


def _text(name: str, value: int | str) -> str:
    if name.endswith("_us"):
        return time_text(int(value))
    return quote(str(value), safe=_SAFE) if name in _TEXTS else str(value)


def _value(line: str, name: str, values: dict[str, str]) -> int | str:
    """The value of one field as its dataclass wants it."""
    text = values[_name_in_line(name)]
    if name.endswith("_us"):
        try:
            return time_us_of(text)
        except ValueError:
            raise _bad(line, f"{text!r} is no instant") from None
    if name in _TEXTS:
        try:
            return unquote(text, errors="strict")
        except UnicodeDecodeError:
            raise _bad(line, f"{name} is no text") from None
    if name in _PATTERNS:
        if not _PATTERNS[name].fullmatch(text):
            raise _bad(line, f"{name} {text!r} is malformed")
        return text
    if name in _WORDS:
        if text not in _WORDS[name]:
            raise _bad(line, f"{name} is {' or '.join(_WORDS[name])}, not {text!r}")
        return text
    if not _INTEGER.fullmatch(text) or int(text) >= _MAX_COUNT:
        raise _bad(line, f"{name} {text!r} is out of range")
    return int(text)


def _fault(fact: Fact) -> str | None:
    """What must hold between the values of one fact, and does not."""
    if isinstance(fact, Unmetered):
        if fact.requests < 1:
            return "an interval without an unmetered request is none"
        return _interval_fault(fact.start_us, fact.end_us)
    if isinstance(fact, Serves):
        return None if is_word(fact.model) and is_word(fact.name) else "no model can be named so"
    if isinstance(fact, Span):
        if not is_word(fact.model):
            return "no model can be named so"
        if fact.ended != "quiet" and (fact.engine_prompt or fact.engine_generated):
            return "counters that were lost say nothing"
        if fact.ended == "quiet" and (fact.lost_prompt or fact.lost_generated):
            return "at a quiet point no counter is lost"
        return _interval_fault(fact.from_us, fact.to_us)
    return None


def _interval_fault(start_us: int, end_us: int) -> str | None:
    if not EARLIEST_TIME_US <= start_us <= end_us < END_OF_TIME_US:
        return "it ends before it begins, or lies outside 2020 to 2099"
    return None


def _bad(line: str, what: str) -> Refusal:
    return Refusal("bad_fact", what, where=line[:200], remedy="a fact is taken as it was made, or not at all")
