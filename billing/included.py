"""Included units: free in each period, used up before any tier counts (arithmetic rule 5).

One pool per customer, meter and period, whatever price rows its usage has, in the order hour, model, price row, node.
It is as large as the terms of the period's last hour say, whole, also for a contract that began yesterday; a contract
replaces the tariff's pool for the meters that it names. Outcomes that are not billed take nothing.

    included 100, steps +70 (model a), +50 (model b):   a: 70 free;   b: 30 free, 20 left for tiers
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np

from billing.facts import Facts
from billing.hourly import Integers, hour_instant
from billing.pool import contents
from billing.site import in_force_at
from billing.terms import Terms, terms_at

_AT_MOST = 2**62
"""No pool of a period holds more (`billing.hourly`)."""


def included_units(facts: Facts, customer: str, last_hour: datetime, zone: ZoneInfo) -> dict[str, int]:
    """Free units of a customer by meter. `last_hour`: the start of the period's last; `zone`: the operator's."""
    terms = terms_at(facts, customer, last_hour, zone)
    contract = in_force_at(facts.contracts.get(customer, ()), last_hour, zone)
    stated = dict(terms.tariff.included) if isinstance(terms, Terms) else {}
    stated.update(contract.included if contract else {})
    return {meter: min(units, _AT_MOST) for meter, units in stated.items() if units}


def included_by_meter(
    customers: Sequence[str], facts: Facts, last_hour: int, zone: ZoneInfo
) -> dict[str, Integers]:
    """By meter the free units of each customer, for meters of which anybody has some. `last_hour`: a number since 1970."""
    instant = hour_instant(last_hour)
    default = included_units(facts, "", instant, zone)
    units = [
        included_units(facts, customer, instant, zone) if customer in facts.contracts else default
        for customer in customers
    ]
    return {
        meter: np.array([each.get(meter, 0) for each in units], np.int64)
        for meter in {meter for each in units for meter in each}
    }


def free_units(customers: Integers, values: Integers, included: Integers) -> Integers:
    """What is free of each row's value. Rows stand by customer, in rule 5's order; `included`: by customer."""
    before, after = contents(customers, values)
    bound = included[customers]
    free: Integers = np.minimum(after, bound) - np.minimum(before, bound)
    return free
