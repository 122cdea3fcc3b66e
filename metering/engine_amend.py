"""Lines that come when their request has its event: one amendment, the difference to what was written.

At most one for a request, so it waits until the expected lines are there, or LATE_S after the last one. Where all
lines are read up to a point at which the engine was idle, a request without a line, of which HTTP told nothing either,
had nothing of the engine (`had_nothing`); that is an amendment too. Most of those are of clients that left before the
engine had taken their request up.

So many written requests are remembered, the oldest go: REMEMBERED of those whose lines did not all come, fewer of the
others. The newest KEPT of those that lack lines are kept over a restart (engine_lacking.py).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from metering.engine_lines import Freed
from metering.engine_request import RequestLines
from metering.event import MAX_QUANTITY, Event
from metering.event_check import is_word
from metering.exchange_step import UNKNOWN_MODEL
from metering.told import Joined

LATE_S = 5.0
REMEMBERED = 10_000
KEPT = 1_000
_REMEMBERED_WHOLE = 1_000


@dataclass(frozen=True, slots=True)
class Amendment:
    """The event that amends what was `told`; `brings_witness`: what was written had none. `audio_prompt` is what comes
    to `Joined.audio_prompt`."""

    told: Event
    event: Event
    brings_witness: bool
    audio_prompt: int = 0


@dataclass(slots=True)
class Written:
    """A request with its event, as it was told and `joined`; what lines have come of it since, and when the last."""

    told: Event
    joined: Joined
    expected: int | None
    lines: RequestLines
    heard_s: float = 0.0
    amended: bool = False


class Amender:
    """The requests that were written, and their late lines. Not safe among threads."""

    def __init__(self, remembered: int, mint: Callable[[], bytes]) -> None:
        """`mint` gives an amendment its id: 16 unguessable bytes."""
        self._remembered = remembered
        self._mint = mint
        # A plain dict finds its oldest only by passing over all that has gone.
        self._whole: OrderedDict[bytes, Written] = OrderedDict()
        self._lacking: OrderedDict[bytes, Written] = OrderedDict()
        self._late: dict[bytes, Written] = {}
        #: Lines that no event can take any more, since the start.
        self.unjoined_lines = 0

    def __len__(self) -> int:
        """Requests that are to be amended."""
        return len(self._late)

    def remember(self, written: Written, *, whole: bool) -> None:
        """A request has its event; `whole`: with all of its lines."""
        memory, most = (
            (self._whole, min(_REMEMBERED_WHOLE, self._remembered))
            if whole
            else (self._lacking, self._remembered)
        )
        memory[written.told.request] = written
        if len(memory) > most:
            memory.popitem(last=False)

    def line(self, request: bytes, line: Freed, now_s: float) -> None:
        """A line of a request that is not waited for: late, or none of ours."""
        written = self._lacking.get(request) or self._whole.get(request)
        if written is None:
            return
        if written.amended:
            self.unjoined_lines += 1
            return
        written.lines.add(line)
        written.heard_s = now_s
        self._late[request] = written

    def lacking(self) -> Iterator[tuple[Written, bool]]:
        """What a restart must know: the newest that lack lines, and whatever is to be amended (true)."""
        newest = [each for each in islice(reversed(self._lacking.values()), KEPT) if not each.amended]
        for written in reversed(newest):
            if written.told.request not in self._late:
                yield written, False
        for written in self._late.values():
            yield written, True

    def take_up(self, written: Written, now_s: float, *, late: bool) -> None:
        """Remember what `lacking` gave before a restart."""
        written.heard_s = now_s
        self._lacking[written.told.request] = written
        if late:
            self._late[written.told.request] = written

    def forget(self, request: bytes) -> None:
        """It has its amendment already."""
        self._lacking.pop(request, None)
        self._late.pop(request, None)

    def had_nothing(self, requests: Iterable[bytes]) -> None:
        """The engine had nothing of these unwitnessed requests; where HTTP told nothing else, that is now witnessed."""
        for request in requests:
            written = self._lacking.get(request)
            if (
                written is not None
                and written.told.outcome != "finished"
                and not (written.amended or written.lines.count)
                and not (written.told.prompt_tokens or written.told.completion_tokens)
            ):
                written.expected = 0
                self._late[request] = written

    def due(self, now_s: float, now_us: int, *, all_of_it: bool) -> Iterator[tuple[Amendment, RequestLines]]:
        """The amendments that have to be written now, with the lines that they are made of."""
        for request, written in list(self._late.items()):
            whole = written.expected is not None and written.lines.count == written.expected
            if all_of_it or whole or now_s - written.heard_s >= LATE_S:
                del self._late[request]
                written.amended = True
                amendment = _amendment(written, self._mint(), now_us)
                if amendment is not None:
                    yield amendment, written.lines


#: Endpoints of sound. An answer that says how many seconds it was is charged by these, and has no prompt; the others
#: have the engine's: what they say of prompts themselves is of the last piece at best.
OF_SOUND = frozenset({"transcriptions", "translations"})


def witnessed(told: Event, lines: RequestLines) -> Joined:
    """What the lines add to what was told; nothing where their figures are none that an event may have."""
    prompts = lines.prompts()
    if not (lines.generated <= MAX_QUANTITY and prompts.cached <= prompts.tokens <= MAX_QUANTITY):
        return Joined(told.request)
    joined = Joined(
        told.request,
        lines.generated,
        completion_tokens=max(lines.generated, told.completion_tokens) if _is_unread(told) else None,
        model=_model(lines) if told.model == UNKNOWN_MODEL else None,
    )
    if told.audio_seconds:
        return replace(joined, audio_prompt=prompts.tokens)
    is_told = told.outcome == "finished" and told.reason is None and told.prompt_tokens
    if is_told and told.endpoint not in OF_SOUND:
        return joined
    return replace(joined, prompt_tokens=prompts.tokens, cached_tokens=prompts.cached)


def _is_unread(told: Event) -> bool:
    """The client had all of the answer, and what that was HTTP did not say."""
    return told.reason == "usage_unread"


def _model(lines: RequestLines) -> str | None:
    """The name by which clients ask for what ran: the adapter's, if it was one."""
    name = lines.lora or lines.model
    return name if name is not None and is_word(name) else None


def _amendment(written: Written, request: bytes, now_us: int) -> Amendment | None:
    """What the lines say now, less what the event said; None if they say nothing."""
    told, before, now = written.told, written.joined, witnessed(written.told, written.lines)
    if now.generated_tokens is None:
        return None
    prompt, cached = _prompt(told, now)
    prompt_before, cached_before = _prompt(told, before)
    completion, completion_before = _completion(told, now), _completion(told, before)
    counted = completion_before if before.generated_tokens is None else before.generated_tokens
    event = told._replace(
        kind="amendment",
        time_us=now_us,
        request=request,
        names=told.request,
        model=now.model or told.model,
        prompt_tokens=prompt - prompt_before,
        cached_tokens=cached - cached_before,
        completion_tokens=completion - completion_before,
        reasoning_tokens=0,
        generated_tokens=now.generated_tokens - counted,
        audio_seconds=0,
        reason=None if before.generated_tokens is None else "lines_late",
        whole_prompt=prompt,
    )
    brings_witness = before.generated_tokens is None
    return Amendment(told, event, brings_witness, now.audio_prompt - before.audio_prompt)


def _prompt(told: Event, joined: Joined) -> tuple[int, int]:
    if joined.prompt_tokens is None:
        return told.prompt_tokens, told.cached_tokens
    return joined.prompt_tokens, joined.cached_tokens or 0


def _completion(told: Event, joined: Joined) -> int:
    return told.completion_tokens if joined.completion_tokens is None else joined.completion_tokens
