"""A PostgreSQL as an operator would have one: on TCP, with passwords, an administrator, and nothing of ours in it.

Made anew for a test from the wheel's binaries, on loopback, without fsync.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapters.postgres.unprivileged import account_for_server, binaries_for, installed, spawn_options

SUPERUSER = "postgres"
#: As clouds give them: not a superuser, but it may make roles and databases.
ADMINISTRATOR = "dba"
PASSWORD = "of-the-administrator"
_FORGET = """
DROP DATABASE IF EXISTS tallygrid;
DROP ROLE IF EXISTS tally_owner;
DROP ROLE IF EXISTS tally_intake;
DROP ROLE IF EXISTS tally_app;
"""


@dataclass(frozen=True, slots=True)
class OutsideServer:
    """A running server on 127.0.0.1."""

    port: int

    def psql(
        self,
        *arguments: str,
        user: str = SUPERUSER,
        text: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """The wheel's psql, connected to the database `postgres` as `user`; `text` is what is typed."""
        command = [
            str(installed() / "bin" / "psql"),
            "--no-psqlrc",
            f"--host={self.host}",
            f"--port={self.port}",
        ]
        command += [f"--username={user}", "--no-password", "--dbname=postgres", *arguments]
        given = {"PATH": os.environ["PATH"], "PGPASSWORD": PASSWORD, **(environment or {})}
        return subprocess.run(command, input=text, env=given, capture_output=True, text=True, check=False)

    @property
    def host(self) -> str:
        return "127.0.0.1"

    def forget_tallygrid(self) -> None:
        """Takes Tallygrid's database and roles away."""
        done = self.psql("--set=ON_ERROR_STOP=1", text=_FORGET)
        assert done.returncode == 0, done.stderr


@contextmanager
def outside_server() -> Iterator[OutsideServer]:
    """A server for the block; nothing of it is left afterwards."""
    account = account_for_server()
    folder = Path(tempfile.mkdtemp(prefix="tally-outside-", dir="/tmp"))
    folder.chmod(0o755)
    cluster, password = folder / "cluster", folder / "password"
    password.write_text(PASSWORD)
    if account is not None:
        for path in (folder, password):
            os.chown(path, account.uid, account.gid)
    programs = binaries_for(account, folder) / "bin"
    options = spawn_options(account)

    def run(program: str, *arguments: str) -> None:
        command = [str(programs / program), f"--pgdata={cluster}", *arguments]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"

    try:
        run("initdb", f"--username={SUPERUSER}", "--auth=scram-sha-256", f"--pwfile={password}", "--no-sync")
        with socket.create_server(("127.0.0.1", 0)) as free:
            server = OutsideServer(free.getsockname()[1])
        settings = (
            f"--listen_addresses={server.host} --port={server.port} --unix_socket_directories="
            " --fsync=off --synchronous_commit=off --full_page_writes=off --shared_buffers=32MB"
        )
        run("pg_ctl", "start", "--wait", f"--log={folder / 'log'}", f"--options={settings}")
        made = f"CREATE ROLE {ADMINISTRATOR} LOGIN CREATEROLE CREATEDB BYPASSRLS PASSWORD '{PASSWORD}'"
        done = server.psql(f"--command={made}")
        assert done.returncode == 0, done.stderr
        yield server
    finally:
        if (cluster / "postmaster.pid").exists():
            run("pg_ctl", "stop", "--wait", "--mode=immediate")
        shutil.rmtree(folder)
