"""Where the time of a small answer goes inside the sidecar: each step by itself, in one process, without a socket.

The steps are those of one chat request that is not streamed, in their order, with heads that came before on their
connections; then those of one chunk of a stream. A figure is the least of many short runs, so that a busy machine
shows in it as little as may be. What `capture` finds as the sidecar's CPU for an answer is the sum of these, the
connections around them, and the kernel's part: two reads and two writes of sockets; and beside other busy processes
all of it is slower, because they share its caches.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.load import BODY
from bench.results import Measured
from bench.stub_engine import json_answer, stream_pieces
from metering.caller import find_caller
from metering.endpoints import CHAT
from metering.event import Event
from metering.exchange import Exchange
from metering.http_answer import AnswerHead, AnswerReader
from metering.http_refusal import Refused
from metering.http_request import Request, RequestReader
from metering.identity import hash_secret, new_id
from metering.keybook import KeyEntry
from metering.lane import Lane
from metering.opening import open_exchange
from metering.sse import StreamReader

_RUNS = 100
_SECRET = "tg_" + "0" * 43
_KEY = KeyEntry(b"K" * 16, b"C" * 16, None, None)


class _Keys:
    """One key."""

    def __init__(self) -> None:
        self._by_hash = {hash_secret(_SECRET): _KEY}

    def find(self, secret_sha256: bytes) -> KeyEntry | None:
        return self._by_hash.get(secret_sha256)

    def find_id(self, id: bytes) -> KeyEntry | None:
        return _KEY if id == _KEY.id else None


class _Client:
    """Takes an answer."""

    def __init__(self) -> None:
        self.head: AnswerHead | None = None
        self.body = b""

    def answer_head(self, head: AnswerHead) -> None:
        self.head = head

    def answer_piece(self, piece: bytes) -> None:
        self.body = piece

    def answer_end(self) -> None:
        pass


def measure(quick: bool) -> Measured:
    found = Measured()
    repeats = 20 if quick else 500
    with tempfile.TemporaryDirectory(prefix="tally-bench-lane-") as folder:
        lane = Lane.open(
            Path(folder), operator="bench", node="bench", lane="sidecar-0", key=Ed25519PrivateKey.generate()
        )
        try:
            for name, step in _steps(lane, Path(folder)).items():
                found.add(name, _least_us(step, repeats), "µs")
        finally:
            lane.close()
    return found


def _least_us(step: Callable[[], object], repeats: int) -> float:
    """The least that one run of `step` took, of `repeats` times many."""
    least = float("inf")
    for _ in range(repeats):
        began = time.perf_counter_ns()
        for _ in range(_RUNS):
            step()
        least = min(least, (time.perf_counter_ns() - began) / _RUNS / 1000)
    return least


def _steps(lane: Lane, folder: Path) -> dict[str, Callable[[], object]]:
    """The steps by name, each with all that it needs made before."""
    keys, requests, request_bytes = _Keys(), RequestReader(_judge), _request()
    answers, answer_bytes = AnswerReader(), json_answer()
    client = _Client()

    def read_request() -> Request:
        requests.feed(request_bytes)
        return requests.ready.popleft()

    def read_answer() -> None:
        answers.expect(client)
        answers.feed(answer_bytes)

    request = read_request()
    read_answer()
    assert client.head is not None
    head, body = client.head, client.body

    def opened() -> Exchange:
        exchange = open_exchange(request, new_id(), lane.now_us(), b"")
        assert not isinstance(exchange, Refused)
        exchange.aim(0, None)
        return exchange

    def answered() -> Event:
        exchange = opened()
        exchange.answer_head(head)
        exchange.answer_piece(body)
        exchange.answer_end()
        event = exchange.step(lane.now_us()).event
        assert event is not None
        return event

    exchange, event = opened(), answered()
    intent = exchange.intent
    assert intent is not None
    chunk = stream_pieces(usage=True)[1]
    sse = chunk.partition(b"\r\n")[2][:-2]
    streamed = AnswerReader()
    streamed.expect(_Client())
    streamed.feed(stream_pieces(usage=True)[0])
    stream = StreamReader(hide_final=True, hide_each=True, fingerprint=None)
    scratch = os.open(folder / "scratch", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    frame = b"x" * 200
    return {
        "request read": read_request,
        "whose key it is": lambda: find_caller(request, keys, lane.now_us),
        "body read, exchange opened": opened,
        "intent written": lambda: lane.intent(intent),
        "head for the engine": lambda: exchange.to_engine(b"Host: engine"),
        "answer read": read_answer,
        "exchange opened, answer taken, event made": answered,
        "outcome written": lambda: lane.outcome(event),
        "of the two that write: one write(2) of 200 bytes": lambda: os.write(scratch, frame),
        "a chunk of a stream read": lambda: streamed.feed(chunk),
        "its usage taken out": lambda: stream.feed(sse),
    }


def _judge(request: Request) -> Refused | None:
    request.endpoint, request.key = CHAT, _KEY
    return None


def _request() -> bytes:
    body = (BODY % "").encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {_SECRET}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
