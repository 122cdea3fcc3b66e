"""What holds of every explanation, whatever the document: it ends in the document's own figures."""

from __future__ import annotations

import pyarrow as pa
from books_in_memory import BookInMemory

from billing.document import Document, to_json
from billing.facts import Facts
from billing.money import format_minor
from billing.rated_again import rated_again
from reports.explain import NOT_WORKED_OUT, WHOLE_DOCUMENT, explain


def check_explained(
    book: BookInMemory, facts: Facts, usage: pa.Table, document: Document, *, fresh: bool
) -> None:
    """Each line's steps end in its amount, the document's in what is payable; of a `fresh` document, whose usage and
    facts are still those of its close, every line is worked out from its hours.
    """
    papers = [
        each
        for each in book.papers.values()
        if each.customer == document.customer and each.period == document.period
    ]
    closes = [each for each in book.closes if each.period == document.period]
    adjustments = [each for each in book.made_adjustments if each.period == document.period]
    again = rated_again(document, usage, facts, adjustments, papers, closes)
    lines = {entry["line"]: entry["steps"] for entry in explain(to_json(document), again)}
    for entry in document.lines:
        steps = lines[entry.id]
        worked_out = steps[-1]["what"] != NOT_WORKED_OUT
        assert worked_out or not fresh, steps
        amount = f"{format_minor(entry.line.amount, document.currency)} {document.currency}"
        assert steps[-1 if worked_out else -2]["to"] == amount, steps
    whole = {each["what"]: each["to"] for each in lines[WHOLE_DOCUMENT]}
    assert whole["payable" if document.sign > 0 else "credited"].startswith(
        format_minor(document.payable, document.currency)
    )
    if fresh and "rated at" in whole:
        assert whole["rated at"] == "as the month rates now"
