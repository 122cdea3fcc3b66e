"""The whole road with the archive in an S3 bucket: intake, query, compaction, rebuild, expiry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import EXAMPLE, over, write_rows
from s3_server import s3_server

from adapters.postgres.database import DatabaseUrls
from metering.identity import LaneKey


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[str]:
    with s3_server(tmp_path / "served") as uri:
        yield uri


def test_an_archive_in_a_bucket_is_asked_joined_made_again_and_expires(
    fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path, bucket: str
) -> None:
    tally = over(fresh_urls(), tmp_path / "data", EXAMPLE)
    place = {"TALLY_ARCHIVE": bucket.replace("tally?", "tally/evidence?")}
    rows = [
        {
            "time": f"2026-10-12T09:{n // 600:02}:{n // 10 % 60:02}.{n % 10}00000Z",
            "customer": "acme",
            "model": "qwen3-32b",
            "prompt_tokens": 100,
            "completion_tokens": 10,
        }
        for n in range(10_100)
    ]
    tally("import", str(write_rows(tmp_path / "usage.csv", rows)), **place)
    counted = ("archive", "query", "SELECT customer, count(*) AS n FROM event GROUP BY ALL")

    assert tally(*counted, **place)["rows"] == [{"customer": "acme", "n": 10_100}]
    [done] = tally("archive", "compact", "--days", "90", **place)["operators"]
    assert (done["files"], done["batches"], done["objects_after"]) == (1, 2, 2)
    assert tally(*counted, **place)["rows"] == [{"customer": "acme", "n": 10_100}]
    assert tally("archive", "rebuild", "--root", **place)["ok"]
    tally("period", "close", "2026-10", **place)
    LaneKey.load_or_create(tally.data / "keys" / "log" / "telecentras.key")
    [gone] = tally("archive", "expire", "--older-than", "20", "--reason", "retention", **place)["operators"]
    assert (gone["files"], gone["events"]) == (1, 10_100)
    assert tally(*counted, **place)["rows"] == []
    assert not (tally.data / "archive").exists()

    wrong = place["TALLY_ARCHIVE"].replace("only-for-tests", "wrong-secret")
    down = tally.refused(*counted, exit_code=4, TALLY_ARCHIVE=wrong)
    assert down["code"] == "archive_unavailable"
    assert "wrong-secret" not in str(down)
