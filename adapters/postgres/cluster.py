"""Making a cluster: initdb, our configuration, the roles and the database, then one rename.

All of it happens in `cluster.new`, without a server: the roles are made in single-user mode, so a cluster that has
its name has everything, and one that was cut off at any point has no name and is thrown away. Every program that is
started here holds alive.lock, so the next command knows when a left-over one has ended.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from adapters.postgres import durable, settings
from adapters.postgres.place import Place, binaries
from adapters.postgres.roles import ROLES, role_sql
from adapters.postgres.unprivileged import spawn_options
from metering.refusal import Refusal, Unavailable

_ALL = (settings.SUPERUSER, *ROLES)


def make_cluster(place: Place, passwords: Mapping[str, str], sockets: Path, alive: int, log: int) -> None:
    """Makes the cluster. `alive`: descriptor of alive.lock, held alone; `log`: where the programs' words go."""
    fresh = place.cluster_in_the_making
    if fresh.exists():
        shutil.rmtree(fresh)
    durable.make_folder(fresh, owner=place.owner)
    programs = binaries(place)

    def run(program: str, *arguments: str, text: str = "") -> None:
        done = subprocess.run(
            [str(programs / program), *arguments],
            input=text.encode(),
            stdout=log,
            stderr=log,
            pass_fds=(alive,),
            check=False,
            **spawn_options(place.account),
        )
        if done.returncode:
            raise Unavailable(
                "database_down",
                f"making the database failed: {program} ended with {done.returncode}\n{tail(place.log)}",
                where=str(place.folder),
                remedy="mend what its log names and try again; nothing half-made is kept",
            )

    run(
        "initdb",
        f"--pgdata={fresh}",
        f"--username={settings.SUPERUSER}",
        "--auth=reject",  # until pg_hba.conf is written below
        "--encoding=UTF8",
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",  # texts sort by code point, whatever the machine's locale
        "--no-sync",  # once, at the end
        "--no-instructions",
    )
    configure(place, fresh, sockets)
    superuser = f"ALTER ROLE {settings.SUPERUSER} PASSWORD '{passwords[settings.SUPERUSER]}';\n\n"
    single = ("--single", "-j", "-D", str(fresh), "-c", "exit_on_error=on", "-c", "log_min_messages=error")
    run("postgres", *single, "postgres", text=superuser + role_sql(passwords))
    run("initdb", "--sync-only", f"--pgdata={fresh}")
    fresh.rename(place.cluster)
    durable.sync_folder(place.folder)


def configure(place: Place, cluster: Path, sockets: Path) -> None:
    """Writes postgresql.conf and pg_hba.conf into the cluster."""
    durable.write(cluster / "postgresql.conf", settings.postgresql_conf(sockets), owner=place.owner)
    durable.write(cluster / "pg_hba.conf", settings.HOST_RULES, owner=place.owner)


def passwords_of(place: Place) -> Mapping[str, str]:
    """Role -> password, the superuser's too; made before the cluster is. Raises `Refusal` where they were lost."""
    try:
        found = json.loads(place.passwords.read_text())
        return {role: str(found[role]) for role in _ALL}
    except FileNotFoundError:
        if place.cluster.is_dir():
            raise _lost(place, "are gone") from None
    except (ValueError, KeyError, TypeError):
        raise _lost(place, "cannot be read") from None
    passwords = {role: secrets.token_hex(24) for role in _ALL}
    durable.write(place.passwords, json.dumps(passwords, indent=1) + "\n")
    return passwords


def tail(log: Path, lines: int = 12, since: int = 0) -> str:
    """The last lines of the server's log, of what was written after byte `since`."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(since, size - 8192))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _lost(place: Place, what: str) -> Refusal:
    return Refusal(
        "passwords_missing",
        f"the passwords of this data folder's database {what}",
        where=str(place.passwords),
        remedy="put the file back from a backup; the database itself is untouched",
    )
