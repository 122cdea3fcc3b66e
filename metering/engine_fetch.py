"""A question of the sidecar's own to an engine: its health, its models, its counters. No client waits for it.

It goes over the engine's pool like an exchange, with the engine's key, and its answer is read by the same reader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from metering.engine_pool import EnginePool
from metering.http_answer import AnswerHead


@dataclass(frozen=True, slots=True)
class Fetched:
    """An engine's answer."""

    status: int
    body: bytes


async def fetch(
    pool: EnginePool,
    target: bytes,
    *,
    timeout_s: float,
    limit_bytes: int,
    method: bytes = b"GET",
    content: bytes = b"",
    taker: Callable[[bytes], object] | None = None,
    fresh: bool = False,
) -> Fetched:
    """The engine's whole answer; `content` is a JSON body. With a `taker` the body's pieces are its, as they come, and
    nothing is kept. `fresh`: over a new connection, which another of the engine's processes may take up.

    OSError if the answer cannot be had: unreachable, cut off, no HTTP, longer than `limit_bytes`, not there within
    `timeout_s` (TimeoutError).
    """
    async with asyncio.timeout(timeout_s):
        connection = (None if fresh else pool.take()) or await pool.connect()
        question = _Question(method, target, content, limit_bytes, taker)
        connection.begin(question, question)
        try:
            return await question.answer
        finally:
            connection.release()


class _Question:
    """What is sent, and what comes back."""

    def __init__(
        self,
        method: bytes,
        target: bytes,
        content: bytes,
        limit_bytes: int,
        taker: Callable[[bytes], object] | None,
    ) -> None:
        self.body = content
        self.answer: asyncio.Future[Fetched] = asyncio.get_running_loop().create_future()
        self._method, self._target = method, target
        self._left = limit_bytes
        self._status = 0
        self._pieces: list[bytes] = []
        self._take = self._pieces.append if taker is None else taker

    def aim(self, ordinal: int, fingerprint: bytes | None) -> None:
        """Its bytes are the same for every engine."""

    def to_engine(self, opening: bytes) -> bytes:
        lines = [self._method + b" " + self._target + b" HTTP/1.1", opening, b"Accept-Encoding: identity"]
        if self.body:
            lines += [b"Content-Type: application/json", b"Content-Length: %d" % len(self.body)]
        elif self._method != b"GET":
            lines.append(b"Content-Length: 0")
        return b"\r\n".join([*lines, b"", b""])

    def answer_head(self, head: AnswerHead) -> None:
        self._status = head.status

    def answer_piece(self, piece: bytes) -> None:
        self._left -= len(piece)
        if self._left >= 0:
            self._take(piece)
        else:
            self._fail("the answer is too long")

    def answer_end(self) -> None:
        if not self.answer.done():
            self.answer.set_result(Fetched(self._status, b"".join(self._pieces)))

    def answer_came(self) -> None:
        """The pieces are taken as they come."""

    def engine_lost(self, cause: str) -> None:
        self._fail(f"the engine's answer was lost: {cause}")

    def _fail(self, why: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(ConnectionError(why))
