"""A simulated engine inside a test's own event loop, and what one asks of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from engine_exchange import Answer, Request, exchange

from adapters.simulated_engine.options import EngineOptions
from adapters.simulated_engine.server import RunningEngine, serve
from metering.engine_lines import EngineLine
from metering.engine_tail import EngineLines

JSON = (("Content-Type", "application/json"),)
T = TypeVar("T")


def post(path: str, **body: object) -> Request:
    return Request("POST", path, JSON, json.dumps({"model": "tiny", **body}))


def chat(**more: object) -> Request:
    return post("/v1/chat/completions", **{"messages": [{"role": "user", "content": "Count."}], **more})


def named(prompt: int, completion: int, **more: int | str) -> dict[str, Any]:
    """The counts that the engine shall make of a request."""
    return {"vllm_xargs": {"sim_prompt_tokens": prompt, "sim_completion_tokens": completion, **more}}


def as_request(request: Request, request_id: str) -> Request:
    return replace(request, headers=(*request.headers, ("X-Request-Id", request_id)))


def hang_up(request: Request, pieces: int) -> Request:
    return replace(request, hang_up_after=pieces)


def with_engine(options: EngineOptions, use: Callable[[RunningEngine], Awaitable[T]]) -> T:
    async def run() -> T:
        running = await serve(options, "127.0.0.1", 0)
        try:
            return await use(running)
        finally:
            await running.close()

    return asyncio.run(run())


def ask(options: EngineOptions, *requests: Request) -> tuple[list[Answer], RunningEngine]:
    """The answers to requests, asked one after another, and the engine: ended, its counters as they were left."""

    async def use(running: RunningEngine) -> tuple[list[Answer], RunningEngine]:
        answers = [await exchange(running.host, running.port, request) for request in requests]
        await idle(running)
        return answers, running

    return with_engine(options, use)


async def idle(running: RunningEngine) -> None:
    for _ in range(1000):
        if not any(counters.running for counters in running.counters.values()):
            return
        await asyncio.sleep(0.005)
    raise AssertionError("the engine is still running something")


def events(answer: Answer) -> list[Any]:
    """The events of a stream, without `[DONE]`."""
    datas = [piece.split("data: ", 1)[1] for piece in answer.pieces]
    return [json.loads(data) for data in datas if "[DONE]" not in data]


def read_lines(folder: Path) -> list[EngineLine]:
    """All that the witness wrote; whatever cannot be read fails the test."""
    tail = EngineLines(folder)
    lines = [found.line for found in tail.read()]
    assert tail.take_faults() == []
    return lines
