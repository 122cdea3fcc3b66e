"""Where a cluster lies: in the data folder, under /var/lib/tallygrid, and for whom; nothing of others' is changed."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest
from embedded_postgres_witness import AS_ROOT, ask, command, end, parts

from adapters.postgres import place as places
from adapters.postgres import unprivileged
from adapters.postgres.embedded import Embedded, discard, orphans
from metering.refusal import Refusal

needs_root = pytest.mark.skipif(not AS_ROOT, reason="shows what happens when the command is root's")


def _nobody_can_run_postgres() -> bool:
    nobody = pwd.getpwnam("nobody")
    account = unprivileged.Account("nobody", nobody.pw_uid, nobody.pw_gid)
    return AS_ROOT and unprivileged.can_run(account, unprivileged.installed())


needs_nobody = pytest.mark.skipif(
    not _nobody_can_run_postgres(),
    reason="needs root to become nobody, and an environment that nobody can reach",
)
# What root shows by becoming nobody, a plain user shows as it is.
needs_a_plain_user = pytest.mark.skipif(
    AS_ROOT and not _nobody_can_run_postgres(), reason="needs an environment that nobody can reach"
)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A new folder that every user can enter (pytest's own are closed)."""
    folder = Path(mkdtemp(prefix="tallygrid-test-"))
    folder.chmod(0o755)
    yield folder
    if (folder / "data").exists():
        discard(folder / "data")
    shutil.rmtree(folder)


def _place(data: Path) -> places.Place:
    found = places.find(data / "postgres")
    assert found is not None
    return found


def _modes_above(path: Path) -> dict[Path, tuple[int, int]]:
    return {each: (each.stat().st_mode, each.stat().st_uid) for each in path.parents}


@needs_root
def test_behind_a_closed_folder_roots_cluster_lies_under_var_lib(tmp_path: Path) -> None:
    data = tmp_path / "data"
    before = _modes_above(data)
    try:
        with Embedded.acquire(data) as lease:
            place = _place(data)
            assert place.folder.parent == places.SYSTEM_FOLDER
            assert lease.server.socket_dir.parent == place.folder
            assert {Path(f"/proc/{pid}").stat().st_uid for pid in parts(data)} == {
                pwd.getpwnam("tallygrid").pw_uid
            }
        assert _modes_above(data) == before
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
    finally:
        discard(data)
    assert not place.folder.exists()


@needs_root
@needs_nobody
def test_in_an_open_folder_roots_cluster_lies_in_the_data_folder(open_folder: Path) -> None:
    data = open_folder / "data"
    data.mkdir(mode=0o755)
    with Embedded.acquire(data) as lease:
        assert lease.server.socket_dir == data / "postgres" / "run"
        assert _place(data).cluster.stat().st_uid == pwd.getpwnam("tallygrid").pw_uid
        assert (data / "postgres" / "passwords.json").stat().st_uid == 0
        assert stat.S_IMODE((data / "postgres" / "passwords.json").stat().st_mode) == 0o600


@needs_root
def test_a_closed_environment_has_its_binaries_copied_beside_the_cluster(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An environment as in /root: the same layout behind a folder that only root may enter.
    package = unprivileged.installed().parent
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    (closed / package.name).mkdir()
    shutil.copytree(unprivileged.installed(), closed / package.name / "pginstall18", symlinks=True)
    shutil.copytree(package.parent / f"{package.name}.libs", closed / f"{package.name}.libs")
    monkeypatch.setattr(unprivileged, "installed", lambda: closed / package.name / "pginstall18")
    monkeypatch.setattr(places, "installed", unprivileged.installed)
    data = open_folder / "data"
    data.mkdir(mode=0o755)

    with Embedded.acquire(data) as lease:
        place = _place(data)
        programs = {Path(f"/proc/{pid}/exe").readlink().parent for pid in parts(data)}
        assert ask(lease.server, "SELECT 1") == 1

    assert place.folder.parent == places.SYSTEM_FOLDER
    assert [path.is_relative_to(place.folder) for path in programs] == [True]
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@needs_root
def test_an_orphan_is_a_cluster_whose_data_folder_is_gone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Embedded.acquire(data):
        pass
    folder = _place(data).folder
    assert folder not in orphans()

    shutil.rmtree(data)

    assert folder in orphans()
    shutil.rmtree(folder)


@needs_root
def test_a_copied_data_folder_is_refused_while_the_original_exists(tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    try:
        with Embedded.acquire(data):
            pass
        shutil.copytree(data, copy)

        with pytest.raises(Refusal) as raised:
            Embedded.acquire(copy)

        assert raised.value.code == "copied_data_folder"
        assert str(data) in raised.value.what
    finally:
        discard(data)


@needs_root
def test_root_is_refused_in_the_data_folder_of_a_plain_user(tmp_path: Path) -> None:
    home = tmp_path / "data" / "postgres"
    home.mkdir(parents=True)
    os.chown(home, pwd.getpwnam("nobody").pw_uid, -1)

    with pytest.raises(Refusal) as raised:
        Embedded.acquire(tmp_path / "data")

    assert raised.value.code == "wrong_user"
    assert list(home.iterdir()) == []


_LIFE = """
data = Path(sys.argv[1])
import subprocess
with Embedded.acquire(data) as first, Embedded.acquire(data) as second:
    async def version():
        connection = await asyncpg.connect(user="tally_app", password=first.server.passwords["tally_app"],
            database="tallygrid", host=str(second.server.socket_dir), port=first.server.port)
        return await connection.fetchval("SELECT current_user")
    assert asyncio.run(version()) == "tally_app"
    assert place.find(data / "postgres").folder == data / "postgres"
    print(first.server.socket_dir)
assert not postmaster.is_alive(place.find(data / "postgres"))
"""


@needs_a_plain_user
def test_for_a_plain_user_everything_lies_in_the_data_folder(open_folder: Path) -> None:
    open_folder.chmod(0o777)
    data = open_folder / "data"

    assert end(command(_LIFE, data, plain_user=True)) == str(data / "postgres" / "run")

    assert parts(data) == []
    plain_user = pwd.getpwnam("nobody").pw_uid if AS_ROOT else os.geteuid()
    assert {path.lstat().st_uid for path in data.rglob("*")} == {plain_user}
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    shutil.rmtree(data)


@needs_a_plain_user
def test_a_long_data_folder_gets_a_short_socket_folder_elsewhere(open_folder: Path) -> None:
    open_folder.chmod(0o777)
    data = open_folder / ("long-" * 20) / "data:of an operator's"

    socket_dir = Path(end(command(_LIFE, data, plain_user=True)))

    assert not socket_dir.is_relative_to(open_folder)
    assert not socket_dir.exists(), "removed when the last one left"
    shutil.rmtree(data.parent)


@needs_nobody
def test_a_plain_user_is_refused_in_a_folder_of_roots(open_folder: Path) -> None:
    script = """
try:
    Embedded.acquire(Path(sys.argv[1]) / "data")
except Refusal as refusal:
    print(refusal.code)
"""
    assert end(command(script, open_folder, plain_user=True)) == "bad_data_folder"
    assert not (open_folder / "data").exists()
