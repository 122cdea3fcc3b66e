"""The usage report: what an operator's nodes served in a period, for its auditors, customers and regulators.

It is made from rows as `tally usage` prints them, grouped by DETAIL and by DAYS in one snapshot, and from the
rows of `tally streams`; every other table is a sum of DETAIL, so that no two of them can disagree.

    usage_csv(report.detail)   one table for a spreadsheet, RFC 4180
    usage_json(report)         everything, in the words of `tally usage` and `tally streams`
    usage_pdf(report, "en")    pages for a person (`reports.usage_page`)

Customers stand under their ids. No name of a person, no prompt and no output is in it, for none is stored.
"""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from billing.gaps import INCOMPLETE
from billing.period import Period
from billing.site import Operator

FIGURES = (
    "requests",
    "aborted",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "generated_tokens",
    "audio_seconds",
    "unwitnessed_requests",
)
"""The figures of a row of usage, in the order of `tally usage`. `unwitnessed_requests`: those of `requests` whose
generated tokens the engine itself did not tell; they are billed as delivered."""

DETAIL = ("customer", "model", "region", "outcome")
DAYS = ("day",)

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "customer": ("customer", "model"),
    "model": ("model",),
    "region": ("region",),
    "outcome": ("outcome",),
}
"""The tables that are sums of DETAIL, and what each is grouped by."""

Row = Mapping[str, Any]

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class UsageReport:
    """An operator's usage of a period. `made_at` is UTC; `lanes` are rows of `tally streams`, `gaps` what is not
    there (`billing.gaps.gap_json`), accepted with a reason or not yet, `unfinished` the imports into the period that have
    begun and not ended (`billing.unfinished_import.unfinished_json`).
    """

    operator: Operator
    period: Period
    made_at: datetime
    detail: tuple[Row, ...]
    days: tuple[Row, ...]
    lanes: tuple[Row, ...]
    gaps: tuple[Row, ...] = ()
    unfinished: tuple[Row, ...] = ()

    @property
    def total(self) -> dict[str, int]:
        return _sum(self.detail)

    @property
    def complete_to(self) -> datetime | None:
        """Up to when every due lane is complete; None where one has sent nothing yet, or none is due."""
        due = [lane["complete_to"] for lane in self.lanes if is_due(lane)]
        if not due or None in due:
            return None
        return min(datetime.fromisoformat(instant) for instant in due)

    @property
    def whole(self) -> bool:
        """Whether nothing of the period can be missing: it is over, every due lane is complete beyond its end,
        no batch of any lane is missing, held or doubled, no import is half taken in or back, and nothing was served
        unmetered.
        """
        return not self.gaps and self._is_complete(frozenset())

    @property
    def whole_but_for_accepted_gaps(self) -> bool:
        """Whether somebody accepted, with a reason, all that is not there, and nothing else of the period can be missing."""
        excused = frozenset(gap["node"] for gap in self.gaps if gap["kind"] == INCOMPLETE)
        accepted = all(gap["reason"] is not None for gap in self.gaps)
        return bool(self.gaps) and accepted and self._is_complete(excused)

    def _is_complete(self, excused: Set[str]) -> bool:
        _, end = self.period.bounds(self.operator.zone)
        if self.unfinished or self.made_at < end:
            return False
        if any(lane["holes"] or lane["held"] or lane["forks"] for lane in self.lanes):
            return False
        asked = [lane["complete_to"] for lane in self.lanes if is_due(lane) and lane["node"] not in excused]
        return all(told is not None and datetime.fromisoformat(told) >= end for told in asked)

    def section(self, name: str) -> tuple[Row, ...]:
        """The rows of a table of SECTIONS, sorted by what they are grouped by."""
        by = SECTIONS[name]
        groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for row in self.detail:
            groups[tuple(row[word] for word in by)].append(row)
        ordered = sorted(groups.items(), key=lambda item: [(value is not None, value) for value in item[0]])
        return tuple(dict(zip(by, key, strict=True)) | _sum(rows) for key, rows in ordered)


def usage_report(
    operator: Operator,
    period: Period,
    *,
    detail: Sequence[Row],
    days: Sequence[Row],
    lanes: Sequence[Row],
    made_at: datetime,
    gaps: Sequence[Row] = (),
    unfinished: Sequence[Row] = (),
) -> UsageReport:
    """The report from what was read in one snapshot: usage rows by DETAIL and by DAYS, the operator's `gaps` and
    `unfinished` imports, and `tally streams`' `lanes`, of which those of other operators are left out. `made_at` is aware.
    """
    assert made_at.utcoffset() is not None, "instants are aware"
    assert _sum(detail) == _sum(days), "both tables are of one snapshot"
    return UsageReport(
        operator=operator,
        period=period,
        made_at=made_at.astimezone(UTC),
        detail=tuple(detail),
        days=tuple(days),
        lanes=tuple(lane for lane in lanes if lane["operator"] == operator.id),
        gaps=tuple(gaps),
        unfinished=tuple(unfinished),
    )


def is_due(lane: Row) -> bool:
    """Whether a lane still has to say that it is complete: imports are so by declaration, ended and retired ones forever."""
    return bool(lane["due"])


def usage_json(report: UsageReport) -> dict[str, Any]:
    """The whole report as JSON: `rows` and `total` as `tally usage` has them (by DETAIL), the sums under `by`."""
    start, end = report.period.bounds(report.operator.zone)
    return {
        "operator": report.operator.id,
        "period": str(report.period),
        "time_zone": report.operator.timezone,
        "from": _instant(start),
        "to": _instant(end),
        "made_at": _instant(report.made_at),
        "whole": report.whole,
        "complete_to": _instant(report.complete_to) if report.complete_to else None,
        "rows": [dict(row) for row in report.detail],
        "by": {
            **{name: [dict(row) for row in report.section(name)] for name in SECTIONS},
            "day": [dict(row) for row in report.days],
        },
        "total": report.total,
        "lanes": [dict(lane) for lane in report.lanes],
        "gaps": [dict(gap) for gap in report.gaps],
        "unfinished_imports": [dict(each) for each in report.unfinished],
    }


def usage_csv(rows: Iterable[Row], by: Sequence[str] = DETAIL) -> bytes:
    """Rows of usage as CSV: a header line, then `by` and FIGURES, UTF-8, RFC 4180 (CRLF, quotes where needed).

    Nothing else is in it: what is not there, and which gaps were accepted, stands in the JSON and on the pages. Text that
    a spreadsheet would take for a formula (it begins with = + - @ or a control character) gets an apostrophe before it.
    What is absent is empty.

    >>> usage_csv([{"day": "=1+1"} | dict.fromkeys(FIGURES, 0)], by=["day"]).splitlines()[1]
    b"'=1+1,0,0,0,0,0,0,0,0,0"
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([*by, *FIGURES])
    for row in rows:
        writer.writerow([*(_cell(row[word]) for word in by), *(int(row[name]) for name in FIGURES)])
    return text.getvalue().encode()


def _cell(value: str | None) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _sum(rows: Iterable[Row]) -> dict[str, int]:
    total: Counter[str] = Counter(dict.fromkeys(FIGURES, 0))
    for row in rows:
        for name in FIGURES:
            total[name] += row[name]
    return dict(total)


def _instant(value: datetime) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
