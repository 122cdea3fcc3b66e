"""Written requests whose lines may still come, as they are kept over a restart: a text each, in engine_state.py.

    {"told":"0100…","joined":{"generated_tokens":12,…},"expected":3,"late":false,"lines":{"count":1,…}}

`told` are the canonical bytes of what HTTP told, in hex, with sequence 0; `joined` what was written beyond it; `lines`
all that came so far, and `late` says that some of them came after the event, so that its amendment is due.

What was written in the last moments before a kill is not in the state. So the lane says at its start what its newest
write-ahead segment holds of it (`LastWritten`): events without the engine's figure, which may still get it, and
amended ones, which must not get another.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from metering.canonical import pack
from metering.engine_amend import Amender, Written
from metering.engine_request import RequestLines
from metering.lane_recovery import LastWritten
from metering.told import TOLD_SEQUENCE, Joined, events_of


class LackingLines:
    """The written requests that lack lines, between `amender` and a restart."""

    def __init__(self, amender: Amender) -> None:
        self._amender = amender
        self._texts: dict[bytes, str] = {}

    def take(self, texts: Iterable[str], now_s: float) -> None:
        """Go on with what `texts` gave. Raises KeyError, TypeError or ValueError for what it never gave."""
        for written, late in _read_all(texts):
            self._amender.take_up(written, now_s, late=late)

    def take_last(self, last: LastWritten, now_s: float) -> None:
        """And with what was written since."""
        known = {written.told.request for written, _ in self._amender.lacking()}
        for event in last.unwitnessed:
            if event.request not in known:
                written = Written(event, Joined(event.request), None, RequestLines())
                self._amender.take_up(written, now_s, late=False)
        for request in last.amended:
            self._amender.forget(request)

    def texts(self) -> tuple[str, ...]:
        """Each as JSON; put into words once, as long as no line of it comes."""
        texts = {}
        for written, late in self._amender.lacking():
            request = written.told.request
            text = None if late else self._texts.get(request)
            texts[request] = text or _text(written, late=late)
        self._texts = texts
        return tuple(texts.values())


def _text(written: Written, *, late: bool) -> str:
    joined = asdict(written.joined)
    del joined["request"]
    found = {
        "told": pack(written.told, TOLD_SEQUENCE, written.told.time_us).hex(),
        "joined": joined,
        "expected": written.expected,
        "late": late,
        "lines": written.lines.to_json(),
    }
    return json.dumps(found, separators=(",", ":"))


def _read_all(texts: Iterable[str]) -> Iterator[tuple[Written, bool]]:
    found = [json.loads(text) for text in texts]
    try:
        told = events_of([bytes.fromhex(each["told"]) for each in found])
    except (struct.error, IndexError) as bad:
        raise ValueError from bad
    for event, each in zip(told, found, strict=True):
        expected = None if each["expected"] is None else int(each["expected"])
        joined = Joined(event.request, **each["joined"])
        yield Written(event, joined, expected, RequestLines.from_json(each["lines"])), bool(each["late"])
