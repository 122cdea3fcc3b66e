"""The body of a batch: its events as Parquet, which any tool will still read in ten years.

One Parquet file, one row group, the 20 columns of EVENT_SCHEMA in their order under their names:

    sequence, time                          INT64 (time: TIMESTAMP in µs, UTC), required, DELTA_BINARY_PACKED
    prompt_tokens … audio_seconds           INT64, DELTA_BINARY_PACKED, required but for generated_tokens
    whole_prompt                            INT64, DELTA_BINARY_PACKED, null but in amendments and their voids
    kind, endpoint, model, outcome, reason  BYTE_ARRAY (STRING), dictionary, required but for reason
    customer, project, key                  FIXED_LEN_BYTE_ARRAY(16), dictionary; project and key may be null
    request, names, request_digest          FIXED_LEN_BYTE_ARRAY(16), plain; all but request may be null

Pages are compressed with zstd, and the key-value metadata holds `tallygrid` = `tallygrid/body/v1`. Integers are
signed because Spark shows unsigned ones as decimals. No ARROW:schema is written: a reader takes types from Parquet
alone, so that a stranger's file cannot ask for others. The same table gives the same bytes (under the same version
of pyarrow, which writes its name into the footer); the canonical bytes of an event are canonical.py's, not these.

A reader bounds everything before it decodes: bytes, rows, columns, and what the pages say they will be when
decompressed, which must be `rows_bytes` of the seal (pages.py). Measured on one core, 10,000 events a batch: encode
3.2 M events/s, decode and check 4 M events/s, 24 bytes an event of which 16 are the request id.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from metering import canonical, merkle
from metering.columns import Column, Mask, figures, integers, only_word, whole, word_codes
from metering.event import (
    EARLIEST_TIME_US,
    END_OF_TIME_US,
    EVENT_SCHEMA,
    ID,
    KINDS,
    MAX_QUANTITY,
    OUTCOMES,
    QUANTITY_COLUMNS,
    REASONS,
    WORD,
    Totals,
    quantities,
)
from metering.event_check import NO_WORD, is_word
from metering.pages import unpacked_bytes
from metering.refusal import Refusal
from metering.seal import MAX_BODY_BYTES, Seal

BODY_FORMAT = b"tallygrid/body/v1"
FORMAT_KEY = b"tallygrid"

_WORD_COLUMNS = [field.name for field in EVENT_SCHEMA if field.type == WORD]
_DELTA_COLUMNS = [field.name for field in EVENT_SCHEMA if field.type not in (WORD, ID)]
_PARTS = (("cached_tokens", "prompt_tokens"), ("reasoning_tokens", "completion_tokens"))
_PLAIN_COLUMNS = ["request", "names", "request_digest"]
_DICTIONARY_COLUMNS = [*_WORD_COLUMNS, "customer", "project", "key"]
_PARQUET_SCHEMA = pa.schema(
    [field.with_type(pa.string()) if field.type == WORD else field for field in EVENT_SCHEMA],
)


def encode_body(table: pa.Table) -> tuple[bytes, int]:
    """The body of a table of EVENT_SCHEMA, and the size of its pages when decompressed (`rows_bytes`)."""
    sink = io.BytesIO()
    with event_writer(sink, BODY_FORMAT) as writer:
        writer.write_table(as_parquet(table), row_group_size=max(table.num_rows, 1))
    body = sink.getvalue()
    return body, unpacked_bytes(body)


@contextmanager
def event_writer(sink: io.BytesIO, format_: bytes) -> Iterator[pq.ParquetWriter]:
    """Writes events as Parquet in the encodings above; takes tables of `as_parquet`, and says `format_` at the end."""
    with pq.ParquetWriter(
        sink,
        _PARQUET_SCHEMA,
        compression="zstd",
        use_dictionary=_DICTIONARY_COLUMNS,
        column_encoding={
            **dict.fromkeys(_DELTA_COLUMNS, "DELTA_BINARY_PACKED"),
            **dict.fromkeys(_PLAIN_COLUMNS, "PLAIN"),
        },
        write_statistics=["sequence", "time"],
        store_schema=False,
        version="2.6",
    ) as writer:
        yield writer
        writer.add_key_value_metadata({FORMAT_KEY: format_})


def as_parquet(table: pa.Table) -> pa.Table:
    """A table of EVENT_SCHEMA in the types that Parquet has: words as texts."""
    return pa.Table.from_arrays(
        [
            column.cast(pa.string()) if column.type == WORD else column
            for column in table.combine_chunks().columns
        ],
        schema=_PARQUET_SCHEMA,
    )


def event_file(source: pa.NativeFile) -> pq.ParquetFile:
    """Opens a file of `event_writer` of ours to read tables that cast to EVENT_SCHEMA. This is no check of strangers."""
    return pq.ParquetFile(source, read_dictionary=_WORD_COLUMNS, arrow_extensions_enabled=False)


def read_body(seal: Seal, body: bytes) -> pa.Table:
    """The events of a batch as a table of EVENT_SCHEMA, checked against the seal in everything but the root.

    Refusals, in the order of the checks: `body_size`, `body_digest`, `body_format` (not this kind of Parquet, or it
    unpacks to something else than the seal says), `row_count`, `sequence`, `time_order`, `complete_to`, `bad_event`
    (a quantity out of bounds, an unknown word), `control_totals`.
    """
    return read_events(seal, body)[0]


def read_events(seal: Seal, body: bytes) -> tuple[pa.Table, dict[str, Column]]:
    """As `read_body`; and the `quantities` of the events, of which the control totals are the sums."""
    where = f"{seal.signer} {seal.epoch}-{seal.number}"
    if len(body) != seal.body_bytes or len(body) > MAX_BODY_BYTES:
        raise _refusal("body_size", f"the body has {len(body)} bytes, the seal says {seal.body_bytes}", where)
    if seal.body_sha256 is None:
        none = EVENT_SCHEMA.empty_table()
        return none, quantities(none)
    if sha256(body).hexdigest() != seal.body_sha256:
        raise _refusal("body_digest", "the body is not the one that was sealed: its SHA-256 differs", where)
    try:
        table = _decode(seal, body)
    except (pa.ArrowException, OSError, ValueError, KeyError, IndexError) as error:
        raise _refusal("body_format", f"the body does not decode: {error}", where) from None
    except Refusal as refused:
        raise _refusal(refused.code, refused.what, where) from None
    columns = quantities(table)
    fault = (
        _sequence_fault(table, seal)
        or _time_fault(table, seal)
        or _events_fault(table, columns)
        or _totals_fault(columns, seal)
    )
    if fault:
        raise _refusal(*fault, where)
    return table, columns


def check_root(seal: Seal, table: pa.Table) -> None:
    """Refusal `root` unless the canonical events of `table` have the seal's root. 0.8 M events/s on one core."""
    found = merkle.root(canonical.leaves(table)).hex()
    if found != seal.root:
        where = f"{seal.signer} {seal.epoch}-{seal.number}"
        raise _refusal("root", f"the events have the root {found}, the seal says {seal.root}", where)


def events_fault(table: pa.Table) -> tuple[str, str] | None:
    """What makes one of these events impossible, as (code, words); None if they can all be sealed."""
    return _events_fault(table, quantities(table))


def _events_fault(table: pa.Table, columns: Mapping[str, Column]) -> tuple[str, str] | None:
    """The same, of events with these `quantities`: what nobody witnessed stands there as completion tokens, of which
    the same is asked."""
    if not table.num_rows:
        return None
    unknown = [
        word
        for name, allowed in (("kind", KINDS), ("outcome", OUTCOMES), ("reason", REASONS))
        for word in whole(table, name).dictionary.to_pylist()
        if word not in allowed
    ]
    if unknown:
        return "bad_event", f"{min(unknown)!r} is no kind, outcome or reason of an event"
    for name in ("endpoint", "model"):
        if not all(map(is_word, whole(table, name).dictionary.to_pylist())):
            return "bad_event", f"the name of a {name} {NO_WORD}"
    times = integers(table, "time")
    if times.min() < EARLIEST_TIME_US or times.max() >= END_OF_TIME_US:
        return "bad_event", "an event lies outside 2020 to 2099"
    least = {name: columns[name].min() for name in QUANTITY_COLUMNS}
    for name in QUANTITY_COLUMNS:
        if columns[name].max() > MAX_QUANTITY or least[name] < -MAX_QUANTITY:
            return "bad_event", f"{name} is beyond {MAX_QUANTITY}"
    if only_word(table, "kind") == "usage":  # nearly every batch: nothing has to be told apart
        return _usage_fault(table, columns, least)
    return _mixed_fault(table, columns)


def _usage_fault(
    table: pa.Table, columns: Mapping[str, Column], least: Mapping[str, np.int64]
) -> tuple[str, str] | None:
    """What makes an event of a table of nothing but usage impossible; `least` figure of each column."""
    if table.column("names").null_count < table.num_rows:
        return "bad_event", "an amendment or void names a request, a usage event does not"
    if table.column("whole_prompt").null_count < table.num_rows:
        return "bad_event", f"whole_prompt is of amendments and their voids, from 0 to {MAX_QUANTITY}"
    for name, figure in least.items():
        if figure < 0:
            return "bad_event", f"{name} of a usage event is negative"
    for part, of_it in _PARTS:
        if (columns[part] > columns[of_it]).any():
            return "bad_event", f"{part} is more than {of_it}"
    return None


def _mixed_fault(table: pa.Table, columns: Mapping[str, Column]) -> tuple[str, str] | None:
    """What makes an event of a table of any kinds impossible."""
    codes, words = word_codes(table, "kind")
    usage, void = _of_kind(codes, words, "usage"), _of_kind(codes, words, "void")
    if (np.asarray(table.column("names").is_null()) != usage).any():
        return "bad_event", "an amendment or void names a request, a usage event does not"
    prompts, said = figures(table, "whole_prompt")
    if said is None or said.any():
        said_of_usage = usage if said is None else said & usage
        if said_of_usage.any() or (prompts < 0).any() or (prompts > MAX_QUANTITY).any():
            return "bad_event", f"whole_prompt is of amendments and their voids, from 0 to {MAX_QUANTITY}"
    for name in QUANTITY_COLUMNS:
        if (columns[name][usage] < 0).any():
            return "bad_event", f"{name} of a usage event is negative"
        if (columns[name][void] > 0).any():
            return "bad_event", f"{name} of a void is positive"
    for part, of_it in _PARTS:
        parts, wholes = columns[part], columns[of_it]
        if (parts[usage] > wholes[usage]).any() or (parts[void] < wholes[void]).any():
            return "bad_event", f"{part} is more than {of_it}"
    return None


def _of_kind(codes: Column, words: list[str], kind: str) -> Mask:
    return np.isin(codes, [code for code, word in enumerate(words) if word == kind])


def _decode(seal: Seal, body: bytes) -> pa.Table:
    """The table of a body whose size and digest are right; nothing is decoded before its size is known."""
    footer = pq.read_metadata(pa.BufferReader(body))
    # Exactly this and nothing else: an ARROW:schema could ask for other types than Parquet says.
    if footer.metadata != {FORMAT_KEY: BODY_FORMAT}:
        raise Refusal(
            "body_format", f"the body does not say that it is {BODY_FORMAT.decode()}, and only that"
        )
    if footer.num_columns != len(EVENT_SCHEMA) or footer.num_row_groups != 1:
        raise Refusal("body_format", f"a body has {len(EVENT_SCHEMA)} columns in one row group")
    if not footer.num_rows == footer.row_group(0).num_rows == seal.events:
        raise Refusal("row_count", f"the body has {footer.num_rows} rows, the seal says {seal.events} events")
    file = pq.ParquetFile(
        pa.BufferReader(body), metadata=footer, read_dictionary=_WORD_COLUMNS, arrow_extensions_enabled=False
    )
    if not file.schema_arrow.remove_metadata().equals(EVENT_SCHEMA):
        raise Refusal("body_format", "the body's columns are not those of an event")
    if unpacked_bytes(body) != seal.rows_bytes:
        raise Refusal("body_format", "the body does not unpack to as many bytes as the seal says")
    table = file.read(use_threads=False)
    table.validate(full=True)
    if table.num_rows != seal.events:
        raise Refusal("row_count", f"the body has {table.num_rows} rows, the seal says {seal.events} events")
    if any(table.column(f.name).null_count for f in EVENT_SCHEMA if not f.nullable):
        raise Refusal("body_format", "a column that must have a value has none")
    return pa.Table.from_arrays([whole(table, name) for name in EVENT_SCHEMA.names], schema=EVENT_SCHEMA)


def _sequence_fault(table: pa.Table, seal: Seal) -> tuple[str, str] | None:
    if np.array_equal(integers(table, "sequence"), np.arange(seal.first, seal.last + 1)):
        return None
    return "sequence", f"the sequence numbers are not {seal.first} to {seal.last}, each once and in order"


def _time_fault(table: pa.Table, seal: Seal) -> tuple[str, str] | None:
    times = integers(table, "time")
    if (times[1:] < times[:-1]).any():
        return "time_order", "an event's time is before the time of the event ahead of it"
    # An import is complete by declaration: only its last seal speaks for all its rows (import_lane.py).
    speaks = seal.kind == "sidecar" or seal.final
    if speaks and len(times) and int(times[-1]) > seal.complete_to_us:
        return "complete_to", "an event lies after the instant up to which the seal says to be complete"
    return None


def _totals_fault(columns: Mapping[str, Column], seal: Seal) -> tuple[str, str] | None:
    found = Totals(**{name: int(column.sum()) for name, column in columns.items()})
    if found == seal.totals:
        return None
    return "control_totals", f"the events sum to {found}, the seal says {seal.totals}"


def _refusal(code: str, what: str, where: str) -> Refusal:
    return Refusal(code, what, where=where, remedy="the batch is held until a person decides")
