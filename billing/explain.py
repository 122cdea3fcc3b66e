"""How a line of a document came to its amount, step by step, from tokens to cents (`tally invoice
explain`).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from billing.document import Document
from billing.document_parts import DocumentLine
from billing.line import UNBILLED, Line
from billing.money import exact_product, format_minor, format_price, line_amount


def explain(document: Document) -> dict[str, Any]:
    """CONTRACT.md's `invoice explain`: {id, lines: [{line, steps: [{what, from, to}]}]}."""
    return {
        "id": document.id,
        "lines": [
            {"line": entry.id, "description": entry.description, "steps": _steps(entry, document)}
            for entry in document.lines
        ],
    }


def _steps(entry: DocumentLine, document: Document) -> list[dict[str, str]]:
    line, currency = entry.line, document.currency
    if entry.part is not None:
        return [_step("outside usage", entry.part, f"{entry.description}: {_money(line.amount, currency)}")]
    steps = [
        _step(
            "quantity",
            f"{line.meter} of {line.model or 'every model'} in {document.period}",
            f"{line.quantity} {line.unit}s",
        ),
        _step("versions", *_versions(line)),
    ]
    if line.tier == UNBILLED:
        steps.append(_step("price", "an outcome that is not billed", "0"))
    else:
        where = f"{line.price_row}, {line.meter}" + (f", tier {line.tier}" if line.tier is not None else "")
        steps.append(
            _step("price", where, f"{format_price(line.list_price)} {currency} per {line.price_base}")
        )
    steps.append(
        _step(
            f"window {line.window}",
            f"{format_price(line.list_price)} × {format_price(line.factor)}",
            f"{format_price(line.unit_price)} {currency} per {line.price_base}",
        )
    )
    own = line_amount(line.quantity, line.unit_price, line.price_base, currency)
    product = f"{line.quantity} × {format_price(line.unit_price)} ÷ {line.price_base}"
    steps.append(_step("amount", f"{product} = {_exact(line)}", _money(own, currency)))
    if own != line.amount:
        # a difference of two rounded amounts (arithmetic rule 10)
        steps.append(
            _step(
                "difference",
                "the whole line rounded, less what was issued of it",
                _money(line.amount, currency),
            )
        )
    return steps


def _step(what: str, before: str, after: str) -> dict[str, str]:
    return {"what": what, "from": before, "to": after}


def _versions(line: Line) -> tuple[str, str]:
    contract = f", contract {line.contract_version}" if line.contract_version else ", no contract"
    return f"tariff {line.tariff_version}{contract}", f"row {line.price_row}"


def _money(minor: int, currency: str) -> str:
    return f"{format_minor(minor, currency)} {currency}"


def _exact(line: Line) -> str:
    """The product with all its decimals; a price base is a power of ten, so they always end."""
    zeros = len(str(line.price_base)) - 1
    assert line.price_base == 10**zeros, "a price base is a power of ten"
    product = exact_product(Decimal(line.quantity), line.unit_price)
    return format_price(exact_product(product, Decimal((0, (1,), -zeros))))
