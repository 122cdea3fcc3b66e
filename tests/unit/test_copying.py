"""Columns as PostgreSQL's binary COPY: held to a plain encoder that follows the manual, row by row."""

from __future__ import annotations

import struct
from datetime import UTC, datetime

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.postgres.copying import binary_rows

SCHEMA = pa.schema(
    [
        ("operator", pa.dictionary(pa.int32(), pa.string())),
        ("hour", pa.timestamp("us", "UTC")),
        ("customer", pa.binary(16)),
        ("project", pa.binary(16)),
        ("node", pa.string()),
        ("band", pa.int32()),
        ("late", pa.bool_()),
        ("requests", pa.int64()),
        ("seen", pa.int64()),
    ]
)
ids = st.binary(min_size=16, max_size=16)
rows = st.lists(
    st.fixed_dictionaries(
        {
            "operator": st.sampled_from(["telecentras", "žalias", ""]),
            "hour": st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - the zone is beside it
            "customer": ids,
            "project": st.none() | ids,
            "node": st.none() | st.text(max_size=3),
            "band": st.integers(-(2**31), 2**31 - 1),
            "late": st.booleans(),
            "requests": st.integers(-(2**63), 2**63 - 1),
            "seen": st.none() | st.integers(-5, 5),
        }
    ),
    max_size=8,
)


HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)


def by_hand(given_rows: list[dict[str, object]]) -> list[bytes]:
    """The rows of the payload: PostgreSQL manual, COPY, "Binary Format"."""
    found = []
    for row in given_rows:
        out = struct.pack(">h", len(SCHEMA))
        for field in SCHEMA:
            value = row[field.name]
            if value is None:
                out += struct.pack(">i", -1)
                continue
            if isinstance(value, bool):
                content = b"\1" if value else b"\0"
            elif isinstance(value, datetime):
                delta = value - datetime(2000, 1, 1, tzinfo=UTC)
                content = struct.pack(
                    ">q", (delta.days * 86_400 + delta.seconds) * 10**6 + delta.microseconds
                )
            elif isinstance(value, int):
                content = struct.pack(">i" if field.type == pa.int32() else ">q", value)
            elif isinstance(value, str):
                content = value.encode()
            else:
                assert isinstance(value, bytes)
                content = value
            out += struct.pack(">i", len(content)) + content
        found.append(out)
    return sorted(found)


def rows_of(payload: bytes) -> list[bytes]:
    """The rows of a payload, in whatever order they came."""
    assert payload.startswith(HEADER)
    found, at = [], len(HEADER)
    while (count := struct.unpack_from(">h", payload, at)[0]) >= 0:
        start, at = at, at + 2
        for _ in range(count):
            at += 4 + max(struct.unpack_from(">i", payload, at)[0], 0)
        found.append(payload[start:at])
    assert at + 2 == len(payload)
    return sorted(found)


@given(rows, st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_a_table_is_encoded_as_the_manual_says(given_rows: list[dict[str, object]], skip: int) -> None:
    table = pa.Table.from_pylist(given_rows, SCHEMA)
    assert rows_of(binary_rows(table)) == by_hand(given_rows)
    assert rows_of(binary_rows(table.slice(skip))) == by_hand(given_rows[skip:])
    twice = pa.concat_tables([table, table.slice(skip)])
    assert rows_of(binary_rows(twice)) == by_hand([*given_rows, *given_rows[skip:]])


def test_the_example_of_the_module_is_what_it_says() -> None:
    table = pa.table({"number": pa.array([7]), "text": pa.array(["a"])})
    expected = "0002 00000008 0000000000000007 00000001 61"
    assert binary_rows(table)[19:-2].hex() == expected.replace(" ", "")
