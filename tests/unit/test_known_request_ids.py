"""Rows whose request ids are there already: left out with the same content, refused with other content."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from adapters.importing.decode import ROW_SCHEMA
from adapters.importing.events import SubjectIds, event_columns
from adapters.importing.known import find_known
from adapters.importing.rows import ScratchRows, SortedRows
from metering.event import EVENT_SCHEMA
from metering.refusal import Refusal

ACME = bytes(range(16))
IDS = SubjectIds({"acme": ACME}, {}, {})
SLUGS = {ACME: "acme"}
BEGIN_US = 1_790_000_000_000_000


def row(place: int, request: str | None, **given: object) -> dict[str, object]:
    numbers = dict.fromkeys(("cached_tokens", "reasoning_tokens", "audio_seconds"), 0)
    return {
        "time": BEGIN_US + place,
        "customer": "acme",
        "model": "qwen3-32b",
        "outcome": "finished",
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "request_id": request,
        **numbers,
        **given,
    }


def file_of(folder: Path, *rows: dict[str, object]) -> SortedRows:
    spilled = ScratchRows(folder / "rows.arrow")
    spilled.append(pa.Table.from_pylist(list(rows), ROW_SCHEMA))
    return spilled.sorted()


def sealed(*rows: dict[str, object], first: int = 1) -> pa.Table:
    """The rows as a batch of an import."""
    columns = event_columns(pa.Table.from_pylist(list(rows), ROW_SCHEMA), IDS)
    places = range(first, first + len(rows))
    columns["sequence"] = pa.array(places, pa.int64())
    columns["request"] = pa.array([place.to_bytes(16, "big") for place in places], pa.binary(16))
    return pa.Table.from_arrays([columns[name] for name in EVENT_SCHEMA.names], schema=EVENT_SCHEMA)


def taken_back(events: pa.Table) -> pa.Table:
    void = pa.array(["void"] * events.num_rows).dictionary_encode()
    kind, names = EVENT_SCHEMA.get_field_index("kind"), EVENT_SCHEMA.get_field_index("names")
    return events.set_column(kind, "kind", void).set_column(names, "names", events.column("request"))


def known(rows: SortedRows, *archived: pa.Table) -> list[int]:
    return np.flatnonzero(find_known(rows, iter(archived), SLUGS).mask).tolist()


def test_a_row_that_the_archive_or_the_file_itself_has_is_known(tmp_path: Path) -> None:
    file = file_of(tmp_path, row(0, "a"), row(1, "b"), row(2, None), row(3, "c"), row(3, "c"), row(4, "d"))
    assert known(file) == [4]
    assert known(file, sealed(row(0, "a"), row(2, None), row(3, "c")), sealed(row(4, "d"), first=9)) == [
        0,
        3,
        4,
        5,
    ]


def test_a_row_that_was_taken_back_is_new_whatever_is_read_first(tmp_path: Path) -> None:
    file = file_of(tmp_path, row(0, "a"), row(1, "b"))
    batch = sealed(row(0, "a"), row(1, "b"))
    void = taken_back(batch.slice(1))
    assert known(file, batch, void) == known(file, void, batch) == [0]
    assert known(file, batch, void, sealed(row(1, "b"), first=7)) == [0, 1]


def test_other_content_under_a_known_id_is_refused_unless_it_was_taken_back(tmp_path: Path) -> None:
    file = file_of(tmp_path, row(0, "a"), row(1, "b"))
    other = sealed(row(1, "b", prompt_tokens=999))
    with pytest.raises(Refusal, match="1 rows carry request ids") as refused:
        known(file, other)
    assert refused.value.code == "request_id_clash"
    assert known(file, other, taken_back(other)) == []


def test_rows_beyond_one_slice_are_compared_with_their_own_content(tmp_path: Path) -> None:
    rows = [row(place, f"r{place}", prompt_tokens=place + 1) for place in range(20_500)]
    file = file_of(tmp_path, *rows)
    assert known(file, sealed(rows[5], rows[10_000], rows[20_499])) == [5, 10_000, 20_499]


def test_one_archived_batch_is_in_memory_at_a_time(tmp_path: Path) -> None:
    seen: list[weakref.ref[pa.Table]] = []

    def archived() -> Iterator[pa.Table]:
        for place in range(4):
            assert [batch for batch in seen[:-1] if batch() is not None] == []
            batch = sealed(row(place, f"r{place}"), first=place + 1)
            seen.append(weakref.ref(batch))
            yield batch

    file = file_of(tmp_path, row(0, "r0"), row(3, "r3"))
    assert np.flatnonzero(find_known(file, archived(), SLUGS).mask).tolist() == [0, 1]
