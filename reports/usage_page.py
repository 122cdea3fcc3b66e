"""The usage report as pages: totals, tables, how complete they are, and in plain words how they are made.

A page is for reading: of a very long table the PDF lists the rows with most tokens, says so, and names the
forms that hold all of them. Its sums are always over all rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from reports import figures
from reports.languages import Words, language_of, words
from reports.parties import seller_block
from reports.pdf import html, to_pdf
from reports.usage import FIGURES, SECTIONS, Row, UsageReport, is_due

LISTED_ROWS = 500
"""So many rows of one table are listed in a PDF."""

PRINTED = tuple(name for name in FIGURES if name != "unwitnessed_requests")
"""The figures that have a column on paper; the other one is told once, in a sentence."""

HEADLINES = ("requests", "prompt_tokens", "completion_tokens", "generated_tokens")
METHOD = ("method_counts", "method_proof", "method_time", "method_stored")


@dataclass(frozen=True, slots=True)
class _Table:
    """A table as printed: its title, a note, column heads, and cells of words and of figures."""

    title: str
    note: str
    heads: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]


def usage_pdf(report: UsageReport, language: str | None) -> bytes:
    """The report as the bytes of a PDF/A-3b in `language`, or in English where that has no words."""
    return to_pdf(usage_html(report, language_of(language)), "usage.css")


def usage_html(report: UsageReport, language: str) -> str:
    """The pages as HTML, before they are laid out; `language` is one of `languages.LANGUAGES`."""
    names = words(language)
    total = report.total
    return html(
        "usage.html",
        language=language,
        words=names,
        operator=report.operator,
        party=seller_block(report.operator, language),
        made_at=report.made_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        period=figures.month(report.period, language),
        facts=tuple(_facts(report, names, language)),
        whole=report.whole or report.whole_but_for_accepted_gaps,
        notice=names[f"{_status(report)}_notice"],
        unwitnessed=_unwitnessed(total, names, language),
        unfinished=tuple(_unfinished(each, names, language) for each in report.unfinished),
        gaps=tuple(_gap(gap, names, language) for gap in report.gaps),
        headlines=tuple((names[name], figures.quantity(total[name], language)) for name in HEADLINES),
        figure_heads=tuple((name, names[name]) for name in PRINTED),
        tables=tuple(_tables(report, names, language)),
        total=_figures(total, language),
        lanes=tuple(_lane(lane, names, language) for lane in report.lanes),
        method=tuple(names[name] for name in METHOD),
    )


def _facts(report: UsageReport, names: Words, language: str) -> Iterator[tuple[str, str]]:
    first, last = report.period.first_day, report.period.last_day
    yield names["period"], f"{figures.day(first, language)} – {figures.day(last, language)}"
    yield names["time_zone"], report.operator.timezone
    yield names["made_at"], figures.instant(report.made_at, language)
    yield names["status"], names[_status(report)]
    if any(map(is_due, report.lanes)):
        complete_to = report.complete_to
        yield (
            names["complete_to"],
            figures.instant(complete_to, language) if complete_to else names["nothing_yet"],
        )


def _status(report: UsageReport) -> str:
    if report.whole:
        return "whole"
    return "gaps_accepted" if report.whole_but_for_accepted_gaps else "not_whole"


def _unwitnessed(total: Row, names: Words, language: str) -> str:
    """How many requests have no figure of the engine's; nothing where all have."""
    if not total["unwitnessed_requests"]:
        return ""
    return names["unwitnessed_notice"].format(
        unwitnessed=figures.quantity(total["unwitnessed_requests"], language),
        all=figures.quantity(total["requests"], language),
    )


def _unfinished(each: Row, names: Words, language: str) -> str:
    """A sentence about an import that has begun and not ended."""
    return names[f"import_{each['state']}"].format(
        id=each["id"],
        file=each["file_sha256"][:16],
        counted=figures.quantity(each["counted"], language),
        rows=figures.quantity(each["rows"], language),
    )


def _gap(gap: Row, names: Words, language: str) -> tuple[tuple[str, ...], str]:
    instants = (figures.instant(datetime.fromisoformat(gap[name]), language) for name in ("from", "to"))
    what = names[f"gap_{gap['kind']}"]
    cells = (gap["node"], what, *instants, gap["reason"] or names["not_accepted"])
    return cells, "" if gap["requests"] is None else figures.quantity(gap["requests"], language)


def _tables(report: UsageReport, names: Words, language: str) -> Iterator[_Table]:
    for section, by in SECTIONS.items():
        yield _table(section, by, report.section(section), names, language)
    yield _table("day", ("day",), report.days, names, language)


def _table(section: str, by: Sequence[str], rows: Sequence[Row], names: Words, language: str) -> _Table:
    note = ""
    if len(rows) > LISTED_ROWS:
        listed = sorted(rows, key=_tokens, reverse=True)[:LISTED_ROWS]
        note = names["listed"].format(
            listed=figures.quantity(len(listed), language), all=figures.quantity(len(rows), language)
        )
        rows = listed
    return _Table(
        title=names[f"by_{section}"],
        note=note,
        heads=tuple(names[word] for word in by),
        rows=tuple(
            (tuple(_word(word, row[word], names, language) for word in by), _figures(row, language))
            for row in rows
        ),
    )


def _tokens(row: Row) -> int:
    tokens: int = row["prompt_tokens"] + row["completion_tokens"]
    return tokens


def _word(word: str, value: Any, names: Words, language: str) -> str:
    if value is None:
        return names["none"]
    if word == "day":
        return figures.day(date.fromisoformat(value[:10]), language)
    if word == "outcome":
        return names.get(f"outcome_{value}", value)
    return str(value)


def _figures(row: Row, language: str) -> tuple[str, ...]:
    return tuple(figures.quantity(row[name], language) for name in PRINTED)


def _lane(lane: Row, names: Words, language: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if lane["state"] == "unfinished":
        complete = names["not_finished"]
    elif lane["kind"] == "import":
        complete = names["by_declaration"]
    elif lane["complete_to"] is None:
        complete = names["nothing_yet"]
    else:
        complete = figures.instant(datetime.fromisoformat(lane["complete_to"]), language)
    counts = tuple(figures.quantity(lane[name], language) for name in ("holes", "held", "forks"))
    return (lane["node"], lane["lane"], complete), counts
