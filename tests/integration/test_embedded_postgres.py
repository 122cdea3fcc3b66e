"""The embedded server as its users meet it: shared, private, and refused by name where it cannot be."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from embedded_postgres_witness import AS_ROOT, ask, born, command, end, parts, wait_until
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from adapters.postgres import launch
from adapters.postgres import place as places
from adapters.postgres.embedded import Embedded, discard
from metering.refusal import Refusal, Unavailable


@pytest.fixture
def new_data(tmp_path: Path) -> Iterator[Path]:
    """A data folder that does not exist yet; whatever the test did, no server of it is left."""
    folder = tmp_path / "data"
    yield folder
    discard(folder)
    assert parts(folder) == []


@pytest.fixture(scope="module")
def made_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder whose cluster these tests share, one after the other."""
    folder = tmp_path_factory.mktemp("embedded") / "data"
    with Embedded.acquire(folder):
        pass
    yield folder
    discard(folder)


@pytest.fixture
def data(made_data: Path) -> Iterator[Path]:
    """A data folder with a cluster and no server; the test leaves it so."""
    yield made_data
    assert parts(made_data) == []


def test_a_first_acquire_makes_three_roles_none_of_them_a_superuser(data: Path) -> None:
    with Embedded.acquire(data) as lease:
        traits = {
            role: ask(
                lease.server,
                "SELECT array[rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication]"
                " FROM pg_roles WHERE rolname = current_user",
                role,
            )
            for role in lease.server.passwords
        }
        owner = ask(
            lease.server, "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'tallygrid'"
        )

    assert traits == {
        "tally_owner": [False, False, False, False, False],
        "tally_intake": [False, True, False, False, False],
        "tally_app": [False, False, False, False, False],
    }
    assert owner == "tally_owner"


def test_nobody_enters_without_the_password_or_by_tcp(data: Path) -> None:
    with Embedded.acquire(data) as lease:
        with pytest.raises(asyncpg.InvalidPasswordError):
            ask(lease.server, "SELECT 1", "tally_app", password="guessed")
        assert ask(lease.server, "SHOW listen_addresses") == ""
        assert ask(lease.server, "SHOW password_encryption") == "scram-sha-256"
        assert len(set(lease.server.passwords.values())) == 3
        assert all(password not in repr(lease.server) for password in lease.server.passwords.values())

        place = places.find(data / "postgres")
        assert place is not None
        rules = (place.cluster / "pg_hba.conf").read_text()
        assert {line.split()[-1] for line in rules.splitlines() if not line.startswith("#")} == {
            "scram-sha-256"
        }


def test_what_it_makes_is_closed_to_others(data: Path) -> None:
    with Embedded.acquire(data) as lease:
        place = places.find(data / "postgres")
        assert place is not None
        modes = {
            path: oct(stat.S_IMODE(path.stat().st_mode))
            for path in (data, place.home, place.cluster, lease.server.socket_dir, place.passwords, place.log)
        }
    assert set(modes.values()) == {"0o700", "0o600"}, modes
    assert [path.name for path, mode in modes.items() if mode == "0o600"] == ["passwords.json", "server.log"]


def test_the_url_of_a_role_is_one_that_sqlalchemy_connects_with(data: Path) -> None:
    async def who(url: str) -> object:
        engine = create_async_engine(url)
        async with engine.connect() as connection:
            found = (await connection.execute(text("SELECT current_user"))).scalar_one()
        await engine.dispose()
        return found

    with Embedded.acquire(data) as lease:
        assert asyncio.run(who(lease.server.url("tally_intake"))) == "tally_intake"


def test_a_second_lease_shares_the_server_and_the_last_to_leave_stops_it(data: Path) -> None:
    first = Embedded.acquire(data)
    second = Embedded.acquire(data)
    assert born(second.server) == born(first.server)

    first.release()
    first.release()  # a second time does nothing
    assert ask(second.server, "SELECT 1") == 1

    second.release()
    assert parts(data) == []


def test_ten_commands_at_once_on_an_empty_folder_share_one_server(new_data: Path) -> None:
    script = """
with Embedded.acquire(Path(sys.argv[1])) as lease:
    print((Path(sys.argv[1]) / "postgres" / "passwords.json").read_text().replace("\\n", ""), flush=True)
    sys.stdin.read()
"""
    commands = [command(script, new_data) for _ in range(10)]
    seen = set()
    for each in commands:
        assert each.stdout is not None
        seen.add(each.stdout.readline())
    with Embedded.acquire(new_data) as lease:
        birth = born(lease.server)
        for each in commands:
            end(each)
        assert born(lease.server) == birth
    assert len(seen) == 1
    assert parts(new_data) == []


def test_a_ctrl_c_in_the_terminal_does_not_reach_the_server(data: Path) -> None:
    with Embedded.acquire(data):
        assert {os.getsid(pid) for pid in parts(data)}.isdisjoint({os.getsid(0)})


def test_an_interrupted_first_start_leaves_no_server(new_data: Path) -> None:
    interrupted = command("Embedded.acquire(Path(sys.argv[1]))", new_data)
    wait_until(lambda: parts(new_data))
    interrupted.send_signal(signal.SIGINT)
    interrupted.communicate(timeout=60)
    assert parts(new_data) == []
    with Embedded.acquire(new_data) as lease:
        assert ask(lease.server, "SELECT 1") == 1


def test_a_server_that_does_not_start_is_unavailable_with_the_last_lines_of_its_log(data: Path) -> None:
    place = places.find(data / "postgres")
    assert place is not None
    control = place.cluster / "global" / "pg_control"
    control.rename(control.with_name("elsewhere"))

    with pytest.raises(Unavailable) as raised:
        Embedded.acquire(data)

    assert raised.value.code == "database_down"
    assert "pg_control" in raised.value.what
    assert raised.value.where == str(place.log)
    control.with_name("elsewhere").rename(control)


def test_a_cluster_that_is_gone_is_refused_and_not_replaced_by_an_empty_one(data: Path) -> None:
    place = places.find(data / "postgres")
    assert place is not None
    place.cluster.rename(place.folder / "elsewhere")

    with pytest.raises(Refusal) as raised:
        Embedded.acquire(data)

    assert raised.value.code == "cluster_missing"
    (place.folder / "elsewhere").rename(place.cluster)


def test_a_note_that_names_a_folder_of_somebody_elses_is_refused(data: Path) -> None:
    note = data / "postgres" / "place.json"
    truth = note.read_text()
    note.write_text('{"format": 1, "folder": "/", "made": true, "sockets": null}')

    with pytest.raises(Refusal) as raised:
        discard(data)

    assert raised.value.code == "bad_data_folder"
    note.write_text(truth)


def test_a_long_log_is_put_aside_at_the_next_start(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = data / "postgres" / "server.log"
    log.write_text("said before\n")
    monkeypatch.setattr(launch, "_LOG_KEPT_BYTES", 4)
    with Embedded.acquire(data):
        assert "said before" not in log.read_text()
    assert log.with_name("server.log.1").read_text() == "said before\n"


def test_lost_passwords_are_refused_by_name(data: Path) -> None:
    passwords = data / "postgres" / "passwords.json"
    passwords.rename(data / "elsewhere")

    with pytest.raises(Refusal) as raised:
        Embedded.acquire(data)

    assert raised.value.code == "passwords_missing"
    (data / "elsewhere").rename(passwords)


def test_a_file_in_place_of_the_data_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(Refusal) as raised:
        Embedded.acquire(tmp_path / "file")

    assert raised.value.code == "bad_data_folder"


def test_a_database_in_use_is_not_discarded(data: Path) -> None:
    with Embedded.acquire(data) as lease:
        with pytest.raises(Refusal) as raised:
            discard(data)
        assert ask(lease.server, "SELECT 1") == 1
    assert raised.value.code == "database_in_use"


def test_a_moved_data_folder_takes_its_database_along(new_data: Path, tmp_path: Path) -> None:
    with Embedded.acquire(new_data) as lease:
        ask(lease.server, "CREATE TABLE kept AS SELECT 7 AS n")
    moved = tmp_path / "elsewhere"
    new_data.rename(moved)
    try:
        with Embedded.acquire(moved) as lease:
            assert ask(lease.server, "SELECT n FROM kept") == 7
        assert places.orphans() == [] or not AS_ROOT or _folder(moved) not in places.orphans()
    finally:
        discard(moved)


def _folder(data: Path) -> Path:
    place = places.find(data / "postgres")
    assert place is not None
    return place.folder
