"""A document for a terminal: one table from its lines to its gross, amounts below one another. Pure.

invoice TLC-2026-000001 · Acme UAB · 2026-10
line  what                              quantity  price  per       amount
1     qwen3-32b · input tokens         1,900,000   0.35  M tokens    0.67
      VAT 21% of 0.67                                                0.14
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from adapters.cli.tables import table
from billing.log_proof import checkpoint_line
from metering.checkpoint import split_checkpoint

_COLUMNS = ("line", "what", "quantity", "price", "per", "amount")
_RIGHT = ("quantity", "price", "amount")


def document_text(document: Mapping[str, Any]) -> list[str | Table]:
    """What `tally invoice show` prints, of D with its lines."""
    said: list[str | Table] = [heading(document), document_table(document)]
    if document["checkpoint"] is not None:
        said.append(f"checkpoint: {checkpoint_line(split_checkpoint(document['checkpoint'].encode())[0])}")
    return said


def heading(document: Mapping[str, Any]) -> str:
    """Which document it is: kind, number, customer and month."""
    kind = document["kind"].replace("_", " ")
    return f"{kind} {document['number'] or '(draft)'} · {document['customer_name']} · {document['period']}"


def document_table(document: Mapping[str, Any]) -> Table:
    """Lines, allowances, charges, VAT and sums; only what a line is for may be wrapped."""
    rows = [_line_row(line) for line in document["lines"]]
    rows += [["", what, "", "", "", amount] for what, amount in _sums(document)]
    return table(None, _COLUMNS, rows, right=_RIGHT, sentences=("what",))


def _line_row(line: Mapping[str, Any]) -> list[str]:
    per = f"M {line['unit']}s" if line["price_base"] != 1 else line["unit"]
    return [
        line["id"],
        line["description"],
        f"{line['quantity']:,}",
        line["unit_price"],
        per,
        line["amount"],
    ]


def _sums(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(what, amount) below the lines."""
    for name, sign in (("allowance", "-"), ("charge", "")):
        for part in document[f"{name}s"]:
            yield f"{name}: {part['reason']}{_share(part)}", f"{sign}{part['amount']}"
    currency = document["currency"]
    yield f"net, {currency}", document["net"]
    for tax in document["taxes"]:
        yield f"VAT {tax['rate']}% of {tax['basis']}", tax["amount"]
    yield f"gross, {currency}", document["gross"]


def _share(part: Mapping[str, Any]) -> str:
    return "" if part["percent"] is None else f", {part['percent']}% of {part['base']}"
