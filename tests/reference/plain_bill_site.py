"""A site file for the slow bill: its YAML as it stands, every scalar text, and which of it holds when and for whom.

Shares no code with what it checks. It answers rule 2 (versions in force), the row of rule 3 and the window of rule 4.
Answers are remembered by what was asked, and by nothing else: that is all its speed.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import holidays
import yaml

Version = Mapping[str, Any]
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # leaves every scalar the text that it is
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, eq=False)
class Terms:
    """The tariff version of an hour, and the contract version above it, with their names."""

    tariff: Version
    contract: Version | None
    tariff_name: str
    contract_name: str | None


@dataclass(frozen=True, eq=False)
class Row:
    """A price row. `rank` is its place among those that are tried: the contract's first, then file order."""

    name: str
    rank: int
    prices: Version


class UncoveredError(Exception):
    """A window holds whose price series says nothing about the hour."""


class Site:
    """One operator's documents."""

    def __init__(self, text: str) -> None:
        by_kind: dict[str, dict[str, list[Version]]] = defaultdict(lambda: defaultdict(list))
        for each in filter(None, yaml.load_all(text, _LOADER)):
            named = {"contract": "customer", "share": "operator"}.get(each["kind"], "id")
            by_kind[each["kind"]][each[named]].append(each)
        self.versions = {
            kind: {name: sorted(each, key=begin) for name, each in of_kind.items()}
            for kind, of_kind in by_kind.items()
        }
        [self.operators] = self.versions["operator"].values()
        self.zone = ZoneInfo(self.operators[0]["timezone"])
        #: How many minor units (cents) a major one has; the krona of Iceland has none.
        self.minor = 1 if self.operators[0]["currency"] == "ISK" else 100
        self._terms: dict[tuple[str, datetime], Terms | None] = {}
        self._pairs: dict[tuple[int, int], Terms] = {}
        self._rows: dict[tuple[Terms, str, str, int], Row | None] = {}
        self._windows: dict[tuple[int, datetime], tuple[str, Fraction] | None] = {}
        self._holidays: dict[tuple[str, int], Any] = {}

    def in_force(self, kind: str, name: str, day: date) -> Version | None:
        """The version that holds on a local day of the operator."""
        return in_force(self.versions.get(kind, {}).get(name, []), day)

    def terms(self, customer: str, at: datetime) -> Terms | None:
        """Rule 2. None: no tariff version is in force."""
        if (customer, at) not in self._terms:
            self._terms[customer, at] = self._terms_at(customer, at)
        return self._terms[customer, at]

    def _terms_at(self, customer: str, at: datetime) -> Terms | None:
        day = at.astimezone(self.zone).date()
        contract = self.in_force("contract", customer, day)
        operator = in_force(self.operators, day)
        wanted = contract["tariff"] if contract else (operator or {}).get("default_tariff")
        tariff = self.tariff(wanted, at)
        if tariff is None:
            return None
        name = version_name(contract, customer) if contract else None
        made = Terms(tariff, contract, version_name(tariff, tariff["id"]), name)
        return self._pairs.setdefault((id(tariff), id(contract)), made)

    def tariff(self, name: str | None, at: datetime) -> Version | None:
        """The tariff version at an instant; each begins and ends in its own zone."""
        begun = [
            each
            for each in self.versions.get("tariff", {}).get(name or "", [])
            if begin(each) <= at.astimezone(self.tariff_zone(each)).date()
        ]
        if not begun or ended(begun[-1], at.astimezone(self.tariff_zone(begun[-1])).date()):
            return None
        return begun[-1]

    def tariff_zone(self, tariff: Version) -> ZoneInfo:
        return ZoneInfo(tariff["timezone"]) if "timezone" in tariff else self.zone

    def region(self, node: str, at: datetime) -> str:
        version = self.in_force("node", node, at.astimezone(self.zone).date())
        return version["region"] if version else ""

    def row(self, terms: Terms, model: str, region: str, prompt: int) -> Row | None:
        """Rule 3: the first row that matches."""
        asked = (terms, model, region, prompt)
        if asked not in self._rows:
            self._rows[asked] = _first_row(terms, model, region, prompt)
        return self._rows[asked]

    def window(self, tariff: Version, hour: datetime) -> tuple[str, Fraction]:
        """Rule 4: (name, factor) of a UTC hour. A step of a series window is `name:1`, `name:2` …"""
        asked = (id(tariff), hour)
        if asked not in self._windows:
            self._windows[asked] = self._window_at(tariff, hour)
        found = self._windows[asked]
        if found is None:
            raise UncoveredError
        return found

    def _window_at(self, tariff: Version, hour: datetime) -> tuple[str, Fraction] | None:
        local = hour.astimezone(self.tariff_zone(tariff))
        for window in tariff.get("windows", []):
            if not self._holds(tariff, window, local.date(), local.hour):
                continue
            if "factor" in window:
                return window["name"], number(window["factor"])
            price = _price_of_hour(window["series"], hour)
            return None if price is None else _step(window, price)
        return "base", Fraction(1)

    def _holds(self, tariff: Version, window: Version, day: date, hour: int) -> bool:
        first, last = (int(each.split(":")[0]) for each in window.get("hours", "00:00-24:00").split("-"))
        if first < last:
            return first <= hour < last and self._is_day_of(tariff, window, day)
        if hour >= first:
            return self._is_day_of(tariff, window, day)
        return hour < last and self._is_day_of(tariff, window, day - timedelta(days=1))

    def _is_day_of(self, tariff: Version, window: Version, day: date) -> bool:
        days = window.get("days", _DAYS)
        return _DAYS[day.weekday()] in days or ("holiday" in days and self._is_holiday(tariff, day))

    def _is_holiday(self, tariff: Version, day: date) -> bool:
        calendar = tariff.get("holidays", self.operators[0]["country"])
        if (calendar, day.year) not in self._holidays:
            country, _, part = calendar.partition("-")
            listed = holidays.country_holidays(country, subdiv=part or None, years=day.year)
            self._holidays[calendar, day.year] = set(listed)
        return day in self._holidays[calendar, day.year]


def begin(version: Version) -> date:
    return date.fromisoformat(version["valid_from"]) if "valid_from" in version else date.min


def ended(version: Version, day: date) -> bool:
    return "valid_until" in version and date.fromisoformat(version["valid_until"]) <= day


def in_force(versions: list[Version], day: date) -> Version | None:
    """The newest of them (oldest first) that has begun, unless it has ended."""
    begun = [each for each in versions if begin(each) <= day]
    return begun[-1] if begun and not ended(begun[-1], day) else None


def version_name(version: Version, identity: str) -> str:
    return f"{identity}@{version['valid_from']}" if "valid_from" in version else identity


def number(text: str) -> Fraction:
    """Of "50_000_000", "1.60" or "15%" (percent points)."""
    return Fraction(text.replace("_", "").removesuffix("%"))


def _first_row(terms: Terms, model: str, region: str, prompt: int) -> Row | None:
    contract_rows = terms.contract.get("prices", []) if terms.contract else []
    rows = [(f"contract:{n}", row) for n, row in enumerate(contract_rows, 1)]
    rows += [(f"tariff:{n}", row) for n, row in enumerate(terms.tariff.get("prices", []), 1)]
    for rank, (name, row) in enumerate(rows):
        if (
            any(_glob(each, model) for each in row["models"])
            and any(_glob(each, region) for each in row.get("regions", ["*"]))
            and ("prompt_over" not in row or prompt > number(row["prompt_over"]))
        ):
            return Row(name, rank, row)
    return None


def _glob(pattern: str, text: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None


def _price_of_hour(series: Version, hour: datetime) -> Fraction | None:
    place = (hour - datetime.fromisoformat(series["first"])) // timedelta(hours=1)
    return number(series["prices"][place]) if 0 <= place < len(series["prices"]) else None


def _step(window: Version, price: Fraction) -> tuple[str, Fraction]:
    for place, step in enumerate(window["steps"], 1):
        if "up_to" not in step or price <= number(step["up_to"]):
            return f"{window['name']}:{place}", number(step["factor"])
    raise AssertionError("the last step has no end")
