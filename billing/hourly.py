"""Hourly usage as columns of integers: what rating reads, checked once so that no later sum can overflow.

The table has a row a cell or a part of one; rows of the same cell simply add up. Columns: `hour`
timestamp[us, UTC], `customer`, `node`, `model`, `outcome` (text or dictionaries of it; slugs), `band` int64 (the
lower bound of the prompt band, 0 or one of `billing.tariff.PROMPT_BANDS`), `late` bool, and
`metering.event.QUANTITIES` as int64, or those of them that are asked for. Others may stand beside them. Words become
codes in code point order, hours become whole hours since 1970, so everything behind works on int64 arrays alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from metering.event import QUANTITIES
from metering.refusal import Refusal

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR_US = 3_600_000_000
_TABLE_AT_LEAST = 1 << 16
"""Up to so many possible keys a table is always small enough."""
_LIMIT = 2**62
"""Σ |quantity| over a period stays below this, so a difference of two meters fits into 63 bits too."""


@dataclass(frozen=True, slots=True)
class Hourly:
    """Usage of one period that is billed or shown: n rows, each column n long; words as codes into sorted
    names.
    """

    hours: Integers
    customers: tuple[str, ...]
    customer: Integers
    nodes: tuple[str, ...]
    node: Integers
    models: tuple[str, ...]
    model: Integers
    outcomes: tuple[str, ...]
    outcome: Integers
    band: Integers
    quantities: Mapping[str, Integers]


def hour_number(instant: datetime) -> int:
    """Whole hours from 1970-01-01T00:00Z to an aware `instant`."""
    return (instant - _EPOCH) // timedelta(hours=1)


def hour_instant(number: int) -> datetime:
    """The UTC instant at which that hour begins."""
    return _EPOCH + timedelta(hours=number)


def read_hourly(usage: pa.Table, start: datetime, end: datetime) -> tuple[Hourly, dict[str, int]]:
    """The rows of `usage` in [start, end) as an `Hourly`, and the totals of those left out for being late.

    Refuses (`quantity_overflow`) usage whose magnitudes could sum beyond 62 bits.
    """
    inside = pc.and_(
        pc.greater_equal(usage["hour"], _timestamp(start)), pc.less(usage["hour"], _timestamp(end))
    )
    late_rows = _where(usage, pc.and_(inside, usage["late"]))
    rows = _where(usage, pc.and_not(inside, usage["late"]))
    quantities = [name for name in QUANTITIES if name in usage.column_names]
    late = {name: sum(_checked(late_rows, name).tolist()) for name in quantities}
    customers, customer = _words(rows, "customer")
    nodes, node = _words(rows, "node")
    models, model = _words(rows, "model")
    outcomes, outcome = _words(rows, "outcome")
    hourly = Hourly(
        hours=_integers(rows["hour"].cast(pa.int64())) // _HOUR_US,
        customers=customers,
        customer=customer,
        nodes=nodes,
        node=node,
        models=models,
        model=model,
        outcomes=outcomes,
        outcome=outcome,
        band=_integers(rows["band"]),
        quantities={name: _checked(rows, name) for name in quantities},
    )
    return hourly, late


def _where(usage: pa.Table, wanted: pa.ChunkedArray) -> pa.Table:
    """The wanted rows; a period's usage is mostly wanted as a whole, and then not copied."""
    if not pc.any(wanted, min_count=0).as_py():
        return usage.slice(0, 0)
    return usage if pc.all(wanted).as_py() else usage.filter(wanted)


def _timestamp(instant: datetime) -> Any:
    return pa.scalar(instant, pa.timestamp("us", "UTC"))


def _integers(column: pa.ChunkedArray) -> Integers:
    assert column.null_count == 0, "hourly usage has no gaps"
    return np.asarray(column.to_numpy(), dtype=np.int64)


def _words(table: pa.Table, name: str) -> tuple[tuple[str, ...], Integers]:
    """The distinct words of a column in code point order, and each row's place among them."""
    column = table[name]
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    column = column.unify_dictionaries().combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    words = column.dictionary.to_pylist()
    ordered = tuple(sorted(words))
    places = {word: place for place, word in enumerate(ordered)}
    assert column.null_count == 0, "hourly usage has no gaps"
    codes = np.asarray(column.indices.to_numpy(), dtype=np.int64)
    return ordered, np.array([places[word] for word in words], np.int64)[codes]


def _checked(table: pa.Table, name: str) -> Integers:
    """The column, once it is sure that no sum of its rows, nor a difference of two such sums, leaves int64."""
    values = _integers(table[name])
    if not len(values):
        return values
    bound = max(abs(int(values.min())), abs(int(values.max())))
    if bound >= _LIMIT or (bound * len(values) >= _LIMIT and _exact_sum(np.abs(values)) >= _LIMIT):
        raise Refusal(
            "quantity_overflow",
            f"the period's {name} sum beyond 62 bits",
            where=name,
            remedy="usage of this size is a fault of its source; void the import or batch it came with",
        )
    return values


def _exact_sum(magnitudes: Integers) -> int:
    """The sum beyond 64 bits: halves of 32 bits sum exactly."""
    return (int((magnitudes >> 32).sum()) << 32) + int((magnitudes & 0xFFFFFFFF).sum())


def distinct(keys: Integers, limit: int | None = None) -> tuple[Integers, Integers]:
    """The distinct keys, and each row's place among them.

    With a small `limit`, above all keys (none is negative), by a table; else by hashing, never by sorting.
    """
    if limit is not None and limit <= max(_TABLE_AT_LEAST, len(keys)):
        present = np.zeros(limit, np.bool_)
        present[keys] = True
        found = np.flatnonzero(present)
        places = np.zeros(limit, np.int64)
        places[found] = np.arange(len(found))
        return found, places[keys]
    encoded = pa.array(keys).dictionary_encode()
    return encoded.dictionary.to_numpy(), encoded.indices.to_numpy().astype(np.int64)


def sums(places: Integers, values: Integers, count: int) -> Integers:
    """Per place the exact sum of its values (`np.bincount` would add binary fractions)."""
    totals = np.zeros(count, np.int64)
    np.add.at(totals, places, values)
    return totals
