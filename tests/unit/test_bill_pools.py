"""Pools and the pricers over them: included units, graduated, volume and packages, on bare columns."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from billing.hourly import Integers
from billing.included import free_units
from billing.pool import contents
from billing.price_graduated import quantities, upper_bounds
from billing.price_package import started
from billing.price_volume import tiers
from billing.tariff import Tier

STEPS = st.lists(st.integers(-200, 300), max_size=12)


def column(values: list[int]) -> Integers:
    return np.array(values, np.int64)


def bounds(*up_to: int) -> Integers:
    return upper_bounds([[*(Tier(bound, Decimal(1)) for bound in up_to), Tier(None, Decimal(1))]])


def graduated(steps: list[int], *up_to: int) -> list[list[int]]:
    """What of each step lies in each tier, tier by tier."""
    one_pool = column([0] * len(steps))
    return [parts.tolist() for _, parts in quantities(one_pool, column(steps), bounds(*up_to))]


def test_each_pool_is_filled_by_itself() -> None:
    before, after = contents(column([4, 4, 7]), column([70, 50, 5]))
    assert (before.tolist(), after.tolist()) == ([0, 70, 0], [70, 120, 5])


def test_included_units_are_used_up_in_order_and_by_customer() -> None:
    free = free_units(column([0, 0, 1, 1]), column([70, 50, 70, 50]), column([100, 0]))
    assert free.tolist() == [70, 30, 0, 0]


def test_included_units_hit_exactly_leave_nothing_for_tiers() -> None:
    assert free_units(column([0, 0]), column([60, 40]), column([100])).tolist() == [60, 40]


def test_what_is_taken_back_gives_priced_units_back_before_free_ones() -> None:
    assert free_units(column([0, 0]), column([120, -50]), column([100])).tolist() == [100, -30]


def test_a_step_over_a_bound_lies_in_both_tiers_and_up_to_is_inclusive() -> None:
    assert graduated([70, 50], 100) == [[70, 30], [0, 20]]
    assert graduated([70, 30], 100) == [[70, 30], [0, 0]]
    assert graduated([250], 100, 200) == [[100], [100], [50]]


def test_a_void_empties_the_pool_from_the_top_and_below_zero_lies_the_first_tier() -> None:
    assert graduated([150, -80], 100) == [[100, -30], [50, -50]]
    assert graduated([-20, 130], 100) == [[-20, 120], [0, 10]]


@given(STEPS)
def test_tiers_sum_to_each_step_whatever_its_sign(steps: list[int]) -> None:
    assert [sum(parts) for parts in zip(*graduated(steps, 100, 250), strict=True)] == steps


@given(STEPS, st.integers(1, 300))
def test_what_is_free_is_what_the_whole_pool_has_free(steps: list[int], included: int) -> None:
    free = free_units(column([0] * len(steps)), column(steps), column([included]))
    assert int(free.sum()) == min(sum(steps), included) or not steps


def test_all_units_of_a_volume_price_are_in_the_tier_of_their_total() -> None:
    upper = np.repeat(bounds(100, 200), 6, axis=0)
    assert tiers(column([-5, 100, 101, 200, 201, 10**15]), upper).tolist() == [1, 1, 2, 2, 3, 3]


def test_shorter_tiers_end_where_they_end_beside_longer_ones() -> None:
    upper = upper_bounds([[Tier(100, Decimal(2)), Tier(None, Decimal(1))], [Tier(None, Decimal(1))], []])
    assert tiers(column([150, 150, 0]), upper).tolist() == [2, 1, 1]


def test_each_started_package_counts_also_of_what_is_taken_back() -> None:
    totals = column([0, 1, 1_000_000, 1_000_001, -1, -1_000_001])
    assert started(totals, column([1_000_000] * 6)).tolist() == [0, 1, 1, 2, -1, -2]
