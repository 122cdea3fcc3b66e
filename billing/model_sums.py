"""A batch's sums by model: what a reconciliation with the engine's counters is made of.

Hourly usage can't serve for that. It holds imports too, which no engine of ours counted, and an hour's turn is no quiet
point. Batches end where a lane sealed, every few seconds and after each fact, so sums of whole batches fit between the
quiet points of the engine's spans (metering/reconcile.py). Only batches of sidecars have them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from metering.columns import integers, word_codes

SUMMED = ("requests", "prompt_tokens", "generated_tokens", "unwitnessed_requests")


@dataclass(frozen=True, slots=True)
class ModelSum:
    """What the events of one model sum to in one batch; first and last of their times, µs since 1970, UTC."""

    model: str
    first_time_us: int
    last_time_us: int
    requests: int
    prompt_tokens: int
    generated_tokens: int
    unwitnessed_requests: int


def model_sums(events: pa.Table, cells: pa.Table) -> tuple[ModelSum, ...]:
    """The sums of `events` (EVENT_SCHEMA, in the order of their times), whose cells are `cells`; a model each, by name."""
    codes, words = word_codes(events, "model")
    times = integers(events, "time")
    first, last = np.zeros(len(words), np.int64), np.zeros(len(words), np.int64)
    last[codes] = times  # of a place that is set twice the last one stays
    first[codes[::-1]] = times[::-1]
    present = np.flatnonzero(np.bincount(codes, minlength=len(words)))
    spans = {words[code]: (int(first[code]), int(last[code])) for code in present}
    of_cells, models = word_codes(cells, "model")
    sums = np.zeros((len(SUMMED), len(models)), np.int64)
    for place, name in enumerate(SUMMED):
        np.add.at(sums[place], of_cells, integers(cells, name))
    by_model = dict(zip(models, sums.T.tolist(), strict=True))
    return tuple(ModelSum(model, *spans[model], *by_model[model]) for model in sorted(spans))
