"""A row of reconciliation: both sides of one model over some time, the causes, and what is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from metering.fact import Span
from metering.stretch import SealedSum

WITNESS_MIXED = "mixed"


_TELLING = (
    "events_prompt",
    "events_generated",
    "engine_prompt",
    "engine_generated",
    "late_prompt",
    "late_generated",
    "repeated_prompt",
    "audio_prompt",
    "unmetered_prompt",
    "unmetered_generated",
    "lost_prompt",
    "lost_generated",
    "lines",
    "lines_missing",
)
_SUMMED = ("requests", "unwitnessed_requests", "restarts", "unscraped", *_TELLING)


@dataclass(frozen=True, slots=True)
class Row:
    """One node's model over one hour's stretches: both sides, the causes, and what is left. Tokens throughout.

    `from_us` and `to_us` are where the first stretch begins and the last one ends, not the hour's edges. `restarts` and
    `unscraped` count the spans whose counters were lost. `witness` is that of its spans, or `mixed`;
    `speakers` are the lanes that said what the engine counted.
    """

    model: str
    hour_us: int
    from_us: int
    to_us: int
    requests: int = 0
    events_prompt: int = 0
    events_generated: int = 0
    unwitnessed_requests: int = 0
    engine_prompt: int = 0
    engine_generated: int = 0
    late_prompt: int = 0
    late_generated: int = 0
    repeated_prompt: int = 0
    audio_prompt: int = 0
    unmetered_prompt: int = 0
    unmetered_generated: int = 0
    lost_prompt: int = 0
    lost_generated: int = 0
    lines: int = 0
    lines_missing: int = 0
    restarts: int = 0
    unscraped: int = 0
    witness: str | None = None
    speakers: frozenset[str] = frozenset()

    @property
    def unaccounted_prompt(self) -> int:
        """Prompt tokens that the engine counted and nothing explains; below 0: events say more than the engine."""
        known = self.engine_prompt + self.late_prompt + self.lost_prompt
        elsewhere = self.repeated_prompt + self.audio_prompt + self.unmetered_prompt
        return known - elsewhere - self.events_prompt

    @property
    def unaccounted_generated(self) -> int:
        """Generated tokens that the engine counted and nothing explains; below 0: events say more."""
        known = self.engine_generated + self.late_generated + self.lost_generated
        return known - self.unmetered_generated - self.events_generated

    @property
    def unaccounted(self) -> int:
        """How many tokens are unexplained, in either direction."""
        return abs(self.unaccounted_prompt) + abs(self.unaccounted_generated)

    @property
    def tells(self) -> bool:
        """Whether anybody counted a token, or a line came or is missing."""
        return any(getattr(self, name) for name in _TELLING)

    @property
    def differs(self) -> bool:
        """Whether anything here is unexplained, or a line of the engine is missing."""
        return bool(self.unaccounted or self.lines_missing)


def is_blind(span: Span) -> bool:
    """Whether the engine's counters were lost and its lines do not stand for them: then what the span says was lost is
    what events say, and to compare it with events would find nothing whatever happened.

    Where a witness told of a restart, the requests whose line the kill cut off are taken as their events tell them; they
    are counted as unwitnessed. Nobody can tell so of an engine that merely could not be asked.
    """
    if span.ended == "quiet":
        return False
    return span.witness != "yes" or (span.ended == "unscraped" and span.unwitnessed_requests > 0)


def row_of_span(hour_us: int, lane: str, span: Span, *, compared: bool = True) -> Row:
    """The engine's side of a row; unless it is `compared`, only what needs no other side: its lines."""
    lines = Row(
        model=span.model,
        hour_us=hour_us,
        from_us=span.from_us,
        to_us=span.to_us,
        lines=span.lines,
        lines_missing=span.lines_missing,
        restarts=int(span.ended == "restart"),
        unscraped=int(span.ended == "unscraped"),
        witness=span.witness,
        speakers=frozenset([lane] if span.engine_prompt or span.engine_generated else ()),
    )
    if not compared:
        return lines
    return replace(
        lines,
        engine_prompt=span.engine_prompt,
        engine_generated=span.engine_generated,
        late_prompt=span.late_prompt,
        late_generated=span.late_generated,
        repeated_prompt=span.repeated_prompt,
        audio_prompt=span.audio_prompt,
        unmetered_prompt=span.unmetered_prompt,
        unmetered_generated=span.unmetered_generated,
        lost_prompt=span.lost_prompt,
        lost_generated=span.lost_generated,
    )


def row_of_sum(hour_us: int, found: SealedSum) -> Row:
    """Our side of a row."""
    return Row(
        model=found.model,
        hour_us=hour_us,
        from_us=found.first_us,
        to_us=found.last_us,
        requests=found.requests,
        events_prompt=found.prompt_tokens,
        events_generated=found.generated_tokens,
        unwitnessed_requests=found.unwitnessed_requests,
    )


def joined(rows: Sequence[Row]) -> Row:
    """The sum of rows of one model."""
    witnesses = {row.witness for row in rows if row.witness is not None}
    return Row(
        model=rows[0].model,
        hour_us=min(row.hour_us for row in rows),
        from_us=min(row.from_us for row in rows),
        to_us=max(row.to_us for row in rows),
        speakers=frozenset[str]().union(*(row.speakers for row in rows)),
        witness=None if not witnesses else witnesses.pop() if len(witnesses) == 1 else WITNESS_MIXED,
        **{name: sum(getattr(row, name) for row in rows) for name in _SUMMED},
    )
