"""Documents and reports to print: one operator in Vilnius, one customer in Kaunas, made by billing itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from billing.bill import Bill, Difference
from billing.bill_part import BillPart
from billing.document import Document
from billing.draft import draw, next_document
from billing.line import FEE, UNITS, Line, Tier
from billing.money import line_amount
from billing.period import Period
from billing.site import Address, Customer, Operator
from billing.tariff import PRICE_BASE
from billing.unfinished_import import UnfinishedImport, unfinished_json
from reports.usage import FIGURES, UsageReport, usage_report

OCTOBER = Period(2026, 10)

OPERATOR = Operator(
    id="telecentras",
    name="AB Pavyzdys",
    country="LT",
    currency="EUR",
    timezone="Europe/Vilnius",
    vat_id="LT100001234510",
    registration="123456789",
    address=Address("Pavyzdžio g. 1", "Vilnius", "01100", "LT"),
    iban="LT029999900000000001",
    bic="PAVYLT22",
    language="lt",
)
CUSTOMER = Customer(
    id="acme",
    operator="telecentras",
    name="Acme UAB",
    country="LT",
    vat_id="LT999990010",
    business=True,
    address=Address("Bandymų g. 12", "Kaunas", "44240", "LT"),
    language="lt",
    buyer_reference="AP-7",
    purchase_order="PO-4711",
)


def usage_line(
    model: str, meter: str, quantity: int, price: str, *, tier: Tier = None, contract: str | None = None
) -> Line:
    """A rated line at `price` per million, of the tariff's second row or the contract's first."""
    unit_price = Decimal(price)
    return Line(
        tariff_version="vilnius@2026-10-01",
        contract_version=contract,
        price_row="contract:1" if contract else "tariff:2",
        model=model,
        meter=meter,
        window="base",
        tier=tier,
        quantity=quantity,
        unit=UNITS[meter],
        price_base=PRICE_BASE,
        list_price=unit_price,
        factor=Decimal(1),
        unit_price=unit_price,
        amount=line_amount(quantity, unit_price, PRICE_BASE, "EUR"),
        tokens=quantity if UNITS[meter] == "token" else 0,
    )


LINES = (
    usage_line("claude-opus-4", "input", 123_456_789, "3"),
    usage_line("claude-opus-4", "cached_input", 9_876_543_210, "0.3"),
    usage_line("qwen3-32b", "input", 40_123_456, "0.35", contract="acme"),
    usage_line("qwen3-32b", "output", 50_000_000, "1.6", tier=1),
    usage_line("qwen3-32b", "output", 1_234_567, "1.2", tier=2),
    usage_line("whisper-large-v3", "audio_seconds", 86_400, "100"),
)


def in_window(line: Line, name: str, factor: str) -> Line:
    """The line as its window prices it."""
    unit_price = line.list_price * Decimal(factor)
    return replace(
        line,
        window=name,
        factor=Decimal(factor),
        unit_price=unit_price,
        amount=line_amount(line.quantity, unit_price, PRICE_BASE, "EUR"),
    )


def packages(meter: str, tokens: int, count: int, price: str) -> Line:
    """Started packages of a price row, for all of its models."""
    each = usage_line("", meter, tokens, price)
    amount = line_amount(count, each.unit_price, 1, "EUR")
    return replace(
        each, model=None, price_row="tariff:3", quantity=count, unit="package", price_base=1, amount=amount
    )


def fee(name: str, amount: str, version: str = "acme@2026-10-11") -> Line:
    """A contract's fee."""
    line = packages("output", 0, 1, amount)
    return replace(
        line, tariff_version=None, contract_version=version, price_row=None, meter=FEE, unit="item", item=name
    )


def everything() -> Document:
    """An invoice that has every kind of line, allowance and charge."""
    output = usage_line("qwen3-32b", "output", 50_000_000, "1.6", tier=1)
    spot = usage_line("qwen3-32b", "input", 40_123_456, "0.35", contract="acme@2026-10-11")
    lines = [
        packages("output", 2_500_001, 3, "2"),
        usage_line("qwen3-32b", "input", 1_000_000, "0", tier="free"),
        in_window(spot, "spot:1", "0.6"),
        in_window(spot, "spot:2", "1.25"),
        in_window(usage_line("qwen3-32b", "cached_input", 7_000_000, "0.075"), "weekend", "0.7"),
        output,
        in_window(usage_line("qwen3-32b", "output", 1_234_567, "1.2", tier=2), "night", "0.5"),
        usage_line("qwen3-32b", "output", 4_321, "0", tier="unbilled"),
        usage_line("qwen3-32b", "requests", 12_345, "5"),
        fee("Reserved capacity", "338.71"),
        fee("Set-up", "250.00"),
    ]
    parts = [
        BillPart("segment:vilnius@2026-10-01|", "Segment discount", -1_200, base=8_000, percent=Decimal(15)),
        BillPart(
            "segment:vilnius@2026-10-12|acme@2026-10-11",
            "Segment discount",
            -300,
            base=2_000,
            percent=Decimal(15),
        ),
        BillPart(
            "discount:vilnius@2026-10-12|acme@2026-10-11",
            "Contract discount",
            -43,
            base=1_700,
            percent=Decimal("2.5"),
        ),
        BillPart("floor", "Commitment", 56_789),
        BillPart("adjustment:1", "Gedimas spalio 12 d.", -1_000),
    ]
    return draw(Difference(tuple(lines), tuple(parts)), OCTOBER, (), OPERATOR, CUSTOMER)


def draft(
    lines: Sequence[Line] = LINES,
    earlier: Sequence[Document] = (),
    customer: Customer = CUSTOMER,
    operator: Operator = OPERATOR,
) -> Document:
    """The document that follows `earlier` ones when the bill of October is `lines`."""
    bill = Bill(customer.id, OCTOBER, operator.currency, tuple(lines))
    document = next_document(bill, earlier, operator, customer)
    assert isinstance(document, Document)
    return document


def issued(document: Document, number: str) -> Document:
    """The draft as issued on 1 November 2026."""
    invoice = document.sign > 0
    return replace(
        document,
        number=number,
        state="issued",
        issue_date=date(2026, 11, 1),
        due_date=date(2026, 11, 15) if invoice else None,
        payment_reference=number if invoice else None,
    )


def many_lines(count: int) -> list[Line]:
    """`count` lines of models with four meters each."""
    meters = ("input", "cached_input", "output", "reasoning")
    return [usage_line(f"model-{n // 4:03}", meters[n % 4], 1_000_000 + n, "0.4") for n in range(count)]


def lane(name: str = "0", **changed: Any) -> dict[str, Any]:
    """A row of `tally streams`: a sidecar's lane that is complete beyond October."""
    return {
        "operator": "telecentras",
        "node": "vilnius-1",
        "lane": name,
        "kind": "sidecar",
        "state": "live",
        "due": True,
        "epoch": "00" * 16,
        "number": 7,
        "complete_to": "2026-10-31T22:00:05.000000Z",
        "holes": 0,
        "forks": 0,
        "held": 0,
        "lag_s": 4,
        **changed,
    }


def usage_row(requests: int, tokens: int, **by: str | None) -> dict[str, Any]:
    """A row of `tally usage`: each request with `tokens` of prompt and half of them completed."""
    aborted = requests if by.get("outcome") == "aborted" else 0
    counts = (tokens, tokens // 4, tokens // 2, tokens // 8, tokens // 2, 0, 0)
    figures = (requests, aborted, *(requests * count for count in counts))
    return {**by, **dict(zip(FIGURES, figures, strict=True))}


def report(
    detail: Sequence[dict[str, Any]],
    lanes: Sequence[dict[str, Any]] = (lane(),),
    made_at: datetime = datetime(2026, 11, 1, 9, 30, tzinfo=UTC),
    operator: Operator = OPERATOR,
    gaps: Sequence[dict[str, Any]] = (),
    unfinished: Sequence[dict[str, Any]] = (),
) -> UsageReport:
    """October's report over `detail`, with all of it on one day."""
    total = {name: sum(row[name] for row in detail) for name in FIGURES}
    days = [{"day": "2026-10-25T00:00:00+03:00", **total}] if detail else []
    return usage_report(
        operator,
        OCTOBER,
        detail=detail,
        days=days,
        lanes=lanes,
        made_at=made_at,
        gaps=gaps,
        unfinished=unfinished,
    )


UNFINISHED = unfinished_json(
    UnfinishedImport(
        operator="telecentras",
        node="vilnius-1",
        id="import-30595fc101760851",
        file_sha256="7d9f" * 16,
        is_voiding=False,
        rows=1_380_000,
        accepted=130_000,
    )
)

DETAIL = (
    usage_row(3, 1_000, customer="acme", model="claude-opus-4", region="LT-VL", outcome="finished"),
    usage_row(1, 800, customer="acme", model="claude-opus-4", region="LT-VL", outcome="aborted"),
    usage_row(2, 5_000_000, customer="baltic-letters", model="qwen3-32b", region="LT-VL", outcome="finished"),
    usage_row(1, 40, customer="river-institute", model="qwen3-32b", region=None, outcome="finished"),
)
