"""The shipper: sealed batches from the spool to intake over Kafka, and out of the spool once intake has them.

What it sends to and hears from is a port, `Outgoing`; `adapters/kafka/outgoing.py` is Kafka, a twin in memory stands in
for it in simulations. A batch is one message: key `operator/node/lane`, header `seal` (the signed note), value the body
(empty for a heartbeat).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from metering.spool import LaneRef


class Outgoing(Protocol):
    """Where sealed batches go, and where acknowledgements come from. Every call may raise `Unavailable`."""

    def send(self, lane: LaneRef, note: bytes, body: bytes) -> None:
        """Hand a batch over; a lane's batches arrive in the order of their handing over. Blocks while a bounded buffer
        is full. Nothing is promised before `flush`.
        """
        ...

    def flush(self) -> None:
        """Returns when the broker has acknowledged all that was handed over; Unavailable if that can't be said of one
        of them. Whatever was handed over since the last success may then be there, once or twice, or not.
        """
        ...

    def place(self) -> str:
        """What holds the batches, by its identity (cluster and topic): another one than before holds none of them."""
        ...

    def acknowledgements(self) -> Sequence[bytes]:
        """Notes newly read, without waiting; after a start, of every lane's newest from the beginning."""
        ...

    def close(self) -> None:
        """Let go of connections; what was not flushed may be lost."""
        ...


def lane_text(lane: LaneRef) -> str:
    """The key of a lane's messages: `operator/node/lane`."""
    return f"{lane.operator}/{lane.node}/{lane.lane}"
