"""Ctrl-C while Arrow reads is an interruption like any other, not an exception of Arrow's own."""

from __future__ import annotations

import subprocess
import sys

import pytest

READING = """
import asyncio, os, signal, threading
import pyarrow as pa
import pyarrow.csv
import {module}

async def read() -> None:
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    for _ in range(200):
        pa.csv.read_csv(pa.BufferReader(b"a,b\\n" + b"1,2\\n" * 1_000_000))
        await asyncio.sleep(0)

try:
    asyncio.run(read())
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("module", ["adapters.importing.csv_rows", "adapters.postgres.usage_cells"])
def test_ctrl_c_while_arrow_reads_is_the_commands_to_answer(module: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", READING.format(module=module)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("interrupted\n", "")
