"""What the watching of the engine keeps over a restart: one file of the lane's folder, replaced as
a whole.

    {"v":1,"lines":{…},"held":[{"request":"8d7f…","count":1,…}],"spans":{…},"pending":["fact span …"],
     "lacking":[{"told":"0100…",…}]}

The place in the engine's files, the lines read so far that are in no event, the span that runs, the facts that no
published seal has yet, and the written requests whose lines may still come. All are of one moment: reading goes on at a
place that fits the sums, so no line is counted twice or left out, whatever is killed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metering.engine_request import RequestLines
from metering.lane import Lane
from metering.refusal import Refusal

VERSION = 1
#: Its name in the lane's folder.
STATE_FILE = "engine"


@dataclass(frozen=True, slots=True)
class EngineState:
    """`lines` is EngineLines.place(), None where no lines were read; `spans` is Spans.to_json(); `held` by request,
    `pending` facts in their order; `lacking` by engine_lacking.py."""

    lines: dict[str, Any] | None
    held: dict[bytes, RequestLines]
    spans: dict[str, Any]
    pending: tuple[str, ...]
    lacking: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """The file's content."""
        content = {
            "v": VERSION,
            "lines": self.lines,
            "held": [{"request": request.hex(), **lines.to_json()} for request, lines in self.held.items()],
            "spans": self.spans,
            "pending": self.pending,
        }
        text = json.dumps(content, separators=(",", ":"))
        return f'{text[:-1]},"lacking":[{",".join(self.lacking)}]}}'.encode()

    @classmethod
    def read(cls, path: Path, take: Callable[[EngineState], None]) -> bool:
        """Let `take` have what the file holds; False where there is none. Refusal `bad_engine_state` if it holds
        something else, or `take` raises KeyError, TypeError, ValueError or Refusal for a part of it."""
        try:
            found: Any = json.loads(path.read_bytes())
            if found["v"] != VERSION:
                raise ValueError
            held = {bytes.fromhex(each["request"]): RequestLines.from_json(each) for each in found["held"]}
            lacking = tuple(json.dumps(each, separators=(",", ":")) for each in found["lacking"])
            take(cls(found["lines"], held, found["spans"], tuple(map(str, found["pending"])), lacking))
        except FileNotFoundError:
            return False
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError, Refusal):
            raise Refusal(
                "bad_engine_state",
                "what is kept of the engine's lines and counters cannot be read",
                where=str(path),
                remedy="move it away: lines written until now are then not joined, and a new span begins",
            ) from None
        return True


def series_of(lane: Lane) -> int:
    """The series (fact.py) of the spans that a lane begins without a state: 0, and where others were before, 1 to 2²⁴."""
    return 0 if lane.is_new else int(lane.epoch[:6], 16) + 1
