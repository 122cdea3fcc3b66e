"""What `tally doctor` sees of a spool: sidecars that run and do not seal, and little room."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from intake_world import Writer

from adapters.cli.checks import FAULT, OK, WARNING
from adapters.cli.doctor_spool import check_disks, check_spool
from adapters.data_folder import DataFolder
from metering.lane_folder import LaneFolder

OPERATOR, NODE = "telecentras", "vilnius-1"


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_sidecar_that_runs_and_has_sealed_nothing_for_a_minute_is_a_fault(tmp_path: Path) -> None:
    lane = LaneFolder.open(tmp_path, OPERATOR, NODE, "sidecar-0")
    lane.publish(Writer().seal(1))
    assert [check.name for check in check_spool(tmp_path)] == ["spool"]
    age(lane.path / "head", 90)
    [spool, silent] = check_spool(tmp_path)
    assert (spool.state, spool.what) == (OK, "1 sealed batch waits for intake")
    assert (silent.name, silent.state) == ("sidecar vilnius-1/sidecar-0", FAULT)
    assert silent.what.startswith("it runs and has sealed nothing for 9")
    lane.close()
    assert [check.name for check in check_spool(tmp_path)] == ["spool"], "who does not run refuses nobody"


def test_one_that_never_sealed_is_seen_by_its_lock_and_an_import_is_none(tmp_path: Path) -> None:
    new = LaneFolder.open(tmp_path, OPERATOR, NODE, "sidecar-1")
    imported = LaneFolder.open(tmp_path, OPERATOR, NODE, "import-1")
    imported.publish(Writer("import-1", kind="import").seal(1))
    age(new.path / "lock", 90)
    age(imported.path / "head", 90)
    assert [check.name for check in check_spool(tmp_path)] == ["spool", "sidecar vilnius-1/sidecar-1"]
    new.close()
    imported.close()


def test_a_spool_on_a_disk_of_its_own_has_a_line_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = DataFolder(tmp_path)
    folder.spool.mkdir()
    assert [check.name for check in check_disks(folder)] == ["disk"]
    folder.spool.rmdir()
    other = Path("/dev/shm")
    if not other.exists() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    folder.spool.symlink_to(other)
    room = {tmp_path: 3 << 30, folder.spool: 4096}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=room[path]))
    assert [(check.name, check.state) for check in check_disks(folder)] == [
        ("disk", OK),
        ("disk of the spool", FAULT),
    ]
    room[folder.spool] = 1 << 30
    assert check_disks(folder)[1].state == WARNING
