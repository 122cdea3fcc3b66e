"""One side of a what-if as an Arrow table, to be kept and asked for again (`adapters.kept_outcomes`).

A row a customer; amounts in minor units as int64, or as decimal text in a column of which 64 bits hold not all:

    customer  segment  usage  discounts  floors  fees
    acme      sme      12345      -1852       0   500

The table's metadata has one key, `outcome`, a JSON object: `period` ("2026-10"), `packages` (minor units), `worth`
({per_minor, by_model, by_region, by_hour}: integers of any size) and `unpriced` (a list of [model, meter, region, tokens,
first hour as hours since 1970, why]).
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa

from billing.bill_columns import BillColumns
from billing.hourly import Integers, hour_instant, hour_number
from billing.period import Period
from billing.unpriced import Unpriced
from billing.usage_runs import texts
from billing.what_if import PeriodOutcome
from billing.what_if_worth import Worth

_AMOUNTS = ("usage", "discounts", "floors", "fees")


def outcome_table(outcome: PeriodOutcome) -> pa.Table:
    """One period's outcome as a table."""
    worth = outcome.worth
    apart = {
        "period": str(outcome.period),
        "packages": outcome.packages,
        "worth": {
            "per_minor": worth.per_minor,
            "by_model": dict(worth.by_model),
            "by_region": dict(worth.by_region),
            "by_hour": list(worth.by_hour),
        },
        "unpriced": [
            [each.model, each.meter, each.region, each.tokens, hour_number(each.first_hour), each.why]
            for each in outcome.unpriced
        ],
    }
    columns = {
        "customer": pa.array(outcome.bills.customers, pa.string()),
        "segment": pa.array(outcome.segments, pa.string()).dictionary_encode(),
        **{name: _column(getattr(outcome.bills, name)) for name in _AMOUNTS},
    }
    return pa.table(columns).replace_schema_metadata({b"outcome": json.dumps(apart).encode()})


def outcome_from(table: pa.Table) -> PeriodOutcome:
    """What `outcome_table` made."""
    apart: dict[str, Any] = json.loads(table.schema.metadata[b"outcome"])
    return PeriodOutcome(
        period=Period.parse(apart["period"]),
        bills=BillColumns(
            texts(table["customer"]),
            **{name: _amounts(table[name]) for name in _AMOUNTS},
        ),
        segments=texts(table["segment"]),
        worth=Worth(**apart["worth"]),
        packages=apart["packages"],
        unpriced=tuple(
            Unpriced(model, meter, region, tokens, hour_instant(hour), why)
            for model, meter, region, tokens, hour, why in apart["unpriced"]
        ),
    )


def _column(amounts: Integers) -> pa.Array:
    if amounts.dtype != np.dtype(object):
        return pa.array(amounts, pa.int64())
    return pa.array([str(amount) for amount in amounts.tolist()], pa.string())


def _amounts(column: pa.ChunkedArray) -> Integers:
    if pa.types.is_string(column.type):
        return np.array([int(amount) for amount in column.to_pylist()], object)
    found: Integers = column.to_numpy()
    return found
