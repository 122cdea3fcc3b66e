"""An hourly price series as CSV, read into the canonical form that versions keep and `get` writes.

    hour,price
    2026-10-01T00:00:00+03:00,41.20
    2026-10-01T01:00:00+03:00,-3.5

becomes

    {file: day-ahead.csv, first: 2026-09-30T21:00:00Z, prices: ["41.2", "-3.5"]}

Hours are whole UTC hours with an offset or Z, one after the other: none left out, none twice. A night of the
daylight-saving change is thus told without doubt. The file itself is read once, when it is applied: the version keeps
its prices.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from adapters.site_files.scalars import WrongTextError
from adapters.site_files.schema import MISSING, Path, Reading, shorten
from adapters.site_files.tariff_scalars import FIRST_HOUR, MOST_HOURS, SERIES_PRICE

HEADER = "hour,price"
MOST_FAULTS = 20
"""How many lines of one file are listed; a file of another shape would have a fault in each."""


def load_series(name: str, path: Path, reading: Reading) -> Any:
    """The canonical form of the series in the file `name` beside the site file; MISSING where it has faults."""
    try:
        file, raw = reading.beside(name)
    except OSError as denied:
        what = f"{shorten(name)} cannot be read: {denied.strerror}"
        reading.fault(path, what, "name a CSV file, its path as seen from this one")
        return MISSING
    try:
        lines = raw.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as wrong:
        line = wrong.object.count(b"\n", 0, wrong.start) + 1
        reading.fault(path, f"{shorten(name)} is not UTF-8 text", "save the file as UTF-8", f"{file}:{line}")
        return MISSING
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines or lines[0].replace(" ", "") != HEADER:
        # What stands there isn't said: it may be a file that whoever applies this one may not read.
        what = "the first line is not the header of a series"
        reading.fault(path, what, f"allowed: {HEADER}", f"{file}:1")
        return MISSING
    if not 1 < len(lines) <= MOST_HOURS + 1:
        what = f"{len(lines) - 1:_} hours"
        reading.fault(path, what, f"1 to {MOST_HOURS:_} lines after the header", f"{file}:1")
        return MISSING
    first, prices = _read_lines(lines[1:], file, path, reading)
    return MISSING if prices is None else {"file": name, "first": first, "prices": prices}


def _read_lines(lines: list[str], file: str, path: Path, reading: Reading) -> tuple[str, list[str] | None]:
    """The first hour, and every price unless a line was wrong."""
    before, first, wrong = "", "", 0
    prices: list[str] = []
    for number, line in enumerate(lines, 2):
        try:
            hour, price = _read_line(line, before)
        except WrongTextError as fault:
            wrong += 1
            if wrong > MOST_FAULTS:
                reading.fault(
                    path, "further lines are wrong", "mend those that are listed", f"{file}:{number}"
                )
                break
            what, remedy = fault.args
            reading.fault(path, what, remedy, f"{file}:{number}")
            hour, price = "", "0"  # the next line is not held to follow this one
        first, before = first or hour, hour
        prices.append(price)
    return first, None if wrong else prices


def _read_line(line: str, before: str) -> tuple[str, str]:
    """Hour and price of a line; WrongTextError(what, remedy)."""
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != 2:
        what = f"{shorten(line)} is not an hour and a price"
        raise WrongTextError(what, "write a decimal point, and one comma between hour and price")
    said, price = fields
    try:
        hour = FIRST_HOUR.read(said)
    except WrongTextError as wrong:
        raise WrongTextError(f"{shorten(said)} {wrong}", f"allowed: {FIRST_HOUR.allowed}") from None
    if before and hour != _after(before):
        kind = "out of order, or twice" if hour <= before else "after a gap"
        raise WrongTextError(f"{hour} is {kind}", f"{_after(before)} comes after {before}")
    try:
        return hour, SERIES_PRICE.read(price)
    except WrongTextError as wrong:
        raise WrongTextError(f"{shorten(price)} {wrong}", f"allowed: {SERIES_PRICE.allowed}") from None


def _after(hour: str) -> str:
    return FIRST_HOUR.read((datetime.fromisoformat(hour) + timedelta(hours=1)).isoformat())
