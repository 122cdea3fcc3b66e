"""The parts of a document: lines, allowances, charges, taxes, references, each with its JSON
(docs/commands.md).

`part`, on lines, allowances and charges, is a key of our own: it names which part of the bill outside usage
an entry stands for (`adjustment:<id>`), so that the next document can be computed from the issued ones
alone (arithmetic rule 10). A document left without lines carries such parts as lines of quantity ±1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from billing.line import Line
from billing.money import format_minor, format_price, parse_amount

REVENUE = "revenue"


@dataclass(frozen=True, slots=True)
class Reference:
    """An earlier document, as the law wants it named: number and day of issue (EN 16931 BT-25, BT-26)."""

    number: str
    issue_date: date


@dataclass(frozen=True, slots=True)
class DocumentLine:
    """A line as a document carries it. `part`: set where it stands for an allowance or charge of the bill."""

    id: str
    line: Line
    description: str
    tax_category: str
    tax_rate: Decimal
    account: str = REVENUE
    part: str | None = None


@dataclass(frozen=True, slots=True)
class AllowanceOrCharge:
    """A document level allowance or charge; `amount` is never negative. `base` and `percent`: both, and then `amount`
    is round(base × percent ÷ 100) (EN 16931 BT-92 to BT-94), or neither.
    """

    reason: str
    reason_code: str
    amount: int
    tax_category: str
    tax_rate: Decimal
    base: int | None = None
    percent: Decimal | None = None
    part: str | None = None


@dataclass(frozen=True, slots=True)
class Tax:
    """One VAT category and rate of a document: its basis and the tax on it, in minor units."""

    category: str
    rate: Decimal
    basis: int
    amount: int
    reason: str | None = None


def reference_json(reference: Reference) -> dict[str, str]:
    return {"number": reference.number, "issue_date": reference.issue_date.isoformat()}


def line_json(entry: DocumentLine, currency: str) -> dict[str, Any]:
    line = entry.line
    return {
        "id": entry.id,
        "model": line.model,
        "meter": line.meter,
        "window": line.window,
        "tier": line.tier,
        "quantity": line.quantity,
        "unit": line.unit,
        "price_base": line.price_base,
        "list_price": format_price(line.list_price),
        "factor": format_price(line.factor),
        "unit_price": format_price(line.unit_price),
        "amount": format_minor(line.amount, currency),
        "tokens": line.tokens,
        "tariff_version": line.tariff_version,
        "contract_version": line.contract_version,
        "price_row": line.price_row,
        "tax_category": entry.tax_category,
        "tax_rate": format_price(entry.tax_rate),
        "account": entry.account,
        "description": entry.description,
        "item": line.item,
        "part": entry.part,
    }


def part_json(part: AllowanceOrCharge, currency: str) -> dict[str, Any]:
    return {
        "reason": part.reason,
        "reason_code": part.reason_code,
        "base": None if part.base is None else format_minor(part.base, currency),
        "percent": None if part.percent is None else format_price(part.percent),
        "amount": format_minor(part.amount, currency),
        "tax_category": part.tax_category,
        "tax_rate": format_price(part.tax_rate),
        "part": part.part,
    }


def tax_json(tax: Tax, currency: str) -> dict[str, Any]:
    return {
        "category": tax.category,
        "rate": format_price(tax.rate),
        "basis": format_minor(tax.basis, currency),
        "amount": format_minor(tax.amount, currency),
        "reason": tax.reason,
    }


def reference_from(content: Mapping[str, str]) -> Reference:
    return Reference(content["number"], date.fromisoformat(content["issue_date"]))


def line_from(content: Mapping[str, Any], currency: str) -> DocumentLine:
    line = Line(
        tariff_version=content["tariff_version"],
        contract_version=content["contract_version"],
        price_row=content["price_row"],
        model=content["model"],
        meter=content["meter"],
        window=content["window"],
        tier=content["tier"],
        quantity=content["quantity"],
        unit=content["unit"],
        price_base=content["price_base"],
        list_price=Decimal(content["list_price"]),
        factor=Decimal(content["factor"]),
        unit_price=Decimal(content["unit_price"]),
        amount=parse_amount(content["amount"], currency),
        tokens=content["tokens"],
        item=content.get("item"),
    )
    return DocumentLine(
        id=content["id"],
        line=line,
        description=content["description"],
        tax_category=content["tax_category"],
        tax_rate=Decimal(content["tax_rate"]),
        account=content["account"],
        part=content.get("part"),
    )


def part_from(content: Mapping[str, Any], currency: str) -> AllowanceOrCharge:
    return AllowanceOrCharge(
        reason=content["reason"],
        reason_code=content["reason_code"],
        amount=parse_amount(content["amount"], currency),
        tax_category=content["tax_category"],
        tax_rate=Decimal(content["tax_rate"]),
        base=None if content["base"] is None else parse_amount(content["base"], currency),
        percent=None if content["percent"] is None else Decimal(content["percent"]),
        part=content.get("part"),
    )


def tax_from(content: Mapping[str, Any], currency: str) -> Tax:
    return Tax(
        category=content["category"],
        rate=Decimal(content["rate"]),
        basis=parse_amount(content["basis"], currency),
        amount=parse_amount(content["amount"], currency),
        reason=content["reason"],
    )
