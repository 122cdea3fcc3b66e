"""Tables for people: every figure whole, and no line wider than is read, however long its sentences are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from shutil import get_terminal_size

from rich.table import Table

#: A table without sentences is as wide as it needs to be.
_WIDEST = 10_000
#: What a file or a pipe gets where a table has sentences.
_UNSEEN_COLUMNS = 100


def printable(text: str) -> str:
    """Text without what a terminal would obey: names are as somebody else said them."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def width(drawn: Table) -> int:
    """The columns that a table may take; nothing is cut with an ellipsis.

    Sentences are wrapped within their column, to the terminal's width or, where nobody looks on, to 100 columns: one long
    sentence would pad every other row to its length. A table without sentences is one line a row, as programs want it.
    """
    if all(column.no_wrap for column in drawn.columns):
        return _WIDEST
    return get_terminal_size().columns if sys.stdout.isatty() else _UNSEEN_COLUMNS


def table(
    title: str | None,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    right: Sequence[str] = (),
    sentences: Sequence[str] = (),
) -> Table:
    """A table for people; `right` names the columns of figures, `sentences` those that may be wrapped."""
    drawn = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        drawn.add_column(
            column,
            justify="right" if column in right else "left",
            no_wrap=column not in sentences,
            overflow="fold",
        )
    for row in rows:
        drawn.add_row(*("" if cell is None else printable(str(cell)) for cell in row))
    return drawn
