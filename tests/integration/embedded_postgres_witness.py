"""What the tests of the embedded PostgreSQL see and do from outside: ask it, count its parts, be another command."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg

from adapters.postgres.embedded import EmbeddedServer

AS_ROOT = os.geteuid() == 0

_PLAIN_USER = """
import os, pwd, asyncio, asyncpg, sys, tempfile, encodings.idna
from pathlib import Path
from adapters.postgres.embedded import Embedded, discard
from adapters.postgres import postmaster, place
from metering.refusal import Refusal, Unavailable
nobody = pwd.getpwnam("nobody")
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(nobody.pw_gid); os.setuid(nobody.pw_uid)
os.environ["HOME"] = "/nonexistent"
"""


def ask(
    server: EmbeddedServer, statement: str, role: str = "tally_owner", password: str | None = None
) -> Any:
    """The first value that a statement gives; None for one that gives none."""

    async def once() -> Any:
        connection = await asyncpg.connect(
            user=role,
            password=server.passwords[role] if password is None else password,
            database=server.database,
            host=str(server.socket_dir),
            port=server.port,
        )
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(once())


def born(server: EmbeddedServer) -> object:
    """The instant at which the postmaster started: the same for all who share it."""
    return ask(server, "SELECT pg_postmaster_start_time()")


def parts(data: Path) -> list[int]:
    """The pids of all that hold the data folder's alive.lock open: initdb, pg_ctl, the postmaster, its children."""
    lock = data / "postgres" / "alive.lock"
    if not lock.exists():
        return []
    wanted = lock.stat()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.path.samestat(wanted, held.stat()) for held in (folder / "fd").iterdir()):
                found.append(int(folder.name))
        except OSError:
            continue
    return sorted(pid for pid in found if pid != os.getpid())


def wait_until(holds: Callable[[], object], limit_s: float = 30) -> None:
    """Waits until `holds()` is true; fails the test where it does not come."""
    give_up = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < give_up, "did not come about in time"
        time.sleep(0.005)


def command(script: str, *arguments: object, plain_user: bool = False) -> subprocess.Popen[str]:
    """Another command on this machine: a Python script with `Embedded`, `Path` and `sys.argv` at hand."""
    head = (
        _PLAIN_USER
        if plain_user
        else "import sys\nfrom pathlib import Path\nfrom adapters.postgres.embedded import *\n"
    )
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", head + script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(started: subprocess.Popen[str]) -> str:
    """Lets a command finish (its stdin closes) and returns what it said; fails where it failed."""
    out, errors = started.communicate(timeout=60)
    assert started.returncode == 0, errors
    return out.strip()


def kill(pid: int) -> None:
    """SIGKILL, also where the victim has just gone by itself."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
