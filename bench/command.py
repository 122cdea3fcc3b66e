"""`tally` as its users run it, each command a process of its own, in a data folder that is gone afterwards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.postgres.embedded import discard

ROOT = Path(__file__).parents[1]
TALLY = ("-m", "adapters.cli")
STOP_WITHIN_S = 60


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that ended well: its JSON document, wall clock, and the most memory that its process had."""

    document: dict[str, Any]
    seconds: float
    peak_mib: int


@dataclass(frozen=True, slots=True)
class Installation:
    """A data folder with the example's operator, node, tariff and customers."""

    data: Path

    def tally(self, *arguments: str, program: Sequence[str] = TALLY) -> Ran:
        """Runs a command with `--json`. Fails loudly: a bench of what failed says nothing."""
        command = [sys.executable, *program, *arguments, "--data", str(self.data), "--json"]
        began = time.perf_counter()
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(command, stdout=said, cwd=ROOT)
            try:
                _, status, used = os.wait4(process.pid, 0)
            except BaseException:
                stop(process)
                raise
            seconds = time.perf_counter() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            said.seek(0)
            text = said.read().decode()
        if process.returncode:
            raise RuntimeError(f"tally {' '.join(arguments)}: exit {process.returncode}: {text}")
        return Ran(json.loads(text), seconds, used.ru_maxrss // 1024)


@contextmanager
def installation() -> Iterator[Installation]:
    """The example, applied to a new temporary data folder. Nothing of it is left when the block ends.

    Each command starts PostgreSQL and stops it again, as it does for who types one; that is in its seconds.
    """
    # Short and open to the server's own user, where root runs this: a socket's path is at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="tally-bench-"))
    here = Installation(folder / "data")
    try:
        here.tally("apply", str(ROOT / "examples" / "vilnius"))
        yield here
    finally:
        discard(here.data)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def server(program: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[tuple[int, str]]:
    """A program that runs as long as the block; its process id and the first line that it printed.

    It is asked to stop at the end, however the block ends, and killed if it does not.
    """
    process = subprocess.Popen(
        program, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, **(environment or {})}
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline().decode()
        if not line:
            raise RuntimeError(f"{program[0]} did not start")
        yield process.pid, line
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL where that is not enough."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()
