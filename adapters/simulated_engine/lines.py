"""What the engine's witness writes: the twin of `tallygrid-vllm`, in its format and with its failures.

The format is specified where the witness is (`adapters/vllm/tallygrid_vllm/lines.py`); that distribution lives in
vLLM's environment and cannot be imported here, so a test holds both to the same bytes. Two streams of files: the
scheduler's, opened at the start, and the front end's, opened by the first thing that it has to say. What this twin
leaves out is fsync: nobody cuts its power.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from adapters.simulated_engine.options import LineOptions

VLLM_VERSION = "0.32.0"
PLUGIN_VERSION = "0.1.0"
ENGINE = 0
_encode = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Name:
    """An engine request: vLLM's own id for it, and the id that its HTTP server gave it."""

    id: str
    external: str


class Lines:
    """The lines of one engine, all of whose processes are this one."""

    def __init__(self, options: LineOptions, model: str) -> None:
        """Opens the scheduler's stream. OSError if the folder or the file cannot be made."""
        self._options = options
        self._model = model
        opened = {"engine": ENGINE, "model": model, "plugin": PLUGIN_VERSION, "vllm": VLLM_VERSION}
        self._scheduler = _Stream(options, "scheduler", opened)
        self._front_end: _Stream | None = None
        self._delayed: deque[tuple[_Stream, str, Mapping[str, object]]] = deque()
        self._requests = 0
        if options.aside:
            why = f"vLLM {VLLM_VERSION} is not one that tallygrid-vllm knows (it was told to step aside)"
            self._scheduler.write("stepped-aside", {"vllm": VLLM_VERSION, "why": why})
            self._scheduler.close()

    def freed(
        self, name: Name, *, model: str, lora: str | None, status: str, counted: tuple[int, int, int, bool]
    ) -> None:
        """The scheduler freed a request. `counted`: prompt, cached and output tokens, and whether it sampled."""
        prompt_tokens, cached_tokens, output_tokens, sampled = counted
        said = {
            "engine": ENGINE,
            "model": model,
            "lora": lora,
            "id": name.id,
            "external": name.external,
            "status": status,
            "prompt_tokens": prompt_tokens,
            "cached_tokens": cached_tokens,
            "output_tokens": output_tokens,
            "sampled": sampled,
        }
        self._write(self._scheduler, "request", said)

    def after_end(self, name: Name, output_tokens: int) -> None:
        """A step gave tokens for a request that the scheduler had freed."""
        said = {
            "engine": ENGINE,
            "id": name.id,
            "external": name.external,
            "output_tokens": output_tokens,
        }
        self._write(self._scheduler, "after_end", said)

    def late(self, name: Name, model: str, prompt_tokens: int, output_tokens: int) -> None:
        """Tokens reached the front end after it had let the request go."""
        if self._options.aside:
            return
        if self._front_end is None:
            opened = {"engine": None, "model": model, "plugin": PLUGIN_VERSION, "vllm": VLLM_VERSION}
            self._front_end = _Stream(self._options, "frontend", opened)
        said = {
            "model": model,
            "id": name.id,
            "external": name.external,
            "prompt_tokens": prompt_tokens,
            "output_tokens": output_tokens,
        }
        self._write(self._front_end, "late", said)

    def close(self) -> None:
        """Write what is delayed, and say that the streams end."""
        while self._delayed:
            self._write_delayed()
        self._scheduler.close()
        if self._front_end is not None:
            self._front_end.close()

    def _write(self, stream: _Stream, kind: str, said: Mapping[str, object]) -> None:
        if self._options.delay_ms:
            self._delayed.append((stream, kind, said))
            asyncio.get_running_loop().call_later(self._options.delay_ms / 1000, self._write_delayed)
        else:
            self._write_now(stream, kind, said)

    def _write_delayed(self) -> None:
        if self._delayed:
            self._write_now(*self._delayed.popleft())

    def _write_now(self, stream: _Stream, kind: str, said: Mapping[str, object]) -> None:
        if kind == "request":
            self._requests += 1
            if self._options.lose_every and self._requests % self._options.lose_every == 0:
                stream.lose()
                return
        stream.write(kind, said)


class _Stream:
    """One process's files: numbered lines, in numbered parts."""

    def __init__(self, options: LineOptions, role: str, opened: Mapping[str, object]) -> None:
        options.folder.mkdir(parents=True, exist_ok=True)
        self._options = options
        self._role = role
        self._opened = opened
        self._n = 0
        self._part = 0
        self._closed = False
        self._start_us = time.time_ns() // 1000
        while True:
            try:
                self._descriptor = self._new_file(os.O_EXCL)
                break
            except FileExistsError:
                self._start_us += 1
        self._open_part()

    def write(self, kind: str, said: Mapping[str, object]) -> None:
        if self._closed:
            return
        if self._size >= self._options.part_bytes:
            self._append("ended", {"next": self._part + 1})
            os.close(self._descriptor)
            self._part += 1
            self._descriptor = self._new_file(0)
            self._open_part()
        self._append(kind, said)

    def lose(self) -> None:
        """A line that could not be written: its number is used all the same."""
        self._n += 1

    def close(self) -> None:
        if not self._closed:
            self._append("ended", {"next": None})
            self._closed = True
            os.close(self._descriptor)

    def _new_file(self, exclusively: int) -> int:
        name = f"{self._start_us:016d}-{os.getpid()}-{self._role}-{self._part:06d}.jsonl"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | exclusively
        return os.open(self._options.folder / name, flags, 0o640)

    def _open_part(self) -> None:
        self._size = 0
        self._append("opened", {"role": self._role, "part": self._part, "pid": os.getpid(), **self._opened})

    def _append(self, kind: str, said: Mapping[str, object]) -> None:
        whole = {"v": 1, "n": self._n, "at_us": time.time_ns() // 1000, "kind": kind, **said}
        content = _encode(whole).encode("ascii") + b"\n"
        self._n += 1
        self._size += os.write(self._descriptor, content)
