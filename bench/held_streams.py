"""Many streams open at once: what each of them costs the sidecar in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bench.load import BODY

_OPEN_AT_ONCE = 50


def held_streams_kib(port: int, secret: str, count: int, memory_kib: Callable[[], int]) -> float:
    """KiB of a process's memory for each of `count` streams that are open and have been passed on in part.

    `memory_kib` says what the process holds now. The first tenth is opened and kept before the counting begins: what
    the process needs once is no stream's.
    """
    return asyncio.run(_measure(port, secret, count, memory_kib))


async def _measure(port: int, secret: str, count: int, memory_kib: Callable[[], int]) -> float:
    body = (BODY % ',"stream":true,"user":"held"').encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {secret}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    writers: list[asyncio.StreamWriter] = []
    gate = asyncio.Semaphore(_OPEN_AT_ONCE)

    async def hold() -> None:
        async with gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writers.append(writer)
            writer.write(head + body)
            seen = b""
            while b'"content"' not in seen:
                piece = await reader.read(65536)
                if not piece:
                    raise RuntimeError(f"a held stream ended: {seen[:200]!r}")
                seen += piece

    try:
        first = max(1, count // 10)
        await asyncio.gather(*(hold() for _ in range(first)))
        before = memory_kib()
        await asyncio.gather(*(hold() for _ in range(count - first)))
        await asyncio.sleep(0.5)
        return (memory_kib() - before) / (count - first)
    finally:
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
