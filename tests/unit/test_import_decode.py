"""What a row of text means: numbers, times, outcomes, and each kind of row that is refused, named with its line."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.importing.decode import Decoder
from adapters.importing.mapping import read_options
from metering.refusal import Refusal

NOW = datetime(2026, 11, 1, tzinfo=UTC)
GOOD = {
    "time": "2026-10-05T08:00:00Z",
    "customer": "acme",
    "model": "qwen3-32b",
    "prompt_tokens": "100",
    "cached_tokens": "40",
    "completion_tokens": "20",
    "reasoning_tokens": "5",
}


def decode(row: dict[str, str], **said: str) -> tuple[dict[str, object], list[str]]:
    options = read_options([], [], said.get("unit"), said.get("origin"), said.get("zone"))
    decoder = Decoder(options, lambda line: f"usage.csv:{line}", NOW)
    rows, good = decoder.decode(pa.table({name: [value] for name, value in row.items()}), pa.array([2]))
    assert bool(good[0]) == (not decoder.faults)
    return rows.to_pylist()[0], [str(fault) for _, fault in decoder.faults]


def micros(moment: datetime) -> int:
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 1_000_000 + moment.microsecond


def test_a_good_row_is_read_as_it_stands() -> None:
    row, faults = decode(GOOD)
    assert faults == []
    assert row["time"] == micros(datetime(2026, 10, 5, 8, tzinfo=UTC))
    assert (row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"]) == (100, 40, 20)
    assert (row["outcome"], row["generated_tokens"], row["request_id"]) == ("finished", None, None)


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        ("prompt_tokens", "-1", "not a whole number"),
        ("prompt_tokens", "1.5", "not a whole number"),
        ("prompt_tokens", "1e3", "not a whole number"),
        ("prompt_tokens", "1000000000001", "more than 1000000000000"),
        ("cached_tokens", "101", "cached_tokens 101 is more than prompt_tokens 100"),
        ("reasoning_tokens", "21", "reasoning_tokens 21 is more than completion_tokens 20"),
        ("time", "2026-10-05T08:00:00", "time without a zone"),
        ("time", "1791187200", "bare number"),
        ("time", "2026-02-29T08:00:00Z", "no such date"),
        ("time", "2026-10-05T24:00:00Z", "no such date or time of day"),
        ("time", "2019-12-31T23:59:59Z", "time outside 2020"),
        ("time", "2026-11-01T00:05:01Z", "time outside 2020"),
        ("time", "yesterday", "not a time"),
        ("customer", "Acme UAB", "not an id"),
        ("customer", "", "not an id"),
        ("model", "", "model is empty"),
        ("model", "qwen\0", "control character"),
        ("outcome", "done", "no such outcome"),
    ],
)
def test_a_bad_value_is_refused_with_its_line(column: str, value: str, what: str) -> None:
    _, faults = decode(GOOD | {column: value})
    assert len(faults) == 1
    assert faults[0].startswith("usage.csv:2: ")
    assert what in faults[0]


def test_digits_finer_than_a_microsecond_are_cut() -> None:
    row, _ = decode(GOOD | {"time": "2026-10-05 08:00:00.1234567Z"})
    assert row["time"] == micros(datetime(2026, 10, 5, 8, 0, 0, 123456, tzinfo=UTC))


def test_an_offset_moves_the_instant() -> None:
    row, _ = decode(GOOD | {"time": "2026-10-05T11:00:00+03:00"})
    assert row["time"] == micros(datetime(2026, 10, 5, 8, tzinfo=UTC))


def test_a_stamp_without_zone_takes_the_zone_that_was_named() -> None:
    row, _ = decode(GOOD | {"time": "2026-10-05T11:00:00"}, zone="Europe/Vilnius")
    assert row["time"] == micros(datetime(2026, 10, 5, 8, tzinfo=UTC))


@pytest.mark.parametrize("local", ["2026-10-25T03:30:00", "2026-03-29T03:30:00"])
def test_an_hour_that_the_clocks_repeat_or_skip_cannot_be_told(local: str) -> None:
    _, faults = decode(GOOD | {"time": local}, zone="Europe/Vilnius")
    assert "skip or repeat" in faults[0]


def test_a_clock_that_counts_from_zero_is_moved_to_its_origin() -> None:
    row, _ = decode(GOOD | {"time": "19.0000005"}, unit="s", origin="2026-10-05T08:00:00Z")
    assert row["time"] == micros(datetime(2026, 10, 5, 8, 0, 19, tzinfo=UTC))


@given(st.integers(min_value=0, max_value=10**9), st.integers(min_value=0, max_value=999_999))
def test_decimal_seconds_are_exact(seconds: int, fraction: int) -> None:
    row, faults = decode(GOOD | {"time": f"{seconds}.{fraction:06}"}, unit="s", origin="1990-01-01T00:00:00Z")
    if not faults:
        assert row["time"] == micros(datetime(1990, 1, 1, tzinfo=UTC)) + seconds * 1_000_000 + fraction


@given(st.datetimes(min_value=datetime(2020, 1, 2), max_value=datetime(2026, 10, 31)))  # noqa: DTZ001 - UTC by its Z
def test_every_instant_comes_back_from_its_own_text(moment: datetime) -> None:
    row, faults = decode(GOOD | {"time": moment.isoformat() + "Z"})
    assert faults == []
    assert row["time"] == micros(moment.replace(tzinfo=UTC))


@pytest.mark.parametrize(
    ("mapped", "set_to", "what"),
    [
        (["customer"], [], "not understood"),
        (["tokens=x"], [], "not understood"),
        (["model=a", "model=b"], [], "given twice"),
        (["model=a"], ["model=b"], "both mapped and set"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(mapped: list[str], set_to: list[str], what: str) -> None:
    with pytest.raises(Refusal, match=what):
        read_options(mapped, set_to, None, None, None)


def test_a_file_without_a_needed_column_is_refused_with_what_it_has() -> None:
    decoder = Decoder(read_options([], [], None, None, None), lambda line: f"usage.csv:{line}", NOW)
    with pytest.raises(Refusal, match="prompt_tokens") as refused:
        decoder.decode(pa.table({"time": ["x"], "customer": ["a"], "model": ["m"]}), pa.array([2]))
    assert "the file has: time, customer, model" in refused.value.remedy
