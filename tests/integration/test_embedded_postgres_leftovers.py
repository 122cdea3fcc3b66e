"""What is left behind by kills: a server without a command, stale pids, strangers; each met at its next use."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from embedded_postgres_witness import ask, command, parts, wait_until

from adapters.postgres import place as places
from adapters.postgres import postmaster
from adapters.postgres.embedded import Embedded, discard
from adapters.postgres.unprivileged import spawn_options
from metering.refusal import Unavailable


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


def test_the_server_of_a_killed_command_is_found_and_stopped_by_the_next(data: Path) -> None:
    killed = command("Embedded.acquire(Path(sys.argv[1])); print('in', flush=True); sys.stdin.read()", data)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "in\n"
    killed.kill()
    killed.communicate()
    left = _postmaster(data)
    assert left in parts(data), "it runs on, and nobody holds it"

    with Embedded.acquire(data):
        assert _postmaster(data) == left, "the same server"
    assert parts(data) == []


def test_a_postmaster_killed_under_a_command_is_revived_with_the_same_url(data: Path) -> None:
    with Embedded.acquire(data) as lease:
        url = lease.server.url("tally_app")
        ask(lease.server, "CREATE TABLE kept_by_revival AS SELECT 7 AS n")
        _kill_postmaster(data)

        lease.revive()

        assert lease.server.url("tally_app") == url
        assert ask(lease.server, "SELECT n FROM kept_by_revival") == 7


def test_a_killed_backend_is_recovered_from_before_a_lease_is_given(data: Path) -> None:
    with Embedded.acquire(data) as lease:
        postmaster_pid = _postmaster(data)
        backends = [pid for pid in parts(data) if pid != postmaster_pid]
        os.kill(backends[-1], signal.SIGKILL)
        wait_until(lambda: backends[-1] not in parts(data))
        with Embedded.acquire(data):
            assert ask(lease.server, "SELECT 1") == 1
        assert _postmaster(data) == postmaster_pid


def test_a_stale_pid_that_another_program_has_now_is_neither_believed_nor_signalled(data: Path) -> None:
    with Embedded.acquire(data):
        _kill_postmaster(data)
        wait_until(lambda: not parts(data))
    place = places.find(data / "postgres")
    assert place is not None
    lock_file = place.cluster / postmaster.LOCK_FILE
    innocent = subprocess.Popen(["sleep", "60"])
    try:
        lines = lock_file.read_text().splitlines()
        lock_file.write_text("\n".join([str(innocent.pid), *lines[1:]]) + "\n")

        with Embedded.acquire(data) as lease:
            assert ask(lease.server, "SELECT 1") == 1

        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_a_running_server_whose_pid_file_lies_is_not_stopped_by_that_pid(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(postmaster, "_STOP_LIMIT_S", 0.5)
    innocent = subprocess.Popen(["sleep", "60"])
    try:
        lease = Embedded.acquire(data)
        place = places.find(data / "postgres")
        assert place is not None
        lock_file = place.cluster / postmaster.LOCK_FILE
        truth = lock_file.read_text()
        lock_file.write_text(truth.replace(truth.splitlines()[0], str(innocent.pid), 1))

        lease.release()

        assert innocent.poll() is None
        assert "was left running" in caplog.text
        lock_file.write_text(truth)
        with Embedded.acquire(data):
            pass
    finally:
        innocent.kill()
        innocent.wait()


def test_a_server_that_somebody_started_by_hand_is_left_alone(data: Path) -> None:
    place = places.find(data / "postgres")
    assert place is not None
    control = [str(places.binaries(place) / "pg_ctl"), "-D", str(place.cluster), "-s", "-w"]

    def by_hand(*arguments: str) -> None:
        options = spawn_options(place.account)
        subprocess.run([*control, *arguments], stdout=subprocess.DEVNULL, check=True, **options)

    by_hand("start", "-l", "/dev/null")
    try:
        with pytest.raises(Unavailable) as raised:
            Embedded.acquire(data)
        assert "did not start" in raised.value.what
        assert (place.cluster / postmaster.LOCK_FILE).exists()
    finally:
        by_hand("stop")


def test_a_left_over_part_of_the_server_is_waited_for(data: Path) -> None:
    with (data / "postgres" / "alive.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        left_over = subprocess.Popen(["sleep", "0.4"], pass_fds=(lock.fileno(),))
    with Embedded.acquire(data):
        assert left_over.poll() == 0


def _folder(data: Path) -> Path:
    place = places.find(data / "postgres")
    assert place is not None
    return place.folder


def _postmaster(data: Path) -> int:
    found = postmaster.read_lock_file(_folder(data) / "cluster")
    assert found is not None
    return found.pid


def _kill_postmaster(data: Path) -> None:
    pid = _postmaster(data)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid not in parts(data))
