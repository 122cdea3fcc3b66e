"""`tally` whose lane forgets one event: `python forgetful_tally.py NUMBER sidecar …`, the NUMBER-th that has tokens.

A sidecar that lost an event as completely as can be: told and joined, its request closed, and nothing of it written.
What is left is the engine's own count. (The lane's state is reached into, because there is no road to this.)
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence

from adapters.cli.main import main
from metering.lane_writer import LaneWriter
from metering.told import Joined

_to_the_disk = LaneWriter.joined


def forgetting(number: int) -> None:
    """From here on `LaneWriter.joined` leaves out the number-th event that has tokens."""
    counted = itertools.count(1)

    def joined(self: LaneWriter, joins: Sequence[Joined]) -> None:
        kept = []
        for join in joins:
            if join.generated_tokens and next(counted) == number:
                with self._append:
                    del self._state.open[join.request]
                    self._state.closed += 1
            else:
                kept.append(join)
        _to_the_disk(self, kept)

    LaneWriter.joined = joined  # type: ignore[method-assign]  # that is the point


if __name__ == "__main__":
    forgetting(int(sys.argv.pop(1)))
    main()
