"""Spans: what the engine's counters and its lines said between two quiet points, held against each other.

While requests run, the engine's counters are ahead of its lines: tokens count as they are sampled, a line comes when a
request is freed. So the two are compared only where nothing runs. A quiet point is two looks at every engine's counters
with the same result, no line in between, no request running or waiting in an engine, and none that waits for its line
here. Between two quiet points

    increase of the counters = Σ lines that sampled − Σ late

to the token, and what the span says of each model goes into the lane as a fact (fact.py), to be compared with events in
the ledger. Where an engine lost its counters in between (it was restarted, or killed) or they could not be read, the
span says so, and says from the lines, and from the events that got none, what the counters would have shown.

Pure: fed with lines, looks and what the join wrote down. All of it can be kept as JSON beside the place in the engine's
files, in one file, so that no line is in a span twice or in none, whatever is killed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from metering.engine_counters import FRESH, Counts, Look, Scrape, increase, is_same_engine
from metering.engine_join import Due
from metering.engine_lines import Freed, Late, Opened, Said, SteppedAside
from metering.engine_sums import SpanSums, Sums, keep, unaccounted
from metering.event import Event
from metering.fact import SERIES, Span
from metering.node_word import Speaker

#: An engine that cannot be asked for so long ends its span without its counters, once nothing runs.
UNSCRAPED_AFTER_US = 600_000_000
#: So many looks alike, with nothing of ours in the air, outweigh a gauge that says that a request runs.
STALE_LOOKS = 6


class Spans:
    """The span that runs. Not safe among threads."""

    def __init__(self, now_us: int, *, witness: bool, series: int = 0) -> None:
        """`witness`: there is a folder of lines. Only the lane that speaks for the node tells of counters and lines;
        the others tell of their own events that lost counters would have shown, and of the prompts of sound
        (`audio_prompt`). `series` is that of the spans (fact.py), unless `take_json` goes on with another."""
        self._witness = witness
        #: Set it before each look. While nobody speaks for the node no span ends: what it would leave unsaid stays in it.
        self.speaker = Speaker.OURS
        self._number = series * SERIES
        self._from_us = now_us
        self._begun: dict[str, Scrape] = {}
        self._latest: dict[str, Scrape] = {}
        self._restarted = False
        self._heard = False
        self._aside: set[str] = set()
        self._sums = SpanSums()
        # From here on, what need not outlive the process.
        self._before: Look | None = None
        self._alike = 0
        self._moved = False
        self._unscraped_us: int | None = None
        self._model_of_stream: OrderedDict[str, str] = OrderedDict()
        self._unseen: list[bytes] = []
        #: Tokens of the last span that the engine counted and no event of this lane has: (model, `prompt`|`generated`).
        self.unaccounted: dict[tuple[str, str], int] = {}
        #: Where that span began.
        self.told_from_us = now_us

    @property
    def begun(self) -> bool:
        """Whether a quiet point would end a span about which something is to be said."""
        if self.speaker is Speaker.NOBODY:
            return False
        grown = any(increase(self._begun.get(address, FRESH), now) for address, now in self._latest.items())
        return bool(self._sums) or grown

    def knows(self, addresses: Iterable[str]) -> bool:
        """Whether it is known of each engine where its counters stood when the span began."""
        return self._begun.keys() >= set(addresses)

    @property
    def witness(self) -> str:
        """`yes`, `no` or `aside`, as it is now."""
        return "no" if not self._witness else "aside" if self._aside else "yes"

    # -- lines and events -------------------------------------------------------------------------------------------

    def line(self, stream: str, said: Said) -> None:
        """A line of an engine, whosever request it is of."""
        self._moved = self._heard = True
        match said:
            case Freed():
                self._sums.freed(said)
            case Late():
                self._sums.late(said)
            case Opened(role="scheduler"):
                self._opened(stream, said)
            case SteppedAside():
                self._aside.add(self._model_of_stream.get(stream, ""))

    def missing(self, lines: int) -> None:
        """So many numbers of lines must be there and are not."""
        if lines:
            self._moved = True
            self._sums.missing(lines)

    def due(self, due: Due, model_of: Callable[[str], str]) -> None:
        """What the join wrote down. `model_of`: the engine's name for the model that an event names."""
        for told, joined in due.joined:
            self._sums.event(model_of(joined.model or told.model), told, joined)
        for amendment in due.amendments:
            model = model_of(amendment.event.model)
            self._sums.amendment(model, amendment, model_of(amendment.told.model))

    def event(self, told: Event) -> None:
        """An event that was written without a join."""
        if told.generated_tokens is None:
            self._sums.unjoined(told)

    def _opened(self, stream: str, opened: Opened) -> None:
        model = opened.model or ""
        keep(self._model_of_stream, stream, model)
        if opened.part == 0:
            self._aside -= {model, ""}
            addresses = list(self._before.scrapes if self._before else self._begun)
            if len(addresses) == 1:
                self._began_anew(addresses[0])
            elif self._sums:
                self._restarted = True

    def _began_anew(self, address: str) -> None:
        """An engine's counters begin at nothing; what they had grown by since the span began is lost, if they had."""
        begun = self._begun.get(address)
        latest = self._latest.get(address)
        unused = latest is None if begun is None else latest is None or not increase(begun, latest)
        if self._sums or not unused:
            self._restarted = True
        else:
            self._begun[address] = self._latest[address] = FRESH

    # -- looks ------------------------------------------------------------------------------------------------------

    def look(self, look: Look) -> list[Span]:
        """The engines' counters were read. The spans that end here, one for each model that anything is said of."""
        for address, scrape in look.scrapes.items():
            if scrape is not None:
                latest = self._latest.get(address)
                if latest is not None and not is_same_engine(latest, scrape):
                    self._began_anew(address)
                self._latest[address] = scrape
        before, self._before = self._before, look
        moved, self._moved = self._moved, False
        alike = before is not None and before.scrapes == look.scrapes and not moved and look.settled
        self._alike = self._alike + 1 if alike else 0
        # An engine that has been away for all of the span has counted nothing in it.
        shown = {address for address, scrape in look.scrapes.items() if scrape is not None}
        if shown >= self._begun.keys() & look.scrapes.keys():
            self._unscraped_us = None
        elif self._unscraped_us is None:
            self._unscraped_us = look.asked_us
        if not alike or self.speaker is Speaker.NOBODY:
            return []
        if self._unscraped_us is not None:
            given_up = look.asked_us - self._unscraped_us >= UNSCRAPED_AFTER_US
            return self._end(look, "unscraped") if given_up and self._sums else []
        if not look.idle and (look.in_air or self._alike < STALE_LOOKS):
            return []
        known = shown and self._begun.keys() >= shown
        ended = "restart" if self._restarted else "quiet" if known else "unscraped"
        if ended == "quiet" and self._find_unseen(self._grown(look)):
            return []
        return self._end(look, ended)

    def take_unseen(self) -> list[bytes]:
        """Requests that ended without a line, now that the engine is quiet and no line can be missing.

        What is written of them is of the span that runs: it ends with the next look.
        """
        unseen, self._unseen = self._unseen, []
        return unseen

    def _find_unseen(self, grown: Mapping[str, Counts]) -> bool:
        seen = all(self._witness_of(model, grown[model], self._sums.of(model)) == "yes" for model in grown)
        if seen and self.witness == "yes" and not self._sums.lines_missing:
            self._unseen += self._sums.take_unseen()
        return bool(self._unseen)

    def _grown(self, look: Look) -> dict[str, Counts]:
        """What each model's counters rose by since the span began, over all engines."""
        grown: dict[str, Counts] = {}
        for address, scrape in look.scrapes.items():
            if scrape is not None:
                for model, counts in increase(self._begun[address], scrape).items():
                    prompt, generated = grown.get(model, Counts())
                    grown[model] = Counts(prompt + counts.prompt, generated + counts.generated)
        return grown

    def _end(self, look: Look, ended: str) -> list[Span]:
        scrapes = {address: scrape for address, scrape in look.scrapes.items() if scrape is not None}
        grown = self._grown(look) if ended == "quiet" else {}
        served = {model for scrape in scrapes.values() for model in scrape.counts}
        audio_us = self._sums.audio_us
        sums = self._sums.take([*sorted(grown), *sorted(served)])
        spans = []
        for model in sorted(sums.keys() | grown.keys()):
            span = self._span(
                model, look.asked_us, ended, grown.get(model, Counts()), sums.get(model, Sums())
            )
            if span is not None:
                if audio_us is not None and ended == "quiet" and self.speaker is Speaker.ANOTHER:
                    span = replace(span, from_us=audio_us[0], to_us=audio_us[1])
                spans.append(span)
                self._number += 1
        self._from_us = look.asked_us
        self._begun, self._latest = scrapes, dict(scrapes)
        self._restarted, self._unscraped_us = False, None
        return spans

    def _span(self, model: str, to_us: int, ended: str, grown: Counts, sums: Sums) -> Span | None:
        """What is said of one model; None if there is nothing to say."""
        lost_prompt = lost_generated = 0
        if ended != "quiet":
            lost_prompt, lost_generated = sums.alone_prompt, sums.alone_generated
        witness = self._witness_of(model, grown, sums)
        if self.speaker is Speaker.ANOTHER:
            if not (sums.audio_prompt or (ended != "quiet" and sums.alone)):
                return None
            grown, sums = Counts(), Sums(alone=sums.alone, audio_prompt=sums.audio_prompt)
        elif sums == Sums() and grown == Counts():
            return None
        elif ended != "quiet":
            lost_prompt += sums.sampled_prompt - sums.late_prompt
            lost_generated += sums.generated - sums.late_generated
        lacking = sums.lacking if witness == "yes" and ended == "quiet" else 0
        span = Span(
            number=self._number,
            model=model,
            from_us=self._from_us,
            to_us=max(self._from_us, to_us),
            ended=ended,
            lines=sums.lines,
            lines_missing=max(sums.lines_missing, lacking),
            engine_prompt=grown.prompt,
            engine_generated=grown.generated,
            late_prompt=sums.late_prompt,
            late_generated=sums.late_generated,
            repeated_prompt=sums.repeated_prompt,
            audio_prompt=max(sums.audio_prompt, 0),
            unmetered_prompt=sums.unmetered_prompt,
            unmetered_generated=sums.unmetered_generated,
            lost_prompt=max(lost_prompt, 0),
            lost_generated=max(lost_generated, 0),
            unwitnessed_requests=sums.alone,
            witness=witness,
        )
        if self.speaker is Speaker.OURS:
            self.told_from_us = self._from_us
            self.unaccounted |= unaccounted(span, sums if self._witness else sums.all_alone())
        return span

    def _witness_of(self, model: str, grown: Counts, sums: Sums) -> str:
        if not self._witness:
            return "no"
        silent = not sums.lines and (grown != Counts() or not self._heard)
        if silent:
            self._heard = False
        return "aside" if silent or self._aside & {model, ""} else "yes"

    # -- over a restart ---------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """The span that runs, for `take_json` of the next process."""
        return {
            "number": self._number,
            "from_us": self._from_us,
            "begun": {address: scrape.to_json() for address, scrape in self._begun.items()},
            "latest": {address: scrape.to_json() for address, scrape in self._latest.items()},
            "restarted": self._restarted,
            "heard": self._heard,
            "aside": sorted(self._aside),
            "sums": self._sums.to_json(),
        }

    def take_json(self, found: dict[str, Any]) -> None:
        """Go on with what `to_json` gave. Raises KeyError, TypeError or ValueError for anything else."""
        self._number = int(found["number"])
        self._from_us = int(found["from_us"])
        self._begun = {address: Scrape.from_json(each) for address, each in found["begun"].items()}
        self._latest = {address: Scrape.from_json(each) for address, each in found["latest"].items()}
        self._restarted = bool(found["restarted"])
        self._heard = bool(found["heard"])
        self._aside = set(found["aside"])
        self._sums.take_json(found["sums"])
