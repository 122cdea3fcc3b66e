"""The texts that the embedded PostgreSQL is made of: roles, settings, URLs, and the paths that a socket can have."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import make_url

from adapters.postgres.embedded import EmbeddedServer
from adapters.postgres.locks import Patience
from adapters.postgres.roles import ROLES, role_sql
from adapters.postgres.settings import HOST_RULES, SOCKET_NAME, fits_a_socket, postgresql_conf
from metering.refusal import Unavailable

PASSWORDS = {"tally_owner": "o'w", "tally_intake": "back\\slash", "tally_app": "plain"}


def test_every_role_is_made_without_superuser_and_only_intake_passes_row_level_security() -> None:
    made = [line for line in role_sql(PASSWORDS).splitlines() if line.startswith("CREATE ROLE")]

    assert [line.split()[2] for line in made] == list(ROLES)
    assert all(" NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION " in line for line in made)
    assert [" BYPASSRLS " in line for line in made] == [False, True, False]


def test_a_password_is_quoted_whatever_it_holds() -> None:
    sql = role_sql(PASSWORDS)
    assert r"PASSWORD E'o\'w'" in sql
    assert r"PASSWORD E'back\\slash'" in sql


def test_for_an_outside_server_the_passwords_are_variables_that_psql_must_be_given() -> None:
    sql = role_sql(None)
    assert [f":'{role}_password'" in sql for role in ROLES] == [True, True, True]
    assert "CREATE DATABASE tallygrid OWNER tally_owner" in sql
    assert all(line.startswith("--") for line in sql.splitlines() if "\\" in line)


def test_each_statement_ends_as_single_user_mode_reads_it() -> None:
    # `postgres --single -j` ends a command at a semicolon followed by an empty line.
    assert all(block.count(";") == 0 for block in role_sql(PASSWORDS).split(";\n\n"))


@pytest.mark.parametrize(
    ("folder", "fits"),
    [
        ("/var/lib/tallygrid/5f0c2a9be61d4477/run", True),
        ("/" + "x" * (107 - len("/" + "/" + SOCKET_NAME)), True),
        ("/" + "x" * (108 - len("/" + "/" + SOCKET_NAME)), False),
        ("/home/o'neil/run", False),
        ("/home/a:b/run", False),
        ("/home/a, b/run", False),
        ("/home/žemė/run", False),
    ],
)
def test_a_socket_folder_is_short_and_needs_no_quotes(folder: str, fits: bool) -> None:
    assert fits_a_socket(Path(folder)) is fits


def test_the_server_listens_on_its_socket_alone_and_keeps_what_is_committed() -> None:
    settings = dict(
        line.split(" = ")
        for line in postgresql_conf(Path("/run/x")).splitlines()
        if " = " in line and line[0] != "#"
    )
    assert settings["listen_addresses"] == "''"
    assert settings["unix_socket_directories"] == "'/run/x'"
    assert (settings["fsync"], settings["synchronous_commit"]) == ("on", "on")
    # Values of rows and statements may hold names: neither is logged.
    assert (settings["log_error_verbosity"], settings["log_min_error_statement"]) == ("terse", "panic")


def test_every_way_in_asks_for_a_password() -> None:
    ways = [line.split() for line in HOST_RULES.splitlines() if not line.startswith("#")]
    assert {(way[0], way[-1]) for way in ways} == {("local", "scram-sha-256")}


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1))
def test_a_url_gives_back_the_password_and_the_socket_folder(password: str) -> None:
    server = EmbeddedServer(Path("/var/lib/tally grid+/run"), 5432, "tallygrid", {"tally_app": password})

    url = make_url(server.url("tally_app"))

    assert url.drivername == "postgresql+asyncpg"
    assert (url.username, url.password, url.database) == ("tally_app", password, "tallygrid")
    assert dict(url.query) == {"host": "/var/lib/tally grid+/run", "port": "5432"}


def test_waiting_gives_up_by_name() -> None:
    patience = Patience("PostgreSQL is recovering", Path("/data"), limit_s=-1, remedy="try again later")

    with pytest.raises(Unavailable) as raised:
        patience.pause()

    assert (raised.value.code, raised.value.where, raised.value.remedy) == (
        "database_down",
        "/data",
        "try again later",
    )
