"""All connections to one engine, and what is known of it: whether it is up, what it serves, how busy we keep it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from metering.engine_address import EngineAddress, EngineKey
from metering.engine_connection import EngineConnection


class EnginePool:
    """All connections to one engine. `clock` counts seconds, monotonic; `ordinal` is its place among the engines.

    `in_air`: exchanges that run or wait for their connection. `up`: it could be reached and said that it is well when
    it was last tried. `models`: its cards of `GET /v1/models` by id, None until it has told them.
    """

    def __init__(
        self,
        address: EngineAddress,
        clock: Callable[[], float],
        *,
        idle_s: float,
        connect_s: float,
        ordinal: int = 0,
        key: EngineKey | None = None,
        keep: int = 256,
    ) -> None:
        self.address = address
        self.clock = clock
        self.ordinal = ordinal
        self.open: set[EngineConnection] = set()
        self.in_air = 0
        self.up = True
        self.models: Mapping[str, Mapping[str, Any]] | None = None
        #: What `system_fingerprint` the engine showed last, as bytes of its JSON.
        self.fingerprint: bytes | None = None
        #: The header lines that each request to it begins with.
        self.opening = b""
        self.take_key(key)
        self._tls = address.context()
        self._idle_s = idle_s
        self._connect_s = connect_s
        self._keep = keep
        self._idle: list[EngineConnection] = []

    def take_key(self, key: EngineKey | None) -> None:
        """Each request from now on carries this key; None: none."""
        self.opening = b"Host: " + self.address.name + (b"" if key is None else b"\r\n" + key.opening)

    def serves(self, model: str | None) -> bool:
        """Whether it may serve that model, as far as it has told; without a name it serves its own first one."""
        return model is None or self.models is None or model in self.models

    def take(self) -> EngineConnection | None:
        """An idle connection, the one used last first; None if a new one is needed."""
        oldest = self.clock() - self._idle_s
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.idle_since_s >= oldest:
                return connection
            connection.close()
        return None

    async def connect(self) -> EngineConnection:
        """A new connection. OSError (TimeoutError and ssl.SSLError are ones) if the engine cannot be reached."""
        loop = asyncio.get_running_loop()
        self.in_air += 1
        try:
            async with asyncio.timeout(self._connect_s):
                _, connection = await loop.create_connection(
                    lambda: EngineConnection(self), self.address.host, self.address.port, ssl=self._tls
                )
        finally:
            self.in_air -= 1
        return connection

    def keep(self, connection: EngineConnection) -> None:
        if len(self._idle) >= self._keep:
            connection.close()
            return
        connection.idle_since_s = self.clock()
        self._idle.append(connection)

    def forget(self, connection: EngineConnection) -> None:
        self.open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def sweep(self) -> None:
        """Close what has been idle for too long."""
        oldest = self.clock() - self._idle_s
        for connection in [c for c in self._idle if c.idle_since_s < oldest]:
            connection.close()

    def close(self) -> None:
        for connection in list(self.open):
            connection.close()
