"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated

import typer

from billing.period import Period, within_calendar
from metering.refusal import Refusal

PeriodOption = Annotated[str | None, typer.Option("--period", metavar="P", help="A calendar month: 2026-10.")]
OperatorOption = Annotated[
    str | None, typer.Option("--operator", metavar="O", help="One operator. Default: all of them.")
]
CustomerOption = Annotated[str | None, typer.Option("--customer", metavar="C", help="One customer.")]


def read_period(text: str | None) -> Period | None:
    """The month that was typed, if one was. Refusals: bad_period."""
    if text is None:
        return None
    with about("--period"):
        return Period.parse(text)


@contextmanager
def about(where: str, remedy: str = "") -> Iterator[None]:
    """Adds to a refusal of the block what only the command knows: which option or file it is of, and what to do."""
    try:
        yield
    except Refusal as refusal:
        raise Refusal(
            refusal.code,
            refusal.what,
            where=refusal.where or where,
            remedy=refusal.remedy or remedy,
            faults=refusal.faults,
            extra=refusal.extra,
        ) from None


def read_time(text: str | None, where: str) -> datetime | None:
    """An RFC 3339 time with its zone. Refusals: bad_time."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or not within_calendar(moment):
        raise Refusal(
            "bad_time", f"not a time with a zone: {text}", where=where, remedy="2026-10-05T08:00:00Z"
        )
    return moment
