"""Starting the server: one loop that serves every case.

Nobody alive → make the cluster if there is none, and start. Somebody alive and taking connections → done. Anything
else (initdb left over from a killed command, a start or a recovery under way, the last parts of a killed server) → wait.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from adapters.postgres import durable
from adapters.postgres.cluster import configure, make_cluster, tail
from adapters.postgres.locks import Patience, open_lock, try_exclusive
from adapters.postgres.place import Place, binaries, mark_made, read_note, write_note
from adapters.postgres.postmaster import LOCK_FILE, refuse_stranger, takes_connections
from adapters.postgres.settings import SOCKET_NAME, fits_a_socket
from adapters.postgres.unprivileged import spawn_options
from metering.refusal import Unavailable

# Recovery replays at most max_wal_size; on a slow disk that is minutes. Past this we say so and leave it at its work.
START_LIMIT_S = 1800.0
# One that is killed from outside while it starts is started again; one that fails each time says why.
_STARTS = 3
_LOG_KEPT_BYTES = 4 << 20


def ensure_running(place: Place, passwords: Mapping[str, str]) -> None:
    """Returns once the server takes connections: found running, waited for, or started. Needs start.lock.

    `passwords`: role -> password, for a cluster that is made now. Raises `Unavailable` with the last lines of the log.
    """
    patience = Patience(
        "PostgreSQL is starting or recovering",
        place.log,
        limit_s=START_LIMIT_S,
        remedy="it goes on recovering; try again later, its log tells how far it is",
    )
    starts, since = 0, _size(place.log)
    while True:
        alive = open_lock(place.alive)
        try:
            if try_exclusive(alive):
                if starts == _STARTS:
                    raise Unavailable(
                        "database_down",
                        f"PostgreSQL does not start:\n{tail(place.log, since=since)}",
                        where=str(place.log),
                        remedy="mend what its log names and try again",
                    )
                starts += 1
                _start(place, passwords, alive)
            elif takes_connections(place):
                return
        finally:
            os.close(alive)
        patience.pause()


def _start(place: Place, passwords: Mapping[str, str], alive: int) -> None:
    """Starts the server and does not wait for it. `alive`: alive.lock, held alone, which the server inherits."""
    refuse_stranger(place)
    log = _open_log(place.log)
    try:
        sockets = _prepare_sockets(place)
        if not place.cluster.is_dir():
            make_cluster(place, passwords, sockets, alive, log)
        mark_made(place)
        for stale in (place.cluster / LOCK_FILE, sockets / SOCKET_NAME, sockets / f"{SOCKET_NAME}.lock"):
            stale.unlink(missing_ok=True)
        configure(place, place.cluster, sockets)
        options = spawn_options(place.account)
        # In the environment, not by -D: pg_ctl would write the path into a shell's command line.
        options["env"]["PGDATA"] = str(place.cluster)
        # pg_ctl ends at once; that way the server is init's child, and not a zombie of ours once it has ended.
        subprocess.run(
            [str(binaries(place) / "pg_ctl"), "start", "--no-wait", "--silent"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(alive,),
            check=False,
            **options,
        )
    finally:
        os.close(log)


def _prepare_sockets(place: Place) -> Path:
    """A folder (0700) for the socket alone: beside the cluster, or a short one where that path is too long."""
    usual = place.folder / "run"
    uid = place.account.uid if place.account else os.geteuid()
    if fits_a_socket(usual):
        if usual.is_dir() and not durable.is_own_folder(usual, uid):
            # Cut off between making it and giving it away; nothing was in it yet.
            usual.rmdir()
        durable.make_folder(usual, owner=place.owner)
        return usual
    assert place.account is None, "root's cluster lies where its socket's path is short"
    note = read_note(place.home)
    assert note is not None
    if note.sockets and durable.is_own_folder(Path(note.sockets), uid):
        return Path(note.sockets)
    base = Path(tempfile.gettempdir())
    if not fits_a_socket(base / "tallygrid-12345678"):
        base = Path("/tmp")  # noqa: S108 (mkdtemp makes a folder of a new name and of mode 0700 in it)
    sockets = Path(tempfile.mkdtemp(prefix="tallygrid-", dir=base))
    write_note(place.home, replace(note, sockets=str(sockets)))
    return sockets


def _open_log(path: Path) -> int:
    """The server's log, for appending; a long one is put aside first, in place of the one put aside before."""
    if _size(path) > _LOG_KEPT_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
