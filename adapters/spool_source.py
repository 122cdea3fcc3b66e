"""The spool folder as a source of intake: sealed batches, byte for byte as they lie there.

Unlike `SpooledBatch.batch`, nothing is parsed here: a damaged seal has to reach intake as it is, to be set aside there.
Two workers may read one spool; what the other has taken away meanwhile is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path

from billing.acceptance import Mark
from billing.inspection import Delivery, LaneName
from billing.intake_ports import Position
from metering.lane_folder import lane_path
from metering.refusal import Unavailable
from metering.spool import LaneRef, Spool, SpooledBatch


class SpoolSource:
    """Reads and acknowledges what waits in a spool. `Unavailable` where its folder can't be read; a lane of which that
    is true is passed over with a warning, and stops no other.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def deliveries(self) -> Iterator[Delivery]:
        """Every batch that waits, lane by lane in the order of the chain; read one at a time."""
        try:
            lanes = self._spool.lanes()
        except OSError as error:
            raise _unavailable(error) from error
        for lane in lanes:
            yield from self._of_lane(lane)

    def _of_lane(self, lane: LaneRef) -> Iterator[Delivery]:
        """What waits of one lane, as far as it can be read: what comes behind would only be held."""
        try:
            for spooled in self._spool.pending_of(lane):
                found = spooled.read()
                if found is not None:
                    yield Delivery(*found, spooled)
        except OSError as error:
            self._spool.warn_once(
                Path(error.filename or lane_path(self._spool.folder, *astuple(lane))), error.strerror
            )

    def positions(self, tokens: Sequence[object]) -> Sequence[Position]:  # noqa: ARG002 - the port's arguments
        """None: what is in the spool is what is not settled."""
        return ()

    def acknowledge(self, tokens: Sequence[object], marks: Mapping[LaneName, Mark]) -> None:  # noqa: ARG002 - as above
        """Deletes these batches from the spool; those gone already are fine."""
        try:
            for token in tokens:
                assert isinstance(token, SpooledBatch)
                self._spool.acknowledge(token)
        except OSError as error:
            raise _unavailable(error) from error


def _unavailable(error: OSError) -> Unavailable:
    return Unavailable(
        "spool_unavailable",
        f"the spool can't be read: {error.strerror}",
        where=str(error.filename or ""),
        remedy="mend the disk; intake goes on by itself",
    )
