"""Where an embedded server and its cluster lie.

    DATA/postgres/             the home: made by us, belongs to the user that runs the commands
        start.lock             held alone by whoever starts, stops, enters or leaves
        lease.lock             held shared by every command that uses the server
        alive.lock             held by the server itself and by every program that makes the cluster
        place.json             the note below
        passwords.json         role -> password, 0600
        server.log             what the server says; the previous ones in server.log.1
    FOLDER/                    the home itself, or (as root) /var/lib/tallygrid/<16 hex digits>
        cluster/               PostgreSQL's own data
        cluster.new/           a cluster in the making; never used, thrown away at the next start
        run/                   the socket (elsewhere, named by the note, where that path would be too long)
        binaries-<version>/    a copy of PostgreSQL, where the environment's is closed to the server's user
        belongs_to.json        under /var/lib/tallygrid only: {"data": "/the/data/folder"}

As a plain user everything lies in the data folder. PostgreSQL of root's runs as the user `tallygrid`; where that user
cannot enter the data folder, or cannot run the environment's binaries, FOLDER is made under /var/lib/tallygrid and
nothing is opened up. The note, place.json, says which, and whether the cluster was ever whole:

    {"format": 1, "folder": "/var/lib/tallygrid/5f0c2a9be61d4477", "made": true, "sockets": null}

A cluster that was whole and is gone is refused, not replaced by an empty one. A data folder that was moved takes its
cluster along; of a copied one whose original still exists, only the original may use the cluster.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import stat
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from adapters.postgres import durable
from adapters.postgres.settings import fits_a_socket
from adapters.postgres.unprivileged import (
    Account,
    account_for_server,
    binaries_for,
    can_enter,
    can_run,
    installed,
)
from metering.refusal import Refusal

SYSTEM_FOLDER = Path("/var/lib/tallygrid")

_log = logging.getLogger("tallygrid.postgres")

_HOME = "postgres"
_NOTE = "place.json"
_BELONGS_TO = "belongs_to.json"
_FORMAT = 1
# Others may pass through, and read nothing: what they may enter below has a mode of its own.
_PASSABLE = 0o711


@dataclass(frozen=True, slots=True)
class Note:
    """What place.json holds. `folder` and `sockets` are absolute paths, or None for the usual place."""

    format: int = _FORMAT
    folder: str | None = None
    made: bool = False
    sockets: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """One data folder's server on disk. `account`: whom PostgreSQL runs as, None for the command's own user."""

    home: Path
    folder: Path
    account: Account | None

    @property
    def cluster(self) -> Path:
        return self.folder / "cluster"

    @property
    def cluster_in_the_making(self) -> Path:
        return self.folder / "cluster.new"

    @property
    def alive(self) -> Path:
        return self.home / "alive.lock"

    @property
    def log(self) -> Path:
        return self.home / "server.log"

    @property
    def passwords(self) -> Path:
        return self.home / "passwords.json"

    @property
    def owner(self) -> tuple[int, int] | None:
        """(uid, gid) to give the server's own files to; None: they are the command's user's already."""
        return self.account.owner if self.account else None


def home_of(data: Path) -> Path:
    return data.resolve() / _HOME


def open_home(data: Path) -> Path:
    """DATA/postgres, made (0700, with the data folder) where it is missing. Raises `Refusal` where that cannot be."""
    home = home_of(data)
    try:
        durable.make_folder(home)
        found = home.lstat()
    except (FileExistsError, NotADirectoryError):
        raise _bad(data, "is not a folder", "name a folder with --data or TALLY_DATA") from None
    except PermissionError:
        raise _bad(data, "is closed to this user", "name another with --data or TALLY_DATA") from None
    except OSError as error:
        raise _bad(
            data, f"cannot be used: {error.strerror}", "name another with --data or TALLY_DATA"
        ) from None
    if not stat.S_ISDIR(found.st_mode):
        raise _bad(home, "is not a folder", "move it away")
    if found.st_uid != os.geteuid():
        raise Refusal(
            "wrong_user",
            f"the database of this data folder belongs to user id {found.st_uid}, not to {os.geteuid()}",
            where=str(home),
            remedy="run tally as the user that made the data folder, or name another with --data",
        )
    return home


def find(home: Path) -> Place | None:
    """The place that the note names; None where the note does not exist yet.

    Raises `Refusal` where the note cannot be read, where the cluster that it names belongs to another data folder, or
    where a cluster was whole once and is gone.
    """
    note = read_note(home)
    if note is None:
        return None
    place = Place(home, Path(note.folder) if note.folder else home, account_for_server())
    if note.made and not place.cluster.is_dir():
        raise Refusal(
            "cluster_missing",
            "the database of this data folder is gone",
            where=str(place.cluster),
            remedy="put it back from a backup; to begin with an empty database take a new data folder",
        )
    if note.folder:
        _claim(place)
    _check_owner(place)
    return place


def choose(home: Path) -> Place:
    """Decides, once for a data folder, where its cluster will lie, and notes it before anything is made there."""
    account = account_for_server()
    folder: Path | None = None
    if account is not None and not _open_to(account, home):
        home.chmod(0o700)
        folder = SYSTEM_FOLDER / secrets.token_hex(8)
    write_note(home, Note(folder=str(folder) if folder else None))
    place = Place(home, folder or home, account)
    if folder:
        _claim(place)
    return place


def binaries(place: Place) -> Path:
    """The folder of the programs that start and make the server."""
    return binaries_for(place.account, place.folder) / "bin"


def read_note(home: Path) -> Note | None:
    """The note of a home. Raises `Refusal` where it is not one that this version of Tallygrid wrote."""
    try:
        note = Note(**json.loads((home / _NOTE).read_text()))
        # What is named here is made, entered and removed: it has to be a folder of ours.
        if note.folder is not None and Path(note.folder).parent != SYSTEM_FOLDER:
            raise ValueError(note.folder)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        raise _bad(home / _NOTE, "is not a note of Tallygrid's", "put it back from a backup") from None
    if note.format != _FORMAT:
        raise _bad(home / _NOTE, f"has format {note.format}", "use the version of Tallygrid that wrote it")
    return note


def write_note(home: Path, note: Note) -> None:
    durable.write(home / _NOTE, json.dumps(asdict(note)) + "\n")


def mark_made(place: Place) -> None:
    """Notes that the cluster is whole: from now on its absence is a loss, not a beginning."""
    note = read_note(place.home)
    assert note is not None
    if not note.made:
        write_note(place.home, replace(note, made=True))


def orphans() -> list[Path]:
    """Clusters under /var/lib/tallygrid whose data folder is gone or uses another cluster now, sorted.

    Only root can see all; a data folder that this user cannot look into is not counted as gone.
    """
    found = []
    try:
        folders = sorted(SYSTEM_FOLDER.iterdir())
    except OSError:
        return []
    for folder in folders:
        try:
            home = _belongs_to(folder)
            if home is not None and not _uses(home, folder):
                found.append(folder)
        except (PermissionError, Refusal):
            continue
    return found


def _open_to(account: Account, home: Path) -> bool:
    """Whether the server's user can work in `home`: reach it, name a socket there, and run PostgreSQL."""
    if not fits_a_socket(home / "run"):
        return False
    home.chmod(_PASSABLE)
    return can_enter(account, home) and can_run(account, installed())


def _claim(place: Place) -> None:
    """Makes the folder under /var/lib/tallygrid, or takes over one whose data folder was moved to where we are."""
    durable.make_folder(SYSTEM_FOLDER, 0o755)
    durable.make_folder(place.folder, _PASSABLE)
    if stat.S_IMODE(place.folder.stat().st_mode) != _PASSABLE:
        # Cut off between making it and setting its mode.
        place.folder.chmod(_PASSABLE)
    holder = _belongs_to(place.folder)
    if holder == place.home:
        return
    # The same folder by another path (a mount) is neither a copy nor moved.
    if holder is not None and _uses(holder, place.folder):
        if holder.samefile(place.home):
            return
        raise Refusal(
            "copied_data_folder",
            f"this data folder is a copy: its database belongs to {holder.parent}",
            where=str(place.home.parent),
            remedy=f"use {holder.parent}, or remove {place.home} to begin with an empty database",
        )
    if holder is not None:
        _log.warning(
            "the data folder %s was moved to %s; its database goes along", holder.parent, place.home.parent
        )
    durable.write(place.folder / _BELONGS_TO, json.dumps({"data": str(place.home.parent)}) + "\n")


def _belongs_to(folder: Path) -> Path | None:
    """The home that a folder under /var/lib/tallygrid was made for."""
    try:
        return Path(json.loads((folder / _BELONGS_TO).read_text())["data"]) / _HOME
    except (FileNotFoundError, NotADirectoryError):
        return None


def _uses(home: Path, folder: Path) -> bool:
    note = read_note(home)
    return note is not None and note.folder == str(folder)


def _check_owner(place: Place) -> None:
    """A restored or copied cluster, or a user made anew, may leave the cluster with another user's id."""
    uid = place.account.uid if place.account else os.geteuid()
    if place.cluster.is_dir() and not durable.is_own_folder(place.cluster, uid):
        raise Refusal(
            "wrong_user",
            f"the database's files belong to user id {place.cluster.stat().st_uid}, and PostgreSQL runs as {uid}",
            where=str(place.cluster),
            remedy=f"give them to it: chown -R {uid} {place.cluster}",
        )


def _bad(path: Path, what: str, remedy: str) -> Refusal:
    return Refusal("bad_data_folder", f"{path} {what}", where=str(path), remedy=remedy)
