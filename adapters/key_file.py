"""A file of API keys that customers have already: read, checked, hashed. No secret leaves this module, in no error either.

CSV with a line of names, or JSON Lines; `project` and `expires` may be left out or empty:

    customer,project,secret,expires
    acme,chatbot,sk-6f1c0e0b2f3d4f5a,2027-01-01T00:00:00Z
    acme,,sk-0b9d8f7e6c5a4b3c,

    {"customer": "acme", "project": "chatbot", "secret": "sk-6f1c0e0b2f3d4f5a", "expires": "2027-01-01T00:00:00Z"}

What is wrong with a line is told by its number and the column's name, never by what stands there: in a file whose
columns were mixed up, that may be a secret. A secret has at least 16 visible ASCII characters, because only its SHA-256
is kept, and a plain hash protects only what cannot be guessed.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from adapters.site_files.scalars import ID, WrongTextError
from metering.identity import hash_secret
from metering.refusal import Fault, Refusal

_COLUMNS = ("customer", "project", "secret", "expires")
_REQUIRED = {"customer", "secret"}
_SECRET = re.compile(r"[!-~]{16,512}")
_REMEDY = "nothing was imported; mend the lines that are named and import the file again"
Row = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class GivenKey:
    """One line: whose key it is, the hash of its secret, and the line's number for whatever else is wrong with it."""

    line: int
    customer: str
    project: str | None
    secret_sha256: bytes
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class KeyFile:
    """What was read of a file: its whole keys, each once, in its order, and a fault for whatever is wrong with a line."""

    path: Path
    keys: list[GivenKey]
    faults: list[Fault]

    def refuse(self, more: Iterable[Fault] = ()) -> None:
        """Raise `bad_key_file` if anything is wrong with its lines: all of it at once, `more` too, by line."""
        faults = sorted([*self.faults, *more], key=_line_of)
        if faults:
            raise Refusal(
                "bad_key_file",
                "keys cannot be imported as they stand",
                where=str(self.path),
                remedy=_REMEDY,
                faults=tuple(faults),
            )

    def fault(self, key: GivenKey, column: str, what: str) -> Fault:
        """What turned out to be wrong with a line after it was read."""
        return _fault(self.path.name, key.line, column, what)


def read_key_file(path: Path, now: datetime) -> KeyFile:
    """What stands in a file. Refusal `bad_key_file` if it cannot be read; what is wrong with a line is a fault of it."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else "it is not UTF-8"
        raise Refusal(
            "bad_key_file",
            f"the file cannot be read: {why}",
            where=str(path),
            remedy="give a CSV or JSON Lines file",
        ) from None
    faults: list[Fault] = []
    keys: dict[bytes, GivenKey] = {}
    rows = _json_rows if text.lstrip()[:1] == "{" else _csv_rows
    for line, row in rows(text, path.name, faults):
        key = _key(line, row, path.name, now, faults)
        if key is None:
            continue
        earlier = keys.setdefault(key.secret_sha256, key)
        if (earlier.customer, earlier.project, earlier.expires_at) != (
            key.customer,
            key.project,
            key.expires_at,
        ):
            faults.append(
                _fault(path.name, line, "secret", f"stands in line {earlier.line} too, for another key")
            )
    if not keys and not faults:
        faults.append(Fault("there are no keys in it", path.name, "a line for each key"))
    return KeyFile(path, list(keys.values()), faults)


def _line_of(fault: Fault) -> int:
    line = fault.where.rpartition(":")[2]
    return int(line) if line.isdecimal() else 0


def _fault(name: str, line: int, column: str, what: str) -> Fault:
    return Fault(f"{column}: {what}", f"{name}:{line}", "")


def _csv_rows(text: str, name: str, faults: list[Fault]) -> Iterator[tuple[int, Row]]:
    reader = csv.reader(io.StringIO(text), strict=True)
    columns: list[str] | None = None
    try:
        for cells in reader:
            blank = not any(cell.strip() for cell in cells)
            if blank and len(cells) < 2:
                continue
            if columns is None:
                columns = [cell.strip().lower() for cell in cells]
                if len(set(columns)) < len(columns) or not _REQUIRED <= set(columns) <= set(_COLUMNS):
                    what = f"the first line must name the columns: {', '.join(_COLUMNS)}"
                    faults.append(
                        Fault(what, f"{name}:{reader.line_num}", "project and expires may be left out")
                    )
                    return
            elif blank:
                faults.append(Fault("is an empty row", f"{name}:{reader.line_num}", "remove it"))
            elif len(cells) != len(columns):
                what = f"has {len(cells)} cells, not {len(columns)}"
                faults.append(Fault(what, f"{name}:{reader.line_num}", "quote cells that hold commas"))
            else:
                yield reader.line_num, dict(zip(columns, cells, strict=True))
    except csv.Error as problem:
        what, remedy = "is not CSV", "quotes must be closed"
        if "field limit" in str(problem):
            what = f"has a field of more than {csv.field_size_limit():,} characters"
            remedy = "is a quote not closed? What comes after it was not read"
        faults.append(Fault(what, f"{name}:{reader.line_num}", remedy))


def _json_rows(text: str, name: str, faults: list[Fault]) -> Iterator[tuple[int, Row]]:
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or not _REQUIRED <= set(row) <= set(_COLUMNS):
            what = f"is no JSON object with the members {', '.join(_COLUMNS)}"
            faults.append(Fault(what, f"{name}:{line}", "project and expires may be left out"))
        else:
            yield line, row


def _key(line: int, row: Row, name: str, now: datetime, faults: list[Fault]) -> GivenKey | None:
    texts: dict[str, str] = {}
    before = len(faults)
    for column in _COLUMNS:
        value = row.get(column)
        if not isinstance(value, str | None):
            faults.append(_fault(name, line, column, "is not text"))
        texts[column] = value.strip() if isinstance(value, str) else ""
    for column in ("customer", "project"):
        try:
            if texts[column] or column == "customer":
                ID.read(texts[column])
        except WrongTextError:
            faults.append(_fault(name, line, column, f"is no id; allowed: {ID.allowed}"))
    if not _SECRET.fullmatch(texts["secret"]):
        faults.append(_fault(name, line, "secret", "is not 16 to 512 visible ASCII characters"))
    expires = _time(texts["expires"])
    if texts["expires"] and expires is None:
        faults.append(_fault(name, line, "expires", "is no RFC 3339 time with a zone"))
    elif expires is not None and expires <= now:
        faults.append(_fault(name, line, "expires", "is in the past"))
    if len(faults) > before:
        return None
    return GivenKey(line, texts["customer"], texts["project"] or None, hash_secret(texts["secret"]), expires)


def _time(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment
