"""Hands that falsify what an engine says of itself, between it and the sidecar, so that reconciliation has to notice.

with lying_counters(engine, generated=7) as (port, lie):   the engine's port again; after `lie.set()` /metrics says
                                                           7 generated tokens more
with losing_lines(lines, copy, number=20):                 `copy` grows as `lines` does, but for one request's line
with forgetful_sidecar(tally, 20, "sidecar", …) as port:   a sidecar that loses one event (forgetful_tally.py)
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from command import Tally

HOST = "127.0.0.1"


@contextmanager
def lying_counters(engine: int, generated: int) -> Iterator[tuple[int, threading.Event]]:
    """An engine of the same answers, one exchange a connection, whose counter can be made to say more."""
    lie = threading.Event()
    loop = asyncio.new_event_loop()

    async def pass_on(client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        try:
            asked = await _request(client)
            reader, writer = await asyncio.open_connection(HOST, engine)
            try:
                writer.write(asked)
                if asked.startswith(b"GET /metrics") and lie.is_set():
                    answer.write(_more(await reader.read(), generated))
                else:
                    await _until_over(client, reader, answer)
                await answer.drain()
            finally:
                writer.close()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            answer.close()

    server = loop.run_until_complete(asyncio.start_server(pass_on, HOST, 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1], lie
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.1))
        loop.close()


async def _request(client: asyncio.StreamReader) -> bytes:
    """One request, told to be the last on its connection."""
    head = await client.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    body = await client.readexactly(int(length[1])) if length else b""
    return head[:-2] + b"Connection: close\r\n\r\n" + body


async def _until_over(
    client: asyncio.StreamReader, engine: asyncio.StreamReader, answer: asyncio.StreamWriter
) -> None:
    """Passes the answer on, until it ends or the client leaves."""
    left = asyncio.ensure_future(client.read(1))
    try:
        while True:
            piece = asyncio.ensure_future(engine.read(65_536))
            await asyncio.wait({piece, left}, return_when=asyncio.FIRST_COMPLETED)
            if not piece.done():
                piece.cancel()
                return
            if not piece.result():
                return
            answer.write(piece.result())
            await answer.drain()
    finally:
        left.cancel()


def _more(answer: bytes, generated: int) -> bytes:
    """The exposition with so many tokens more, its length told again."""
    head, _, body = answer.partition(b"\r\n\r\n")
    body = re.sub(
        rb"(?m)^(vllm:generation_tokens_total\{[^}]*\}) (\S+)$",
        lambda found: b"%s %.1f" % (found[1], float(found[2]) + generated),
        body,
    )
    head = re.sub(rb"(?i)content-length: *\d+", b"content-length: %d" % len(body), head)
    return head + b"\r\n\r\n" + body


@contextmanager
def losing_lines(lines: Path, copy: Path, number: int) -> Iterator[None]:
    """`copy` follows `lines`, whole line by whole line, without the number-th that is of a request. What was there
    before is in it when the block begins."""
    copy.mkdir(parents=True, exist_ok=True)
    mirror = _Mirror(lines, copy, number)
    mirror.catch_up()
    over = threading.Event()

    def follow() -> None:
        while not over.wait(0.005):
            mirror.catch_up()

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class _Mirror:
    def __init__(self, lines: Path, copy: Path, number: int) -> None:
        self._lines, self._copy, self._number = lines, copy, number
        self._done: dict[str, int] = {}
        self._requests = 0

    def catch_up(self) -> None:
        for path in sorted(self._lines.glob("*.jsonl")):
            content, done = path.read_bytes(), self._done.get(path.name, 0)
            whole = content.rfind(b"\n") + 1
            kept = [line for line in content[done:whole].splitlines(keepends=True) if not self._is_lost(line)]
            with (self._copy / path.name).open("ab") as file:
                file.write(b"".join(kept))
            self._done[path.name] = whole

    def _is_lost(self, line: bytes) -> bool:
        if b'"kind":"request"' not in line:
            return False
        self._requests += 1
        return self._requests == self._number


@contextmanager
def forgetful_sidecar(tally: Tally, number: int, *arguments: str) -> Iterator[int]:
    """Its port. It is asked to stop at the end, and must exit 0."""
    script = str(Path(__file__).with_name("forgetful_tally.py"))
    environment = {**os.environ, **tally.environment, "TALLY_DATA": str(tally.data)}
    command = [sys.executable, script, str(number), *arguments]
    with subprocess.Popen(command, cwd=tally.folder, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield urlsplit(json.loads(process.stdout.readline())["sidecar"]).port or 0
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
