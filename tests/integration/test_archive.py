"""Batches in a folder: whole or absent, the same however often, and readable by anybody's Parquet reader."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from intake_world import NODE, OPERATOR, Writer

from adapters.archive import BatchObjects
from adapters.objects import FolderObjects
from adapters.spool_source import SpoolSource
from billing.intake_ports import StoredBatch
from metering.lane_folder import LaneFolder
from metering.refusal import Unavailable
from metering.spool import Spool, SpooledBatch


def test_a_batch_comes_back_as_it_was_put(tmp_path: Path) -> None:
    folder = BatchObjects(FolderObjects(tmp_path / "archive"))
    batch = StoredBatch("telecentras/2026-10-05/vilnius-1/sidecar-0/e-0-h", b"seal", b"body")
    heartbeat = StoredBatch("telecentras/2026-10-05/vilnius-1/sidecar-0/e-1-h", b"seal 2", b"")
    folder.put([batch, heartbeat])
    folder.put([batch])
    assert folder.get(batch.path) == batch
    assert folder.get(heartbeat.path) == heartbeat
    assert sorted(path.name for path in (tmp_path / "archive").rglob("*.*")) == [
        "_e-0-h.seal",
        "_e-1-h.seal",
        "e-0-h.parquet",
    ]


def test_what_is_removed_is_gone_and_may_be_removed_again(tmp_path: Path) -> None:
    folder = BatchObjects(FolderObjects(tmp_path))
    folder.put([StoredBatch("a/b", b"seal", b"body")])
    folder.remove(["a/b"])
    folder.remove(["a/b"])
    assert folder.get("a/b") is None


def test_damage_under_a_name_is_mended_by_the_batch_of_that_name(tmp_path: Path) -> None:
    folder = BatchObjects(FolderObjects(tmp_path))
    batch = StoredBatch("a/b", b"seal", b"body")
    folder.put([batch])
    (tmp_path / "a/b.parquet").write_bytes(b"bo")
    folder.put([batch])
    assert folder.get("a/b") == batch


def test_a_disk_that_does_not_take_it_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file where a folder belongs")
    with pytest.raises(Unavailable) as down:
        BatchObjects(FolderObjects(tmp_path)).put([StoredBatch("a/b", b"seal", b"body")])
    assert down.value.code == "archive_unavailable"


def test_the_archive_is_read_as_it_lies_there(tmp_path: Path) -> None:
    writer = Writer()
    folder = BatchObjects(FolderObjects(tmp_path))
    for number in range(3):
        batch = writer.seal(4)
        folder.put(
            [StoredBatch(f"telecentras/2026-10-05/vilnius-1/sidecar-0/e-{number}-h", batch.note, batch.body)]
        )
    query = f"SELECT count(*), sum(prompt_tokens) FROM '{tmp_path}/telecentras/**/*.parquet'"
    with duckdb.connect() as engine:
        assert engine.execute(query).fetchall() == [(12, 1200)]


def test_the_spool_delivers_bytes_as_they_lie_and_lets_go_what_is_acknowledged(tmp_path: Path) -> None:
    writer = Writer()
    lane = LaneFolder.open(tmp_path, OPERATOR, NODE, "sidecar-0")
    batches = [writer.seal(2), writer.seal(0), writer.seal(1)]
    for batch in batches:
        lane.publish(batch)
    lane.close()
    damaged = next(tmp_path.glob("*/*/*/sealed/*-2.seal"))
    damaged.write_bytes(b"not a seal")

    source = SpoolSource(Spool(tmp_path))
    found = list(source.deliveries())
    assert [(d.note, d.body) for d in found] == [
        (batches[0].note, batches[0].body),
        (batches[1].note, b""),
        (b"not a seal", batches[2].body),
    ]
    source.acknowledge([delivery.token for delivery in found], {})
    source.acknowledge([delivery.token for delivery in found], {})
    assert list(source.deliveries()) == []
    assert not [path for path in tmp_path.glob("*/*/*/sealed/*") if path.is_file()]


def test_a_batch_that_another_worker_took_meanwhile_is_passed_over(tmp_path: Path) -> None:
    writer = Writer()
    lane = LaneFolder.open(tmp_path, OPERATOR, NODE, "sidecar-0")
    for _ in range(2):
        lane.publish(writer.seal(2))
    lane.close()
    mine, other = SpoolSource(Spool(tmp_path)), SpoolSource(Spool(tmp_path))
    arrivals = mine.deliveries()
    next(arrivals)
    other.acknowledge([delivery.token for delivery in other.deliveries()], {})
    assert list(arrivals) == []


def test_a_lane_that_cannot_be_read_and_a_stray_file_stop_no_other_lane(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("sidecar-0", "sidecar-1", "sidecar-2"):
        lane = LaneFolder.open(tmp_path, OPERATOR, NODE, name)
        lane.publish(Writer(lane=name).seal(2))
        lane.close()
    of_lane = tmp_path / OPERATOR / NODE
    (of_lane / "sidecar-0" / "sealed").rename(tmp_path / "elsewhere")
    (of_lane / "sidecar-0" / "sealed").write_bytes(b"a file where a folder belongs")
    (of_lane / "sidecar-1" / "sealed" / "0.seal").write_bytes(b"")
    (of_lane / "sidecar-1" / "sealed" / f"{0:08}-{'a' * 32}-0.seal").mkdir()

    spool = Spool(tmp_path)
    source = SpoolSource(spool)
    for _ in range(2):
        assert [d.token.ref.lane.lane for d in source.deliveries() if isinstance(d.token, SpooledBatch)] == [
            "sidecar-2"
        ]
    assert len([record for record in caplog.records if "passed over" in record.message]) == 3
    assert [spooled.ref.lane.lane for spooled in spool.pending()][-1] == "sidecar-2"
