"""Numbers of issued documents: patterns, and the gap-free series that they draw from.

A pattern is text with `{n}` or `{n:06}` (padded with zeros to that width) once, and `{yyyy}` (the year of
issue) at most once: "TLC-{yyyy}-{n:06}" gives TLC-2026-000042. There is one series per legal entity and
kind of document, without gaps; where the pattern holds {yyyy}, one per year. Two kinds never share a
pattern, or they would share numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from billing.ports import Series
from metering.refusal import Refusal

DEFAULT_PATTERNS = {
    "invoice": "INV-{yyyy}-{n:06}",
    "credit_note": "CN-{yyyy}-{n:06}",
    "self_billed_invoice": "SB-{yyyy}-{n:06}",
    "self_billed_credit_note": "SBCN-{yyyy}-{n:06}",
    "prepayment_invoice": "PP-{yyyy}-{n:06}",
}
_FIELD = re.compile(r"\{([^{}]*)\}")
_COUNT = re.compile(r"n(?::0([1-9]))?")


def check_numbering(numbering: Mapping[str, str]) -> None:
    """Refuse (`bad_numbering`) two kinds of document that would share numbers, defaults counted in.

    That each pattern by itself is well formed is checked where site files are read.
    """
    shapes: dict[str, str] = {}
    for kind in DEFAULT_PATTERNS:
        text = pattern(numbering, kind)
        # padding aside: {n} and {n:06} meet at a million
        shape = _FIELD.sub(lambda field: "{n}" if field[1].startswith("n") else field[0], text)
        if shape in shapes:
            raise Refusal(
                "bad_numbering",
                f"{shapes[shape]} and {kind} are both numbered {text}",
                where="numbering",
                remedy="give each kind of document letters of its own",
            )
        shapes[shape] = kind


def pattern(numbering: Mapping[str, str], kind: str) -> str:
    """The pattern of a kind of document, or its default."""
    return numbering.get(kind, DEFAULT_PATTERNS[kind])


def first_number(numbering: Mapping[str, str]) -> int:
    """With which number a series of this operator begins."""
    return int(numbering.get("start", "1"))


def series(entity: str, kind: str, text: str, year: int) -> Series:
    """The series that a pattern draws from for a document issued in `year`."""
    return Series(entity, kind, year if "{yyyy}" in text else 0)


def render(text: str, year: int, count: int) -> str:
    """The number: `render("TLC-{yyyy}-{n:06}", 2026, 42)` is "TLC-2026-000042"."""

    def filled(field: re.Match[str]) -> str:
        if field[1] == "yyyy":
            return f"{year:04}"
        width = _COUNT.fullmatch(field[1])
        assert width is not None, "patterns are checked where site files are read"
        return str(count).rjust(int(width[1] or 1), "0")

    return _FIELD.sub(filled, text)
