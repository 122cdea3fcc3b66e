"""The port between a client's connection and the sidecar around it: who may pass, and what is written down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from metering.engine_pools import EnginePools
from metering.event import Event
from metering.exchange import Exchange
from metering.exchange_step import Watch
from metering.figures import Latency
from metering.http_refusal import OwnAnswer, Refused
from metering.http_request import Request, RequestReader
from metering.sidecar_options import Patience

if TYPE_CHECKING:
    from metering.client_connection import ClientConnection


class Capture(Protocol):
    """What a connection needs of the sidecar around it."""

    engine: EnginePools
    patience: Patience
    connections: set[ClientConnection]
    stopping: bool
    added: Latency

    def reader(self, peer: str | None) -> RequestReader: ...
    def open(self, request: Request) -> Exchange | OwnAnswer | Refused: ...
    def write_down(self, event: Event, *, lines: int | None, unread_usage: bool) -> bool: ...
    def watch(self, watch: Watch) -> None: ...
    def refuse(self, refused: Refused) -> None: ...
    def now_us(self) -> int: ...
    def clock(self) -> float: ...
