"""A small schema language for site files, and the one reader that applies it.

A kind is a `Table` of `Field`s (`adapters.site_files.kinds`). Types nest: a `Scalar`, a `Listing` of one
type, a `Table`, and an `Either` of a scalar and a table. `read` turns a node into plain form (dicts, lists and canonical
texts) and lists every fault with its line; it remembers the place of everything it read, so that later
checks can name lines too.

    Table({"up_to": Field(UP_TO), "price": Field(PRICE, required=True)})
    {up_to: 50_000_000, prize: 1.60}    ->    site.yaml:12: prices[1].output.graduated[1].prize: unknown key
                                              (did you mean price? allowed: up_to, price)
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adapters.site_files.nodes import ListNode, MapNode, Node, ScalarNode
from adapters.site_files.scalars import Scalar, WrongTextError
from metering.refusal import Fault

Path = tuple[str | int, ...]
"""Where in a document: keys and list indices from 0; shown as `prices[1].input`, counted from 1."""

Beside = Callable[[str], tuple[str, bytes]]


class Reading:
    """What reading one document yields beside its value: faults, and the place of every path.

    `beside` reads a file by its path as seen from the site file: its own path, and its content; else OSError.
    """

    def __init__(self, faults: list[Fault], beside: Beside) -> None:
        self.faults = faults
        self.beside = beside
        self.places: dict[Path, str] = {}

    def fault(self, path: Path, what: str, remedy: str, place: str | None = None) -> None:
        shown = show_path(path)
        self.faults.append(Fault(f"{shown}: {what}" if shown else what, place or self.place(path), remedy))

    def stands(self, path: Path) -> bool:
        return path in self.places

    def empty(self, path: Path) -> bool:
        """Whether nothing stands inside of a path."""
        return not any(len(other) > len(path) and other[: len(path)] == path for other in self.places)

    def place(self, path: Path) -> str:
        """The place of a path, or of the nearest thing around it."""
        while path not in self.places and path:
            path = path[:-1]
        return self.places.get(path, "")


@dataclass(frozen=True, slots=True)
class Listing:
    """A list of one type, not empty. `single`: what one item is called. `check` sees a list without faults. `if_empty`:
    what to write instead of an empty one, where that is more than an item or nothing at all.
    """

    item: Type
    single: str
    check: Callable[[list[Any], Path, Reading], None] | None = None
    if_empty: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """`about` and `examples` are what editors show of a key."""

    type: Type
    about: str = ""
    required: bool = False
    examples: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A map with known keys. `check` adds faults that concern several keys; it sees the map without faulty
    ones (`Reading.stands` tells whether a key stands in the file at all). `schema`: what of that JSON Schema can say.
    """

    fields: Mapping[str, Field]
    check: Callable[[Mapping[str, Any], Path, Reading], None] | None = None
    schema: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Either:
    """A scalar or a table, told apart by what stands there. `load` puts another plain form (the table's) in place of a
    scalar, or gives MISSING and a fault.
    """

    scalar: Scalar
    table: Table
    examples: tuple[Any, ...] = ()
    load: Callable[[str, Path, Reading], Any] | None = None


Type = Scalar | Listing | Table | Either


@dataclass(frozen=True, slots=True)
class _Missing:
    """In place of a value that had a fault."""


MISSING = _Missing()


def show_path(path: Path) -> str:
    text = ""
    for step in path:
        text += f"[{step + 1}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def read(expected: Type, node: Node, path: Path, reading: Reading) -> Any:
    """The plain form of `node`, or MISSING when it is faulty as a whole; parts that are faulty are left
    out.
    """
    reading.places.setdefault(path, node.place)
    match expected:
        case Scalar():
            return _read_scalar(expected, node, path, reading)
        case Listing():
            return _read_list(expected, node, path, reading)
        case Table():
            return _read_table(expected, node, path, reading)
        case Either():
            if isinstance(node, MapNode):
                return read(expected.table, node, path, reading)
            said = read(expected.scalar, node, path, reading)
            return said if said is MISSING or expected.load is None else expected.load(said, path, reading)


def _read_scalar(expected: Scalar, node: Node, path: Path, reading: Reading) -> Any:
    if not isinstance(node, ScalarNode):
        found = "a list" if isinstance(node, ListNode) else "a map"
        reading.fault(path, f"{found} where {expected.name} belongs", f"allowed: {expected.allowed}")
        return MISSING
    if node.empty:
        reading.fault(path, "has no value", f"allowed: {expected.allowed}; or leave the key out")
        return MISSING
    try:
        return expected.read(node.text)
    except WrongTextError as wrong:
        reading.fault(path, f"{shorten(node.text)} {wrong}", f"allowed: {expected.allowed}")
        return MISSING


def _read_list(expected: Listing, node: Node, path: Path, reading: Reading) -> Any:
    if not isinstance(node, ListNode):
        reading.fault(path, "must be a list", f"allowed: [{expected.single}, …]")
        return MISSING
    if not node.items:
        remedy = expected.if_empty or f"name at least one {expected.single}, or leave the key out"
        reading.fault(path, "the list is empty", remedy)
        return MISSING
    faults_before = len(reading.faults)
    items = [read(expected.item, item, (*path, at), reading) for at, item in enumerate(node.items)]
    if expected.check is not None and len(reading.faults) == faults_before:
        expected.check(items, path, reading)
    return [item for item in items if item is not MISSING]


def _read_table(expected: Table, node: Node, path: Path, reading: Reading) -> Any:
    allowed = ", ".join(expected.fields)
    if not isinstance(node, MapNode):
        reading.fault(path, "must be a map of keys and values", f"allowed: {allowed}")
        return MISSING
    found: dict[str, Any] = {}
    for key, value in node.entries.items():
        reading.places[(*path, key)] = node.places[key]
        known = expected.fields.get(key)
        if known is None:
            reading.fault((*path, key), "unknown key", near_miss(key, list(expected.fields)))
            continue
        item = read(known.type, value, (*path, key), reading)
        if item is not MISSING:
            found[key] = item
    for key, known in expected.fields.items():
        if known.required and key not in node.places:
            reading.fault((*path, key), "missing", f"add `{key}: …`, {_described(known.type)}")
    if expected.check is not None:
        expected.check(found, path, reading)
    return found


def near_miss(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}{allowed_words(known)}"


def allowed_words(known: Sequence[str]) -> str:
    shown = [*known[:40], "…"] if len(known) > 40 else known
    return f"allowed: {', '.join(shown)}"


def shorten(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")


def _described(expected: Type) -> str:
    match expected:
        case Scalar():
            return expected.allowed
        case Listing():
            return f"a list of {expected.single}s"
        case Table():
            return f"a map with {', '.join(expected.fields)}"
        case Either():
            return expected.scalar.allowed
