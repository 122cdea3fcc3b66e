"""Prices in force as JSON, which `tally tariff show --json` prints, and as the words and tables that a person reads.

    prices_json(found) -> {tariff, tariff_version, at, window: {…}, prices: [{price_row, meters: [{meter, tiers}]}], …}

Its shape is in docs/commands.md. Prices are decimal text in shortest form; a price is null where the window's series
has none for that hour.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from billing.line import UNITS
from billing.money import format_minor, format_price
from billing.prices_asked import PricesInForce
from billing.prices_in_force import COUNTED, FREE, NOT_PRICED, MeterInForce, RowInForce, WindowInForce
from billing.tariff import PRICE_BASE, WEEKDAYS, Contract, Tariff, Window

Json = dict[str, Any]


def prices_json(found: PricesInForce) -> Json:
    """The whole answer."""
    tariff, contract, question = found.terms.tariff, found.terms.contract, found.question
    segment = found.customer.segment if found.customer else None
    return {
        "tariff": tariff.id,
        "tariff_version": tariff.version,
        "contract_version": found.terms.contract_version,
        "operator": tariff.operator,
        "currency": tariff.currency,
        "time_zone": tariff.timezone,
        "at": _instant(question.instant),
        "local": _local(question.instant, tariff.zone),
        "model": question.model,
        "region": question.region,
        "customer": question.customer,
        "segment": segment,
        "place": tariff.places.get(""),
        "contract_place": contract.places.get("") if contract else None,
        "window": _window(found.window, tariff),
        "prices": [_row(row, tariff, contract) for row in found.rows],
        "included": [
            {"meter": meter, "quantity": units, "version": version}
            for meter, (units, version) in found.included.items()
        ],
        "segments": {name: format_price(percent) for name, percent in tariff.segments.items()},
        "segment_discount": format_price(tariff.segments.get(segment, Decimal(0))) if segment else None,
        "contract_discount": format_price(contract.discount) if contract else None,
        "minimum": _amount(tariff.minimum, tariff.currency),
        "commitment": _amount(contract.commitment if contract else None, tariff.currency),
        "fees": [
            {"name": fee.name, "amount": format_minor(fee.amount, tariff.currency), "every": fee.every}
            for fee in (contract.fees if contract else ())
        ],
        "bill_output": tariff.bill_output,
        "bill_outcomes": list(tariff.bill_outcomes),
        "changes": [
            {"at": _instant(change.at), "local": _local(change.at, tariff.zone), "what": change.what}
            for change in found.changes
        ],
    }


def _window(found: WindowInForce, tariff: Tariff) -> Json:
    window = tariff.windows[found.number - 1] if found.number else None
    return {
        "name": found.name,
        "factor": _price(found.factor),
        "days": _days(window) if window else None,
        "hours": f"{window.begin:02}:00-{window.end:02}:00" if window else None,
        "series": window.series.file if window and window.series else None,
        "series_price": _price(found.series_price),
        "step": found.step,
        "place": tariff.places.get(f"windows.{found.number}") if found.number else None,
    }


def _days(window: Window) -> list[str]:
    """In the week's order, `holiday` last."""
    return sorted(window.days, key=(*WEEKDAYS, *window.days).index)


def _row(found: RowInForce, tariff: Tariff, contract: Contract | None) -> Json:
    kind, _, number = (found.name or "").partition(":")
    places: Mapping[str, str] = contract.places if kind == "contract" and contract else tariff.places
    return {
        "price_row": found.name,
        "version": found.version,
        "place": places.get(f"prices.{number}"),
        "in_regions": list(found.regions),
        "models": list(found.row.models) if found.row else [],
        "regions": list(found.row.regions) if found.row else [],
        "prompt_over": found.prompt_over,
        "prompt_up_to": found.prompt_up_to,
        "meters": [_meter(meter) for meter in found.meters],
    }


def _meter(found: MeterInForce) -> Json:
    return {
        "meter": found.meter,
        "pricing": found.pricing,
        "counted_as": found.counted_as,
        "unit": "package" if found.size else UNITS[found.meter],
        "price_base": 1 if found.size else PRICE_BASE,
        "package_size": found.size,
        "tiers": [
            {
                "tier": number if len(found.tiers) > 1 else None,
                "up_to": tier.up_to,
                "list_price": format_price(tier.list_price),
                "unit_price": _price(tier.unit_price),
            }
            for number, tier in enumerate(found.tiers, 1)
        ],
    }


def _price(value: Decimal | None) -> str | None:
    return None if value is None else format_price(value)


def _amount(minor: int | None, currency: str) -> str | None:
    return None if minor is None else format_minor(minor, currency)


def _instant(value: datetime) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _local(value: datetime, zone: ZoneInfo) -> str:
    return value.astimezone(zone).isoformat()


# -- for a person --------------------------------------------------------------------------------------------------

WIDTH = 80
_COLUMNS = ("meter", "how", "list price", "factor", "price")
_FIGURES = ("list price", "factor", "price")


def price_text(document: Json) -> list[str]:
    """What a person reads, in 80 columns: which versions hold, a block of lines for each price row, what else counts."""
    said = [*_wrapped(price_head(document)), ""]
    blocks = [
        (_row_head(row), list(_row_lines(row, document["window"]["factor"]))) for row in document["prices"]
    ]
    cells = [_COLUMNS, *(line for _, lines in blocks for line in lines)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(_COLUMNS))]
    if blocks:
        said.append(_aligned(_COLUMNS, widths))
    for head, lines in blocks:
        said += _wrapped([head])
        said += [_aligned(line, widths) for line in lines]
    return [*said, "", *_wrapped(price_foot(document))]


def _row_head(row: Json) -> str:
    """`tariff:2: qwen3-* in LT-VL, prompts to 128,000 [tariff.yaml:12]`."""
    if row["price_row"] is None:
        return f"{' '.join(row['in_regions']) or 'everywhere'}: no row prices it"
    regions = " ".join(row["in_regions"] or row["regions"])
    over, up_to = row["prompt_over"], row["prompt_up_to"]
    prompts = [f"over {over:,}"] if over else []
    prompts += [f"to {up_to:,}"] if up_to else []
    said = f"{row['price_row']}: {' '.join(row['models'])}"
    said += f" in {regions}" if regions else ""
    said += f", prompts {' '.join(prompts)}" if prompts else ""
    return said + _stands(row["place"])


def _row_lines(row: Json, factor: str | None) -> Iterator[Sequence[str]]:
    """A line a meter and tier, under _COLUMNS."""
    for meter in row["meters"]:
        yield from _meter_lines(meter, factor)


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    cells = (
        cell.rjust(width) if column in _FIGURES else cell.ljust(width)
        for column, cell, width in zip(_COLUMNS, line, widths, strict=True)
    )
    return f"  {'  '.join(cells)}".rstrip()


def _wrapped(lines: Iterable[str]) -> list[str]:
    return [
        part
        for line in lines
        for part in textwrap.wrap(
            line, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )
    ]


def _meter_lines(meter: Json, factor: str | None) -> Iterator[tuple[str, str, str, str, str]]:
    name, pricing = meter["meter"], meter["pricing"]
    if pricing == COUNTED:
        yield name, f"counted as {meter['counted_as']}", "", "", ""
    elif pricing == FREE:
        yield name, "free", "", "", ""
    elif pricing == NOT_PRICED and name in ("input", "output"):  # audio that no row prices is worth no line
        yield name, "not priced: usage stops a close", "", "", ""
    for number, tier in enumerate(meter["tiers"]):
        how = _how(meter, number)
        by = "1" if meter["package_size"] else factor
        yield (
            "" if number else name,
            how,
            tier["list_price"],
            by or "none",
            tier["unit_price"] or "none this hour",
        )


def _how(meter: Json, number: int) -> str:
    if meter["package_size"]:
        return f"package of {meter['package_size']:,} {UNITS[meter['meter']]}s"
    tiers = meter["tiers"]
    if len(tiers) == 1:
        return "plain" if meter["pricing"] == "plain" else f"{meter['pricing']}, one tier"
    up_to = tiers[number]["up_to"]
    span = f"over {tiers[number - 1]['up_to']:,}" if up_to is None else f"up to {up_to:,}"
    return f"{meter['pricing']} {number + 1}: {span}"


def price_head(document: Json) -> list[str]:
    """The sentences above the table: which versions hold, where they stand, and which window."""
    version = f"tariff {document['tariff_version']}{_stands(document['place'])}"
    who = document["customer"]
    if who:
        by = document["contract_version"]
        agreed = f"contract {by}{_stands(document['contract_place'])}" if by else "no contract"
        version += f" · {who}: {agreed}"
    local = document["local"].replace("T", " ")
    packages = any(meter["package_size"] for row in document["prices"] for meter in row["meters"])
    price_of = "per 1,000,000, packages per started package," if packages else "per 1,000,000"
    return [
        version,
        f"at {local} in {document['time_zone']} ({document['at']}), {document['currency']} {price_of} without VAT",
        _window_said(document["window"]),
    ]


def _window_said(window: Json) -> str:
    if window["hours"] is None:
        return "no window holds: factor 1"
    said = f"window {window['name']} ({' '.join(window['days'])} {window['hours']}){_stands(window['place'])}"
    series = window["series"] or "its series"
    if window["factor"] is None:
        return f"{said}: {series} has no price for this hour, so usage in it is not priced"
    if window["step"]:
        said += f": {series} is at {window['series_price']} in this hour, step {window['step']}"
    return f"{said}: factor {window['factor']}; packages have none"


def price_foot(document: Json) -> Iterator[str]:
    """The sentences below the table: what else a bill goes by, and from when other prices hold."""
    currency = document["currency"]
    for free in document["included"]:
        yield f"free each month: {free['quantity']:,} {free['meter']} ({free['version']})"
    if document["customer"]:
        percent = document["segment_discount"]
        if percent not in (None, "0"):
            yield f"segment {document['segment']}: {percent} % off the tariff's rows"
        if document["contract_discount"] not in (None, "0"):
            yield f"contract discount: {document['contract_discount']} %"
    elif document["segments"]:
        yield "segments: " + ", ".join(
            f"{name} {percent} %" for name, percent in document["segments"].items()
        )
    if document["commitment"] is not None:
        yield f"commitment: {document['commitment']} {currency} a month"
    elif document["minimum"] is not None:
        yield f"minimum: {document['minimum']} {currency} a month with usage"
    for fee in document["fees"]:
        yield f"fee {fee['name']}: {fee['amount']} {currency} {'once' if fee['every'] == 'once' else 'every month'}"
    yield f"output as {document['bill_output']}; billed outcomes: {', '.join(document['bill_outcomes'])}"
    for change in document["changes"]:
        yield f"next: {change['local'].replace('T', ' ')}: {change['what']}"
    if not document["changes"]:
        yield "next: no change is known"


def _stands(place: str | None) -> str:
    return f" [{place}]" if place else ""
