"""A version that takes another's place, one that only grows by hours of a price series, and which closes that touches.

A document with `supersedes: 2026-10-01` (or `first`, for the version without `valid_from`) and a `reason` is that
version from now on; the former is kept beside it, for ever. It is the one way to change what issued documents rest on:
the next close of each period that it touches bills the difference.

A price series is known day by day. So a version in use may be applied again with further hours behind its series, as
long as these begin where nothing has been issued yet; nothing that was rated changes by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from billing.period import Period
from billing.stored import StoredDocument

RATED_BY = ("operator", "node", "customer", "tariff", "contract")
"""Kinds that a bill rests on; parties and shares speak about settlements."""


@dataclass(frozen=True, slots=True)
class ReRate:
    """A period that was closed, and that its next close rates anew."""

    operator: str
    period: Period

    def to_json(self) -> dict[str, str]:
        return {"operator": self.operator, "period": str(self.period)}


@dataclass(frozen=True, slots=True)
class Change:
    """Local days [begin, end) that an operator's usage is rated otherwise in than before."""

    operator: str
    begin: date
    end: date


def same_content(stated: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
    """Whether a document says what is stored. One that no longer says what it superseded, and why, says the same."""
    return stated == stored or ("supersedes" not in stated and stated == _without_reason(stored))


def with_reason(stated: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """What a document states, with what the stored version superseded and why, where it says nothing of that."""
    kept = (
        {}
        if "supersedes" in stated
        else {key: stored[key] for key in ("supersedes", "reason") if key in stored}
    )
    return {**stated, **kept}


def _without_reason(body: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key not in ("supersedes", "reason")}


def further_hours(before: StoredDocument, after: StoredDocument) -> datetime | None:
    """Where the first of the appended hours begins, if `after` is `before` with longer series and nothing else."""
    if before.valid_from != after.valid_from or _without_windows(before) != _without_windows(after):
        return None
    windows = before.body.get("windows", ()), after.body.get("windows", ())
    if len(windows[0]) != len(windows[1]):
        return None
    begins: list[datetime] = []
    for old, new in zip(*windows, strict=True):
        if old == new:
            continue
        known = len(old.get("series", {}).get("prices", ()))
        if not known or "series" not in new or _cut(new, known) != old:
            return None
        begins.append(datetime.fromisoformat(old["series"]["first"]) + timedelta(hours=known))
    return min(begins, default=None)


def _without_windows(version: StoredDocument) -> dict[str, Any]:
    return {key: value for key, value in version.body.items() if key != "windows"}


def _cut(window: Mapping[str, Any], hours: int) -> dict[str, Any]:
    """The window with so many hours of its series."""
    series = window["series"]
    return {**window, "series": {**series, "prices": series["prices"][:hours]}}


def re_rates(changes: Sequence[Change], closed: Mapping[str, Sequence[Period]]) -> tuple[ReRate, ...]:
    """The closed periods that hold a day of a change, by operator and time."""
    found = {
        ReRate(change.operator, period)
        for change in changes
        for period in closed.get(change.operator, ())
        if period.first_day < change.end and period.next.first_day > change.begin
    }
    return tuple(sorted(found, key=lambda each: (each.operator, each.period)))
