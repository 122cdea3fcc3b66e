"""Binary COPY read back as columns: whatever was packed comes out, also where numbers look like beginnings of rows."""

from __future__ import annotations

import struct
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.postgres.copied_rows import Layout, Rows, rows_of, texts_of
from adapters.postgres.copying import HEADER, TRAILER, binary_rows

LAYOUT = Layout((("id", "V16"), ("count", ">i8")), texts=2)
_LIKE_A_BEGINNING = struct.unpack(">q", b"\x01" + LAYOUT.beginning + b"\x00")[0]

row = st.tuples(
    st.one_of(st.binary(min_size=16, max_size=16), st.just(LAYOUT.beginning + bytes(10))),
    st.one_of(st.integers(-(2**63), 2**63 - 1), st.just(_LIKE_A_BEGINNING)),
    st.text(alphabet=st.characters(exclude_characters="\0", codec="utf-8"), max_size=9),
    st.sampled_from(["", "finished", "aborted", LAYOUT.beginning.decode()]),
)


def sent(rows: list[tuple[bytes, int, str, str]]) -> bytes:
    columns = [
        pa.array(column, kind)
        for column, kind in zip(
            zip(*rows, strict=True), (pa.binary(16), pa.int64(), pa.string(), pa.string()), strict=True
        )
    ]
    return binary_rows(pa.table(columns, ["id", "count", "a", "b"]))[len(HEADER) : -len(TRAILER)]


def read(rows: Rows) -> list[tuple[bytes, int, str, str]]:
    texts = [texts_of(each, 2) for each in rows.texts.to_pylist()]
    front = zip(rows.front["id"].tolist(), rows.front["count"].tolist(), strict=True)
    return [(bytes(id_), count, a, b) for (id_, count), (a, b) in zip(front, texts, strict=True)]


@given(st.lists(row, min_size=1, max_size=30))
def test_rows_come_back_as_they_were_packed(rows: list[tuple[bytes, int, str, str]]) -> None:
    assert sorted(read(rows_of(sent(rows), LAYOUT))) == sorted(rows)


def test_a_number_that_looks_like_a_beginning_is_not_one() -> None:
    rows = [(UUID(int=1).bytes, _LIKE_A_BEGINNING, "model", "finished")] * 3
    assert LAYOUT.beginning in sent(rows)[6:]
    assert read(rows_of(sent(rows), LAYOUT)) == rows


def test_a_piece_that_ends_within_a_row_is_a_bug_of_ours() -> None:
    with pytest.raises(AssertionError):
        rows_of(sent([(bytes(16), 1, "model", "finished")])[:-1], LAYOUT)
