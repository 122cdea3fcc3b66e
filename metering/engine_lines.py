"""What the engine's witness wrote: its lines, and following them as they grow.

The witness (distribution `tallygrid-vllm`, `adapters/vllm/tallygrid_vllm/lines.py` specifies its format) lives in
vLLM's environment and shares nothing with this code but files: JSON Lines in a folder, one stream of numbered parts
for each process. A line, wrapped here:

    {"v":1,"n":1,"at_us":1760000004200000,"kind":"request","engine":0,"model":"tiny","lora":null,
     "id":"chatcmpl-8d7f9c2e51b04c6da2f3e4b5c6d7e8f9-1a2b3c4d","external":"chatcmpl-8d7f9c2e51b04c6da2f3e4b5c6d7e8f9",
     "status":"aborted","prompt_tokens":31,"cached_tokens":16,"output_tokens":12,"sampled":true}

`parse_line` says what one line means; `EngineLines` (engine_tail.py) follows a folder; `counted` is what vLLM's own
counters must show for a set of lines. Joining lines to events by `request_id` is for whoever reads them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from metering.event import MAX_QUANTITY
from metering.refusal import Refusal

FORMAT_VERSION = 1

#: No line of the witness is as long as this.
MAX_LINE_BYTES = 16_384

#: What a request's id begins with that was served without being written down.
UNMETERED = "unmetered-"

_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
_FILE = re.compile(r"(?P<stream>\d{16,}-\d+-(?:scheduler|frontend))-(?P<part>\d{6,})\.jsonl")


@dataclass(frozen=True, slots=True)
class Opened:
    """A part begins: by which process, with which versions. `engine` and `model` are None for a front end."""

    role: str
    part: int
    pid: int
    engine: int | None
    model: str | None
    plugin: str
    vllm: str


@dataclass(frozen=True, slots=True)
class Freed:
    """The engine freed a request. `sampled` says whether it gave anything; cached tokens are among the prompt's."""

    engine: int | None
    model: str | None
    lora: str | None
    id: str
    external: str
    status: str
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    sampled: bool


@dataclass(frozen=True, slots=True)
class AfterEnd:
    """Tokens of a step that was under way when their request ended; thrown away, in no counter."""

    engine: int | None
    id: str
    external: str
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Late:
    """Tokens that are in a `Freed` line and not in vLLM's counters: the front end had let the request go."""

    model: str | None
    id: str
    external: str
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class SteppedAside:
    """The witness does not know this engine: from here on there are no lines, and `generated` is not witnessed."""

    vllm: str
    why: str


@dataclass(frozen=True, slots=True)
class Faults:
    """`count` failures of the witness itself since its stream began, and what the last one was."""

    count: int
    what: str


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing follows in this part; the stream goes on in part `next`, or ends (None)."""

    next: int | None


Said = Opened | Freed | AfterEnd | Late | SteppedAside | Faults | Ended

_KINDS: Mapping[str, type[Said]] = {
    "opened": Opened,
    "request": Freed,
    "after_end": AfterEnd,
    "late": Late,
    "stepped-aside": SteppedAside,
    "faults": Faults,
    "ended": Ended,
}


@dataclass(frozen=True, slots=True)
class EngineLine:
    """One line: number `n` of its stream, written at `at_us` (µs since 1970, the engine's clock)."""

    n: int
    at_us: int
    said: Said


class PartName(NamedTuple):
    """What a file's name says: whose stream, and which part of it."""

    stream: str
    part: int


@dataclass(frozen=True, slots=True)
class Counted:
    """What vLLM's `prompt_tokens_total` and `generation_tokens_total` must show."""

    prompt_tokens: int
    generation_tokens: int


def part_name(file_name: str) -> PartName | None:
    """The stream and part that a file's name stands for; None if it is none of the witness's."""
    found = _FILE.fullmatch(file_name)
    return PartName(found["stream"], int(found["part"])) if found else None


def parse_line(content: bytes) -> EngineLine:
    """What one line says, its newline left out or not.

    Refusal `unknown_engine_line_format` for another format version, `bad_engine_line` for what is no line at all
    (torn, damaged, a wrong type, a count below 0 or above MAX_QUANTITY). Keys that are not known are passed over.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise _bad("it is no JSON") from None
    if not isinstance(found, dict) or type(found.get("v")) is not int:
        raise _bad("it has no format version")
    if found["v"] != FORMAT_VERSION:
        raise Refusal(
            "unknown_engine_line_format",
            f"the engine's witness writes format {found['v']}, this reads {FORMAT_VERSION}",
            remedy="bring Tallygrid and tallygrid-vllm to versions that go together",
        )
    shape = _SHAPES.get(found["kind"]) if isinstance(found.get("kind"), str) else None
    if shape is None:
        raise _bad("its kind is not known")
    kind, wanted = shape
    said: Any = kind(*[_checked(found, name, types) for name, types in wanted])
    return EngineLine(_checked(found, "n", _INTEGER), _checked(found, "at_us", _INTEGER), said)


def request_id(external: str) -> bytes | None:
    """The 16 bytes which the sidecar minted for a request and sent as `X-Request-Id`; None if there are none.

    vLLM mints ids of the same look for requests that come with none, so an id need not be one of the sidecar's.
    """
    found = _ID.search(external)
    return bytes.fromhex(found[0]) if found else None


def is_unmetered(external: str) -> bool:
    """Whether a line is of a request that was served unmetered: it has no event."""
    return UNMETERED in external


def counted(lines: Iterable[EngineLine]) -> Counted:
    """The counters that these lines stand for: freed requests, less what came late."""
    prompt_tokens = generation_tokens = 0
    for line in lines:
        match line.said:
            case Freed() as freed:
                prompt_tokens += freed.prompt_tokens if freed.sampled else 0
                generation_tokens += freed.output_tokens
            case Late() as late:
                prompt_tokens -= late.prompt_tokens
                generation_tokens -= late.output_tokens
    return Counted(prompt_tokens, generation_tokens)


_TYPES: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "int | None": (int, type(None)),
    "str": (str,),
    "str | None": (str, type(None)),
    "bool": (bool,),
}
_INTEGER = _TYPES["int"]

# Worked out once: a busy engine writes thousands of lines a second.
_SHAPES = {
    word: (kind, tuple((field.name, _TYPES[str(field.type)]) for field in fields(kind)))
    for word, kind in _KINDS.items()
}


def _checked(found: dict[str, Any], name: str, types: tuple[type, ...]) -> Any:
    try:
        value = found[name]
    except KeyError:
        raise _bad(f"{name} is missing") from None
    kind = type(value)
    if kind not in types:
        raise _bad(f"{name} is no {' or '.join(each.__name__ for each in types)}")
    if kind is int and not 0 <= value <= (2**63 - 1 if name == "at_us" else MAX_QUANTITY):
        raise _bad(f"{name} is out of range")
    return value


def _bad(what: str) -> Refusal:
    return Refusal("bad_engine_line", f"a line of the engine's witness cannot be read: {what}")
