"""Text columns → typed rows, in columns: what a number, a time, an outcome is, and every row that is none, named.

Nothing is guessed and nothing is rounded but one thing: instants finer than a microsecond are cut. Times become whole
microseconds since 1970 by integer arithmetic on the digits.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from adapters.importing.mapping import COLUMNS, NUMBERS, TIME_UNITS, ImportOptions, named_columns
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
Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


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
            micros = _stamps(text, self._options.time_zone, refuse)
        else:
            micros = _counted(text, self._options.time_unit, refuse)
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


def _texts(text: pa.Array) -> pa.Array:
    return pc.fill_null(text, "")


def _mask(values: pa.Array) -> Mask:
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=bool)


def _number(text: pa.Array | None, count: int, name: str, refuse: Callable[..., None]) -> pa.Array:
    """Whole numbers 0 … 10^12. Empty or absent: 0, and null for generated_tokens, which then counts as completion;
    a row that leaves prompt or completion tokens empty is refused."""
    nullable = name == "generated_tokens"
    if text is None:
        return pa.nulls(count, pa.int64()) if nullable else pa.array(np.zeros(count, np.int64))
    written = _texts(text)
    empty = pc.equal(written, "")
    whole = pc.match_substring_regex(written, "^[0-9]{1,13}$")
    if name in ("prompt_tokens", "completion_tokens"):
        refuse(_mask(empty), lambda _at: f"{name} is empty", "write 0 where there were none")
    refuse(
        ~_mask(pc.or_(whole, empty)),
        lambda at: f"{name} is not a whole number from 0 to {MAX_QUANTITY}: {text[at].as_py()[:40]!r}",
        "tokens are counted, never negative or fractional",
    )
    values = pc.if_else(whole, written, "0").cast(pa.int64())
    refuse(
        _mask(pc.greater(values, MAX_QUANTITY)),
        lambda at: f"{name} is more than {MAX_QUANTITY}: {text[at].as_py()}",
    )
    return pc.if_else(empty, pa.scalar(None, pa.int64()), values) if nullable else values


def _check_parts(columns: dict[str, pa.Array], refuse: Callable[..., None]) -> None:
    """Holds parts to the wholes that contain them."""
    for part, whole in (("cached_tokens", "prompt_tokens"), ("reasoning_tokens", "completion_tokens")):
        parts, wholes = columns[part], columns[whole]
        refuse(
            _mask(pc.greater(parts, wholes)),
            lambda at, p=part, w=whole, ps=parts, ws=wholes: (
                f"{p} {ps[at].as_py()} is more than {w} {ws[at].as_py()}, which holds it"
            ),
        )


def _identifier(text: pa.Array | None, count: int, name: str, refuse: Callable[..., None]) -> pa.Array:
    """The customer, which every row has, or a project or key, which it may have."""
    required = name == "customer"
    if text is None:
        return pa.nulls(count, pa.string())
    written = _texts(text)
    fits = pc.match_substring_regex(written, ID_PATTERN)
    empty = pc.equal(written, "")
    allowed = fits if required else pc.or_(fits, empty)
    refuse(
        ~_mask(allowed),
        lambda at: f"{name} is not an id: {(text[at].as_py() or '')[:70]!r}",
        "ids are a-z, 0-9, dot, underscore and hyphen, at most 63, beginning with a letter or digit",
    )
    return written if required else pc.if_else(empty, pa.scalar(None, pa.string()), written)


def _required_text(text: pa.Array, name: str, refuse: Callable[..., None]) -> pa.Array:
    written = _texts(text)
    printable = pc.match_substring_regex(written, r"^[^\x00-\x1f\x7f]+$")
    long = pc.greater(pc.binary_length(written), 200)
    refuse(
        _mask(pc.or_(pc.invert(printable), long)),
        lambda _at: f"{name} is empty, longer than 200 bytes or holds a control character",
    )
    return written


def _optional(text: pa.Array | None, count: int) -> pa.Array:
    if text is None:
        return pa.nulls(count, pa.string())
    return pc.if_else(pc.equal(_texts(text), ""), pa.scalar(None, pa.string()), text)


def _outcome(text: pa.Array | None, count: int, refuse: Callable[..., None]) -> pa.Array:
    if text is None:
        return pa.array(["finished"] * count, pa.string())
    written = pc.if_else(pc.equal(_texts(text), ""), "finished", _texts(text))
    known = pc.is_in(written, value_set=pa.array(OUTCOMES))
    refuse(
        ~_mask(known),
        lambda at: f"no such outcome: {written[at].as_py()[:40]!r}",
        f"one of: {', '.join(OUTCOMES)}",
    )
    return written


def _counted(text: pa.Array, unit: str, refuse: Callable[..., None]) -> Ints:
    """`12.75` of a unit → microseconds, cut below one."""
    written = _texts(text)
    good = pc.match_substring_regex(written, r"^[0-9]{1,18}(\.[0-9]+)?$")
    refuse(
        ~_mask(good),
        lambda at: f"time is not a number: {written[at].as_py()[:40]!r}",
        "or leave --time-unit out",
    )
    places = TIME_UNITS[unit]
    split = pc.extract_regex(pc.if_else(good, written, "0"), r"^(?P<whole>[0-9]+)(?:\.(?P<part>[0-9]+))?$")
    whole = pc.struct_field(split, "whole")
    if places < 0:
        cut = pc.utf8_slice_codeunits(pc.binary_join_element_wise("000", whole, ""), 0, places)
        return np.asarray(cut.cast(pa.int64()))
    too_big = pc.greater(pc.utf8_length(whole), 18 - places)
    refuse(
        _mask(too_big), lambda at: f"time is too large: {written[at].as_py()[:40]!r}", "is --time-unit right?"
    )
    digits = (
        pc.utf8_slice_codeunits(pc.utf8_rpad(pc.struct_field(split, "part"), 6, "0"), 0, places)
        if places
        else None
    )
    whole = pc.if_else(too_big, "0", whole)
    joined = whole if digits is None else pc.binary_join_element_wise(whole, digits, "")
    return np.asarray(joined.cast(pa.int64()))


STAMP = (
    r"^(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})[Tt ]"
    r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
    r"(?:[.,](?P<part>[0-9]+))?(?P<zone>[Zz]|[+-][0-9]{2}:?[0-9]{2})?$"
)


def _stamps(text: pa.Array, zone: str | None, refuse: Callable[..., None]) -> Ints:
    """RFC 3339 stamps → microseconds. Stamps without an offset need `--time-zone`."""
    written = _texts(text)
    split = pc.extract_regex(written, STAMP)
    good = pc.is_valid(split)
    numeric = pc.match_substring_regex(written, r"^[0-9]+(\.[0-9]+)?$")
    refuse(
        _mask(numeric),
        lambda at: f"time is a bare number: {written[at].as_py()[:40]!r}",
        "say --time-unit s, ms, us or ns",
    )
    refuse(
        ~_mask(good),
        lambda at: f"not a time: {written[at].as_py()[:40]!r}",
        "for instance 2026-10-05T08:00:00Z",
    )

    def field(name: str) -> Ints:
        return np.asarray(pc.if_else(good, pc.struct_field(split, name), "1").cast(pa.int64()))

    year, month, day = field("year"), field("month"), field("day")
    hour, minute, second = field("hour"), field("minute"), field("second")
    months = (year - 1970) * 12 + np.clip(month, 1, 12) - 1
    first = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    after = (months + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    wrong = (
        (month < 1)
        | (month > 12)
        | (day < 1)
        | (day > after - first)
        | (hour > 23)
        | (minute > 59)
        | (second > 59)
    )
    refuse(wrong, lambda at: f"no such date or time of day: {written[at].as_py()[:40]!r}")
    part = pc.utf8_slice_codeunits(
        pc.utf8_rpad(pc.if_else(good, pc.struct_field(split, "part"), ""), 6, "0"), 0, 6
    )
    micros = np.asarray(part.cast(pa.int64()))
    seconds = (first + day - 1) * 86_400 + hour * 3_600 + minute * 60 + second
    offsets = pc.if_else(good, pc.struct_field(split, "zone"), "Z")
    bare = _mask(pc.equal(offsets, ""))
    if zone is None:
        refuse(
            bare,
            lambda at: f"time without a zone: {written[at].as_py()[:40]!r}",
            "say --time-zone UTC, for instance",
        )
    elif bare.any():
        seconds = np.where(bare, _from_zone(seconds, zone, bare, written, refuse), seconds)
    instants: Ints = (seconds - _offset_seconds(offsets, bare)) * 1_000_000 + micros
    return instants


def _offset_seconds(offsets: pa.Array, bare: Mask) -> Ints:
    """`+03:00` → 10800; `Z` and none → 0. Few distinct ones, so each is read once."""
    coded = offsets.dictionary_encode()
    each = []
    for offset in coded.dictionary.to_pylist():
        digits = offset.lstrip("+-").replace(":", "")
        seconds = int(digits[:2]) * 3600 + int(digits[2:]) * 60 if digits.isdigit() else 0
        each.append(-seconds if offset.startswith("-") else seconds)
    spread: Ints = np.array(each or [0], dtype=np.int64)[coded.indices.to_numpy()]
    seconds_east: Ints = np.where(bare, 0, spread)
    return seconds_east


def _from_zone(seconds: Ints, zone: str, bare: Mask, written: pa.Array, refuse: Callable[..., None]) -> Ints:
    """Local clock time in a zone → UTC; an hour that the clocks skip or repeat cannot be told and is refused."""
    local = pa.array(seconds).cast(pa.timestamp("s"))
    early, late = (
        np.asarray(pc.assume_timezone(local, zone, ambiguous=side, nonexistent=side).cast(pa.int64()))
        for side in ("earliest", "latest")
    )
    refuse(
        (early != late) & bare,
        lambda at: f"the clocks of {zone} skip or repeat this time: {written[at].as_py()[:40]!r}",
        "write such times with their offset, or in UTC",
    )
    return early


assert set(ROW_SCHEMA.names) == set(COLUMNS)
