"""The demo's clients: they send requests over HTTP as customers do, stream, hang up in the middle, and keep a book.

Requests name their token counts in `vllm_xargs`, which the simulated engine follows, so that a trace of large requests
travels without its gigabytes of text.
"""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

AT_ONCE = 32
PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class DemoRequest:
    """One request to send. `hang_up_after`: how many chunks of its stream are read before the client leaves."""

    customer: str
    project: str
    model: str
    stream: bool
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    hang_up_after: int | None = None


@dataclass(slots=True)
class SendersBook:
    """What the clients know: how many requests they sent, how many answers they got whole, how many they left."""

    sent: int = 0
    whole: int = 0
    left: int = 0
    refused: int = 0


def read_sample(path: Path) -> list[DemoRequest]:
    """The bundled sample, `examples/vilnius/requests.csv`."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            DemoRequest(
                customer=row["customer"],
                project=row["project"],
                model=row["model"],
                stream=row["stream"] == "yes",
                prompt_tokens=int(row["prompt_tokens"]),
                cached_tokens=int(row["cached_tokens"]),
                completion_tokens=int(row["completion_tokens"]),
                reasoning_tokens=int(row["reasoning_tokens"]),
                hang_up_after=int(row["hang_up_after"]) if row["hang_up_after"] else None,
            )
            for row in csv.DictReader(file)
        ]


async def send_all(
    sidecar: str,
    requests: Sequence[DemoRequest],
    secrets: Mapping[tuple[str, str], str],
    progress: Callable[[int], None],
) -> SendersBook:
    """Sends every request to the sidecar, at most AT_ONCE at a time, with its customer's key."""
    book = SendersBook()
    waiting = iter(requests)

    async def client() -> None:
        for request in waiting:
            await _send(sidecar, request, secrets[request.customer, request.project], book)
            progress(book.sent)

    await asyncio.gather(*(client() for _ in range(min(AT_ONCE, len(requests)))))
    return book


async def _send(sidecar: str, request: DemoRequest, secret: str, book: SendersBook) -> None:
    address = urlsplit(sidecar)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(_message(request, secret, address.netloc))
        book.sent += 1
        async with asyncio.timeout(PATIENCE_S):
            status = (await reader.readuntil(b"\r\n")).split(b" ")[1]
            if request.hang_up_after is not None and request.stream and status == b"200":
                await _read_some(reader, request.hang_up_after)
                book.left += 1
                return
            await reader.read()
        if status == b"200":
            book.whole += 1
        else:
            book.refused += 1
    finally:
        writer.transport.abort()


async def _read_some(reader: asyncio.StreamReader, chunks: int) -> None:
    seen = 0
    while seen <= chunks:
        line = await reader.readline()
        if not line:
            return
        seen += line.startswith(b"data: ")


def _message(request: DemoRequest, secret: str, host: str) -> bytes:
    body = json.dumps(
        {
            "model": request.model,
            "messages": [{"role": "user", "content": "Labas!"}],
            "stream": request.stream,
            "vllm_xargs": {
                "sim_prompt_tokens": request.prompt_tokens,
                "sim_cached_tokens": request.cached_tokens,
                "sim_completion_tokens": request.completion_tokens,
                "sim_reasoning_tokens": request.reasoning_tokens,
            },
        }
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {secret}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
