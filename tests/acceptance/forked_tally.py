"""A `tally` that is imported once and forks for every command, so that a test pays 20 ms for one instead of two seconds.

What runs is `adapters.cli.main.main` in a process of its own, with its own environment, folder, standard output and
error, and exit code; only `exec` and the imports are left out. Started by `command.py` as

    python forked_tally.py SOCKET

Each connection is one command: the client sends one line of JSON and three open files (stdin, stdout, stderr), and is
sent a line with the process id, then a line with the exit code (negative: the signal that ended it).
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
from typing import Any, NoReturn

import alembic.command  # noqa: F401 - as holidays.countries: what commands import late, they would each import anew
import holidays.countries  # noqa: F401

from adapters.cli.main import main
from adapters.cli.subjects import import_all
from metering import steps

MAX_MESSAGE = 1 << 20


def serve(path: str) -> None:
    import_all()
    # What is imported stays: a collection in a child would look through all of it, and copy every page it looks at.
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those that wait for a command end unwatched
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(64)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    while True:
        # Standard input is a pipe of the tests: when they are gone, however they ended, so is this.
        waiting, _, _ = select.select([listening, sys.stdin], [], [])
        if sys.stdin in waiting:
            return
        connection, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            _run_and_wait(connection)
        connection.close()


def _run_and_wait(connection: socket.socket) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, files, _, _ = socket.recv_fds(connection, MAX_MESSAGE, 3)
    pid = os.fork()
    if pid == 0:
        connection.close()
        _become_tally(json.loads(message), files)
    for file in files:
        os.close(file)
    connection.sendall(f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become_tally(asked: dict[str, Any], files: list[int]) -> NoReturn:
    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    sys.argv = ["tally", *asked["arguments"]]
    steps._kill_at = steps._from_environment(os.environ.get("TALLY_KILL_AT"))
    code = 70
    try:
        main()
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
