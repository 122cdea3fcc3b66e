"""Which of the file's columns become which of ours, and how times are to be read: the options of `tally import`."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pyarrow as pa

from metering.refusal import Refusal

NUMBERS = (
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "generated_tokens",
    "audio_seconds",
)
TEXTS = ("time", "customer", "model", "outcome", "request_id", "project", "key")
COLUMNS = (*TEXTS[:3], *NUMBERS, *TEXTS[3:])
REQUIRED = ("time", "customer", "model")
TIME_UNITS = {
    "s": 6,
    "ms": 3,
    "us": 0,
    "ns": -3,
}  # how many decimal places lie between the unit and a microsecond


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the user said of a file. `mapped`: our column → the file's; `set_to`: our column → one value for all rows."""

    mapped: Mapping[str, str]
    set_to: Mapping[str, str]
    time_unit: str | None = None
    time_origin: datetime | None = None
    time_zone: str | None = None

    def digest(self, node: str) -> str:
        """SHA-256 over what decides how rows are read, hex: the same file under other options is another import."""
        said = asdict(self) | {"time_origin": self.time_origin and self.time_origin.isoformat(), "node": node}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def read_options(
    mapped: Sequence[str],
    set_to: Sequence[str],
    time_unit: str | None,
    time_origin: str | None,
    time_zone: str | None,
) -> ImportOptions:
    """Reads `column=name` pairs and times as the user typed them. Refusals: bad_option."""
    maps, sets = _pairs("--map", mapped), _pairs("--set", set_to)
    both = sorted(set(maps) & set(sets))
    if both:
        raise Refusal(
            "bad_option",
            f"both mapped and set: {', '.join(both)}",
            where="--map, --set",
            remedy="keep one of the two",
        )
    if time_unit is not None and time_unit not in TIME_UNITS:
        raise Refusal(
            "bad_option", f"no unit of time: {time_unit}", where="--time-unit", remedy="s, ms, us or ns"
        )
    if time_origin is not None and time_unit is None:
        raise Refusal(
            "bad_option",
            "an origin without a unit",
            where="--time-origin",
            remedy="add --time-unit s, ms, us or ns",
        )
    if time_zone is not None:
        _known_zone(time_zone)
    return ImportOptions(maps, sets, time_unit, _origin(time_origin), time_zone)


def named_columns(options: ImportOptions, rows: pa.Table, where: str) -> dict[str, pa.Array | str]:
    """Our columns as the file's text, or as the one value that was set. Refusals: unknown_column, missing_column."""
    absent = sorted(
        f"{ours}={theirs}" for ours, theirs in options.mapped.items() if theirs not in rows.column_names
    )
    there = ", ".join(rows.column_names)
    if absent:
        raise Refusal(
            "unknown_column",
            f"mapped to columns that are not there: {', '.join(absent)}",
            where=where,
            remedy=f"the file has: {there}",
        )
    found: dict[str, pa.Array | str] = {}
    for column in COLUMNS:
        if column in options.set_to:
            found[column] = options.set_to[column]
        elif (theirs := options.mapped.get(column, column)) in rows.column_names:
            found[column] = rows.column(theirs)
    missing = [column for column in REQUIRED if column not in found]
    if "audio_seconds" not in found:
        missing += [column for column in ("prompt_tokens", "completion_tokens") if column not in found]
    if missing:
        raise Refusal(
            "missing_column",
            f"no column for: {', '.join(missing)}",
            where=where,
            remedy=f"--map {missing[0]}=THEIRS or --set {missing[0]}=VALUE; the file has: {there}",
        )
    return found


def _pairs(option: str, written: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in written:
        column, equals, value = text.partition("=")
        if not equals or not value or column not in COLUMNS:
            remedy = f"{option} COLUMN=VALUE, COLUMN one of: {', '.join(COLUMNS)}"
            raise Refusal("bad_option", f"not understood: {text}", where=option, remedy=remedy)
        if column in pairs:
            raise Refusal("bad_option", f"given twice: {column}", where=option)
        pairs[column] = value
    return pairs


def _origin(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        origin = datetime.fromisoformat(text)
    except ValueError:
        origin = None
    if origin is None or origin.tzinfo is None:
        raise Refusal(
            "bad_option",
            f"not a time with a zone: {text}",
            where="--time-origin",
            remedy="for instance 2026-10-05T08:00:00Z",
        )
    return origin.astimezone(UTC)


def _known_zone(name: str) -> None:
    try:
        if not re.fullmatch(r"[A-Za-z0-9_+/-]+", name):
            raise ValueError(name)
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Refusal(
            "bad_option",
            f"no such zone: {name}",
            where="--time-zone",
            remedy="for instance UTC or Europe/Vilnius",
        ) from None
