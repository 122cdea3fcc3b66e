"""Usage of a period in the form that is asked again and again: runs, and hours of runs, in narrow columns.

A run is what prices can tell apart within a period but for the hour: (customer, model, node, prompt band, outcome). An
hour of a run is one row, whatever cells it was read from; rows stand by customer, hour and run, as pools fill. What is
the same for all rows of a run is thus there once, a row is its hour, its run and its quantities, and those are 32 bits
wide where they fit, and absent where all are 0:

    runs   customer  model  node  band  outcome        hours   hour  run  prompt_tokens  completion_tokens
           acme      a      n1    0     finished               3     0    700            90

Prepared once for a period's usage and kept by whoever asks (`adapters.usage_cache`), it is a function of that usage alone:
no tariff, no facts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from billing.hourly import Flags, Hourly, Integers, distinct

Narrow = npt.NDArray[np.signedinteger[Any]]

_INT32 = 2**31
_PARTS = (
    ("prompt_tokens", "cached_tokens"),
    ("completion_tokens", "reasoning_tokens"),
    ("generated_tokens", "generated_reasoning_tokens"),
)
"""Of which a meter is the difference (`billing.meters`)."""


@dataclass(frozen=True, slots=True)
class UsageRuns:
    """A period's usage: names, runs (columns r long), and hours of runs (columns n long).

    `hour` counts from `first` (hours since 1970). `magnitudes` is Σ |quantity| of each that was read, `quantities` lacks
    those that are 0 throughout. `starts` says where each customer's rows begin, and the end. `negative`: customers of
    whom a quantity, or a meter that is the difference of two, is below 0 in any row.
    """

    first: int
    customers: tuple[str, ...]
    nodes: tuple[str, ...]
    models: tuple[str, ...]
    outcomes: tuple[str, ...]
    customer: Integers
    node: Integers
    model: Integers
    outcome: Integers
    band: Integers
    hour: Narrow
    run: Narrow
    quantities: Mapping[str, Narrow]
    magnitudes: Mapping[str, int]
    starts: Integers
    negative: Flags

    def quantity(self, name: str) -> Narrow | None:
        """One quantity of all rows, as narrow as it is kept; None where all are 0."""
        assert name in self.magnitudes, f"{name} was not read"
        return self.quantities.get(name)


class LazyQuantities(Mapping[str, Integers]):
    """Quantities by name, made when first asked for: most facts price few of them."""

    def __init__(self, names: Collection[str], make: Callable[[str], Integers]) -> None:
        self._names, self._make, self._made = names, make, dict[str, Integers]()

    def __getitem__(self, name: str) -> Integers:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def usage_runs(hourly: Hourly, first: int) -> UsageRuns:
    """The runs of a period's hourly usage; `first`: the period's first hour."""
    spread = (len(hourly.models), len(hourly.nodes), len(hourly.outcomes))
    bands, band = np.unique(hourly.band, return_inverse=True)
    kind = ((hourly.model * spread[1] + hourly.node) * len(bands) + band) * spread[2] + hourly.outcome
    kinds = max(spread[0] * spread[1] * len(bands) * spread[2], 1)
    hour = hourly.hours - first
    span = int(hour.max(initial=0)) + 1
    assert len(hourly.customers) * span * kinds < 2**63, "sort keys fit into 63 bits"
    key = (hourly.customer * span + hour) * kinds + kind
    order = np.argsort(key)
    key = key[order]
    begins = np.flatnonzero(np.diff(key, prepend=-1))
    rest, kind = np.divmod(key[begins], kinds)
    customer, hour = np.divmod(rest, span)
    runs, run = distinct(customer * kinds + kind)
    of_customer, of_kind = np.divmod(runs, kinds)
    rest, outcome = np.divmod(of_kind, spread[2] or 1)
    rest, of_band = np.divmod(rest, len(bands) or 1)
    model, node = np.divmod(rest, spread[1] or 1)
    summed = {
        name: np.add.reduceat(values[order], begins) if values.any() else np.zeros(len(begins), np.int64)
        for name, values in hourly.quantities.items()
    }
    negative = np.zeros(len(hourly.customers), np.bool_)
    for values in summed.values():
        negative[customer[values < 0]] = True
    for whole, part in _PARTS:
        if whole in summed and part in summed:
            negative[customer[summed[whole] < summed[part]]] = True
    return UsageRuns(
        first=first,
        customers=hourly.customers,
        nodes=hourly.nodes,
        models=hourly.models,
        outcomes=hourly.outcomes,
        customer=of_customer,
        node=node,
        model=model,
        outcome=outcome,
        band=bands[of_band] if len(bands) else of_band,
        hour=hour.astype(np.int16),
        run=run.astype(np.int32),
        quantities={name: _narrow(values) for name, values in summed.items() if values.any()},
        magnitudes={name: int(np.abs(values).sum()) for name, values in summed.items()},
        starts=np.searchsorted(customer, np.arange(len(hourly.customers) + 1)),
        negative=negative,
    )


def _narrow(values: Integers) -> Narrow:
    return values.astype(np.int32) if values.min() >= -_INT32 and values.max() < _INT32 else values


_RUN_COLUMNS = ("customer", "node", "model", "outcome", "band")
_NAMES = ("customers", "nodes", "models", "outcomes")


def to_tables(runs: UsageRuns) -> dict[str, pa.Table]:
    """As Arrow tables: `runs`, `hours`, `customers` (with `starts` and `negative`), and one of each kind of name."""
    hours = {"hour": runs.hour, "run": runs.run, **runs.quantities}
    magnitudes = {name.encode(): str(total).encode() for name, total in runs.magnitudes.items()}
    return {
        "runs": pa.table({name: pa.array(getattr(runs, name)) for name in _RUN_COLUMNS}),
        "hours": pa.table({name: pa.array(values) for name, values in hours.items()}).replace_schema_metadata(
            {b"first": str(runs.first).encode(), **magnitudes}
        ),
        "customers": pa.table(
            {
                "customers": pa.array(runs.customers, pa.string()),
                "starts": pa.array(runs.starts[:-1]),
                "negative": pa.array(runs.negative),
            }
        ),
        **{name: pa.table({name: pa.array(getattr(runs, name), pa.string())}) for name in _NAMES[1:]},
    }


def from_tables(tables: Mapping[str, pa.Table]) -> UsageRuns:
    """What `to_tables` made; columns stay where they are, memory-mapped perhaps."""
    hours, metadata = tables["hours"], dict(tables["hours"].schema.metadata)
    of_customers = tables["customers"]
    starts = _column(of_customers, "starts")
    return UsageRuns(
        first=int(metadata.pop(b"first")),
        customers=tuple(texts(of_customers["customers"])),
        nodes=tuple(texts(tables["nodes"]["nodes"])),
        models=tuple(texts(tables["models"]["models"])),
        outcomes=tuple(texts(tables["outcomes"]["outcomes"])),
        customer=_column(tables["runs"], "customer"),
        node=_column(tables["runs"], "node"),
        model=_column(tables["runs"], "model"),
        outcome=_column(tables["runs"], "outcome"),
        band=_column(tables["runs"], "band"),
        hour=_column(hours, "hour"),
        run=_column(hours, "run"),
        quantities={name: _column(hours, name) for name in hours.column_names if name not in ("hour", "run")},
        magnitudes={name.decode(): int(total) for name, total in metadata.items()},
        starts=np.append(starts, hours.num_rows),
        negative=_column(of_customers, "negative"),
    )


def texts(column: pa.ChunkedArray) -> list[Any]:
    """What `to_pylist` gives of texts, in a twentieth of its time; None where there is none."""
    # Of a dictionary `to_numpy` would put some word where there is none.
    found: list[Any] = column.cast(pa.string()).to_numpy().tolist()
    return found


def _column(table: pa.Table, name: str) -> Any:
    column = table[name]
    return column.chunk(0).to_numpy(zero_copy_only=False) if column.num_chunks == 1 else column.to_numpy()
