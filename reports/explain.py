"""How a document's figures came about: for each line every step from tokens to cents, then the document's own sums.

    [{"line": "1", "steps": [{"what": "usage", "from": "qwen3-32b on vilnius-1 …", "to": "123456789 tokens"}, …]}, …,
     {"line": "document", "steps": [{"what": "net", "from": "…", "to": "…"}, …]}]

With its month rated again (`billing.rated_again`) a line is explained from the hours of usage on, by what the tariff's
and the contract's files stated when it was billed. Where that does not come to the line's own quantity and amount (usage
came since) it is said, and the line explained from its own figures; so it is without the month.

Every figure is computed with exact fractions. A line's amount is its rounded product, save on documents that follow
earlier ones of the period: there it is the difference of rounded amounts (arithmetic rule 10), which steps then say.
That the VAT of a document is the rounded share of its basis is asserted: a stored document always adds up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

from billing.bill import difference
from billing.document import ISSUED, Document, from_json
from billing.document_parts import AllowanceOrCharge, DocumentLine
from billing.line import FEE
from billing.money import exact_minor, format_minor, format_price, line_amount, round_half_away
from billing.rated_again import RatedAgain, line_standing, price_row_of
from billing.tariff import METERS
from billing.terms import TermsRow
from reports.explain_figures import MINUS, Step, bracketed, exact, figure, money, step
from reports.explain_sums import fee_steps, part_steps
from reports.explain_usage import price_steps, usage_steps

WHOLE_DOCUMENT = "document"
NOT_WORKED_OUT = "not worked out"

_LISTED_LINES = 12


def explain(content: Mapping[str, Any], again: RatedAgain | None = None) -> list[dict[str, Any]]:
    """The `lines` of `tally invoice explain`, from a document's JSON and its month rated again; the last one is the
    document's sums.
    """
    document = from_json(content)
    lines = [
        {"line": entry.id, "steps": list(_line_steps(entry, document, again))} for entry in document.lines
    ]
    return [*lines, {"line": WHOLE_DOCUMENT, "steps": list(_sum_steps(document, again))}]


def _line_steps(entry: DocumentLine, document: Document, again: RatedAgain | None) -> Iterator[Step]:
    line, currency = entry.line, document.currency
    if line.meter in METERS and entry.part is None:
        yield from _usage_line(entry, document, again)
        return
    if again is not None and line.meter == FEE:
        yield from _fee_line(entry, document, again)
        return
    if again is not None and entry.part is not None:
        yield from part_steps(entry.part, document.sign * line.amount, document, again)
    said = f"{entry.description}: {figure(line.quantity, line.unit)}"
    yield step("amount", said, money(line.amount, currency))


def _usage_line(entry: DocumentLine, document: Document, again: RatedAgain | None) -> Iterator[Step]:
    line = entry.line
    if again is None:
        yield from _own_figures(entry, document, None)
        return
    standing = line_standing(again, line)
    # A version whose text of then is lost keeps its name: what the bill has at another price is not this line.
    made = again.working.lines.get(line.key[:7]) if standing.quantity else None
    worked_out = 0 if made is None else made.quantity
    known = (made is not None or standing.earlier) and worked_out == standing.quantity
    if not (known and standing.gives(document.sign * line.quantity, document.sign * line.amount)):
        yield from _own_figures(entry, document, price_row_of(again, line))
        yield step(NOT_WORKED_OUT, _why_not(document, again), "the figures above are the document's own")
    elif made is None:
        gone = "no longer on the bill: its usage was taken back, or another version or price took its place"
        yield step("usage", gone, figure(0, line.unit))
        yield from _taken_off(entry, document, again)
    else:
        yield from usage_steps(made, standing, line, document, again)


def _taken_off(entry: DocumentLine, document: Document, again: RatedAgain) -> Iterator[Step]:
    """A line that the bill lost, at the price at which earlier documents asked for it."""
    line = entry.line
    earlier = line_standing(again, line).earlier
    quantities = " + ".join(f"{each.quantity} on {each.number}" for each in earlier)
    amounts = " + ".join(
        f"{format_minor(each.amount, document.currency)} on {each.number}" for each in earlier
    )
    yield step("asked for before", quantities, figure(line.quantity, line.unit))
    yield step("its amount there", amounts, money(line.amount, document.currency))


def _own_figures(entry: DocumentLine, document: Document, row: TermsRow | None) -> Iterator[Step]:
    """A usage line by what stands on the document alone, and the price row that it names."""
    line, currency = entry.line, document.currency
    pool = f", tier {line.tier}" if line.tier is not None else ""
    usage = f"usage of {line.model or 'all models'} in {document.period}{_beside_earlier(document)}"
    source = f"{usage}, meter {line.meter}, window {line.window}{pool}"
    yield step("quantity", source, figure(line.quantity, line.unit))
    yield from price_steps(line, line.quantity, currency, row)
    if line_amount(line.quantity, line.unit_price, line.price_base, currency) != line.amount:
        said = "this line of the bill, rounded, less what earlier documents asked for it"
        yield step("difference", said, money(line.amount, currency))


def _beside_earlier(document: Document) -> str:
    """What the document's quantities are, where it follows earlier ones of the period."""
    if document.sign < 0:
        return ", taken back"
    return ", beyond earlier documents" if document.supplements else ""


def _why_not(document: Document, again: RatedAgain) -> str:
    """Why a line's working is not shown: what the month comes to now is something else."""
    if document.reason is not None:
        taken = " and ".join(reference.number for reference in document.corrects)
        return f"this credit note takes {taken} back line by line: {document.reason}"
    if again.replaced:
        return f"superseded since this close, and the line rates otherwise now: {', '.join(again.replaced)}"
    return (
        "rated at this close; usage that came or was taken back since, which later closes bill, is not in it, and the"
        " hours that were can't be told apart from it any more"
    )


def _fee_line(entry: DocumentLine, document: Document, again: RatedAgain) -> Iterator[Step]:
    line, currency = entry.line, document.currency
    steps = list(fee_steps(line, again))
    standing = line_standing(again, line)
    given = standing.gives(document.sign * line.quantity, document.sign * line.amount)
    if given and not standing.earlier and [each["to"] for each in steps] == [money(line.amount, currency)]:
        yield from steps
        return
    said = f"{entry.description}, contract {line.contract_version}{_beside_earlier(document)}"
    yield step("fee", said, money(line.amount, currency))


def _sum_steps(document: Document, again: RatedAgain | None) -> Iterator[Step]:
    currency = document.currency
    if again is not None and again.close is not None:
        yield _close_step(document, again)
    amounts = " + ".join(bracketed(entry.line.amount, currency) for entry in document.lines)
    if len(document.lines) > _LISTED_LINES:
        amounts = f"the amounts of {len(document.lines)} lines"
    yield step("sum of the lines", amounts, money(document.line_total, currency))
    net = document.line_total
    for sign, word, parts in ((-1, "allowance", document.allowances), (1, "charge", document.charges)):
        for part in parts:
            yield from _part(part, sign, document, again)
            after = net + sign * part.amount
            turn = MINUS if sign < 0 else "+"
            change = f"{format_minor(net, currency)} {turn} {format_minor(part.amount, currency)}"
            yield step(f"{word}: {part.reason}", change, money(after, currency))
            net = after
    assert net == document.net, document.id
    yield step("net", "lines − allowances + charges", money(document.net, currency))
    for tax in document.taxes:
        amount = Fraction(tax.rate) * Fraction(tax.basis, 100)
        assert round_half_away(amount) == tax.amount, document.id
        product = exact(amount / exact_minor(Decimal(1), currency))
        share = f"{format_minor(tax.basis, currency)} × {format_price(tax.rate)} % = {product}"
        yield step(f"VAT, category {tax.category}", share, money(tax.amount, currency))
    sums = f"{format_minor(document.net, currency)} + {format_minor(document.tax, currency)}"
    yield step("gross", sums, money(document.gross, currency))
    paid = (
        f"{format_minor(document.gross, currency)} − {format_minor(document.prepaid, currency)} paid before"
    )
    yield step("payable" if document.sign > 0 else "credited", paid, money(document.payable, currency))


def _part(part: AllowanceOrCharge, sign: int, document: Document, again: RatedAgain | None) -> Iterator[Step]:
    if again is not None and part.part is not None:
        yield from part_steps(part.part, document.sign * sign * part.amount, document, again)


def _close_step(document: Document, again: RatedAgain) -> Step:
    """By which close the document was rated, and what it did not know."""
    close = again.close
    assert close is not None
    at = f"close {close.number} of {document.period}, {close.closed_at:%Y-%m-%dT%H:%M:%SZ}"
    if again.superseded:
        at += f", by what was superseded since: {', '.join(again.superseded)}"
    if again.replaced:
        return step("rated at", at, f"superseded since: {', '.join(again.replaced)}")
    left = difference(again.bill, (*again.earlier, replace(document, state=ISSUED)))
    if not left.lines and not left.parts and again.superseded:
        return step("rated at", at, "as the month rated then")
    if not left.lines and not left.parts:
        return step("rated at", at, "as the month rates now")
    return step("rated at", at, "usage and adjustments that came since are not in it")
