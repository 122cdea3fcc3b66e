"""Text columns → typed rows, in columns: what a number, a time, an outcome is, and every row that is none, named.

Nothing is guessed and nothing is rounded but one thing: instants finer than a microsecond are cut
(`adapters.importing.instants`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from adapters.importing.instants import counted, stamps
from adapters.importing.mapping import COLUMNS, NUMBERS, ImportOptions, named_columns
from adapters.importing.text_columns import Mask, mask, without_nulls
from metering.event import MAX_QUANTITY, OUTCOMES
from metering.refusal import Fault

# A decoded row: what an import's digest, order and events are made of. Null: not given.
ROW_SCHEMA = pa.schema(
    [
        ("time", pa.int64()),
        ("customer", pa.string()),
        ("model", pa.string()),
        ("outcome", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("cached_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("reasoning_tokens", pa.int64()),
        ("generated_tokens", pa.int64()),
        ("audio_seconds", pa.int64()),
        ("request_id", pa.string()),
        ("project", pa.string()),
        ("key", pa.string()),
    ]
)
ID_PATTERN = "^[a-z0-9][a-z0-9._-]{0,62}$"
EARLIEST_US = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
AHEAD_US = 5 * 60 * 1_000_000


class Decoder:
    """Decodes chunk after chunk under one set of options; `faults` holds (line, fault) of the rows that are no rows."""

    def __init__(self, options: ImportOptions, where: Callable[[int], str], now: datetime) -> None:
        self._options = options
        self._where = where
        self._latest_us = int(now.timestamp()) * 1_000_000 + AHEAD_US
        self.faults: list[tuple[int, Fault]] = []

    def decode(self, rows: pa.Table, lines: pa.Array) -> tuple[pa.Table, Mask]:
        """The rows in ROW_SCHEMA and which of them are good; a bad row's values mean nothing."""
        found = named_columns(self._options, rows, self._where(1))
        count = rows.num_rows
        bad = np.zeros(count, dtype=bool)
        numbers = lines.to_numpy()

        def refuse(mask: Mask, what: Callable[[int], str], remedy: str = "") -> None:
            """Names each newly bad row once, with the first thing that is wrong with it."""
            for index in np.flatnonzero(mask & ~bad):
                self.faults.append(
                    (int(numbers[index]), Fault(what(int(index)), self._where(int(numbers[index])), remedy))
                )
            bad[:] |= mask

        def text(column: str) -> pa.Array | None:
            value = found.get(column)
            if value is None:
                return None
            spread = (
                pa.array([value] * count, pa.string()) if isinstance(value, str) else value.combine_chunks()
            )
            return pc.utf8_trim_whitespace(spread)

        columns: dict[str, pa.Array] = {name: _number(text(name), count, name, refuse) for name in NUMBERS}
        columns["time"] = self._time(text("time"), refuse)
        for name in ("customer", "project", "key"):
            columns[name] = _identifier(text(name), count, name, refuse)
        columns["model"] = _required_text(text("model"), "model", refuse)
        columns["outcome"] = _outcome(text("outcome"), count, refuse)
        columns["request_id"] = _optional(text("request_id"), count)
        _check_parts(columns, refuse)
        return pa.table({name: columns[name] for name in ROW_SCHEMA.names}, schema=ROW_SCHEMA), ~bad

    def _time(self, text: pa.Array, refuse: Callable[..., None]) -> pa.Array:
        if self._options.time_unit is None:
            micros = stamps(text, self._options.time_zone, refuse)
        else:
            micros = counted(text, self._options.time_unit, refuse)
            if self._options.time_origin is not None:
                since = self._options.time_origin - datetime(1970, 1, 1, tzinfo=UTC)
                micros = micros + (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
        outside = (micros < EARLIEST_US) | (micros > self._latest_us)
        refuse(
            outside,
            lambda at: f"time outside 2020 … now: {text[at].as_py()}",
            "are --time-unit and --time-origin right?",
        )
        return pa.array(micros)


def _number(text: pa.Array | None, count: int, name: str, refuse: Callable[..., None]) -> pa.Array:
    """Whole numbers 0 … 10^12. Empty or absent: 0, and null for generated_tokens, which then counts as completion;
    a row that leaves prompt or completion tokens empty is refused."""
    nullable = name == "generated_tokens"
    if text is None:
        return pa.nulls(count, pa.int64()) if nullable else pa.array(np.zeros(count, np.int64))
    written = without_nulls(text)
    empty = pc.equal(written, "")
    whole = pc.match_substring_regex(written, "^[0-9]{1,13}$")
    if name in ("prompt_tokens", "completion_tokens"):
        refuse(mask(empty), lambda _at: f"{name} is empty", "write 0 where there were none")
    refuse(
        ~mask(pc.or_(whole, empty)),
        lambda at: f"{name} is not a whole number from 0 to {MAX_QUANTITY}: {text[at].as_py()[:40]!r}",
        "tokens are counted, never negative or fractional",
    )
    values = pc.if_else(whole, written, "0").cast(pa.int64())
    refuse(
        mask(pc.greater(values, MAX_QUANTITY)),
        lambda at: f"{name} is more than {MAX_QUANTITY}: {text[at].as_py()}",
    )
    return pc.if_else(empty, pa.scalar(None, pa.int64()), values) if nullable else values


def _check_parts(columns: dict[str, pa.Array], refuse: Callable[..., None]) -> None:
    """Holds parts to the wholes that contain them."""
    for part, whole in (("cached_tokens", "prompt_tokens"), ("reasoning_tokens", "completion_tokens")):
        parts, wholes = columns[part], columns[whole]
        refuse(
            mask(pc.greater(parts, wholes)),
            lambda at, p=part, w=whole, ps=parts, ws=wholes: (
                f"{p} {ps[at].as_py()} is more than {w} {ws[at].as_py()}, which holds it"
            ),
        )


def _identifier(text: pa.Array | None, count: int, name: str, refuse: Callable[..., None]) -> pa.Array:
    """The customer, which every row has, or a project or key, which it may have."""
    required = name == "customer"
    if text is None:
        return pa.nulls(count, pa.string())
    written = without_nulls(text)
    fits = pc.match_substring_regex(written, ID_PATTERN)
    empty = pc.equal(written, "")
    allowed = fits if required else pc.or_(fits, empty)
    refuse(
        ~mask(allowed),
        lambda at: f"{name} is not an id: {(text[at].as_py() or '')[:70]!r}",
        "ids are a-z, 0-9, dot, underscore and hyphen, at most 63, beginning with a letter or digit",
    )
    return written if required else pc.if_else(empty, pa.scalar(None, pa.string()), written)


def _required_text(text: pa.Array, name: str, refuse: Callable[..., None]) -> pa.Array:
    written = without_nulls(text)
    printable = pc.match_substring_regex(written, r"^[^\x00-\x1f\x7f]+$")
    long = pc.greater(pc.binary_length(written), 200)
    refuse(
        mask(pc.or_(pc.invert(printable), long)),
        lambda _at: f"{name} is empty, longer than 200 bytes or holds a control character",
    )
    return written


def _optional(text: pa.Array | None, count: int) -> pa.Array:
    if text is None:
        return pa.nulls(count, pa.string())
    return pc.if_else(pc.equal(without_nulls(text), ""), pa.scalar(None, pa.string()), text)


def _outcome(text: pa.Array | None, count: int, refuse: Callable[..., None]) -> pa.Array:
    if text is None:
        return pa.array(["finished"] * count, pa.string())
    written = pc.if_else(pc.equal(without_nulls(text), ""), "finished", without_nulls(text))
    known = pc.is_in(written, value_set=pa.array(OUTCOMES))
    refuse(
        ~mask(known),
        lambda at: f"no such outcome: {written[at].as_py()[:40]!r}",
        f"one of: {', '.join(OUTCOMES)}",
    )
    return written


assert set(ROW_SCHEMA.names) == set(COLUMNS)
