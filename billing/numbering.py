"""Numbers of issued documents: patterns, and the gap-free series that they draw from.

A pattern is text with `{n}` or `{n:06}` (padded with zeros to that width) once, and `{yyyy}` (the year of
issue) at most once: "TLC-{yyyy}-{n:06}" gives TLC-2026-000042. There is one series per legal entity and
kind of document, without gaps; where the pattern holds {yyyy}, one per year. A number names one document
of an operator: no text may be a number of two kinds. "T-{yyyy}-{n}" and "T-2026-{n}" both give T-2026-1,
"A{n}" and "A1{n}" both give A11; prefixes of which none begins another, as INV-, CN-, are always apart.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import combinations

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
_DIGITS = "1234567890"  # 1 first: of the numbers that two kinds share, the plainest is shown

_Place = tuple[str, bool]
"""One character of a number: which it may be, and whether any number of them stand here, none also."""


def check_numbering(numbering: Mapping[str, str]) -> None:
    """Refuse (`bad_numbering`) two kinds of document that could share a number, defaults counted in.

    Any four digits count as a year. That each pattern by itself is well formed is checked where site files
    are read.
    """
    for one, other in combinations(DEFAULT_PATTERNS, 2):
        texts = pattern(numbering, one), pattern(numbering, other)
        shared = _shared(_places(texts[0]), _places(texts[1]))
        if shared is not None:
            raise Refusal(
                "bad_numbering",
                f"{one} {texts[0]} and {other} {texts[1]} could share a number, such as {shared}",
                where="numbering",
                remedy="let each kind begin with letters of its own",
            )


def _places(text: str) -> list[_Place]:
    """A pattern as the characters that its numbers have."""
    places: list[_Place] = []
    at = 0
    for field in _FIELD.finditer(text):
        places += [(letter, False) for letter in text[at : field.start()]]
        width = _COUNT.fullmatch(field[1])
        if width is None:
            places += [(_DIGITS, False)] * 4
        elif width[1] is None:
            places += [(_DIGITS[:-1], False), (_DIGITS, True)]  # a count without padding begins with no 0
        else:
            places += [*[(_DIGITS, False)] * int(width[1]), (_DIGITS, True)]
        at = field.end()
    return [*places, *((letter, False) for letter in text[at:])]


def _shared(one: Sequence[_Place], other: Sequence[_Place]) -> str | None:
    """A shortest text that both describe, or None: both are read side by side, through each pair of places once."""
    waiting = deque([(0, 0, "")])
    seen = {(0, 0)}
    while waiting:
        i, j, text = waiting.popleft()
        if i == len(one) and j == len(other):
            return text
        reached: list[tuple[int, int, str]] = []
        if i < len(one) and one[i][1]:
            reached.append((i + 1, j, text))
        if j < len(other) and other[j][1]:
            reached.append((i, j + 1, text))
        if i < len(one) and j < len(other):
            both = [letter for letter in one[i][0] if letter in other[j][0]]
            if both:
                reached.append((i + (not one[i][1]), j + (not other[j][1]), text + both[0]))
        for step in reached:
            if step[:2] not in seen:
                seen.add(step[:2])
                waiting.append(step)
    return None


def pattern(numbering: Mapping[str, str], kind: str) -> str:
    """The pattern of a kind of document, or its default."""
    return numbering.get(kind, DEFAULT_PATTERNS[kind])


def first_number(numbering: Mapping[str, str]) -> int:
    """With which number the operator's series begin in its first year (`Book.take_numbers`)."""
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
