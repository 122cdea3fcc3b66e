"""The billing period: a calendar month in the operator's zone, and the UTC hours that it holds.

October 2026 in Vilnius is [2026-09-30T21:00Z, 2026-10-31T22:00Z): 745 hours, because a night in it has two
hours named 03. Zones whose offset is not whole hours are refused where site files are read, so months begin
on UTC hours.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

from metering.refusal import Refusal

_PERIOD = re.compile(r"([0-9]{4})-([0-9]{2})")


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """A calendar month; `str` gives "2026-10". Periods sort by time."""

    year: int
    month: int

    def __post_init__(self) -> None:
        assert 2000 <= self.year <= 9998, self.year
        assert 1 <= self.month <= 12, self.month

    @classmethod
    def parse(cls, text: str) -> Period:
        """Read "2026-10"; refuses (`bad_period`) anything else."""
        match = _PERIOD.fullmatch(text)
        year, month = (int(match[1]), int(match[2])) if match else (0, 0)
        if not (2000 <= year <= 9998 and 1 <= month <= 12):
            what, remedy = f"{text!r} is not a billing period", "write a month as 2026-10"
            if 1 <= month <= 12:
                what, remedy = (
                    f"{what}: there are those of the years 2000 to 9998",
                    "name a month from 2000-01 to 9998-12",
                )
            raise Refusal("bad_period", what, remedy=remedy)
        return cls(year, month)

    @classmethod
    def holding(cls, instant: datetime, zone: ZoneInfo) -> Period:
        """The period that an aware `instant` belongs to in `zone` (rule 1)."""
        assert instant.tzinfo is not None
        local = instant.astimezone(zone)
        return cls(local.year, local.month)

    def __str__(self) -> str:
        return f"{self.year:04}-{self.month:02}"

    @property
    def days(self) -> int:
        return monthrange(self.year, self.month)[1]

    @property
    def first_day(self) -> date:
        return date(self.year, self.month, 1)

    @property
    def last_day(self) -> date:
        return date(self.year, self.month, self.days)

    @property
    def next(self) -> Period:
        return Period(self.year + 1, 1) if self.month == 12 else Period(self.year, self.month + 1)

    @property
    def previous(self) -> Period:
        return Period(self.year - 1, 12) if self.month == 1 else Period(self.year, self.month - 1)

    def bounds(self, zone: ZoneInfo) -> tuple[datetime, datetime]:
        """(start, end) in UTC, end exclusive: the local midnights that begin this month and the next."""
        return midnight(self.first_day, zone), midnight(self.next.first_day, zone)


def within_calendar(day: date) -> bool:
    """Whether a day (or time) has a time in every zone: what Python counts ends with the years 1 and 9999."""
    return date.min.year < day.year < date.max.year


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """The UTC instant at which the local `day` begins; where midnight is skipped, the end of the gap."""
    return datetime.combine(day, time(0), tzinfo=zone).astimezone(UTC)
