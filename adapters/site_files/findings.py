"""What is legal in site files and odd: warnings, each with its line and a remedy.

A refusal is for what can't be meant; a warning for what may be meant and mostly is not: a row that is never reached, a
price per 1,000 where 1,000,000 is the unit, a tariff that ends while contracts go on. `tally check` and `tally apply`
list them beside what they do, and change nothing about it.

    rows       rows and models never reached, crossing, left without a price      globs     covering and meeting
    prices     tiers, packages, meters beside each other                          scale     a thousand times off
    windows    overlaps, calendars, factors, series                               terms     all around the prices
    contracts  rows and days beside the tariff's

Only what the files state is warned of, but everything that will stand once they are applied is looked at. A document
with faults is left out: what it says is not known before they are mended; so is a version that stood there before and
has ended.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from adapters.site_files.findings_contracts import (
    Span,
    beside,
    holes,
    odd_contract_rows,
    odd_days_of_contract,
    odd_fees_of_earlier,
    spans,
)
from adapters.site_files.findings_prices import odd_prices
from adapters.site_files.findings_rows import Place, odd_beside_earlier, odd_gaps, odd_regions, odd_rows
from adapters.site_files.findings_scale import odd_scales
from adapters.site_files.findings_terms import odd_contract_terms, odd_tariff_terms
from adapters.site_files.findings_windows import Calendar, odd_windows
from adapters.site_files.versions import Placed, merged
from billing.facts import EVERYWHERE, Facts, facts_from_documents
from billing.holiday import calendar_days, is_calendar
from billing.stored import StoredDocument
from billing.tariff import Contract, PriceRow, Tariff, hidden_row
from billing.tariff_facts import tariff_from
from metering.refusal import Fault


@dataclass(frozen=True, slots=True)
class Surroundings:
    """One operator's site as it will stand, at the aware instant `now`; `stated`: (kind, id, valid_from) of what is
    in the files."""

    facts: Facts
    now: datetime
    stated: Collection[tuple[str, str, date | None]]
    regions: Sequence[str]
    tariffs: Mapping[str, Sequence[Span[Tariff]]]
    contracts: Mapping[str, Sequence[Span[Contract]]]

    @property
    def default_tariff(self) -> str | None:
        return self.facts.operator[-1].default_tariff

    @property
    def currency(self) -> str:
        return self.facts.operator[-1].currency


def odd_things(
    placed: Sequence[Placed], stored: Sequence[StoredDocument], faults: Sequence[Fault], now: datetime
) -> list[Fault]:
    """Every warning about what `placed` states, in no order. `faults`: what was refused."""
    refused = {fault.where for fault in faults}
    sound: dict[str, list[Placed]] = defaultdict(list)
    for each in placed:
        if refused.isdisjoint({each.document.where, *each.document.places.values()}):
            sound[each.version.operator].append(each)
    standing: dict[str, list[StoredDocument]] = defaultdict(list)
    for version in merged([each for group in sound.values() for each in group], stored):
        standing[version.operator].append(version)
    found: list[Fault] = []
    for operator, group in sound.items():
        if any(version.kind == "operator" for version in standing[operator]):
            around = _surroundings(group, [*standing[operator], *standing[EVERYWHERE]], now)
            for each in group:
                found.extend(_odd_document(each, around))
    return found


def _surroundings(group: Sequence[Placed], standing: Sequence[StoredDocument], now: datetime) -> Surroundings:
    facts = facts_from_documents(standing)
    return Surroundings(
        facts=facts,
        now=now,
        stated={(each.version.kind, each.version.id, each.version.valid_from) for each in group},
        regions=sorted({node.region for versions in facts.nodes.values() for node in versions}),
        tariffs={name: spans(versions) for name, versions in facts.tariffs.items()},
        contracts={name: spans(versions) for name, versions in facts.contracts.items()},
    )


def _odd_document(placed: Placed, around: Surroundings) -> Iterator[Fault]:
    version, place = placed.version, placed.document.place
    if version.kind == "tariff":
        tariffs = around.tariffs[version.id]
        at = next(at for at, each in enumerate(tariffs) if each.version.valid_from == version.valid_from)
        if not _is_over(placed, tariffs[at].end, around.now):
            earlier = _earlier(placed, tariffs[at - 1].version if at else None, around)
            yield from _odd_tariff(tariffs[at], earlier, around, place)
    elif version.kind == "contract":
        contracts = around.contracts[version.id]
        contract = next(each for each in contracts if each.version.valid_from == version.valid_from)
        if not _is_over(placed, contract.end, around.now):
            yield from _odd_contract(contract, around, place)


def _is_over(placed: Placed, end: date, now: datetime) -> bool:
    """A version that stood there before and has ended: a history is not warned of again and again."""
    return placed.state == "unchanged" and end <= now.date()


def _earlier(placed: Placed, before: Tariff | None, around: Surroundings) -> tuple[str, Tariff] | None:
    """What a tariff's version is held against, by name: the one whose place it takes, else the one `before` it."""
    if placed.supersedes and placed.former is not None:
        former = tariff_from(placed.former, around.facts.operator[-1])
        return f"{former.version} as it is superseded", former
    return None if before is None else (before.version, before)


def _odd_tariff(
    span: Span[Tariff], earlier: tuple[str, Tariff] | None, around: Surroundings, place: Place
) -> Iterator[Fault]:
    tariff, end = span.version, span.end
    yield from odd_rows(tariff.rows, place)
    yield from odd_regions(tariff.rows, around.regions, place, every=True)
    yield from odd_gaps(tariff.rows, place)
    if earlier is not None:
        yield from odd_beside_earlier(tariff.rows, earlier[1].rows, earlier[0], place)
    yield from odd_prices(tariff.rows, tariff.currency, place)
    references = _rows_before(tariff, *earlier) if earlier is not None else {}
    yield from odd_scales(tariff.rows, tariff.currency, place, references)
    calendar = _calendar(tariff, around.now)
    yield from odd_windows(tariff, calendar, around.now, None if end == date.max else end, place)
    yield from odd_tariff_terms(tariff, place)
    yield from _odd_end(tariff, around, place)


def _odd_end(tariff: Tariff, around: Surroundings, place: Place) -> Iterator[Fault]:
    """A version that ends without a successor while customers are on it by default, or by a stored contract."""
    for gap, until in holes(around.tariffs[tariff.id]):
        if gap != tariff.valid_until:
            continue
        said = f"the next one begins {until}" if until else "none follows it"
        remedy = "a close would stop at usage then: declare what follows, or leave valid_until out"
        if around.default_tariff == tariff.id:
            what = f"this version of the default tariff ends {gap}, and {said}"
            yield Fault(what, place("valid_until"), remedy)
        for customer, contracts in around.contracts.items():
            for each in contracts:
                in_files = ("contract", customer, each.version.valid_from) in around.stated
                on_it = each.version.tariff == tariff.id and each.begin < (until or date.max)
                if not in_files and on_it and each.end > gap:
                    what = f"this version ends {gap}, {said}, and the contract of {customer} goes on"
                    yield Fault(what, place("valid_until"), remedy)


def _odd_contract(span: Span[Contract], around: Surroundings, place: Place) -> Iterator[Fault]:
    contract = span.version
    tariffs = around.tariffs.get(contract.tariff, ())
    holding = beside(span, tariffs)
    yield from odd_rows(contract.rows, place)
    yield from odd_regions(contract.rows, around.regions, place, every=False)
    yield from odd_prices(contract.rows, around.currency, place)
    references = _rows_hidden(contract, holding[-1]) if holding else {}
    yield from odd_scales(contract.rows, around.currency, place, references)
    if holding:
        yield from odd_contract_rows(contract, holding[-1], place)
    yield from odd_contract_terms(contract, holding, around.default_tariff, around.currency, place)
    yield from odd_fees_of_earlier(contract, around.facts.contracts[contract.customer], place)
    yield from odd_days_of_contract(span, tariffs, place)


def _rows_before(tariff: Tariff, name: str, earlier: Tariff) -> Mapping[int, tuple[str, PriceRow]]:
    """For each row the earlier version's row for the same models, regions and prompts."""
    before = {_for_what(row): row for row in reversed(earlier.rows)}
    return {
        at: (name, before[_for_what(row)]) for at, row in enumerate(tariff.rows) if _for_what(row) in before
    }


def _for_what(row: PriceRow) -> tuple[tuple[str, ...], tuple[str, ...], int | None]:
    return row.models, row.regions, row.prompt_over


def _rows_hidden(contract: Contract, tariff: Tariff) -> Mapping[int, tuple[str, PriceRow]]:
    found: dict[int, tuple[str, PriceRow]] = {}
    for at, row in enumerate(contract.rows):
        hidden = hidden_row(tariff.rows, row.models[0])
        if hidden is not None:
            found[at] = (f"tariff {tariff.version}", hidden)
    return found


def _calendar(tariff: Tariff, now: datetime) -> Calendar:
    year = max(now.year, (tariff.valid_from or now).year)
    name = tariff.holidays
    return Calendar(name, year, name is not None and is_calendar(name) and bool(calendar_days(name, year)))
