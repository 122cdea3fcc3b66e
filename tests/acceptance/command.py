"""`tally` as a user meets it: a command line, an environment, what is printed where, and an exit code.

    tally = Tally(tmp_path / "data")
    used = tally("usage", "--by", "customer")           # must exit 0; its JSON document
    refused = tally.refused("import", "cut.csv")        # must exit 1; the `error` object
    ran = tally.run("streams", "--json")                # whatever comes of it

Commands run in processes of their own (`forked_tally.py` says how); `from_nothing` pays for a fresh interpreter.
Where the public traces do not lie beside the repository (`TALLY_SHARED`, else ../shared), `public_trace` skips the test
and says so.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pytest

from adapters.postgres.database import DatabaseUrls
from adapters.postgres.embedded import Embedded, discard

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "vilnius"
PATIENCE_S = 120
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command did."""

    arguments: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Json:
        """The one JSON document on stdout."""
        assert self.stdout.endswith("\n"), self
        assert self.stdout.count("\n") == 1, f"more than one line on stdout: {self}"
        document: Json = json.loads(self.stdout)
        return document

    def __str__(self) -> str:
        return f"tally {' '.join(self.arguments)} → {self.exit_code}\n{self.stdout}\n{self.stderr}"


@dataclass(slots=True)
class Started:
    """A command that runs: its process id, and what came of it once it has ended.

    `stdout` and `stderr` are the files that it writes.
    """

    arguments: tuple[str, ...]
    pid: int
    _answers: io.BufferedReader
    stdout: Path
    stderr: Path

    def ready(self) -> Json:
        """Waits for a server's line of JSON."""
        ends = time.monotonic() + PATIENCE_S
        while not self.stdout.read_text().endswith("\n"):
            assert time.monotonic() < ends, f"not ready: {self.stderr.read_text()}"
            ended, _, _ = select.select([self._answers], [], [], 0.02)
            assert not ended, self.wait()
        told: Json = json.loads(self.stdout.read_text())
        assert told["ready"] is True
        return told

    def wait(self) -> Ran:
        """Waits for its end."""
        line = self._answers.readline()
        assert line, f"lost sight of tally {' '.join(self.arguments)}"
        ran = Ran(self.arguments, int(line), self.stdout.read_text(), self.stderr.read_text())
        assert "Traceback" not in ran.stdout + ran.stderr, ran
        return ran


@dataclass(slots=True)
class Tally:
    """The command line over one data folder. `environment` is added to every command's."""

    data: Path
    folder: Path = ROOT
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, *arguments: str, **environment: str) -> Started:
        """Starts a command and does not wait for it."""
        outputs = Path(tempfile.mkdtemp(dir=_workplace()))
        asked = {
            "arguments": arguments,
            "folder": str(self.folder),
            "environment": self._environment(environment),
        }
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE_S)
        connection.connect(_forking_tally())
        with (
            (outputs / "out").open("wb") as out,
            (outputs / "err").open("wb") as err,
            Path(os.devnull).open() as none,
        ):
            files = [none.fileno(), out.fileno(), err.fileno()]
            socket.send_fds(connection, [json.dumps(asked).encode()], files)
        answers = connection.makefile("rb")
        connection.close()  # the file keeps it open
        return Started(arguments, int(answers.readline()), answers, outputs / "out", outputs / "err")

    def run(self, *arguments: str, **environment: str) -> Ran:
        """Runs a command to its end."""
        return self.start(*arguments, **environment).wait()

    def __call__(self, *arguments: str, **environment: str) -> Json:
        """Runs a command that must succeed, with `--json`; its document."""
        ran = self.run(*arguments, "--json", **environment)
        assert ran.exit_code == 0, ran
        return ran.document

    def refused(self, *arguments: str, exit_code: int = 1, **environment: str) -> Json:
        """Runs a command that must fail, with `--json`; the error object, and never a traceback."""
        ran = self.run(*arguments, "--json", **environment)
        assert ran.exit_code == exit_code, ran
        error: Json = ran.document["error"]
        assert set(error) >= {"code", "what", "where", "remedy", "faults"}, ran
        assert error["what"], ran
        return error

    def from_nothing(self, *arguments: str, **environment: str) -> Ran:
        """As `run`, in a fresh interpreter: what a user's shell does."""
        done = subprocess.run(
            [sys.executable, "-m", "adapters.cli", *arguments],
            cwd=self.folder,
            env=self._environment(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return Ran(arguments, done.returncode, done.stdout, done.stderr)

    @contextmanager
    def serving(self, *arguments: str) -> Iterator[Json]:
        """A server for as long as the block; its line of JSON. It is asked to stop at the end and must exit 0."""
        server = self.start(*arguments)
        try:
            yield server.ready()
        except BaseException:
            os.kill(server.pid, signal.SIGKILL)
            raise
        os.kill(server.pid, signal.SIGTERM)
        ended = server.wait()
        assert ended.exit_code == 0, ended
        assert ended.document["ready"] is True, ended  # which is all that it printed

    def _environment(self, added: Mapping[str, str]) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TALLY_")}
        return inherited | {"TALLY_DATA": str(self.data)} | self.environment | dict(added)


@contextmanager
def data_folder(prefix: str = "tally-acceptance-") -> Iterator[Tally]:
    """A new data folder whose database runs for as long as the block and is removed with it."""
    root = Path(tempfile.mkdtemp(prefix=prefix))
    data = root / "data"
    try:
        with Embedded.acquire(data):
            yield Tally(data)
    finally:
        discard(data)
        shutil.rmtree(root)


@contextmanager
def vilnius() -> Iterator[Tally]:
    """A data folder to which the example is applied."""
    with data_folder() as tally:
        tally("apply", str(EXAMPLE))
        yield tally


def over(urls: DatabaseUrls, data: Path, *site: Path) -> Tally:
    """The command line over an empty data folder and a PostgreSQL of the operator's own (`fresh_urls` makes one in 50 ms,
    an embedded one takes a second); site files are applied to it."""
    assert urls.intake is not None
    named = {"TALLY_DATABASE_URL": urls.app, "TALLY_DATABASE_INTAKE_URL": urls.intake}
    tally = Tally(data, environment=named)
    if site:
        tally("apply", *map(str, site))
    return tally


@contextmanager
def program(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[Json]:
    """A server process for as long as the block; the line of JSON that it prints when it is ready."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env=dict(os.environ if environment is None else environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdout is not None
        with process, process.stdout as stdout:
            try:
                line = stdout.readline()
                assert line.startswith("{"), _content(log)
                told: Json = json.loads(line)
                assert told.get("ready") is True, (line, _content(log))
                yield told
                process.send_signal(signal.SIGTERM)
                assert stdout.read() == "", "a server prints one line only"
                assert process.wait(PATIENCE_S) == 0, _content(log)
                assert "Traceback" not in _content(log), _content(log)
            finally:
                process.kill()


def _content(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode()


def simulated_engine(*arguments: str) -> contextlib.AbstractContextManager[Json]:
    """A simulated engine that serves every model, on a free port."""
    return program("adapters.simulated_engine", "--listen", "127.0.0.1:0", "--any-model", *arguments)


def public_trace(name: str) -> Path:
    """One of the public traces; skips the test where they are not there."""
    path = Path(os.environ.get("TALLY_SHARED", ROOT.parent / "shared")) / "traces" / name
    if not path.is_file():
        pytest.skip(f"the public trace {name} is not here (TALLY_SHARED/traces, else ../shared/traces)")
    return path


def decompressed(path: Path) -> str:
    """The text of a .zst file."""
    with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
        content: bytes = stream.read()
    return content.decode()


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """A CSV file for `tally import`, with the columns of the first row."""
    lines = [",".join(rows[0]), *(",".join(str(value) for value in row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


@functools.cache
def _workplace() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="tally-cmd-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def _forking_tally() -> str:
    """The address of `forked_tally.py`, which runs from the first command to the end of the tests."""
    address = str(_workplace() / "socket")
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("forked_tally.py")), address],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )

    def stop() -> None:
        server.kill()
        server.wait()

    atexit.register(stop)
    assert server.stdout is not None
    with server.stdout as told:
        assert told.readline() == b"ready\n", "forked_tally.py did not start"
    return address
