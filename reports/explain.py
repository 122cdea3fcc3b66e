"""How a document's figures came about: for each line every step from tokens to cents, then the document's own sums.

    [{"line": "1", "steps": [{"what": "quantity", "from": "hourly usage …", "to": "123456789 tokens"}, …]}, …,
     {"line": "document", "steps": [{"what": "net", "from": "…", "to": "…"}, …]}]

Everything is read from the document's JSON (D of docs/commands.md with its lines) and computed again with exact
fractions; nothing is looked up. A line's amount is its rounded product, save on documents that follow earlier
ones of the period: there it is the difference of rounded amounts (arithmetic rule 10), which a step then says.
That the VAT of a document is the rounded share of its basis is asserted: a stored document always adds up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from billing.document import Document, from_json
from billing.document_parts import DocumentLine
from billing.line import FREE, UNBILLED
from billing.money import exact_minor, format_minor, format_price, line_amount, round_half_away
from billing.tariff import METERS

WHOLE_DOCUMENT = "document"

_LISTED_LINES = 12
_MOST_PLACES = 1000

Step = dict[str, str]


def explain(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The `lines` of `tally invoice explain`, from a document's JSON; the last one is the document's sums."""
    document = from_json(content)
    lines = [{"line": entry.id, "steps": list(_line_steps(entry, document))} for entry in document.lines]
    return [*lines, {"line": WHOLE_DOCUMENT, "steps": list(_sum_steps(document))}]


def explain_text(content: Mapping[str, Any], lines: Sequence[Mapping[str, Any]] | None = None) -> str:
    """The same for a terminal: a heading a line, and an arrow a step. `lines` is what `explain` gave, if it was
    asked already.
    """
    titles = {line["id"]: f"line {line['id']}: {line['description']}" for line in content["lines"]}
    written: list[str] = []
    for entry in lines if lines is not None else explain(content):
        written.append(titles.get(entry["line"], f"document {content['number'] or content['id']}"))
        width = max((len(step["what"]) for step in entry["steps"]), default=0)
        written += [
            f"  {step['what'].ljust(width)}  {step['from']} → {step['to']}" for step in entry["steps"]
        ]
        written.append("")
    return "\n".join(map(_printable, written)).rstrip("\n")


def _line_steps(entry: DocumentLine, document: Document) -> Iterator[Step]:
    line, currency = entry.line, document.currency
    if line.meter not in METERS:
        amount = _money(line.amount, currency)
        yield _step("amount", f"{entry.description}: {_figure(line.quantity, line.unit)}", amount)
        return
    per = f"{currency} per {line.price_base} {line.unit}s"
    pool = f", tier {line.tier}" if line.tier is not None else ""
    usage = f"usage of {line.model or 'all models'} in {document.period}{_beside_earlier(document)}"
    source = f"{usage}, meter {line.meter}, window {line.window}{pool}"
    yield _step("quantity", source, _figure(line.quantity, line.unit))
    list_price, unit_price = format_price(line.list_price), format_price(line.unit_price)
    yield _step("list price", _price_source(entry), f"{list_price} {per}")
    yield _step(
        "factor", f"{list_price} × {format_price(line.factor)} (window {line.window})", f"{unit_price} {per}"
    )
    product = Fraction(line.unit_price) * Fraction(line.quantity, line.price_base)
    exact = f"{_exact(product)} {currency}"
    yield _step("exact product", f"{line.quantity} × {unit_price} ÷ {line.price_base}", exact)
    rounded = line_amount(line.quantity, line.unit_price, line.price_base, currency)
    yield _step("rounded, half away from zero", exact, _money(rounded, currency))
    if rounded != line.amount:
        said = "this line of the bill, rounded, less what earlier documents asked for it"
        yield _step("difference of rounded amounts", said, _money(line.amount, currency))


def _beside_earlier(document: Document) -> str:
    """What the document's quantities are, where it follows earlier ones of the period."""
    if document.sign < 0:
        return ", taken back"
    return ", beyond earlier documents" if document.supplements else ""


def _price_source(entry: DocumentLine) -> str:
    """Which version and row stated the price, or why there is none."""
    line = entry.line
    if line.tier == FREE:
        return "included quantity: free of charge"
    if line.tier == UNBILLED:
        return "an outcome that is not billed"
    kind, _, row = (line.price_row or "").partition(":")
    version = line.contract_version if kind == "contract" else line.tariff_version
    tier = f", tier {line.tier}" if line.tier is not None else ""
    return f"{kind} {version}, row {row}{tier}"


def _sum_steps(document: Document) -> Iterator[Step]:
    currency = document.currency
    amounts = " + ".join(_bracketed(entry.line.amount, currency) for entry in document.lines)
    if len(document.lines) > _LISTED_LINES:
        amounts = f"the amounts of {len(document.lines)} lines"
    yield _step("sum of the lines", amounts, _money(document.line_total, currency))
    net = document.line_total
    for sign, word, parts in ((-1, "allowance", document.allowances), (1, "charge", document.charges)):
        for part in parts:
            after = net + sign * part.amount
            change = f"{format_minor(net, currency)} {'−' if sign < 0 else '+'} {format_minor(part.amount, currency)}"
            yield _step(f"{word}: {part.reason}", change, _money(after, currency))
            net = after
    assert net == document.net, document.id
    yield _step("net", "lines − allowances + charges", _money(document.net, currency))
    for tax in document.taxes:
        exact = Fraction(tax.rate) * Fraction(tax.basis, 100)
        assert round_half_away(exact) == tax.amount, document.id
        product = _exact(exact / exact_minor(Decimal(1), currency))
        share = f"{format_minor(tax.basis, currency)} × {format_price(tax.rate)} % = {product}"
        yield _step(f"VAT, category {tax.category}", share, _money(tax.amount, currency))
    sums = f"{format_minor(document.net, currency)} + {format_minor(document.tax, currency)}"
    yield _step("gross", sums, _money(document.gross, currency))
    paid = (
        f"{format_minor(document.gross, currency)} − {format_minor(document.prepaid, currency)} paid before"
    )
    yield _step("payable" if document.sign > 0 else "credited", paid, _money(document.payable, currency))


def _step(what: str, before: str, after: str) -> Step:
    return {"what": what, "from": before, "to": after}


def _figure(quantity: int, unit: str) -> str:
    return f"{quantity} {unit}" if abs(quantity) == 1 else f"{quantity} {unit}s"


def _money(minor: int, currency: str) -> str:
    return f"{format_minor(minor, currency)} {currency}"


def _bracketed(minor: int, currency: str) -> str:
    text = format_minor(minor, currency)
    return f"({text})" if minor < 0 else text


def _exact(value: Fraction) -> str:
    """Every digit of a product: prices are decimals and bases powers of ten, so the fraction ends."""
    places = 0
    while value.denominator != 1:
        value *= 10
        places += 1
        assert places < _MOST_PLACES, "a product of decimals ends"
    digits = tuple(map(int, str(abs(value.numerator))))
    return format_price(Decimal((value < 0, digits, -places)))


def _printable(text: str) -> str:
    """Text without what a terminal would obey: model names are as an engine said them."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
