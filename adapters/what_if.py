"""`tally tariff simulate`: a tariff file, real usage, and what bills would come to.

The file is read and checked as `tally check` does, but for one rule: a version that issued documents used may well be asked
about, for nothing is applied. Facts, keys of the cache and usage are read in one snapshot of the operator's. What holds
now does not depend on the file, so it is kept (`adapters.kept_outcomes`). Periods are worked through by as many threads
as there are cores; columns are arithmetic that lets others run.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from adapters.kept_outcomes import documents_digest, keep_outcome, kept_outcome, outcome_path
from adapters.postgres.closes import load_closes
from adapters.postgres.database import Database
from adapters.postgres.site import operator_facts, site_reader
from adapters.site_files.findings import odd_things
from adapters.site_files.reading import SiteFiles, refuse_faults
from adapters.site_files.references import check_references
from adapters.site_files.versions import place_versions
from adapters.usage_cache import Prepared, prepared_usages
from billing.facts import Facts
from billing.holiday import with_holidays
from billing.meters import quantities_under
from billing.money import format_minor
from billing.period import Period
from billing.stored import StoredDocument
from billing.tariff_facts import tariff_from
from billing.what_if import PeriodOutcome, Shared, period_outcome
from billing.what_if_compared import Comparison, compared, with_tariff
from billing.what_if_too_large import too_large
from metering.refusal import Fault, Refusal

MOST_PERIODS = 120
"""Ten years."""


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What was asked and what came of it. `replaced`: versions of the tariff that is there; `put`: the file's.

    `warnings`: what is odd in the file, and what a close would not bill so."""

    operator: str
    currency: str
    tariff: str
    replaced: tuple[str, ...]
    put: tuple[str, ...]
    warnings: tuple[Fault, ...]
    comparison: Comparison


async def what_if(
    database: Database,
    files: SiteFiles,
    periods: Sequence[Period],
    operator: str | None,
    cache: Path,
    now: datetime,
) -> WhatIf:
    """Bills of `periods` now and with the tariff of `files`.

    Refusals: bad_site_files as `tally check`, no_tariff, several_tariffs, which_operator, quantity_overflow.
    """
    documents, warnings = await _checked(database, files, now)
    chosen = _chosen(documents, operator)
    owner = chosen[0].operator
    async with database.app(owner, snapshot=True) as connection:
        facts = await operator_facts(connection, owner)
        declared = facts.operator[-1]
        fixed: dict[Period, Mapping[str, Sequence[str]]] = {}
        for close in await load_closes(connection, owner):
            fixed[close.period] = close.facts.get("holidays", {})
        versions = [tariff_from(each, declared) for each in chosen]
        then = with_tariff(facts, versions)
        quantities = quantities_under(facts) | quantities_under(then)
        usage = await prepared_usages(connection, owner, periods, declared.zone, quantities, cache)
    comparison = await asyncio.to_thread(simulated, usage, facts, then, fixed)
    told = (*not_whole(periods, declared.zone, now), *refused_by_a_close(comparison, declared.currency))
    return WhatIf(
        operator=owner,
        currency=declared.currency,
        tariff=versions[0].id,
        replaced=tuple(version.version for version in facts.tariffs.get(versions[0].id, ())),
        put=tuple(version.version for version in then.tariffs[versions[0].id]),
        warnings=(*warnings, *told),
        comparison=comparison,
    )


def simulated(
    usage: Mapping[Period, Prepared],
    now: Facts,
    then: Facts,
    fixed: Mapping[Period, Mapping[str, Sequence[str]]],
) -> Comparison:
    """Both sides of every period; that of `now` is kept where it was read from documents. `fixed`: the holidays that a
    period's last close went by."""
    documents = documents_digest(now)

    def both(period: Period) -> tuple[PeriodOutcome, PeriodOutcome]:
        prepared, shared = usage[period], Shared()
        in_force = with_holidays(now, period, fixed.get(period))
        path = None if documents is None else outcome_path(prepared.folder, documents, in_force)
        one = None if path is None else kept_outcome(path)
        if one is None:
            one = period_outcome(prepared.runs, in_force, period, shared)
            if path is not None:
                keep_outcome(path, one)
        else:
            shared.segments[tuple(one.bills.customers)] = one.segments
        asked = with_holidays(then, period, fixed.get(period))
        return one, period_outcome(prepared.runs, asked, period, shared)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        outcomes = list(threads.map(both, usage))
    found = compared([one for one, _ in outcomes], [other for _, other in outcomes])
    return replace(
        found,
        too_large_now=tuple(each for one, _ in outcomes for each in too_large(one.bills, now, one.period)),
        too_large_then=tuple(
            each for _, other in outcomes for each in too_large(other.bills, then, other.period)
        ),
    )


def not_whole(periods: Sequence[Period], zone: ZoneInfo, now: datetime) -> Iterator[Fault]:
    """A warning of each period that has not ended at `now`: its figures are of usage so far, and of whole months' fees."""
    for period in periods:
        start, end = period.bounds(zone)
        if now < end:
            state = "is not over: usage so far" if now >= start else "has not begun: no usage yet"
            what = f"{period} {state}; fees, commitments and minimums are those of the whole month"
            yield Fault(what, remedy="a month that is over is what its close bills")


def refused_by_a_close(comparison: Comparison, currency: str) -> Iterator[Fault]:
    """A warning of each side that has bills which no close would draft."""
    for side, found in (("now", comparison.too_large_now), ("then", comparison.too_large_then)):
        if found:
            first, more = found[0], f", and {len(found) - 1} more like it" if len(found) > 1 else ""
            yield Fault(
                f"{side} {first.customer} would be asked for {format_minor(first.amount, currency)} {currency} for"
                f" {first.period}{more}: a close refuses that (amount_too_large)",
                remedy="look at the prices and the usage: see `tally usage --by customer,model`",
            )


async def _checked(
    database: Database, files: SiteFiles, now: datetime
) -> tuple[list[StoredDocument], tuple[Fault, ...]]:
    """The files' documents, and what is odd in them; `bad_site_files` with every fault otherwise."""
    async with site_reader(database) as store:
        stored = await store.load()
    faults = list(files.faults)
    placed = place_versions(files.documents, stored, now, faults)
    check_references(files.documents, placed, stored, faults)
    warnings = [*files.warnings, *odd_things(placed, stored, faults, now)]
    refuse_faults(faults, warnings)
    return [each.version for each in placed], tuple(warnings)


def _chosen(documents: Sequence[StoredDocument], operator: str | None) -> list[StoredDocument]:
    """The versions of the one tariff that the files hold, of `operator` where that is named; oldest first."""
    tariffs = [each for each in documents if each.kind == "tariff" and operator in (None, each.operator)]
    names = sorted({(each.operator, each.id) for each in tariffs})
    if not names:
        whose = f" of operator {operator}" if operator else ""
        raise Refusal(
            "no_tariff", f"the file holds no tariff{whose}", remedy="name a file with a `kind: tariff` in it"
        )
    if len({owner for owner, _ in names}) > 1:
        raise Refusal(
            "which_operator", "the file holds tariffs of several operators", remedy="name one with --operator"
        )
    if len(names) > 1:
        listed = ", ".join(name for _, name in names)
        raise Refusal(
            "several_tariffs",
            f"the file holds several tariffs: {listed}",
            remedy="put one into a file of its own",
        )
    ordered = sorted(tariffs, key=lambda each: each.valid_from or date.min)
    return [replace(each) for each in ordered]


def read_periods(texts: Sequence[str]) -> list[Period]:
    """`2026-10`, several of them, or ranges `2026-01..2026-12`, both ends included; ascending, each once. Refusals:
    bad_period."""
    found: set[Period] = set()
    for text in texts:
        first, between, last = text.partition("..")
        period, end = Period.parse(first), Period.parse(last if between else first)
        if end < period:
            raise Refusal(
                "bad_period", f"{text} ends before it begins", remedy="write the earlier month first"
            )
        while period <= end:
            found.add(period)
            period = period.next
            if len(found) > MOST_PERIODS:
                raise Refusal("bad_period", f"more than {MOST_PERIODS} periods", remedy="name fewer")
    return sorted(found)
