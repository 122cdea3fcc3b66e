"""`tally import` where TALLY_KAFKA is set: the batches go over Kafka, and the command waits for intake's word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command import EXAMPLE, Tally, over, write_rows
from kafka_broker import KafkaBroker, unique_prefix

from adapters.postgres.database import DatabaseUrls


@pytest.fixture
def tally(fresh_urls: Callable[[], DatabaseUrls], kafka: KafkaBroker, tmp_path: Path) -> Tally:
    tally = over(fresh_urls(), tmp_path / "data", EXAMPLE)
    tally.environment |= {"TALLY_KAFKA": kafka.address, "TALLY_KAFKA_PREFIX": unique_prefix()}
    tally("kafka", "prepare", "--partitions", "2")
    return tally


def rows(count: int) -> list[dict[str, object]]:
    return [
        {
            "time": f"2026-10-12T09:30:{n:02}Z",
            "customer": "acme",
            "model": "qwen3-32b",
            "prompt_tokens": 100,
            "completion_tokens": 20,
        }
        for n in range(count)
    ]


def requests(tally: Tally) -> int:
    counted: int = tally("usage")["total"]["requests"]
    return counted


def spooled(tally: Tally) -> list[Path]:
    return sorted((tally.data / "spool").glob("*/*/*/sealed/*.seal"))


def test_an_import_waits_for_intakes_acknowledgement_unless_told_not_to(tally: Tally, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "usage.csv", rows(40))

    sealed = tally("import", str(file), "--no-wait")
    assert (sealed["events"], sealed["batches"], sealed["accepted"]) == (40, 1, False)
    assert len(spooled(tally)) == 1, "nobody has acknowledged it"
    assert requests(tally) == 0, "a command that reads the ledger takes nothing in by itself"

    with tally.serving("intake") as ready:
        assert ready["intake"] == "kafka"
        waited = tally("import", str(file))
        assert (waited["id"], waited["events"], waited["accepted"]) == (sealed["id"], 40, True)
        assert spooled(tally) == []
        assert requests(tally) == 40

        back = tally("import", "void", str(sealed["id"]), "--reason", "a trial")
        assert (back["events"], back["accepted"]) == (40, True)
        assert requests(tally) == 0
