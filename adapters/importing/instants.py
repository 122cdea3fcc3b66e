"""Text columns → instants in microseconds since 1970: RFC 3339 stamps, and numbers of a unit.

Instants finer than a microsecond are cut; all else is integer arithmetic on the digits. Local times without an offset
need a zone, and an hour that its clocks skip or repeat is refused.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from adapters.importing.mapping import TIME_UNITS
from adapters.importing.text_columns import Mask, mask, without_nulls

Ints = npt.NDArray[np.int64]


def counted(text: pa.Array, unit: str, refuse: Callable[..., None]) -> Ints:
    """`12.75` of a unit → microseconds, cut below one. `refuse` is told which rows hold none, and why."""
    written = without_nulls(text)
    good = pc.match_substring_regex(written, r"^[0-9]{1,18}(\.[0-9]+)?$")
    refuse(
        ~mask(good),
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
        mask(too_big), lambda at: f"time is too large: {written[at].as_py()[:40]!r}", "is --time-unit right?"
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


def stamps(text: pa.Array, zone: str | None, refuse: Callable[..., None]) -> Ints:
    """RFC 3339 stamps → microseconds. Stamps without an offset need `--time-zone`."""
    written = without_nulls(text)
    split = pc.extract_regex(written, STAMP)
    good = pc.is_valid(split)
    numeric = pc.match_substring_regex(written, r"^[0-9]+(\.[0-9]+)?$")
    refuse(
        mask(numeric),
        lambda at: f"time is a bare number: {written[at].as_py()[:40]!r}",
        "say --time-unit s, ms, us or ns",
    )
    refuse(
        ~mask(good),
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
    bare = mask(pc.equal(offsets, ""))
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
