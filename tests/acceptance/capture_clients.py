"""The clients of a capture proof, and the book that they keep for themselves.

What a client saw decides its request's fate in the book:

    whole     the answer came to its end: its event must be there, finished, with these tokens
    left      the client hung up in mid-stream
    cut       the connection broke before the answer's end: the client cannot know how far the request came
    refused   an error was answered

A connection that is not even taken is no request: the client tries again until somebody listens.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from capture_requests import Ask

CLIENTS = 8
PATIENCE_S = 30.0

WHOLE, LEFT, CUT, REFUSED = "whole", "left", "cut", "refused"


@dataclass(frozen=True, slots=True)
class Sent:
    """A request in the book; `answer` is what a refused one was told."""

    ask: Ask
    fate: str
    answer: bytes = b""


@dataclass(slots=True)
class Load:
    """So many requests, being sent by several clients at once."""

    threads: list[threading.Thread]
    troubles: list[str] = field(default_factory=list)

    @property
    def running(self) -> bool:
        return any(thread.is_alive() for thread in self.threads)

    def join(self) -> None:
        for thread in self.threads:
            thread.join(2 * PATIENCE_S)
            assert not thread.is_alive(), "a client hangs"
        assert not self.troubles, self.troubles


@dataclass
class Clients:
    """All clients of a world. `address`: where they find the sidecar, `keys`: customer → API key."""

    asks: Iterator[Ask]
    keys: Mapping[str, str]
    address: tuple[str, int] = ("127.0.0.1", 0)
    book: list[Sent] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, requests: int) -> Load:
        """Begins to send so many requests."""
        waiting = iter(list(islice(self.asks, requests)))
        load = Load([])

        def client() -> None:
            try:
                self._serve(waiting)
            except Exception as trouble:  # a thread's own end would be silent
                load.troubles.append(repr(trouble))

        load.threads = [threading.Thread(target=client, daemon=True) for _ in range(CLIENTS)]
        for thread in load.threads:
            thread.start()
        return load

    def fates(self) -> Counter[str]:
        return Counter(sent.fate for sent in self.book)

    def _serve(self, waiting: Iterator[Ask]) -> None:
        connection: http.client.HTTPConnection | None = None
        while True:
            with self._lock:
                ask = next(waiting, None)
            if ask is None:
                break
            connection = connection or self._connect()
            sent = _send(connection, ask, self.keys[ask.customer])
            with self._lock:
                self.book.append(sent)
            if sent.fate != WHOLE:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        """A connection to the sidecar, as soon as there is one."""
        give_up = time.monotonic() + PATIENCE_S
        while True:
            connection = http.client.HTTPConnection(*self.address, timeout=PATIENCE_S)
            try:
                connection.connect()
                return connection
            except ConnectionError:
                connection.close()
                assert time.monotonic() < give_up, "nobody listens"
                time.sleep(0.02)


def _send(connection: http.client.HTTPConnection, ask: Ask, key: str) -> Sent:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": ask.content_type}
    try:
        connection.request("POST", ask.path, ask.body, headers)
        response = connection.getresponse()
        if response.status != 200:
            return Sent(ask, REFUSED, response.read())
        if ask.hang_up:
            response.readline()
            response.close()
            return Sent(ask, LEFT)
        answer = response.read()
    except (OSError, http.client.HTTPException):
        return Sent(ask, CUT)
    assert answer, "a whole answer says something"
    return Sent(ask, WHOLE)
