"""An engine that costs next to nothing: `python -m bench.stub_engine`, canned answers at once.

It prints its port. A request gets a chat completion of vLLM's shape, or, where it asks for one, a stream of 32 chunks,
each written by itself in a turn of the loop of its own, as an engine makes them. A stream's request that asks for usage
(the sidecar's do) gets it on every chunk and at the end, with 32 completion tokens; any other gets none. A stream of
the user `held` stops after its first chunks, until its connection is closed.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import Iterator
from typing import Any, cast

import httptools
import uvloop

CHUNKS = 32
HELD_AFTER = 4
_USAGE = {"prompt_tokens": 21, "total_tokens": 21 + CHUNKS, "completion_tokens": CHUNKS}
_HEAD = b"HTTP/1.1 200 OK\r\ndate: Sun, 01 Nov 2026 08:00:00 GMT\r\nserver: uvicorn\r\n"
_MODEL = {"created": 1_793_000_000, "model": "qwen3-32b", "system_fingerprint": "vllm-0.32.0-5f3a9c21"}


def json_answer() -> bytes:
    """A whole answer, not streamed."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "lorem ipsum " * CHUNKS,
        "refusal": None,
        "tool_calls": [],
    }
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}
    body = json.dumps(
        {
            "id": "chatcmpl-5f3a9c21",
            "object": "chat.completion",
            **_MODEL,
            "choices": [choice],
            "usage": {**_USAGE, "prompt_tokens_details": None},
        },
        separators=(",", ":"),
    ).encode()
    return _HEAD + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def stream_pieces(*, usage: bool) -> list[bytes]:
    """What is written one after the other: the head with the first chunk, the other chunks, the end."""
    head = _HEAD + b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
    events = [_event(number, usage) for number in range(1, CHUNKS + 1)]
    last = [_data({**_stream(), "choices": [], "usage": _USAGE})] if usage else []
    tail = b"".join(_chunk(event) for event in [*last, b"data: [DONE]\n\n"]) + b"0\r\n\r\n"
    return [head + _chunk(events[0]), *(_chunk(event) for event in events[1:]), tail]


def _stream() -> dict[str, Any]:
    return {"id": "chatcmpl-5f3a9c21", "object": "chat.completion.chunk", **_MODEL}


def _event(number: int, usage: bool) -> bytes:
    finish = "length" if number == CHUNKS else None
    choice = {"index": 0, "delta": {"content": " lorem"}, "logprobs": None, "finish_reason": finish}
    choice |= {"token_ids": None} if finish is None else {"stop_reason": None, "token_ids": None}
    told: dict[str, Any] = {"prompt_tokens": 21, "total_tokens": 21 + number, "completion_tokens": number}
    told["completion_tokens_details"] = None
    return _data({**_stream(), "choices": [choice], **({"usage": told} if usage else {})})


def _data(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class StubConnection(asyncio.Protocol):
    """Answers one request after the other."""

    whole = json_answer()
    with_usage, plain = stream_pieces(usage=True), stream_pieces(usage=False)
    asks_stream = re.compile(rb'"stream":\s*true')
    asks_usage = re.compile(rb'"include_usage":\s*true')
    asks_held = re.compile(rb'"user":\s*"held"')

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._soon = asyncio.get_running_loop().call_soon

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        body = self._body
        if self.asks_stream.search(body) is None:
            self._transport.write(self.whole)
            return
        pieces = self.with_usage if self.asks_usage.search(body) else self.plain
        self._write(iter(pieces[:HELD_AFTER] if self.asks_held.search(body) else pieces))

    def _write(self, pieces: Iterator[bytes]) -> None:
        piece = next(pieces, None)
        if piece is not None and not self._transport.is_closing():
            self._transport.write(piece)
            self._soon(self._write, pieces)


async def serve() -> None:
    """Serves until SIGTERM."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(StubConnection, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await stop.wait()


if __name__ == "__main__":
    uvloop.run(serve())
