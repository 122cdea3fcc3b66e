"""`tally tariff show` and `sheet`: the tariff that was named, at a time that was named, with what its prices rest on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from adapters import answers
from adapters.postgres.closes import load_closes
from adapters.postgres.database import Database
from billing.facts import Facts
from billing.holiday import asks_for_holidays, calendar_days
from billing.period import Period, midnight
from billing.prices_asked import (
    Question,
    check_region,
    prices_in_force,
    regions_at,
    version_in_force,
    with_holidays_ahead,
)
from billing.prices_in_force import all_rows
from billing.tariff import Tariff
from billing.terms import Terms
from metering.refusal import Refusal
from reports.languages import SHEET_LANGUAGES, language_of
from reports.prices import prices_json

_YEARS = range(2000, 2200)
"""Years that may be asked for; calendars of holidays know little beyond."""


@dataclass(frozen=True, slots=True)
class SheetAsked:
    """Which sheet: of `tariff`, of one region or all, in a language or the operator's, on a day or now."""

    tariff: str
    region: str | None
    language: str | None
    at: str | None
    format: str


async def tariff_show(
    database: Database, operator: str | None, question: Question, at: str | None, now: datetime
) -> dict[str, Any]:
    """The prices that hold at the time `at` (None: `now`), as JSON; `question`'s own instant does not count.

    Refusals: unknown_operator, unknown_tariff, which_operator, bad_time, ambiguous_time and those of
    `billing.prices_asked`.
    """
    owner, facts = await _find(database, operator, question.tariff)
    instant = now if at is None else read_instant(at, _zone(facts, question.tariff))
    month = Period.holding(instant, facts.operator[-1].zone)
    async with database.app(owner) as connection:
        closes = await load_closes(connection, owner, period=month)
    fixed = closes[-1].facts.get("holidays", {}) if closes else {}

    def answered() -> dict[str, Any]:
        ahead = with_holidays_ahead(facts, instant, fixed)
        return prices_json(prices_in_force(ahead, replace(question, instant=instant)))

    return await asyncio.to_thread(answered)


async def tariff_sheet(
    database: Database, operator: str | None, asked: SheetAsked, now: datetime
) -> tuple[bytes, dict[str, Any]]:
    """The price sheet as a file's bytes, and what it is: {tariff_version, regions, language, format, next}.

    `next`: {tariff_version, valid_from} of the version that follows the one on the sheet, or None.

    Refusals: unknown_format, unknown_language, unknown_operator, unknown_tariff, which_operator, bad_time,
    not_in_force, unknown_region.
    """
    # These load the page layout, which `show` does not need.
    from reports.formats import PRICE_SHEET, media_type, render_price_sheet
    from reports.price_sheet import PriceSheet

    media_type(PRICE_SHEET, asked.format)
    owner, facts = await _find(database, operator, asked.tariff)
    zone = _zone(facts, asked.tariff)
    instant = now if asked.at is None else midnight(_read_day(asked.at), zone)
    versions = facts.tariffs[asked.tariff]
    tariff = version_in_force(versions, instant)
    declared = facts.operator[-1]
    language = _language(asked.language, declared.language)
    if asked.region is not None:
        check_region(facts, all_rows(Terms(tariff, None), None, None), asked.region, instant)
    day = instant.astimezone(tariff.zone).date()
    sheet = PriceSheet(
        declared,
        tariff,
        day,
        _until(versions, tariff),
        (asked.region,) if asked.region is not None else tuple(regions_at(facts, instant)),
        _holidays(tariff, day.year),
    )
    content = await asyncio.to_thread(render_price_sheet, sheet, language, asked.format)
    return content, {
        "operator": owner,
        "tariff_version": tariff.version,
        "regions": list(sheet.regions),
        "language": language,
        "format": asked.format,
        "next": _following(versions, tariff),
    }


async def _find(database: Database, operator: str | None, tariff: str) -> tuple[str, Facts]:
    """The operator that has the tariff, and its facts."""
    found: dict[str, Facts] = {}
    known: set[str] = set()
    for owner in await answers.named_operators(database, operator):
        facts = await answers.facts_of(database, owner)
        known |= set(facts.tariffs)
        if tariff in facts.tariffs:
            found[owner] = facts
    if not found:
        raise Refusal(
            "unknown_tariff",
            f"no such tariff: {tariff}",
            where="ID",
            remedy=f"declared are: {', '.join(sorted(known))}" if known else "declare it with tally apply",
        )
    if len(found) > 1:
        raise Refusal(
            "which_operator",
            f"several operators have a tariff {tariff}: {', '.join(found)}",
            where="--operator",
            remedy="name one of them",
        )
    return next(iter(found.items()))


def _zone(facts: Facts, tariff: str) -> ZoneInfo:
    return facts.tariffs[tariff][-1].zone


def _until(versions: tuple[Tariff, ...], tariff: Tariff) -> date | None:
    """The first day on which a version no longer holds: its own last, or the next one's first."""
    following = versions[versions.index(tariff) + 1 :]
    ends = [tariff.valid_until, *(each.valid_from for each in following[:1])]
    return min((day for day in ends if day is not None), default=None)


def _following(versions: tuple[Tariff, ...], tariff: Tariff) -> dict[str, str] | None:
    for each in versions[versions.index(tariff) + 1 :]:
        return {"tariff_version": each.version, "valid_from": str(each.valid_from)}
    return None


def _holidays(tariff: Tariff, year: int) -> tuple[date, ...]:
    """In order; none where no window asks for them: only then is the calendar one that there is."""
    if tariff.holidays is None or not any(map(asks_for_holidays, tariff.windows)):
        return ()
    return tuple(sorted(calendar_days(tariff.holidays, year)))


def _language(asked: str | None, operators: str) -> str:
    if asked is None:
        return language_of(operators, SHEET_LANGUAGES)
    found = language_of(asked, SHEET_LANGUAGES)
    if asked.replace("_", "-").partition("-")[0].lower() != found:
        raise Refusal(
            "unknown_language",
            f"price sheets are not written in {asked}",
            where="--language",
            remedy=f"one of: {', '.join(SHEET_LANGUAGES)}",
        )
    return found


def _read_day(text: str) -> date:
    try:
        day = date.fromisoformat(text) if len(text) == len("2026-10-25") else None
    except ValueError:
        day = None
    if day is None:
        raise Refusal("bad_time", f"not a day: {text}", where="--at", remedy="write it as 2026-10-25")
    _check_year(day, text)
    return day


def _check_year(day: date, text: str) -> None:
    if day.year not in _YEARS:
        raise Refusal(
            "bad_time",
            f"{text} is out of range: prices are asked for in the years {_YEARS[0]} to {_YEARS[-1]}",
            where="--at",
            remedy=f"name a day from {_YEARS[0]}-01-01 to {_YEARS[-1]}-12-31",
        )


def read_instant(text: str, zone: ZoneInfo) -> datetime:
    """A time with its offset, a local time of `zone` that is one instant only, or a local day's midnight.

    Refusals: bad_time, and ambiguous_time with both meanings for an hour that the clock shows twice.
    """
    moment = answers.read_moment(text, zone)
    if moment is None:
        raise Refusal(
            "bad_time",
            f"not a time: {text}",
            where="--at",
            remedy="write it as 2026-10-25T03:30+03:00, or a local time or day as 2026-10-25",
        )
    _check_year(moment, text)
    if moment.tzinfo is not None:
        return moment.astimezone(UTC)
    first, second = (moment.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    if first.utcoffset() == second.utcoffset():
        return first.astimezone(UTC)
    meanings = f"{first.isoformat(timespec='minutes')} or {second.isoformat(timespec='minutes')}"
    if first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == moment:
        raise Refusal(
            "ambiguous_time",
            f"the clocks of {zone.key} show {moment:%H:%M} twice on {moment:%Y-%m-%d}",
            where="--at",
            remedy=f"say which: {meanings}",
        )
    raise Refusal(
        "bad_time",
        f"the clocks of {zone.key} skip {moment:%H:%M} on {moment:%Y-%m-%d}",
        where="--at",
        remedy=f"name an hour that there is, or the offset that is meant: {meanings}",
    )
