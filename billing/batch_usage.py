"""What intake needs of a batch's events once they are checked: some hundred rows for ten thousand.

It is taken while the events lie in the processor's cache, and then they are let go: a poll of a hundred batches would
else hold, and walk through, hundreds of megabytes several times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa

from billing.cells import cells_of_batch
from billing.model_sums import ModelSum, model_sums
from metering.columns import Column, integers


@dataclass(frozen=True, slots=True)
class BatchUsage:
    """`cells` as `billing.cells.cells_of_batch`; the UTC months that events fall into, as their first days; the times of
    the first and of the last event (µs), None where there are none; and the sums by model."""

    cells: pa.Table
    months: frozenset[date]
    times_us: tuple[int, int] | None
    by_model: tuple[ModelSum, ...]


def batch_usage(node: str, events: pa.Table, figures: Mapping[str, Column]) -> BatchUsage:
    """What the events (EVENT_SCHEMA, in the order of their times) of a node's batch come to; `figures` are their
    `quantities`."""
    cells = cells_of_batch(node, events, figures)
    if not events.num_rows:
        return BatchUsage(cells, frozenset(), None, ())
    times = integers(events, "time")
    ends = times[[0, -1]]
    months = ends.view("datetime64[us]").astype("datetime64[M]")
    if months[0] != months[1]:
        months = np.unique(times.view("datetime64[us]").astype("datetime64[M]"))
    return BatchUsage(
        cells,
        frozenset(month.astype("datetime64[D]").item() for month in months),
        (int(ends[0]), int(ends[1])),
        model_sums(events, cells),
    )
