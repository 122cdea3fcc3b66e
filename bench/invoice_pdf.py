"""Milliseconds a PDF: an invoice of 24 lines, first (with the fonts' start) and when warm."""

from __future__ import annotations

import statistics
import time
from decimal import Decimal
from io import BytesIO

from pypdf import PdfReader

from bench.results import Measured
from billing.bill import Bill
from billing.document import Document
from billing.draft import next_document
from billing.line import UNITS, Line
from billing.money import line_amount
from billing.period import Period
from billing.site import Address, Customer, Operator
from billing.tariff import PRICE_BASE

OCTOBER = Period(2026, 10)
METERS = ("input", "cached_input", "output", "reasoning")


def measure(quick: bool) -> Measured:
    began = time.perf_counter()
    from reports.invoice import render_invoice_pdf  # what it takes to load is measured too

    loaded = time.perf_counter() - began
    operator, customer, document = _example(lines=24)
    times: list[float] = []
    for _ in range(4 if quick else 31):
        began = time.perf_counter()
        pdf = render_invoice_pdf(document, operator, customer, "lt")
        times.append((time.perf_counter() - began) * 1000)
    found = Measured()
    found.add("lines", len(document.lines))
    found.add("pages", len(PdfReader(BytesIO(pdf)).pages))
    found.add("size", round(len(pdf) / 1024), "KiB")
    found.add("loading the layout", loaded * 1000, "ms")
    found.add("first PDF", times[0], "ms")
    found.add("warm, median", statistics.median(times[1:]), "ms")
    found.add("warm, fastest", min(times[1:]), "ms")
    return found


def _example(lines: int) -> tuple[Operator, Customer, Document]:
    """The next document of a customer whose bill has so many lines, six models with four meters each."""
    operator = Operator(
        id="telecentras",
        name="AB Pavyzdys",
        country="LT",
        currency="EUR",
        timezone="Europe/Vilnius",
        vat_id="LT100001234510",
        address=Address("Pavyzdžio g. 1", "Vilnius", "01100", "LT"),
        iban="LT029999900000000001",
        language="lt",
    )
    customer = Customer(
        id="acme",
        operator="telecentras",
        name="Acme UAB",
        country="LT",
        vat_id="LT999990010",
        business=True,
        address=Address("Bandymų g. 12", "Kaunas", "44240", "LT"),
        language="lt",
    )
    rated = [_line(f"model-{n // 4}", METERS[n % 4], 1_000_000 + n) for n in range(lines)]
    document = next_document(Bill("acme", OCTOBER, "EUR", tuple(rated)), (), operator, customer)
    assert isinstance(document, Document)
    return operator, customer, document


def _line(model: str, meter: str, quantity: int) -> Line:
    price = Decimal("0.4")
    return Line(
        tariff_version="vilnius@2026-10-01",
        contract_version=None,
        price_row="tariff:1",
        model=model,
        meter=meter,
        window="base",
        tier=None,
        quantity=quantity,
        unit=UNITS[meter],
        price_base=PRICE_BASE,
        list_price=price,
        factor=Decimal(1),
        unit_price=price,
        amount=line_amount(quantity, price, PRICE_BASE, "EUR"),
        tokens=quantity,
    )
