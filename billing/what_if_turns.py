"""In which hours a customer's included units are used up, found by bisection in running sums instead of row by row.

Of a customer whose usage is all billed, all on price rows that say the same about meters, and nowhere below zero, a meter
is one linear form of the quantities, and its running sum over rows that stand by customer and hour only grows. The hour in
which it reaches a bound is then a search; the order within the hour does not show in which hour that is.

    input     30  20  10  90  10     included 100
    running   30  50  60 150 160     first ≥ 100: the fourth hour

Others, and those with graduated prices, whose pools are of one price row each, go the longer way
(`billing.what_if_condensed`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from billing.charges import MeterPricing
from billing.hourly import Flags, Hourly, Integers
from billing.meters import Metered, MeterRules
from billing.usage_runs import LazyQuantities, UsageRuns
from billing.what_if_view import View

NEVER = 1 << 31
"""No hour of a period."""
_MOST_KINDS = 8


def included_turns(
    usage: UsageRuns, view: View, rules: MeterRules, pricings: Sequence[MeterPricing]
) -> tuple[Flags, Integers]:
    """By customer, whether the hours are known, and these (`turns[n]`, from the period's first; NEVER: none), n for each
    of `pricings` that includes units; no hour twice."""
    included = [each for each in pricings if each.included is not None]
    turns = np.full((len(included), len(usage.customers)), NEVER, np.int64)
    kind_of_row, examples = _kinds(rules, pricings)
    known, kind = _kind_of_customers(usage, view, kind_of_row)
    if len(examples) > _MOST_KINDS or (view.windows.codes < 0).any():
        return np.zeros(len(known), np.bool_), turns
    for number, example in enumerate(examples):
        chosen = known & (kind == number)
        if not chosen.any():
            continue
        metered = _as_all_of_a_kind(usage, rules, example)
        for place, pricing in enumerate(included):
            if pricing.included is None or not _taking(pricing)[example]:
                continue
            # Below 0 are only rows of customers that are not chosen.
            quantity = np.maximum(metered.quantity(pricing.meter), 0)
            some = np.flatnonzero(chosen & (pricing.included > 0))
            turns[place, some] = _reached(usage, quantity, some, pricing.included[some])
    for place in range(1, len(included)):
        turns[place, (turns[:place] == turns[place]).any(axis=0)] = NEVER
    return known, turns


def _kinds(rules: MeterRules, pricings: Sequence[MeterPricing]) -> tuple[Integers, list[int]]:
    """What tells price rows apart here: the kind of each by place (−1: graduated, or no row), and a row of each kind."""
    said = [rules.priced[:-1], rules.generated[:-1, None]]
    said += [_taking(each)[:, None] for each in pricings]
    _, first, kind = np.unique(np.hstack(said), axis=0, return_index=True, return_inverse=True)
    kind = kind.reshape(-1)
    for each in pricings:
        kind[each.graduated] = -1
    return np.append(kind, -1), first.tolist()


def _taking(pricing: MeterPricing) -> Flags:
    """By price row, whether usage of the meter takes from what is included."""
    return pricing.plain | pricing.graduated | pricing.volume | pricing.package


def _kind_of_customers(usage: UsageRuns, view: View, kind_of_row: Integers) -> tuple[Flags, Integers]:
    """By customer, whether all that it uses is billed and of one kind, and that kind."""
    placed = view.at_stretch
    kind = np.where(placed.billed, kind_of_row[placed.row], -1)
    customer = np.repeat(usage.customer, view.stretches)
    least = np.full(len(usage.customers), np.iinfo(np.int64).max)
    most = np.full(len(usage.customers), -1)
    np.minimum.at(least, customer, kind)
    np.maximum.at(most, customer, kind)
    return (least == most) & (least >= 0) & ~usage.negative, most


def _as_all_of_a_kind(usage: UsageRuns, rules: MeterRules, example: int) -> Metered:
    """All rows, as if the price row `example` priced them."""
    nothing = np.zeros(len(usage.hour), np.int64)

    def quantity(name: str) -> Integers:
        kept = usage.quantity(name)
        return nothing if kept is None else kept.astype(np.int64)

    hourly = Hourly(
        hours=nothing,
        customers=usage.customers,
        customer=nothing,
        nodes=usage.nodes,
        node=nothing,
        models=usage.models,
        model=nothing,
        outcomes=usage.outcomes,
        outcome=nothing,
        band=nothing,
        quantities=LazyQuantities(usage.magnitudes, quantity),
    )
    only = MeterRules(rules.priced[[example, -1]], rules.generated[[example, -1]])
    return Metered(hourly, only, slice(None), nothing)


def _reached(usage: UsageRuns, quantity: Integers, customers: Integers, bounds: Integers) -> Integers:
    """The hour in which each customer's running sum reaches its bound; NEVER: it does not. No quantity is below 0."""
    running = np.cumsum(quantity)
    begins, ends = usage.starts[customers], usage.starts[customers + 1]
    before = np.where(begins > 0, running[begins - 1], 0)
    at = np.searchsorted(running, before + bounds)
    reached = at < ends
    # Hours are narrow: NEVER would not fit in beside them.
    hour = usage.hour[np.where(reached, at, 0)].astype(np.int64)
    return np.where(reached, hour, NEVER)
