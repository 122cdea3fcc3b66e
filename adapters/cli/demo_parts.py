"""The processes of a demo: the simulated engine, and `tally up`, each started as an operator would."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from metering.refusal import Unavailable

PACE = ("--tokens-per-second", "40000", "--first-token-ms", "10")


@asynccontextmanager
async def simulated_engine(lines: Path, fault: str | None) -> AsyncIterator[str]:
    """A simulated engine for as long as the block; its address. Its witness writes into the folder `lines`."""
    faulty = ["--fault", fault] if fault else []
    witnessed = ["--lines", str(lines), "--late-tokens", "1", "--after-end-tokens", "1"]
    arguments = [
        "--listen",
        "127.0.0.1:0",
        "--any-model",
        "--prompt-tokens-details",
        *witnessed,
        *PACE,
        *faulty,
    ]
    async with _process("adapters.simulated_engine", arguments) as told:
        yield told["engine"]


@asynccontextmanager
async def tally_up(data: Path, engine: str, node: str, lines: Path | None) -> AsyncIterator[str]:
    """`tally up` for as long as the block; the sidecar's address. When the block ends it drains and seals.

    `lines`: where the engine's witness writes; None: as TALLY_ENGINE_LINES says, or nowhere.
    """
    listen = ["--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"]
    witness = [] if lines is None else ["--engine-lines", str(lines)]
    arguments = ["up", "--data", str(data), "--engine", engine, "--node", node, *witness, *listen]
    async with _process("adapters.cli", arguments) as told:
        yield told["sidecar"]


@asynccontextmanager
async def _process(module: str, arguments: Sequence[str]) -> AsyncIterator[dict[str, str]]:
    """A part as a process of its own; what its line of JSON says. It is asked to stop at the end, and waited for."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    assert process.stdout is not None
    try:
        line = await process.stdout.readline()
        if not line:
            raise Unavailable("child_failed", f"{module} did not start", remedy="its message stands above")
        yield json.loads(line)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def served_model(engine: str) -> str:
    """The first model that a running engine serves. Unavailable: engine_down."""
    try:
        with urllib.request.urlopen(f"{engine}/v1/models", timeout=10) as answer:  # noqa: S310 - the user named it
            told: Any = json.loads(answer.read())
            return str(told["data"][0]["id"])
    except (OSError, ValueError, LookupError):
        raise Unavailable(
            "engine_down", "the engine does not answer", where=engine, remedy="is vLLM running there?"
        ) from None
