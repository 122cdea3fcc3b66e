"""The steps of a usage line, from the hours that it is of to its amount.

    usage          qwen3-32b on vilnius-1 (LT-VL), 2 hours, …, in window night         2100 tokens
    counted as     2100 input + 400 cached_input: the row has no price for that one    2500 tokens
    included       1500 are free in the period: 1500 of them in these hours            1000 tokens
    tier           the row's pool took 1700, 700 of them in tier 2; it held 1000       700 tokens
    list price     tariff.yaml:12, tariff vilnius, row 1, output, tier 2               1.2 EUR per 1000000 tokens
    factor, exact product, rounded; what documents asked for before, taken off

They are those of the working (`billing.working`), and only given where that ends in the document's own figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from billing.document import Document
from billing.line import BASE_WINDOW, FREE, UNBILLED, Line
from billing.money import format_minor, format_price, line_amount
from billing.rated_again import RatedAgain, Standing
from billing.terms import TermsRow
from billing.working import Hours, LineWorking
from reports.explain_figures import MINUS, Step, exact, figure, money, step
from reports.explain_terms import (
    hours_words,
    package_size,
    price_source,
    series_words,
    tier_bounds,
    window_place,
    window_words,
)

_MOST_NAMES = 4


def usage_steps(
    made: LineWorking, standing: Standing, line: Line, document: Document, again: RatedAgain
) -> Iterator[Step]:
    """Every step of `line` of `document`; `made` is its working and `standing` its place on the bill."""
    yield from _quantity_steps(made, again)
    yield from price_steps(line, standing.quantity, document.currency, made.row, made.hours)
    if standing.earlier or document.sign < 0:
        yield from _difference_steps(standing, line, document)


def price_steps(
    line: Line, quantity: int, currency: str, row: TermsRow | None = None, hours: Hours | None = None
) -> Iterator[Step]:
    """From a quantity to its rounded amount at the line's price; with the price row, where files state it, and with the
    line's hours, at what prices of a series they were.
    """
    per = f"{currency} per {line.unit if line.price_base == 1 else figure(line.price_base, line.unit)}"
    listed, unit = format_price(line.list_price), format_price(line.unit_price)
    yield step("list price", _source(line, row, hours), f"{listed} {per}")
    yield step(
        "factor", f"{listed} × {format_price(line.factor)}, {_window(line, row, hours)}", f"{unit} {per}"
    )
    product = exact(Fraction(line.unit_price) * Fraction(quantity, line.price_base))
    divided = f"{quantity} × {unit}" + (f" ÷ {line.price_base}" if line.price_base != 1 else "")
    yield step("exact product", divided, f"{product} {currency}")
    rounded = line_amount(quantity, line.unit_price, line.price_base, currency)
    yield step("rounded", f"{product} {currency}, half away from zero", money(rounded, currency))


def _quantity_steps(made: LineWorking, again: RatedAgain) -> Iterator[Step]:
    """From what was used in the line's hours to the line's quantity."""
    hours, unit = made.hours, _unit(made)
    own = sum(hours.made_of.values())
    yield step("usage", _usage(made), figure(own, unit))
    if set(hours.made_of) - {made.meter}:
        parts = " + ".join(f"{units} {meter}" for meter, units in hours.made_of.items())
        added = ", ".join(meter for meter in hours.made_of if meter != made.meter)
        yield step(
            f"counted as {made.meter}",
            f"{parts}: the row has no price for {added}",
            figure(own, unit),
        )
    if made.tier == UNBILLED:
        return
    included = again.working.included.get(made.meter, 0)
    if included:
        free = f"{included} are free in the period, used up in order of time: {hours.free} of them in these hours"
        rest = hours.free if made.tier == FREE else own - hours.free
        yield step("included", free, figure(rest, unit))
    yield from _pool_steps(made, unit)


def _pool_steps(made: LineWorking, unit: str) -> Iterator[Step]:
    if made.pool is None:
        return
    total = figure(made.pool.total, unit)
    if made.model is None:
        size = package_size(made.row, made.meter)
        yield step(
            "packages",
            f"{total} of the row in the period, {size} to a package, each started one counts",
            figure(made.quantity, "package"),
        )
    elif made.before is None:
        bounds = tier_bounds(made.row, made.meter, made.tier)
        yield step(
            "volume tier",
            f"{total} of the row in the period: all of them at tier {made.tier} ({bounds})",
            figure(made.quantity, unit),
        )
    else:
        assert isinstance(made.tier, int)
        bounds = tier_bounds(made.row, made.meter, made.tier)
        held = made.pool.by_tier[made.tier]
        yield step(
            "tier",
            f"the row's pool took {total} in the period, {held} of them in tier {made.tier} ({bounds});"
            f" before the first of these it held {made.before}",
            figure(made.quantity, unit),
        )


def _usage(made: LineWorking) -> str:
    """Which usage: models, nodes with their regions, outcomes, prompt bands, hours and the window they are in."""
    hours, tariff = made.hours, made.row.terms.tariff
    places = _listed([f"{node} ({region})" for node, region in sorted(hours.places)], "nodes")
    said = [f"{_listed(sorted(hours.models), 'models')} on {places}"]
    outcomes = {name: units for name, units in sorted(hours.outcomes.items()) if units}
    if len(outcomes) == 1:
        said += outcomes
    else:
        said.append(" + ".join(f"{units} {name}" for name, units in outcomes.items()))
    said.append(hours_words(hours.hours, tariff))
    if made.window != BASE_WINDOW:
        said.append(f"in window {made.window.partition(':')[0]}")
    elif tariff.windows and made.model is not None and made.row.pricing(made.meter) is not None:
        said.append("in no window")
    return ", ".join(said) + _bands(hours, made)


def _bands(hours: Hours, made: LineWorking) -> str:
    """Where a row that would match asks for the size of prompts: which sizes these were."""
    if made.row.row.prompt_over is not None:
        return f", prompts over {made.row.row.prompt_over} tokens"
    asked = [
        row.prompt_over
        for _, row in made.row.terms.rows()
        if row.prompt_over is not None
        and any(
            row.matches(model, region, row.prompt_over)
            for model in hours.models
            for _, region in hours.places
        )
    ]
    above = [over for over in asked if over > max(hours.bands)]
    return f", prompts up to {min(above)} tokens" if above else ""


def _listed(names: list[str], what: str) -> str:
    more = f" and {len(names) - _MOST_NAMES} more {what}" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _unit(made: LineWorking) -> str:
    return {"requests": "request", "audio_seconds": "second"}.get(made.meter, "token")


def _source(line: Line, row: TermsRow | None, hours: Hours | None) -> str:
    """Which version and row stated the price, or why there is none."""
    if line.tier == FREE:
        return "included: free of charge"
    if line.tier == UNBILLED:
        outcomes = "an outcome that is" if hours is None else f"{' and '.join(sorted(hours.outcomes))}:"
        return f"{outcomes} not billed"
    if row is not None:
        return price_source(row, line.meter, line.tier)
    kind, _, number = (line.price_row or "").partition(":")
    version = line.contract_version if kind == "contract" else line.tariff_version
    tier = f", tier {line.tier}" if line.tier is not None else ""
    return f"{kind} {version}, row {number}{tier}"


def _window(line: Line, row: TermsRow | None, hours: Hours | None) -> str:
    """The window that the factor is of, with its days and hours; of a series the step and the hours' prices."""
    if line.window == BASE_WINDOW or row is None:
        return "packages have no windows" if line.model is None else f"window {line.window}"
    tariff = row.terms.tariff
    window, when = window_words(tariff, line.window)
    said = f"{window_place(tariff, window)}, window {window.name}: {when}"
    if window.series is None or hours is None:
        return said
    return f"{said}; {series_words(window, line.window, hours.hours)}"


def _difference_steps(standing: Standing, line: Line, document: Document) -> Iterator[Step]:
    """What earlier documents asked for, taken off; a credit note prints what is left with its sign turned."""
    currency = document.currency
    quantities = [f"{each.quantity} on {each.number}" for each in standing.earlier if each.quantity]
    amounts = [f"{format_minor(each.amount, currency)} on {each.number}" for each in standing.earlier]
    turned = "" if document.sign > 0 else "; a credit note turns the sign"
    yield step(
        "less earlier documents" if standing.earlier else "credited",
        f" {MINUS} ".join([str(standing.quantity), *quantities]) + turned,
        figure(line.quantity, line.unit),
    )
    yield step(
        "difference" if standing.earlier else "its amount",
        f" {MINUS} ".join([format_minor(standing.amount, currency), *amounts]) + turned,
        money(line.amount, currency),
    )
