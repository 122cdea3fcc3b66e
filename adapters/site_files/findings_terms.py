"""What surrounds the prices: outcomes, segments, included units, minimums, discounts, commitments, fees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal

from adapters.site_files.findings_rows import Place
from billing.money import format_minor, format_price
from billing.tariff import Contract, PriceRow, Tariff
from metering.refusal import Fault

SEEMS_ENDLESS: Mapping[str, int] = {"requests": 1_000_000_000, "audio_seconds": 1_000_000_000}
SEEMS_ENDLESS_TOKENS = 100_000_000_000
"""More included units than a single customer uses in a month: presumably zeros too many."""


def odd_tariff_terms(tariff: Tariff, place: Place) -> Iterator[Fault]:
    if "finished" not in tariff.bill_outcomes:
        what = (
            f"bill_outcomes: [{', '.join(tariff.bill_outcomes)}] leaves out finished: whole answers are free"
        )
        yield Fault(what, place("bill_outcomes"), "add finished")
    if "failed" in tariff.bill_outcomes:
        what = "bill_outcomes: failed requests are charged"
        yield Fault(what, place("bill_outcomes"), "leave failed out unless your terms say so")
    for segment, percent in tariff.segments.items():
        yield from _odd_percent(percent, "all usage of this segment is free", place("segments", segment))
    yield from _odd_included(tariff.included, tariff.rows, place)


def odd_contract_terms(
    contract: Contract, tariffs: Sequence[Tariff], default: str | None, currency: str, place: Place
) -> Iterator[Fault]:
    """`tariffs`: the versions that hold beside the contract; `default`: the operator's default tariff."""
    yield from _odd_percent(contract.discount, "all usage is free", place("discount"))
    rows = [*contract.rows, *(row for tariff in tariffs for row in tariff.rows)]
    if tariffs:
        yield from _odd_included(contract.included, rows, place)
    for tariff in tariffs:
        floor = tariff.minimum or 0
        if contract.commitment is not None and 0 < contract.commitment < floor:
            what = (
                f"commitment {format_minor(contract.commitment, currency)} is below the minimum of tariff "
                f"{tariff.version}, {format_minor(floor, currency)}, which it replaces"
            )
            yield Fault(what, place("commitment"), "compare them; commitment: 0 does without either")
            break
    yield from _odd_fees(contract, currency, place)
    own = (
        contract.rows,
        contract.discount,
        contract.commitment is not None,
        contract.included,
        contract.fees,
    )
    if not any(own) and contract.tariff == default:
        what = f"the contract changes nothing: {default} is the default tariff"
        yield Fault(what, place("tariff"), "leave the contract out, or say what was agreed")


def _odd_fees(contract: Contract, currency: str, place: Place) -> Iterator[Fault]:
    names: dict[str, str] = {}
    for at, fee in enumerate(contract.fees):
        known = names.setdefault("".join(fee.name.split()).casefold(), fee.name)
        if known != fee.name:
            what = f"fee {fee.name} differs from fee {known} in blanks or capitals only"
            yield Fault(what, place("fees", at, "name"), "name each fee once; both are charged")
        if not fee.amount:
            what = f"fee {fee.name} is {format_minor(0, currency)}"
            yield Fault(what, place("fees", at, "amount"), "state its amount, or leave it out")


def _odd_percent(percent: Decimal, all_of_it: str, where: str) -> Iterator[Fault]:
    if percent == 100:
        yield Fault(f"100% off: {all_of_it}", where, "compare it")
    elif 0 < percent < 1:
        what = f"{format_price(percent)}% looks like a fraction: it is less than one hundredth"
        yield Fault(what, where, f"presumably {format_price(percent * 100)}% is meant")


def _odd_included(included: Mapping[str, int], rows: Iterable[PriceRow], place: Place) -> Iterator[Fault]:
    priced = {meter for row in rows for meter in row.prices}
    for meter, units in included.items():
        where = place("included", meter)
        if meter not in priced:
            what = f"included {meter}: no row prices {meter}, so nothing is taken from it"
            yield Fault(what, where, "price the meter, or name the one that it is counted as")
        if units >= SEEMS_ENDLESS.get(meter, SEEMS_ENDLESS_TOKENS):
            what = f"included {meter}: {units:,} free units a month are more than anybody uses"
            yield Fault(what, where, "compare it: there may be zeros too many")
