"""The join: what HTTP told of a request and what the engine's lines say of it become one event.

Pure: told of things in any order, with the time (seconds, monotonic) at which they were met, it says what is due. The
sidecar feeds it and writes down what it says.

    opened     an intent is written: lines for this request are ours, and are kept until it is told
    told       the HTTP exchange is over; `expected` engine lines follow or are there already (None: not known, 0: the
               engine's scheduler never had it)
    line       the engine freed a request
    due        what has to be written now

A told request is due when its expected lines are there; otherwise SETTLE_S after its last line (a client that hangs up
early keeps some from being born), and PATIENCE_S after it was told at the latest. Then its event goes as HTTP told it,
unwitnessed. A line that comes later becomes an amendment (engine_amend.py).

The event: `generated_tokens` are the engine's. Prompt and cached tokens are HTTP's where the answer was whole and its
usage could be read, the engine's otherwise: HTTP says nothing of a prompt before its answer. Sound that is charged by
its seconds has no prompt in its event; the engine's is known apart (`audio_prompt`). Completion and reasoning tokens
stay what the client was told; only where it had the whole answer and could not be told (`usage_unread`), it had what the
engine generated. The model of a request that named none is the line's.

Memory is bounded by the requests in the air and what is remembered for amendments. Lines of requests that are not ours
(of another lane of the node, of nobody) are passed over.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from metering.engine_amend import REMEMBERED, Amender, Amendment, Written, witnessed
from metering.engine_lines import Freed
from metering.engine_request import RequestLines
from metering.event import Event
from metering.exchange_step import UNKNOWN_MODEL
from metering.identity import new_id
from metering.told import Joined

SETTLE_S = 1.0
PATIENCE_S = 5.0

#: So many names under which clients ask for the engine's models.
MOST_NAMES = 256


@dataclass(frozen=True, slots=True)
class Due:
    """What has to be written now: each request, as it was told, is in `joined` once, in `amendments` once at most."""

    joined: list[tuple[Event, Joined]] = field(default_factory=list)
    amendments: list[Amendment] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.joined or self.amendments)


@dataclass(slots=True)
class _Open:
    """A request without its event yet; `told` is None while its HTTP exchange runs."""

    told: Event | None = None
    expected: int | None = None
    lines: RequestLines | None = None
    told_s: float = 0.0
    heard_s: float = 0.0


class Joiner:
    """Brings together what was told and the engine's lines. Not safe among threads."""

    def __init__(self, *, remembered: int = REMEMBERED, mint: Callable[[], bytes] = new_id) -> None:
        """`mint` gives an amendment its id: 16 unguessable bytes."""
        self._amender = Amender(remembered, mint)
        #: Intents without a line are None: nothing but their id is kept.
        self._open: dict[bytes, _Open | None] = {}
        # In the order of being told; of them those that are whole, and those that have some of their lines. (A plain
        # dict finds its oldest only by passing over all that has gone.)
        self._told: OrderedDict[bytes, _Open] = OrderedDict()
        self._ready: dict[bytes, None] = {}
        self._begun: dict[bytes, None] = {}
        self._names: dict[str, str] = {}
        self._new_names: list[tuple[str, str]] = []
        #: Counts since the start: events by how they ended.
        self.joined = self.alone = self.amended = 0
        #: How long the request that was joined last had waited for its lines, in seconds.
        self.lag_s = 0.0

    @property
    def waiting(self) -> int:
        """Requests that are told and not written, or written and to be amended."""
        return len(self._told) + len(self._amender)

    @property
    def unjoined_lines(self) -> int:
        """Lines that no event could take any more, since the start."""
        return self._amender.unjoined_lines

    def oldest_wait_s(self, now_s: float) -> float:
        """How long the request that has waited longest for its lines has done so, in seconds; 0 if none waits."""
        oldest = next(iter(list(self._told.values())[:1]), None)
        return 0.0 if oldest is None else max(0.0, now_s - oldest.told_s)

    @property
    def idle(self) -> bool:
        """No line waits for its request, no request for its line."""
        return not self.waiting and not any(self._open.values())

    def opened(self, request: bytes) -> None:
        """A request is about to go to the engine."""
        self._open[request] = None

    def closed(self, request: bytes) -> None:
        """It has its event without a join: the engine had nothing of it, or nobody can say."""
        self._open.pop(request, None)

    def told(self, event: Event, expected: int | None, now_s: float) -> None:
        """What HTTP told of a request at its end; 16 bytes of it name the request. It need not have been `opened`."""
        known = self._open.pop(event.request, None) or _Open()
        known.told, known.expected, known.told_s = event, expected, now_s
        self._told[event.request] = known
        self._sort(event.request, known)

    def line(self, request: bytes, line: Freed, now_s: float) -> None:
        """The engine freed a request, or one of the many that it makes of it."""
        known = self._told.get(request)
        if known is None and request in self._open:
            known = self._open[request] = self._open[request] or _Open()
        if known is not None:
            known.lines = known.lines or RequestLines()
            known.lines.add(line)
            known.heard_s = now_s
            self._sort(request, known)
            return
        self._amender.line(request, line, now_s)

    def due(self, now_s: float, *, now_us: int, all_of_it: bool = False) -> Due:
        """What has to be written now, at most once. `now_us` is the time of amendments (µs since 1970).

        `all_of_it`: whatever waits, because nobody can wait longer.
        """
        due = Due()
        for request in self._told_and_due(now_s) if not all_of_it else list(self._told):
            known = self._told.pop(request)
            self._ready.pop(request, None)
            self._begun.pop(request, None)
            self._end(request, known, due)
            self.lag_s = now_s - known.told_s
        for amendment, lines in self._amender.due(now_s, now_us, all_of_it=all_of_it):
            self.amended += 1
            self._learn_name(amendment.event.model, lines)
            due.amendments.append(amendment)
        return due

    def had_nothing(self, requests: Iterable[bytes]) -> None:
        """The engine had nothing of these unwitnessed requests: it is idle, and no line can be missing."""
        self._amender.had_nothing(requests)

    @property
    def amender(self) -> Amender:
        """Who has what was written."""
        return self._amender

    def engine_model(self, name: str) -> str:
        """What the engine calls the model that clients ask for by `name`, as far as lines have shown."""
        return self._names.get(name, name)

    def take_names(self) -> list[tuple[str, str]]:
        """(engine's model, clients' name for it) where they differ, each once since the start."""
        names, self._new_names = self._new_names, []
        return names

    def held(self) -> Iterator[tuple[bytes, RequestLines]]:
        """The lines that came and are in no event yet, request by request."""
        for request, known in (*self._open.items(), *self._told.items()):
            if known is not None and known.lines is not None:
                yield request, known.lines

    def hold(self, request: bytes, lines: RequestLines, now_s: float) -> None:
        """Take back what `held` gave before a restart. Comes after `opened` or `told`; passed over for any other."""
        known = self._told.get(request)
        if known is None and request in self._open:
            known = self._open[request] = _Open()
        if known is not None:
            known.lines, known.heard_s = lines, now_s
            self._sort(request, known)

    def _sort(self, request: bytes, known: _Open) -> None:
        """Where a request belongs whose lines or whose end came: asking costs by what is due, not by what waits."""
        if known.told is None:
            return
        if known.expected is not None and known.expected <= (known.lines.count if known.lines else 0):
            self._ready[request] = None
        elif known.lines is not None:
            self._begun[request] = None

    def _told_and_due(self, now_s: float) -> list[bytes]:
        found = dict(self._ready)
        for request in self._begun:
            known = self._told[request]
            if now_s - max(known.heard_s, known.told_s) >= SETTLE_S:
                found[request] = None
        for request, known in self._told.items():
            if now_s - known.told_s < PATIENCE_S:
                break
            found[request] = None
        return list(found)

    def _end(self, request: bytes, known: _Open, due: Due) -> None:
        told, lines = known.told, known.lines
        assert told is not None
        whole = known.expected == 0 or (
            lines is not None and (known.expected is None or lines.count >= known.expected)
        )
        if lines is None and known.expected == 0:
            joined = Joined(request, 0)
        elif lines is None:
            joined = Joined(request)
            self.alone += 1
        else:
            joined = witnessed(told, lines)
            self.joined += 1
            self._learn_name(joined.model or told.model, lines)
        due.joined.append((told, joined))
        self._amender.remember(Written(told, joined, known.expected, lines or RequestLines()), whole=whole)

    def _learn_name(self, name: str, lines: RequestLines) -> None:
        model = lines.model
        if model is None or name in (model, UNKNOWN_MODEL):
            return
        if len(self._names) < MOST_NAMES and name not in self._names:
            self._names[name] = model
            self._new_names.append((model, name))
