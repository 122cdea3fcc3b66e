from __future__ import annotations

import io
import re
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from event_examples import CHAT, PUBLIC_KEY, START_US, small_batch, three_events
from hypothesis import given, settings
from hypothesis import strategies as st

from metering import pages
from metering.batch import Seal, check_root, read_body, read_seal
from metering.body import encode_body
from metering.event import EVENT_SCHEMA, Event, events_table
from metering.footer import row_groups
from metering.identity import new_id
from metering.pages import unpacked_bytes
from metering.refusal import Refusal


def code_of(seal: Seal, body: bytes) -> str:
    with pytest.raises(Refusal) as refused:
        read_body(seal, body)
    return refused.value.code


def sealed_as(seal: Seal, body: bytes, **changes: Any) -> Seal:
    """The seal that a lane which lies would sign over this body."""
    return replace(seal, body_sha256=sha256(body).hexdigest(), body_bytes=len(body), **changes)


def forged(table: pa.Table, **changes: Any) -> tuple[Seal, bytes]:
    """A body that was never checked, under a seal that fits it in size and digest."""
    body, rows_bytes = encode_body(table)
    honest = small_batch().seal
    return sealed_as(honest, body, rows_bytes=rows_bytes, **changes), body


def with_column(name: str, values: list[object]) -> pa.Table:
    table = three_events()
    at = table.column_names.index(name)
    field = EVENT_SCHEMA.field(name)
    column = pa.array(values, pa.string()).dictionary_encode() if pa.types.is_dictionary(field.type) else None
    return table.set_column(at, field, column or pa.array(values, field.type))


def test_a_batch_comes_back_with_every_event() -> None:
    batch = small_batch()
    seal = read_seal(batch.note, PUBLIC_KEY)
    table = read_body(seal, batch.body)
    check_root(seal, table)
    assert table.schema == EVENT_SCHEMA
    assert table.to_pylist() == three_events().to_pylist()


def test_a_body_is_parquet_that_another_tool_reads(tmp_path: Any) -> None:
    file = tmp_path / "body.parquet"
    file.write_bytes(small_batch().body)
    with duckdb.connect() as connection:
        connection.execute(
            "SELECT sequence, model, hex(request), prompt_tokens FROM read_parquet(?)", [str(file)]
        )
        rows = connection.fetchall()
    assert rows[1] == (2, "lėtas-modelis", "55" * 16, 130_000)


def test_a_body_is_encoded_as_its_text_says() -> None:
    footer = pq.read_metadata(io.BytesIO(small_batch().body))
    encodings = {
        (column := footer.row_group(0).column(at)).path_in_schema: set(column.encodings) - {"RLE"}
        for at in range(footer.num_columns)
    }
    assert footer.metadata == {b"tallygrid": b"tallygrid/body/v1"}
    assert encodings["time"] == encodings["generated_tokens"] == {"DELTA_BINARY_PACKED"}
    assert encodings["request"] == {"PLAIN"}
    assert "RLE_DICTIONARY" in encodings["model"]
    assert {footer.row_group(0).column(at).compression for at in range(19)} == {"ZSTD"}


def test_every_flipped_bit_of_the_body_is_refused() -> None:
    batch = small_batch()
    for at in range(len(batch.body)):
        for bit in range(8):
            flipped = bytearray(batch.body)
            flipped[at] ^= 1 << bit
            assert code_of(batch.seal, bytes(flipped)) == "body_digest"


def test_every_flipped_bit_of_the_note_is_refused() -> None:
    batch = small_batch()
    for at in range(len(batch.note)):
        for bit in range(8):
            flipped = bytearray(batch.note)
            flipped[at] ^= 1 << bit
            with pytest.raises(Refusal) as refused:
                read_seal(bytes(flipped), PUBLIC_KEY)
            assert refused.value.code in ("bad_seal", "bad_signature")


def test_a_body_that_is_cut_or_longer_is_refused() -> None:
    batch = small_batch()
    assert code_of(batch.seal, batch.body[:-1]) == "body_size"
    assert code_of(batch.seal, batch.body + b"\0") == "body_size"
    assert code_of(batch.seal, b"") == "body_size"


def test_a_heartbeat_with_a_body_is_refused() -> None:
    beat = small_batch(table=None)
    assert code_of(beat.seal, b"x") == "body_size"
    assert read_body(beat.seal, b"").num_rows == 0


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_a_lane_that_signs_a_broken_body_is_refused_by_name(data: st.DataObject) -> None:
    batch = small_batch()
    broken = bytearray(batch.body)
    for _ in range(data.draw(st.integers(1, 3))):
        broken[data.draw(st.integers(0, len(broken) - 1))] ^= data.draw(st.integers(1, 255))
    seal = sealed_as(batch.seal, bytes(broken))
    try:
        table = read_body(seal, bytes(broken))
        check_root(seal, table)
    except Refusal:
        return
    # What still decodes to the same events (a byte that nobody reads) is no harm.
    assert table.to_pylist() == three_events().to_pylist()


def test_a_body_of_other_columns_is_refused() -> None:
    batch = small_batch()
    sink = io.BytesIO()
    pq.write_table(pa.table({"sequence": [1, 2, 3]}), sink)
    assert code_of(sealed_as(batch.seal, sink.getvalue()), sink.getvalue()) == "body_format"
    assert code_of(sealed_as(batch.seal, b"PAR1nonsensePAR1"), b"PAR1nonsensePAR1") == "body_format"


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_a_page_header_is_read_the_same_with_and_without_its_usual_form(data: st.DataObject) -> None:
    """The regular expression for what pyarrow writes says what the walk through any header says."""
    number = st.binary(min_size=0, max_size=2).map(lambda high: bytes(byte | 0x80 for byte in high) + b"\x0c")
    numbers = [b"\x15" + data.draw(number) for _ in range(7)]
    data_page = b"".join([*numbers[:3], b"\x2c", *numbers[3:], data.draw(st.sampled_from([b"", b"\x1c\0"]))])
    dictionary = b"".join([*numbers[:3], b"\x4c", *numbers[3:5], data.draw(st.sampled_from([b"", b"\x11"]))])
    header = bytearray(data.draw(st.sampled_from([data_page, dictionary])) + b"\0\0")
    for _ in range(data.draw(st.integers(0, 2))):
        header[data.draw(st.integers(0, len(header) - 1))] = data.draw(st.integers(0, 255))

    def read() -> tuple[int, int, int] | str:
        try:
            return pages._page(bytes(header), 0, len(header))
        except Refusal as refused:
            return refused.code

    usual = read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "_PLAIN", re.compile(rb"(?!)"))
        assert read() == usual


def test_a_body_that_unpacks_to_more_than_it_says_is_refused_before_it_is_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bomb = with_column("model", ["m" * 3_000_000, "m", "m"])
    seal, body = forged(bomb)
    assert len(body) < 10_000  # three megabytes of one letter are small when packed
    monkeypatch.setattr(pq.ParquetFile, "read", lambda *_, **__: pytest.fail("decoded"))
    assert code_of(replace(seal, rows_bytes=small_batch().seal.rows_bytes), body) == "body_format"


def test_page_headers_and_not_the_footer_say_how_large_a_page_is() -> None:
    body = small_batch().body
    footer = pq.read_metadata(io.BytesIO(body))
    group = footer.row_group(0)
    assert unpacked_bytes(body) == sum(group.column(at).total_uncompressed_size for at in range(20))


def test_a_footer_that_lies_about_statistics_ends_no_process() -> None:
    """`size_statistics` of another length, once: pyarrow's exception when asked for that column is not translated, and
    ends the process. In a process of its own, should that ever come back.
    """
    program = (
        "import random, sys; sys.path[:0] = sys.argv[1:]\n"
        "import test_sealed_batch as t\n"
        "from metering.refusal import Refusal\n"
        "batch, chance = t.small_batch(), random.Random(1)\n"
        "footer = len(batch.body) - 8 - int.from_bytes(batch.body[-8:-4], 'little')\n"
        "for _ in range(1500):\n"
        "    body = bytearray(batch.body)\n"
        "    for _ in range(chance.randint(1, 3)):\n"
        "        body[chance.randrange(footer, len(body) - 8)] ^= chance.randint(1, 255)\n"
        "    seal = t.sealed_as(batch.seal, bytes(body))\n"
        "    try:\n"
        "        table = t.read_body(seal, bytes(body)); t.check_root(seal, table)\n"
        "    except Refusal:\n"
        "        continue\n"
        "    assert table.to_pylist() == t.three_events().to_pylist()\n"
        "print('named, all of them')\n"
    )
    here = Path(__file__).parent
    folders = [str(here), str(here.parent / "reference"), str(here.parent.parent)]
    ran = subprocess.run([sys.executable, "-c", program, *folders], capture_output=True, text=True)
    assert ran.stdout == "named, all of them\n", ran.stderr


def test_the_footer_is_read_as_pyarrow_reads_it() -> None:
    body = small_batch().body
    group = pq.read_metadata(io.BytesIO(body)).row_group(0)
    columns = [group.column(at) for at in range(group.num_columns)]
    [read] = row_groups(body)
    assert read.rows == group.num_rows == 3
    assert [(each.length, each.values, each.elsewhere) for each in read.columns] == [
        (column.total_compressed_size, column.num_values, False) for column in columns
    ]
    assert [each.begin for each in read.columns] == [
        column.dictionary_page_offset or column.data_page_offset for column in columns
    ]


def test_rows_that_are_missing_or_too_many_are_refused() -> None:
    seal, body = forged(three_events().slice(0, 2))
    assert code_of(seal, body) == "row_count"


@pytest.mark.parametrize(
    ("column", "values", "code"),
    [
        ("sequence", [1, 2, 4], "sequence"),
        ("sequence", [1, 3, 2], "sequence"),
        ("sequence", [2, 3, 4], "sequence"),
        ("time", [START_US, START_US + 2, START_US + 1], "time_order"),
        ("time", [START_US, START_US, START_US + 11], "complete_to"),
        ("time", [0, START_US, START_US], "bad_event"),
        ("model", ["m", "x" * 1_025, "m"], "bad_event"),
        ("model", ["m", "ė" * 513, "m"], "bad_event"),
        ("kind", ["usage", "usage", "gift"], "bad_event"),
        ("outcome", ["finished", "forgotten", "finished"], "bad_event"),
        ("model", ["m", "", "m"], "bad_event"),
        ("model", ["m", "a\0b", "m"], "bad_event"),
        ("reason", [None, "boredom", None], "bad_event"),
        ("names", [b"\x11" * 16, None, b"\x11" * 16], "bad_event"),
        ("names", [None, None, None], "bad_event"),
        ("prompt_tokens", [-1, 130_000, -1_000], "bad_event"),
        ("prompt_tokens", [1_000, 10**12 + 1, -1_000], "bad_event"),
        ("prompt_tokens", [1_000, -(2**63), -1_000], "bad_event"),
        ("prompt_tokens", [1_000, 130_000, 1], "bad_event"),
        ("cached_tokens", [1_001, 0, -200], "bad_event"),
        ("cached_tokens", [200, 0, -1_001], "bad_event"),
        ("reasoning_tokens", [0, 41, 0], "bad_event"),
        ("generated_tokens", [None, -1, None], "bad_event"),
        ("whole_prompt", [None, 130_000, None], "bad_event"),
        ("whole_prompt", [None, None, -1], "bad_event"),
        ("whole_prompt", [None, None, 10**12 + 1], "bad_event"),
        ("prompt_tokens", [1_000, 130_001, -1_000], "control_totals"),
        ("generated_tokens", [None, 26, None], "control_totals"),
        ("completion_tokens", [50, 41, -50], "control_totals"),
    ],
)
def test_an_event_that_cannot_be_is_refused_by_name(column: str, values: list[object], code: str) -> None:
    seal, body = forged(with_column(column, values))
    assert code_of(seal, body) == code


def test_events_that_could_not_be_read_are_not_sealed() -> None:
    with pytest.raises(Refusal) as refused:
        small_batch(table=with_column("cached_tokens", [1_001, 0, -200]))
    assert refused.value.code == "bad_event"


def test_only_the_last_seal_of_an_import_speaks_for_all_its_times() -> None:
    before = small_batch(kind="import", complete_to_us=START_US + 1)
    assert read_body(before.seal, before.body).num_rows == 3
    last = small_batch(kind="import", complete_to_us=START_US + 1, final=True)
    assert code_of(last.seal, last.body) == "complete_to"


def test_other_events_than_the_sealed_ones_have_another_root() -> None:
    seal = small_batch().seal
    other = with_column("customer", [b"\x22" * 16, b"\x22" * 16, b"\x23" * 16])
    with pytest.raises(Refusal) as refused:
        check_root(seal, other)
    assert refused.value.code == "root"


def test_ten_thousand_events_of_the_widest_kind_are_too_large_for_one_batch() -> None:
    events = [
        Event(
            kind="amendment",
            time_us=START_US + at,
            request=new_id(),
            names=new_id(),
            customer=new_id(),
            project=new_id(),
            key=new_id(),
            endpoint="chat",
            model="m",
            outcome="finished",
            prompt_tokens=at,
            cached_tokens=0,
            completion_tokens=0,
            reasoning_tokens=0,
            generated_tokens=None,
            audio_seconds=0,
            request_digest=new_id(),
        )
        for at in range(10_000)
    ]
    with pytest.raises(Refusal) as refused:
        small_batch(table=events_table(events, 1), complete_to_us=START_US + 10_000)
    assert refused.value.code == "batch_too_large"


def test_the_seal_of_a_slice_of_a_table_is_that_of_its_rows_alone() -> None:
    table = pa.concat_tables([events_table([CHAT], 1), three_events()])
    assert small_batch(table=table.slice(1)).body == small_batch().body


@pytest.mark.parametrize("time_us", [4_102_444_800_000_000, 253_402_300_800_000_000, 2**63 - 1])
def test_a_time_that_no_calendar_has_is_no_events_even_where_the_seal_does_not_speak_for_it(
    time_us: int,
) -> None:
    """Only an import's last seal bounds its events' times: 2100, the year 10000, the last microsecond of 64 bits."""
    seal, body = forged(with_column("time", [START_US, START_US, time_us]), kind="import")
    assert code_of(seal, body) == "bad_event"
