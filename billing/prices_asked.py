"""The prices that a person asks for: a tariff at an instant, perhaps of one model, region and customer.

Answers come from `billing.prices_in_force`; here is what makes sense to ask. Each thing that isn't there is a named
refusal that says what is: `not_in_force`, `unknown_customer`, `other_tariff`, `unknown_region`, `unknown_model`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from difflib import get_close_matches

from billing.facts import Facts, tariff_in_force_at
from billing.holiday import calendar_days, with_holidays
from billing.period import Period
from billing.price_changes import LOOK_AHEAD, Change, next_changes
from billing.prices_in_force import (
    RowInForce,
    WindowInForce,
    all_rows,
    holds_in,
    included_in_force,
    rows_for_model,
    window_in_force,
)
from billing.site import Customer, Operator, Version, in_force_at
from billing.tariff import Contract, Tariff
from billing.terms import Terms
from metering.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Question:
    """Which prices: of `tariff` at an aware `instant`; None: any model, every region, nobody in particular."""

    tariff: str
    instant: datetime
    model: str | None = None
    region: str | None = None
    customer: str | None = None


@dataclass(frozen=True, slots=True)
class PricesInForce:
    """The answer: versions, window, rows, and what else a bill goes by. `included`: (units, version) by meter."""

    question: Question
    operator: Operator
    terms: Terms
    customer: Customer | None
    window: WindowInForce
    rows: tuple[RowInForce, ...]
    included: Mapping[str, tuple[int, str]]
    changes: tuple[Change, ...]


def prices_in_force(facts: Facts, question: Question) -> PricesInForce:
    """The prices that hold; `facts.holidays` as `with_holidays_ahead` makes them. Refusals: see above."""
    operator = facts.operator[-1]
    tariff = version_in_force(facts.tariffs[question.tariff], question.instant)
    customer, contract = _agreed(facts, question, operator)
    terms = Terms(tariff, contract)
    window = window_in_force(tariff, facts, question.instant)
    rows = _rows(facts, terms, question, window)
    return PricesInForce(
        question,
        operator,
        terms,
        customer,
        window,
        tuple(rows),
        included_in_force(terms),
        tuple(
            next_changes(facts, terms, question.instant, operator.zone, question.customer, question.region)
        ),
    )


def version_in_force(versions: Sequence[Tariff], instant: datetime) -> Tariff:
    """The version of a tariff that holds at an aware instant. Refusals: not_in_force."""
    found = tariff_in_force_at(versions, instant)
    if found is None:
        raise Refusal(
            "not_in_force",
            f"no version of tariff {versions[-1].id} is in force then",
            where="--at",
            remedy=_spans(versions),
        )
    return found


def with_holidays_ahead(facts: Facts, instant: datetime, fixed: Mapping[str, Sequence[str]]) -> Facts:
    """`facts` with the public holidays from the instant's month to LOOK_AHEAD.

    `fixed`: those that the month's last close went by, which win within it (`billing.holiday`).
    """
    period = Period.holding(instant, facts.operator[-1].zone)
    near = with_holidays(facts, period, fixed)
    after, end = period.last_day + timedelta(days=7), instant.date() + LOOK_AHEAD + timedelta(days=7)
    ahead = {
        name: days
        | {
            day
            for year in range(after.year, end.year + 1)
            for day in calendar_days(name, year)
            if after < day <= end
        }
        for name, days in near.holidays.items()
    }
    return replace(near, holidays=ahead)


def regions_at(facts: Facts, instant: datetime) -> list[str]:
    """The regions of the nodes that are declared then, sorted."""
    zone = facts.operator[-1].zone
    found = (in_force_at(versions, instant, zone) for versions in facts.nodes.values())
    return sorted({node.region for node in found if node is not None})


def check_region(facts: Facts, rows: Iterable[RowInForce], region: str, instant: datetime) -> None:
    """Refuses (`unknown_region`) one in which there is no node and that no row names either."""
    named = any(row.row is not None and row.row.regions and holds_in(row.row, region) for row in rows)
    known = regions_at(facts, instant)
    if region in known or named:
        return
    raise Refusal(
        "unknown_region",
        f"no node is in region {region} then, and no price row names it",
        where="--region",
        remedy=f"regions with nodes: {', '.join(known)}" if known else "declare a node in it",
    )


def _spans(versions: Sequence[Tariff | Customer]) -> str:
    return "its versions: " + ", ".join(f"{each.version} {_span(each)}" for each in versions)


def _span(version: Version) -> str:
    begins = "from ever" if version.valid_from is None else f"from {version.valid_from}"
    return begins if version.valid_until is None else f"{begins} until {version.valid_until}"


def _agreed(facts: Facts, question: Question, operator: Operator) -> tuple[Customer | None, Contract | None]:
    """The customer's version and contract version then; nobody and none where no customer was named."""
    if question.customer is None:
        return None, None
    versions = facts.customers.get(question.customer, ())
    if not versions:
        raise Refusal(
            "unknown_customer",
            f"{operator.id} has no customer {question.customer}",
            where="--customer",
            remedy=_close(question.customer, facts.customers) or "`tally get customer` lists them",
        )
    customer = in_force_at(versions, question.instant, operator.zone)
    if customer is None:
        raise Refusal(
            "unknown_customer",
            f"customer {question.customer} is not declared then",
            where="--customer",
            remedy=_spans(versions),
        )
    contract = in_force_at(facts.contracts.get(question.customer, ()), question.instant, operator.zone)
    declared = in_force_at(facts.operator, question.instant, operator.zone)
    tariff = contract.tariff if contract else declared.default_tariff if declared else None
    if tariff != question.tariff:
        why = f"by contract {contract.version}" if contract else "without a contract"
        raise Refusal(
            "other_tariff",
            f"{question.customer} is not on tariff {question.tariff} then, but {why} on {tariff or 'none'}",
            where="--customer",
            remedy=f"tally tariff show {tariff} --customer {question.customer}" if tariff else "",
        )
    return customer, contract


def _rows(facts: Facts, terms: Terms, question: Question, window: WindowInForce) -> list[RowInForce]:
    every = all_rows(terms, None, window.factor)
    if question.region is not None:
        check_region(facts, every, question.region, question.instant)
    if question.model is None:
        return all_rows(terms, question.region, window.factor)
    asked = [question.region] if question.region is not None else regions_at(facts, question.instant)
    found = rows_for_model(terms, question.model, asked or [""], window.factor)
    if all(row.row is None for row in found):
        globs = list(dict.fromkeys(glob for row in every if row.row for glob in row.row.models))
        where = f" in region {question.region}" if question.region is not None else ""
        raise Refusal(
            "unknown_model",
            f"no price row of {terms.tariff.version} prices model {question.model}{where}",
            where="--model",
            remedy=f"its rows price: {', '.join(globs)} (case counts)",
        )
    return found


def _close(asked: str, known: Iterable[str]) -> str:
    found = get_close_matches(asked, list(known), n=3)
    return f"did you mean {' or '.join(found)}?" if found else ""
