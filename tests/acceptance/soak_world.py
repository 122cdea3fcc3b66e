"""The world of a soak: one sidecar that has to live through it, and all that happens around it.

The engine is restarted, gently and not; the ledger goes away, with intake, and comes back; the disk that the data folder
lies on fills up and is freed again. The ledger is reached through a door, a socket that relays to PostgreSQL's own, so
that it can be away without anybody else's tests noticing.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from command import ROOT

from adapters.postgres.database import DatabaseUrls

_SOCKET = ".s.PGSQL.5432"
DISK_BYTES = 48 * 1024 * 1024


@dataclass
class Door:
    """The ledger's socket in a folder of its own, open or closed."""

    folder: Path
    behind: Path
    _server: asyncio.Server | None = None
    _through: set[asyncio.StreamWriter] = field(default_factory=set)

    def urls(self, urls: DatabaseUrls) -> DatabaseUrls:
        """The same database, through the door."""

        def through(url: str) -> str:
            return url.replace(str(self.behind), str(self.folder))

        assert urls.intake is not None
        return replace(urls, app=through(urls.app), intake=through(urls.intake))

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._relay, self.folder / _SOCKET)

    async def close(self) -> None:
        """Nobody gets in any more, and who was in is thrown out."""
        assert self._server is not None
        self._server.close()
        (self.folder / _SOCKET).unlink()
        for writer in tuple(self._through):
            writer.transport.abort()

    async def _relay(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.CancelledError):
            answers, forth = await asyncio.open_unix_connection(self.behind / _SOCKET)
            self._through |= {back, forth}
            await asyncio.gather(_copy(client, forth), _copy(answers, back))
        back.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def door_to(urls: DatabaseUrls) -> AsyncIterator[tuple[Door, DatabaseUrls]]:
    """An open door to a database on this machine, and the URLs that lead through it."""
    behind = Path(parse_qs(urlsplit(urls.app).query)["host"][0])
    with tempfile.TemporaryDirectory(prefix="tally-door-", dir="/tmp") as folder:
        door = Door(Path(folder), behind)
        await door.open()
        try:
            yield door, door.urls(urls)
        finally:
            if (door.folder / _SOCKET).exists():
                await door.close()


@dataclass(slots=True)
class Engine:
    """The simulated engine as a process that can be restarted at its address."""

    lines: Path
    port: int = 0
    starts: int = 0
    _process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "adapters.simulated_engine", "--task", "all"]
        command += ["--listen", f"127.0.0.1:{self.port}", "--lines", str(self.lines)]
        command += ["--late-tokens", "1", "--after-end-tokens", "1"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        told = json.loads(self._process.stdout.readline())
        self.port = urlsplit(told["engine"]).port
        self.starts += 1

    def end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.communicate()


@dataclass(frozen=True, slots=True)
class Disk:
    """A small disk. `can_fill` is false where nobody may mount one: then it is a folder, and never full."""

    folder: Path
    can_fill: bool

    def fill(self) -> None:
        """Takes all room that is left."""
        descriptor = os.open(self.folder / "ballast", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for piece in (1 << 20, 1 << 12):
            with suppress(OSError):
                while os.write(descriptor, b"\0" * piece):
                    pass
        os.close(descriptor)

    def free(self) -> None:
        (self.folder / "ballast").unlink()


@contextmanager
def small_disk() -> Iterator[Disk]:
    folder = Path(tempfile.mkdtemp(prefix="tally-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0755", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield Disk(folder, mounted)
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        shutil.rmtree(folder, ignore_errors=True)


def memory_kib(pid: int) -> int:
    """The resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(f"process {pid} is gone")
