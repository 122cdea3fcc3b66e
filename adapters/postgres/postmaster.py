"""Recognising the server, and stopping it. No pid is believed.

Two facts of the kernel's take the place of pids:

- alive.lock is opened by the launcher, locked, and inherited by pg_ctl, the postmaster and all its children. While any
  of them lives the lock is held; once it is free, none does, so a postmaster.pid that is still there is stale, whoever
  has its pid by now. (PostgreSQL itself would refuse for ever to start where that pid was reused.)
- the one that listens on our socket is the postmaster, and SO_PEERCRED tells its pid. Before a signal is sent, the pid
  in postmaster.pid is opened as a pidfd, the socket must name the same pid, and the signal goes to the pidfd: the pid
  of somebody else, or one that is reused in between, is never hit.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adapters.postgres.locks import Patience, open_lock, try_exclusive
from adapters.postgres.place import Place, read_note
from adapters.postgres.roles import APP, DATABASE
from adapters.postgres.settings import SOCKET_NAME
from metering.refusal import Unavailable

LOCK_FILE = "postmaster.pid"

# A fast stop writes one checkpoint. Past the limit it is stopped without one, and the next start recovers.
_FAST_STOP_LIMIT_S = 120.0
_STOP_LIMIT_S = 150.0

# StartupMessage (protocol 3.0): length, version, then names and values, each ended by NUL, and a NUL.
_PARAMETERS = f"user\0{APP}\0database\0{DATABASE}\0\0".encode()
_FIRST_MESSAGE = struct.pack("!ii", 8 + len(_PARAMETERS), 3 << 16) + _PARAMETERS

# SO_PEERCRED's pid where the listener lives in another pid namespace (a container beside ours).
_OUT_OF_SIGHT = 0


@dataclass(frozen=True, slots=True)
class LockFile:
    """What PostgreSQL wrote into postmaster.pid; `status`: `starting`, `ready`, `stopping`, or empty (not known yet)."""

    pid: int
    status: str


def read_lock_file(cluster: Path) -> LockFile | None:
    """postmaster.pid, also half-written; None where it is missing or names no pid yet.

    Its lines: pid, data folder, start time, port, socket folder, address, shared memory key, status.
    """
    try:
        # The server's user could have put a pipe or a link there, and we may be root.
        file = os.open(cluster / LOCK_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        lines = os.read(file, 4096).decode(errors="replace").splitlines()
    finally:
        os.close(file)
    if not lines or not lines[0].isdecimal():
        return None
    return LockFile(int(lines[0]), lines[7].strip() if len(lines) > 7 else "")


def sockets_of(place: Place) -> Path:
    """The folder of the server's socket, as it was chosen at the last start."""
    note = read_note(place.home)
    return Path(note.sockets) if note and note.sockets else place.folder / "run"


def is_alive(place: Place) -> bool:
    """Whether any part of the server, or of the making of its cluster, lives. Needs start.lock."""
    lock = open_lock(place.alive)
    try:
        return not try_exclusive(lock)
    finally:
        os.close(lock)


def takes_connections(place: Place) -> bool:
    """Whether the server lets clients in now.

    postmaster.pid says `ready` also while the server recovers from the death of one of its parts, so a client's first
    message is sent: the answer is a question for the password, or an error, of which 57P03 is "not now".
    """
    found = read_lock_file(place.cluster)
    if found is None or found.status != "ready":
        return False
    try:
        with _connected(sockets_of(place)) as client:
            client.sendall(_FIRST_MESSAGE)
            answer = client.recv(4096)
    except OSError:
        return False
    return answer.startswith(b"R") or (answer.startswith(b"E") and b"C57P03\0" not in answer)


def refuse_stranger(place: Place) -> None:
    """Called where nothing of ours lives: raises `Unavailable` if a server that we did not start uses the cluster.

    Somebody may have started it with pg_ctl; it holds no alive.lock, and taking its postmaster.pid away would harm it.
    """
    found = read_lock_file(place.cluster)
    if found is None:
        return
    listens = _listener(sockets_of(place)) == found.pid
    with contextlib.suppress(OSError):
        # PostgreSQL's working folder is its cluster. As root in a container we may not be allowed to look.
        listens |= Path(f"/proc/{found.pid}/cwd").samefile(place.cluster)
    if listens:
        raise Unavailable(
            "database_down",
            f"a PostgreSQL that tally did not start (pid {found.pid}) uses this database",
            where=str(place.cluster),
            remedy="stop it and try again",
        )


def stop(place: Place) -> None:
    """Stops the server and returns when its last part is gone; nothing to do where none lives. Needs start.lock.

    Raises `Unavailable` where it does not end, or cannot be proven to be ours (then it is not signalled).
    """
    patience = Patience(
        "PostgreSQL is stopping",
        place.cluster,
        limit_s=_STOP_LIMIT_S,
        remedy=f"it may be stopped with: pg_ctl stop -D {place.cluster}",
    )
    due = [(0.0, signal.SIGINT), (_FAST_STOP_LIMIT_S, signal.SIGQUIT)]
    began = time.monotonic()
    lock = open_lock(place.alive)
    try:
        while not try_exclusive(lock):
            if due and time.monotonic() - began >= due[0][0] and _signal(place, due[0][1]):
                due.pop(0)
            patience.pause()
    finally:
        os.close(lock)
    _forget_sockets(place)


def _signal(place: Place, number: signal.Signals) -> bool:
    """Sends the signal to the postmaster; False where none can be proven (not listening yet, or no more)."""
    found = read_lock_file(place.cluster)
    if found is None:
        return False
    try:
        postmaster = os.pidfd_open(found.pid)
    except ProcessLookupError:
        return False
    try:
        listener = _listener(sockets_of(place))
        if listener == _OUT_OF_SIGHT:
            raise Unavailable(
                "database_down",
                "PostgreSQL was started in another container and cannot be stopped from here",
                where=str(place.cluster),
                remedy="it stops when the last command there ends",
            )
        if listener != found.pid:
            return False
        signal.pidfd_send_signal(postmaster, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(postmaster)
    return True


def _listener(sockets: Path) -> int | None:
    """The pid of whoever listens on the server's socket, as the kernel tells it; None where nobody does.

    `connect` succeeds while the server recovers, too; nothing is sent and nothing is asked of it.
    """
    try:
        with _connected(sockets) as client:
            told = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except OSError:
        return None
    pid: int = struct.unpack("3i", told)[0]
    return pid


@contextlib.contextmanager
def _connected(sockets: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(5)
        client.connect(str(sockets / SOCKET_NAME))
        yield client


def _forget_sockets(place: Place) -> None:
    """Removes a socket folder that lies elsewhere; only an empty one goes, so nothing that is not ours is lost."""
    sockets = sockets_of(place)
    if sockets.parent != place.folder:
        with contextlib.suppress(OSError):
            sockets.rmdir()
