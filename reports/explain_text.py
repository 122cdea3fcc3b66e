"""An explanation for a terminal: a heading a line, then each step with what it comes to, in 80 columns.

    line 2: qwen3-32b · input tokens
      usage          qwen3-32b on vilnius-1 (LT-VL), finished, 31 hours, 2026-10-01
                     08:00+03:00 to 2026-10-31 17:00+02:00, in no window
                                                                     → 1,900,000 tokens
      exact product  1,900,000 × 0.35 ÷ 1,000,000                           → 0.665 EUR

Quantities have their thousands parted here, and only here: the steps themselves hold plain digits.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reports.explain_figures import Step

_COLUMNS = 80
_WIDEST_NAME = 22
_GAP = 2
# A whole number that stands alone, of four digits (which may be a year) only before a unit; behind these words it is a
# document's.
_QUANTITY = re.compile(
    r"(?<![\w.,:@/])(?<![\w.,:@/]-)(?<!on )(?<!takes )"
    r"(?:\d{5,}(?![\w.:@/-]|,\d)|\d{4}(?= (?:token|request|second|package)s\b))"
)


def explain_text(content: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> str:
    """What `tally invoice explain` prints, of a document's JSON and some of the lines that `reports.explain` gave."""
    titles = {line["id"]: f"line {line['id']}: {line['description']}" for line in content["lines"]}
    written: list[str] = []
    for entry in lines:
        written.append(titles.get(entry["line"], f"document {content['number'] or content['id']}"))
        width = min(max((len(each["what"]) for each in entry["steps"]), default=0), _WIDEST_NAME)
        for each in entry["steps"]:
            written += _step_lines(each, width)
        written.append("")
    return "\n".join(map(_printable, written)).rstrip("\n")


def _step_lines(each: Step, width: int) -> Iterator[str]:
    """A step in as many lines as it takes; what it comes to stands at the right, in the last of them."""
    indent = " " * (_GAP + width + _GAP)
    name = textwrap.wrap(each["what"], width) or [""]
    said = textwrap.wrap(_parted(each["from"]), _COLUMNS - len(indent), break_on_hyphens=False) or [""]
    lines = []
    for number in range(max(len(name), len(said))):
        left = name[number] if number < len(name) else ""
        right = said[number] if number < len(said) else ""
        lines.append(f"{' ' * _GAP}{left.ljust(width)}{' ' * _GAP}{right}".rstrip())
    came_to = f"→ {_parted(each['to'])}"
    if len(lines[-1]) + _GAP + len(came_to) <= _COLUMNS:
        lines[-1] += came_to.rjust(_COLUMNS - len(lines[-1]))
    else:
        ends = textwrap.wrap(came_to, _COLUMNS - len(indent), subsequent_indent="  ")
        lines += [end.rjust(_COLUMNS) for end in ends]
    yield from lines


def _parted(text: str) -> str:
    """The text with the thousands of its quantities parted: `1,900,000 tokens`; names and prices stay."""
    return _QUANTITY.sub(lambda found: f"{int(found[0]):,}", text)


def _printable(text: str) -> str:
    """Text without what a terminal would obey: model names are as an engine said them."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
