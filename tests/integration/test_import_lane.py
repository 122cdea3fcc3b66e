from __future__ import annotations

import hmac
import stat
from pathlib import Path

import pyarrow as pa
import pytest
from lane_examples import KEY, START_US, audit, outcome

from metering.batch import read_body
from metering.event import EVENT_SCHEMA, events_table
from metering.identity import new_id
from metering.import_lane import ImportLane, minted_requests
from metering.refusal import Refusal

EPOCH = "ab" * 16
DECLARED_US = START_US + 10**9


def open_import(spool: Path, epoch: str = EPOCH) -> ImportLane:
    return ImportLane.open(spool, operator="vilnius", node="vilnius-1", lane="import-1", epoch=epoch, key=KEY)


def rows(count: int, step_us: int = 1) -> pa.Table:
    return events_table([outcome(bytes(16), START_US + at * step_us) for at in range(count)], 1)


def test_rows_get_numbers_and_unguessable_request_ids(tmp_path: Path) -> None:
    lane = open_import(tmp_path)
    bare = rows(3).drop_columns(["sequence", "request"])
    batch = lane.seal_rows(bare, DECLARED_US, final=True)
    table = read_body(batch.seal, batch.body)
    secret = (tmp_path / "vilnius/vilnius-1/import-1/request.key").read_bytes()
    assert table.column("sequence").to_pylist() == [1, 2, 3]
    assert table.column("request").to_pylist() == [
        hmac.digest(secret, at.to_bytes(8, "big"), "sha256")[:16] for at in (1, 2, 3)
    ]
    lane.close()


def test_request_ids_are_hmac_sha256() -> None:
    wanted = [hmac.digest(b"k" * 32, at.to_bytes(8, "big"), "sha256")[:16] for at in range(5, 9)]
    assert minted_requests(b"k" * 32, 5, 4) == b"".join(wanted)


def test_the_key_of_request_ids_is_made_once_and_is_nobodys_to_read(tmp_path: Path) -> None:
    open_import(tmp_path).close()
    file = tmp_path / "vilnius/vilnius-1/import-1/request.key"
    before = file.read_bytes()
    open_import(tmp_path).close()
    assert file.read_bytes() == before
    assert len(before) == 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_equal_times_may_lie_on_both_sides_of_a_seam(tmp_path: Path) -> None:
    lane = open_import(tmp_path)
    table = rows(6, step_us=0)
    first = lane.seal_rows(table.slice(0, 3), DECLARED_US, final=False)
    last = lane.seal_rows(table.slice(3), DECLARED_US, final=True)
    lane.close()
    assert (first.seal.complete_to_us, last.seal.complete_to_us) == (START_US - 1, DECLARED_US)
    assert lane.finished
    audit(tmp_path)


def test_a_batch_takes_ten_thousand_rows_and_leaves_the_rest(tmp_path: Path) -> None:
    lane = open_import(tmp_path)
    table = pa.concat_tables([rows(6_000), rows(6_000).slice(0, 0), rows(12_000).slice(6_000)])
    batch = lane.seal_rows(table, DECLARED_US, final=True)
    assert (batch.seal.events, batch.seal.final, lane.next_sequence) == (10_000, False, 10_001)
    assert lane.seal_rows(table.slice(10_000), DECLARED_US, final=True).seal.final
    lane.close()


def test_rows_too_wide_for_one_body_become_more_batches(tmp_path: Path) -> None:
    lane = open_import(tmp_path)
    wide = events_table(
        [
            outcome(bytes(16), START_US + at)._replace(
                customer=new_id(),
                project=new_id(),
                key=new_id(),
                request_digest=new_id(),
                prompt_tokens=at * 7_919 % 10**9,
                names=new_id(),
                kind="amendment",
            )
            for at in range(10_000)
        ],
        1,
    )
    assert lane.seal_rows(wide, DECLARED_US, final=True).seal.events == 5_000
    lane.close()


def test_a_finished_import_takes_no_more(tmp_path: Path) -> None:
    lane = open_import(tmp_path)
    lane.seal_rows(rows(1), DECLARED_US, final=True)
    with pytest.raises(Refusal) as refused:
        lane.seal_rows(rows(1), DECLARED_US, final=True)
    assert refused.value.code == "lane_ended"
    lane.close()
    again = open_import(tmp_path)
    assert (again.finished, again.next_sequence, again.batches) == (True, 2, 1)
    again.close()


def test_a_lane_holds_one_import_only(tmp_path: Path) -> None:
    lane = open_import(tmp_path)
    lane.seal_rows(rows(1), DECLARED_US, final=False)
    lane.close()
    with pytest.raises(Refusal) as refused:
        open_import(tmp_path, epoch="cd" * 16)
    assert refused.value.code == "lane_state"


def test_rows_out_of_the_order_of_time_are_refused(tmp_path: Path) -> None:
    lane = open_import(tmp_path)
    backwards = rows(3).take([0, 2, 1])
    with pytest.raises(Refusal) as refused:
        lane.seal_rows(backwards, DECLARED_US, final=True)
    assert refused.value.code == "time_order"
    lane.seal_rows(rows(3).slice(2), DECLARED_US, final=False)
    with pytest.raises(Refusal) as refused:
        lane.seal_rows(rows(1), DECLARED_US, final=False)
    assert refused.value.code == "time_order"
    lane.close()


def test_an_import_without_rows_is_one_final_empty_batch(tmp_path: Path) -> None:
    lane = open_import(tmp_path)
    batch = lane.seal_rows(EVENT_SCHEMA.empty_table(), DECLARED_US, final=True)
    lane.close()
    assert (batch.seal.events, batch.seal.final, batch.seal.complete_to_us) == (0, True, DECLARED_US)
