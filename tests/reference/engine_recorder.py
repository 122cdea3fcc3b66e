"""Records a real vLLM: `python tests/reference/engine_recorder.py [SET…]`, after `tests/engine/install.sh`.

For each way of starting the server that the sets of `engine_requests` name it starts one, sends every request of
their sets alone, waits until the engine is idle, and writes what came back and what the engine's counters made of it
to `tests/recordings/`. Takes about four minutes; a new run changes only what the engine does differently.

The one thing that the CPU build cannot serve is audio, for want of a model: `speech` is recorded from vLLM's own
routes and protocol classes with a model's words made up (tests/engine/speech.py), and has no counters.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine_exchange import Answer, Request, exchange
from engine_recordings import (
    FOLDER,
    Recording,
    differences,
    families,
    idle,
    made_constant,
    usage_counters,
    write,
)
from engine_requests import SERVER_OPTIONS, SETS, SPEECH_SERVER

ENGINE = Path(__file__).parents[1] / "engine"
HOST = "127.0.0.1"


@contextmanager
def engine(options: tuple[str, ...], *, patience_s: float = 240) -> Iterator[int]:
    """A real vLLM on a free port, ended with everything that it started. Yields the port once `/health`
    answers. `options` are SERVER_OPTIONS', or others of `vllm serve`."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port: int = free.getsockname()[1]
    command, environment = _command(port, options)
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + patience_s
            while not _healthy(port):
                if server.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise SystemExit(f"vLLM did not start:\n{log.read().decode(errors='replace')[-4000:]}")
                time.sleep(0.5)
            yield port
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def _command(port: int, options: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
    if options == (SPEECH_SERVER,):
        return [f"{vllm_folder()}/bin/python", str(ENGINE / SPEECH_SERVER), str(port)], {}
    environment = dict(each.split("=", 1) for each in options if not each.startswith("-") and "=" in each)
    arguments = [each for each in options if each.partition("=")[0] not in environment]
    return [str(ENGINE / "serve.sh"), str(port), *arguments], environment


def vllm_folder() -> Path:
    """Where `make vllm` sets the engine up."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "tallygrid" / "vllm"


def _healthy(port: int) -> bool:
    try:
        return asyncio.run(exchange(HOST, port, Request("GET", "/health"), timeout_s=5)).status == 200
    except (OSError, EOFError):
        return False


async def scrape(port: int) -> str:
    return (await exchange(HOST, port, Request("GET", "/metrics"))).body


async def settled(port: int, pause_s: float = 0.15) -> dict[str, int]:
    """The usage counters once the engine is idle and they no longer move from one look to the next."""
    previous: dict[str, int] | None = None
    while True:
        exposition = await scrape(port)
        counters = usage_counters(exposition)
        if idle(exposition) and counters == previous:
            return counters
        previous = counters
        await asyncio.sleep(pause_s)


async def ask(port: int, request: Request, pause_s: float = 0.15) -> tuple[Answer, dict[str, int]]:
    """An engine's answer, and what the request did to its counters once it is idle again.

    Once in some dozens vLLM does not notice that a client hung up and goes on to the end: then it is asked again.
    """
    for _ in range(3):
        before = usage_counters(await scrape(port))
        answer = await exchange(HOST, port, request)
        counters = differences(before, await settled(port, pause_s))
        if request.hang_up_after is None or not any("request_success" in name for name in counters):
            break
    return answer, counters


async def take_recordings(port: int, set_name: str) -> None:
    options = SERVER_OPTIONS[set_name]
    for name, request in SETS[set_name].items():
        answer, counted = await ask(port, request)
        counters = None if options == (SPEECH_SERVER,) else counted
        recording = Recording(name, options, request, made_constant(answer), counters)
        write(FOLDER / set_name, recording)
        print(
            f"{set_name}/{name}: {answer.status}, {len(answer.pieces)} pieces,"
            f" {sum(counted.values())} counted"
        )
    if set_name == "plain":
        listed = json.dumps(families(await scrape(port)), indent=1)
        (FOLDER / "metrics.json").write_text(listed + "\n", encoding="utf-8")


def main(sets: list[str]) -> None:
    wanted = sets or list(SETS)
    for options in dict.fromkeys(SERVER_OPTIONS[name] for name in wanted):
        with engine(options) as port:
            for name in wanted:
                if SERVER_OPTIONS[name] == options:
                    asyncio.run(take_recordings(port, name))


if __name__ == "__main__":
    main(sys.argv[1:])
