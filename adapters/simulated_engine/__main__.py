"""The simulated engine as a process of its own: `python -m adapters.simulated_engine --listen 127.0.0.1:0`.

Prints one line on stdout when it is ready, `{"ready": true, "engine": "http://127.0.0.1:PORT"}`, and serves
until SIGTERM or Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import uvloop

from adapters.simulated_engine.options import (
    ALL_TASKS,
    DEFAULT_PART_BYTES,
    FAULTS,
    TASKS,
    EngineOptions,
    LineOptions,
)
from adapters.simulated_engine.server import serve


def parse(arguments: list[str]) -> tuple[EngineOptions, str, int]:
    """(options, host, port) of a command line."""
    defaults = EngineOptions()
    parser = argparse.ArgumentParser(prog="python -m adapters.simulated_engine", description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:8000", metavar="HOST:PORT", help="port 0: a free one")
    parser.add_argument("--model", action="append", metavar="NAME", help="a model to serve; repeatable")
    parser.add_argument("--alias", action="append", default=[], help="one more name of the first model")
    parser.add_argument("--adapter", action="append", default=[], help="an adapter on the first model")
    parser.add_argument(
        "--task", action="append", choices=(*TASKS, ALL_TASKS), help="what models do; repeatable"
    )
    parser.add_argument("--any-model", action="store_true", help="serve every model that is asked for")
    parser.add_argument("--tokens-per-second", type=float, default=0, help="pace of a sequence; 0: no wait")
    parser.add_argument(
        "--first-token-ms", type=float, default=0, help="wait before a sequence's first token"
    )
    parser.add_argument("--abort-lag-tokens", type=int, default=defaults.abort_lag_tokens)
    parser.add_argument("--late-tokens", type=int, default=0, help="that reach a front end which let go")
    parser.add_argument("--after-end-tokens", type=int, default=0, help="of a step that an abort overtook")
    parser.add_argument(
        "--max-chunks", type=int, default=defaults.max_chunks, help="chunks that a stream has"
    )
    parser.add_argument("--context-tokens", type=int, default=defaults.context_tokens)
    parser.add_argument("--prompt-tokens-details", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--request-id-headers", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--force-include-usage", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--store-responses", action=argparse.BooleanOptionalAction, default=False)
    _add_lines(parser)
    parser.add_argument("--fault", choices=FAULTS, help="be wrong on purpose")
    given = parser.parse_args(arguments)
    host, separator, port = given.listen.rpartition(":")
    if not separator or not port.isdigit():
        parser.error(f"--listen takes HOST:PORT, not {given.listen!r}")
    options = EngineOptions(
        models=tuple(given.model or defaults.models),
        aliases=tuple(given.alias),
        adapters=tuple(given.adapter),
        any_model=given.any_model,
        tokens_per_second=given.tokens_per_second,
        first_token_ms=given.first_token_ms,
        abort_lag_tokens=given.abort_lag_tokens,
        late_tokens=given.late_tokens,
        after_end_tokens=given.after_end_tokens,
        max_chunks=given.max_chunks,
        context_tokens=given.context_tokens,
        prompt_tokens_details=given.prompt_tokens_details,
        request_id_headers=given.request_id_headers,
        force_include_usage=given.force_include_usage,
        tasks=tuple(given.task or defaults.tasks),
        store_responses=given.store_responses,
        lines=_lines(given),
        fault=given.fault,
    )
    return options, host, int(port)


def _add_lines(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the witness's lines")
    folder = os.environ.get("TALLY_ENGINE_LINES") or None
    group.add_argument("--lines", default=folder, metavar="FOLDER", help="TALLY_ENGINE_LINES; default: none")
    part_bytes = os.environ.get("TALLY_ENGINE_LINES_BYTES") or DEFAULT_PART_BYTES
    group.add_argument("--lines-part-bytes", type=int, default=part_bytes, help="TALLY_ENGINE_LINES_BYTES")
    group.add_argument("--lines-lose-every", type=int, default=0, metavar="N", help="lose each N-th line")
    group.add_argument("--lines-delay-ms", type=float, default=0, help="write them so much later")
    group.add_argument("--lines-aside", action="store_true", help="as on an engine that it does not know")


def _lines(given: argparse.Namespace) -> LineOptions | None:
    if given.lines is None:
        return None
    return LineOptions(
        folder=Path(given.lines),
        part_bytes=given.lines_part_bytes,
        lose_every=given.lines_lose_every,
        delay_ms=given.lines_delay_ms,
        aside=given.lines_aside,
    )


async def run(options: EngineOptions, host: str, port: int) -> None:
    running = await serve(options, host, port)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    sys.stdout.write(json.dumps({"ready": True, "engine": running.url}) + "\n")
    sys.stdout.flush()
    await stop.wait()
    await running.close()


if __name__ == "__main__":
    uvloop.run(run(*parse(sys.argv[1:])))
