"""Cells as rows of arrays in PostgreSQL's binary COPY: held to a plain reader that follows the manual, byte by byte."""

from __future__ import annotations

import struct
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.postgres.partial_sums import packed
from billing.cells import CELL_SCHEMA
from metering.event import BANDS, OUTCOMES, QUANTITIES

COMMON = ("operator", "hour", "node", "model", "outcome", "band", "late")
IDS = ("customer", "project", "key")
SCHEMA = CELL_SCHEMA.append(pa.field("late", pa.bool_(), nullable=False))
HOURS = [datetime(2026, 10, 5, hour, tzinfo=UTC) for hour in (8, 9)]
SINCE_2000 = datetime(2000, 1, 1, tzinfo=UTC)

ids = st.sampled_from([bytes([n]) * 16 for n in range(4)])
quantity = st.sampled_from([0, 0, 1, 7, -3, 2**62])
cells = st.lists(
    st.fixed_dictionaries(
        {
            "hour": st.sampled_from(HOURS),
            "customer": ids,
            "project": st.none() | ids,
            "key": st.none() | ids,
            "node": st.sampled_from(["vilnius-1", "žalias"]),
            "model": st.sampled_from(["m", "qwen3-32b"]),
            "outcome": st.sampled_from(OUTCOMES),
            "band": st.sampled_from(BANDS),
            **dict.fromkeys(QUANTITIES, quantity),
            "late": st.booleans(),
        }
    ),
    min_size=1,
    max_size=30,
)


def cell(**other: object) -> dict[str, object]:
    """A request of 100 prompt tokens without project and key."""
    common = {"hour": HOURS[0], "node": "n", "model": "m", "outcome": "finished", "band": 0, "late": False}
    figures = {**dict.fromkeys(QUANTITIES, 0), "requests": 1, "prompt_tokens": 100}
    return {**common, "customer": bytes(16), "project": None, "key": None, **figures, **other}


def table(given_cells: list[dict[str, object]]) -> pa.Table:
    return pa.Table.from_pylist(given_cells, schema=SCHEMA)


def fields(payload: bytes) -> list[list[bytes | None]]:
    """The rows' fields: PostgreSQL manual, COPY, "Binary Format"."""
    rows, place = [], 0
    while place < len(payload):
        (count,) = struct.unpack_from(">h", payload, place)
        place += 2
        row: list[bytes | None] = []
        for _ in range(count):
            (length,) = struct.unpack_from(">i", payload, place)
            place += 4 + max(length, 0)
            row.append(None if length < 0 else payload[place - length : place])
        rows.append(row)
    return rows


def array(field: bytes, type_: int, form: str) -> list[Any]:
    """The elements of an array of one dimension (`array_send`)."""
    dimensions, nulls, element, count, lower = struct.unpack_from(">5i", field)
    assert (dimensions, element, lower) == (1, type_, 1)
    found, place = list[Any](), 20
    for _ in range(count):
        (length,) = struct.unpack_from(">i", field, place)
        place += 4 + max(length, 0)
        found.append(None if length < 0 else struct.unpack(form, field[place - length : place])[0])
    assert place == len(field)
    assert nulls or None not in found
    return found


def told(row: list[bytes | None]) -> list[dict[str, object]]:
    """The cells of a row, nulls as the table says what they stand for."""
    operator, hour, node, model, outcome, band, late = (field or b"" for field in row[:7])
    assert operator == b"telecentras"
    common = {
        "hour": struct.unpack(">q", hour)[0],
        "node": node.decode(),
        "model": model.decode(),
        "outcome": outcome.decode(),
        "band": struct.unpack(">i", band)[0],
        "late": late == b"\1",
    }
    columns = {
        name: None if field is None else array(field, 2950, "16s")
        for name, field in zip(IDS, row[7:10], strict=True)
    }
    count = len(columns["customer"] or ())
    figures: dict[str, list[Any]] = {}
    for name, field in zip(QUANTITIES, row[10:], strict=True):
        stands_for = {
            "requests": [1] * count,
            "generated_tokens": figures.get("completion_tokens"),
            "generated_reasoning_tokens": figures.get("reasoning_tokens"),
        }.get(name) or [0] * count
        figures[name] = stands_for if field is None else array(field, 20, ">q")
    whole = {name: column or [None] * count for name, column in columns.items()} | figures
    assert {len(column) for column in whole.values()} == {count}
    return [{**common, **{name: column[n] for name, column in whole.items()}} for n in range(count)]


def counted(given_cells: list[dict[str, object]]) -> Counter[tuple[object, ...]]:
    return Counter(tuple(cell[name] for name in SCHEMA.names) for cell in given_cells)


@settings(max_examples=200)
@given(cells)
def test_every_cell_is_told_once_and_whole(given_cells: list[dict[str, object]]) -> None:
    found = [cell for row in fields(packed("telecentras", table(given_cells))) for cell in told(row)]
    for each in given_cells:
        hour = each["hour"]
        assert isinstance(hour, datetime)
        each["hour"] = int((hour - SINCE_2000).total_seconds()) * 1_000_000
    assert counted(found) == counted(given_cells)


def test_cells_that_have_all_but_the_customer_in_common_share_rows_of_less_than_a_page() -> None:
    many = [cell(customer=n.to_bytes(16), prompt_tokens=n) for n in range(1_000)]
    rows = fields(packed("telecentras", table(many)))
    assert len(rows) == 4
    assert {len(told(row)) for row in rows} == {250}
    wide = [{**each, "key": bytes(16), **dict.fromkeys(QUANTITIES, 9)} for each in many]
    rows = fields(packed("telecentras", table([{**each, "generated_tokens": 8} for each in wide])))
    assert {len(told(row)) for row in rows} == {76, 77}


def test_what_most_cells_have_is_not_told() -> None:
    [row] = fields(packed("telecentras", table([cell(), cell(customer=b"c" * 16)])))
    assert [n for n, field in enumerate(row) if field is None] == [8, 9, 10, 12, 13, 14, 15, 16, 17, 18]


def test_a_row_in_which_one_cell_has_a_project_tells_the_others_as_null() -> None:
    [row] = fields(packed("telecentras", table([cell(project=b"p" * 16), cell(), cell()])))
    assert [each["project"] for each in told(row)] == [b"p" * 16, None, None]
