"""The configuration of the embedded server, as text: `postgresql.conf` and `pg_hba.conf`.

Both are written anew at each start, so an update of Tallygrid brings its settings along. Sized for a machine of two
cores that also meters; an operator who wants other settings runs a PostgreSQL of their own (`TALLY_DATABASE_URL`).
"""

from __future__ import annotations

import re
from pathlib import Path

from adapters.postgres.roles import APP, DATABASE, INTAKE, OWNER

PORT = 5432
SUPERUSER = "postgres"
SOCKET_NAME = f".s.PGSQL.{PORT}"

# sockaddr_un holds 108 bytes, the last of them NUL.
_SOCKET_PATH_BYTES = 107
# What neither postgresql.conf (a list, with quotes) nor a URL (a port may follow a colon) has to quote.
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./+~@-]*")

HOST_RULES = f"""\
# TYPE  DATABASE     USER                                  METHOD
local   all          {SUPERUSER}                              scram-sha-256
local   {DATABASE}    {OWNER},{INTAKE},{APP}    scram-sha-256
"""


def fits_a_socket(folder: Path) -> bool:
    """Whether a socket in `folder` has a path that kernel, PostgreSQL and a connection URL take as it is."""
    path = str(folder / SOCKET_NAME)
    return len(path.encode()) <= _SOCKET_PATH_BYTES and _PLAIN_PATH.fullmatch(path) is not None


def postgresql_conf(sockets: Path) -> str:
    """`postgresql.conf` of a server that listens only on a Unix socket in `sockets`."""
    assert fits_a_socket(sockets)
    return f"""\
# Written by Tallygrid at each start; changes here are lost.
cluster_name = 'tallygrid'

# Reached by a Unix socket in a folder of mode 0700 and by passwords, never by TCP.
listen_addresses = ''
unix_socket_directories = '{sockets}'
unix_socket_permissions = 0700
port = {PORT}
password_encryption = 'scram-sha-256'
max_connections = 60
# A command that was killed leaves no long statement running with its locks.
client_connection_check_interval = '1s'

# What is committed is on the disk.
fsync = on
synchronous_commit = on
full_page_writes = on
max_wal_size = '2GB'
checkpoint_timeout = '10min'

# Two cores, shared with the sidecar. These binaries know neither lz4 nor LLVM.
shared_buffers = '192MB'
work_mem = '16MB'
maintenance_work_mem = '128MB'
effective_cache_size = '1GB'
max_parallel_workers_per_gather = 1
huge_pages = off
jit = off
# A statement over many operators and months locks many partitions.
max_locks_per_transaction = 256
# Neither bound by the size of a container's /dev/shm nor removed when its user logs out (RemoveIPC).
dynamic_shared_memory_type = 'mmap'

timezone = 'UTC'
log_timezone = 'UTC'
datestyle = 'ISO, YMD'
lc_messages = 'C'
default_text_search_config = 'pg_catalog.simple'

# To the launcher's server.log. Neither statements nor values of rows (DETAIL, CONTEXT): they may hold names.
log_destination = 'stderr'
logging_collector = off
log_line_prefix = '%m [%p] '
log_checkpoints = off
log_error_verbosity = terse
log_min_error_statement = panic
"""
