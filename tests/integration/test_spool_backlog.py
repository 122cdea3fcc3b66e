"""How much waits in a spool, and since when."""

from __future__ import annotations

import os
from pathlib import Path

from lane_examples import open_lane, serve

from metering.spool import Backlog, Spool


def test_the_backlog_is_what_intake_has_not_acknowledged(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    assert spool.backlog() == Backlog(0, 0, None)
    lane = open_lane(tmp_path)
    for _ in range(3):
        serve(lane, 5)
        lane.seal()
    lane.close()
    waiting = [spooled.ref.path for spooled in spool.pending()]
    for at, path in enumerate(waiting):
        os.utime(path, (1_000 + at, 1_000 + at))
    size = sum(path.stat().st_size + path.with_suffix(".parquet").stat().st_size for path in waiting)
    assert spool.backlog() == Backlog(3, size, 1_000_000_000)
    assert spool.bytes() == size
    spool.acknowledge(next(spool.pending()))
    assert spool.backlog().batches == 2
    assert spool.backlog().oldest_us == 1_001_000_000
    for spooled in spool.pending():
        spool.acknowledge(spooled)
    assert spool.backlog() == Backlog(0, 0, None)
