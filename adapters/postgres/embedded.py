"""The embedded PostgreSQL: a lease on the server of a data folder.

    with Embedded.acquire(data) as lease:
        connect(lease.server.url("tally_app"))

The first command on a data folder makes the cluster and starts the server, the others share it, the last to leave
stops it. What each of them does is safe against SIGKILL at any point: locks are the kernel's (flock), a cluster gets
its name when it is whole, and the next command waits for the recovery. A command that was killed leaves the server
running; the next one finds it, and the last of them stops it.

Where things lie: `place`. How the server is recognised: `postmaster`. How it is started: `launch`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from adapters.postgres import place as places
from adapters.postgres.cluster import passwords_of
from adapters.postgres.launch import START_LIMIT_S, ensure_running
from adapters.postgres.locks import Patience, exclusively, open_lock, take_shared, try_exclusive
from adapters.postgres.place import Place, orphans
from adapters.postgres.postmaster import sockets_of, stop
from adapters.postgres.roles import DATABASE, ROLES
from adapters.postgres.settings import PORT
from metering.refusal import Refusal, Unavailable

__all__ = ["Embedded", "EmbeddedServer", "discard", "orphans"]

_log = logging.getLogger("tallygrid.postgres")


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """How to reach the server. `passwords`: role -> password of tally_owner, tally_intake and tally_app."""

    socket_dir: Path
    port: int
    database: str
    passwords: Mapping[str, str] = field(repr=False)

    def url(self, role: str) -> str:
        """SQLAlchemy's URL for one of the three roles, over the Unix socket."""
        return (
            f"postgresql+asyncpg://{quote(role, safe='')}:{quote(self.passwords[role], safe='')}"
            f"@/{quote(self.database, safe='')}?host={quote(str(self.socket_dir), safe='/')}&port={self.port}"
        )


class Embedded:
    """A lease on the embedded server of one data folder, from `acquire` to `release`.

    Held by an open file: it ends with the command, however that ends. A child made by fork() without exec holds it too.
    """

    def __init__(self, home: Path, lease: int, server: EmbeddedServer) -> None:
        self._home = home
        self._lease: int | None = lease
        self.server = server

    @classmethod
    def acquire(cls, data: Path) -> Self:
        """Enters the server of a data folder, which is made, started or waited for where need be.

        Raises `Refusal` for a data folder that cannot be used (`bad_data_folder`, `wrong_user`, `copied_data_folder`,
        `cluster_missing`, `passwords_missing`, `no_database_user`), `Unavailable` (`database_down`) where PostgreSQL
        does not start.
        """
        home = places.open_home(data)
        with _errors_named(home), _turn(home):
            lease = open_lock(home / "lease.lock")
            try:
                take_shared(lease)
                return cls(home, lease, _serve(home))
            except Exception:
                # A server that is still recovering is left at it: the next command finds it further.
                os.close(lease)
                raise
            except BaseException:
                _leave(home, lease)
                raise

    def revive(self) -> None:
        """Starts the server again where it was killed under a running command; otherwise it costs a few ms.

        The socket, the roles and the passwords stay the same, so connections of a pool are simply made anew.
        """
        assert self._lease is not None, "the lease was released"
        with _errors_named(self._home), _turn(self._home):
            self.server = _serve(self._home)

    def release(self) -> None:
        """Leaves; the last to leave stops the server and returns when it is gone. A second call does nothing.

        Never raises: a server that does not stop is named in the log (`tallygrid.postgres`) and found by the next command.
        """
        lease, self._lease = self._lease, None
        if lease is None:
            return
        try:
            with _turn(self._home):
                _leave(self._home, lease)
        except (Refusal, Unavailable, OSError) as error:
            _log.warning("the embedded PostgreSQL of %s was left running: %s", self._home.parent, error)
            with contextlib.suppress(OSError):
                os.close(lease)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def discard(data: Path) -> None:
    """Removes the embedded server's files for good: DATA/postgres, and the cluster wherever it lies.

    For a demo's temporary data folder and for tests. A server that a killed command left running is stopped first.
    Raises `Refusal` (`database_in_use`) while a command uses it.
    """
    home = places.home_of(data)
    if not home.is_dir():
        return
    with _errors_named(home), _turn(home):
        lease = open_lock(home / "lease.lock")
        try:
            if not try_exclusive(lease):
                raise Refusal(
                    "database_in_use",
                    "another command uses the database of this data folder",
                    where=str(home),
                    remedy="end it first",
                )
            place = places.find(home)
            if place is not None:
                stop(place)
                if place.folder != home:
                    shutil.rmtree(place.folder)
            shutil.rmtree(home)
        finally:
            os.close(lease)


def _turn(home: Path) -> contextlib.AbstractContextManager[None]:
    """start.lock, held for the block: one command at a time starts, stops, enters or leaves."""
    patience = Patience(
        "another command is starting or stopping PostgreSQL here",
        home,
        limit_s=2 * START_LIMIT_S,
        remedy="see what that command does and try again",
    )
    return exclusively(home / "start.lock", patience)


@contextlib.contextmanager
def _errors_named(home: Path) -> Iterator[None]:
    """A full disk, a folder that was taken away, a file system without locks: said as what it is."""
    try:
        yield
    except OSError as error:
        raise Unavailable(
            "database_down",
            f"the embedded PostgreSQL cannot be used: {error.strerror}",
            where=str(error.filename or home),
            remedy="mend that and try again",
        ) from error


def _serve(home: Path) -> EmbeddedServer:
    place: Place = places.find(home) or places.choose(home)
    passwords = passwords_of(place)
    ensure_running(place, passwords)
    shown = {role: passwords[role] for role in ROLES}
    return EmbeddedServer(sockets_of(place), PORT, DATABASE, shown)


def _leave(home: Path, lease: int) -> None:
    """Gives the lease back and, if it was the last one, stops the server. Needs start.lock."""
    try:
        if try_exclusive(lease):
            place = places.find(home)
            if place is not None:
                stop(place)
    finally:
        os.close(lease)
