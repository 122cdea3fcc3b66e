"""Terms: which tariff and contract versions hold for a customer in an hour, and which of their rows prices
a model.

Arithmetic rules 2 and 3. Versions begin and end at local midnights, so a period falls into a few stretches
within which nothing changes; the terms are looked up once per customer and stretch, never per row of usage.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from itertools import islice
from zoneinfo import ZoneInfo

from billing.facts import Facts, tariff_in_force_at
from billing.hourly import hour_number
from billing.period import midnight
from billing.site import Version, in_force_at
from billing.tariff import METERS, Contract, PriceRow, Pricing, Tariff

NO_PRICE_ROW = "no price row matches"


@dataclass(frozen=True, slots=True)
class Terms:
    """A tariff version and the contract version on top of it, if there is one."""

    tariff: Tariff
    contract: Contract | None

    @property
    def contract_version(self) -> str | None:
        return self.contract.version if self.contract else None

    def rows(self) -> Iterator[tuple[str, PriceRow]]:
        """Price rows in the order in which they are tried, with their names: contract:1, …, tariff:1, …"""
        contract_rows: Sequence[PriceRow] = self.contract.rows if self.contract else ()
        for number, row in enumerate(contract_rows, 1):
            yield f"contract:{number}", row
        for number, row in enumerate(self.tariff.rows, 1):
            yield f"tariff:{number}", row


@dataclass(frozen=True, slots=True)
class TermsRow:
    """A price row within its terms: the pool that tiers count in, together with customer and meter.

    `rank`: its place, from 0, in the order in which the rows of these terms are tried.
    """

    terms: Terms
    name: str
    row: PriceRow
    tariff_version: str
    contract_version: str | None
    rank: int

    def pricing(self, meter: str) -> Pricing | None:
        return self.row.prices.get(meter)

    def prices(self) -> tuple[bool, ...]:
        """For each of METERS, whether the row prices it itself."""
        return tuple(meter in self.row.prices for meter in METERS)


def matching_row(terms: Terms, model: str, region: str, band: int = 0) -> TermsRow | None:
    """The first row that matches, which prices all meters (rule 3); `band`: the lower bound of the prompt band."""
    rank = first_match([row for _, row in terms.rows()], model, region, band)
    return None if rank is None else terms_row(terms, rank)


def first_match(rows: Sequence[PriceRow], model: str, region: str, band: int) -> int | None:
    """The place of the first of `rows` that matches."""
    for place, row in enumerate(rows):
        if row.matches(model, region, band):
            return place
    return None


def terms_row(terms: Terms, rank: int) -> TermsRow:
    """The row that is tried as the `rank`-th, from 0."""
    name, row = next(islice(terms.rows(), rank, None))
    return TermsRow(terms, name, row, terms.tariff.version, terms.contract_version, rank)


def terms_at(facts: Facts, customer: str, instant: datetime, zone: ZoneInfo) -> Terms | str:
    """The terms of a customer at an aware instant, or why there are none (rule 2). `zone` is the
    operator's.
    """
    contract = in_force_at(facts.contracts.get(customer, ()), instant, zone)
    operator = in_force_at(facts.operator, instant, zone)
    default = operator.default_tariff if operator else None
    tariff = tariff_or_why(facts, contract.tariff if contract else default, instant)
    return tariff if isinstance(tariff, str) else Terms(tariff, contract)


def tariff_or_why(facts: Facts, name: str | None, instant: datetime) -> Tariff | str:
    """The version of a tariff in force at an aware instant, or why there is none. `name` None: nobody names one."""
    if name is None:
        return "there is no contract and no default_tariff of the operator then"
    tariff = tariff_in_force_at(facts.tariffs.get(name, ()), instant)
    return tariff or f"no version of tariff {name} is in force then"


def region_at(facts: Facts, node: str, instant: datetime, zone: ZoneInfo) -> str | None:
    """The node's region at an aware instant; None where the node was not declared then."""
    version = in_force_at(facts.nodes.get(node, ()), instant, zone)
    return version.region if version else None


def stretches(facts: Facts, start: datetime, end: datetime, zone: ZoneInfo) -> list[int]:
    """The hours in [start, end) at which any fact changes, `start` first: within a stretch all versions
    stay.
    """
    cached_midnight = lru_cache(maxsize=None)(midnight)
    hours = {hour_number(start)}
    groups: list[tuple[Iterable[Version], ZoneInfo]] = [(facts.operator, zone)]
    groups += [(versions, zone) for versions in facts.nodes.values()]
    groups += [(versions, zone) for versions in facts.contracts.values()]
    groups += [((version,), version.zone) for versions in facts.tariffs.values() for version in versions]
    for versions, local in groups:
        for version in versions:
            for day in _edges(version):
                instant = cached_midnight(day, local)
                if start < instant < end:
                    hours.add(hour_number(instant))
    return sorted(hours)


def _edges(version: Version) -> Iterator[date]:
    if version.valid_from is not None:
        yield version.valid_from
    if version.valid_until is not None:
        yield version.valid_until
