"""Pages before they are laid out: what is printed, that nothing given becomes markup, and in which words."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest
from paper_examples import (
    CUSTOMER,
    DETAIL,
    LINES,
    OPERATOR,
    UNFINISHED,
    draft,
    everything,
    issued,
    lane,
    report,
    usage_line,
    usage_row,
)

from billing.document import Document, Reference
from billing.document_parts import AllowanceOrCharge, Tax
from billing.draft import finish
from billing.site import Address
from metering.refusal import Refusal
from reports.formats import render_document
from reports.invoice import invoice_html
from reports.parties import address_lines, grouped_iban
from reports.usage_page import LISTED_ROWS, usage_html

EVIL = '<b>Bold</b> & "Sons" <script>alert(1)</script>'


def texts(page: str) -> str:
    """The page's text: tags gone, spaces single."""
    plain = re.sub(r"<[^>]*>", " ", page).replace("\u00a0", " ")
    return re.sub(r"\s+", " ", plain)


def invoice(document: Document, language: str = "en") -> str:
    return texts(invoice_html(document, OPERATOR, CUSTOMER, language))


def test_no_name_becomes_markup() -> None:
    customer = replace(CUSTOMER, name=EVIL, address=Address(EVIL, EVIL, EVIL, "LT"), purchase_order=EVIL)
    operator = replace(OPERATOR, name=EVIL, bic=EVIL)
    lines = [usage_line(EVIL, "input", 10**9, "1")]
    document = issued(draft(lines, customer=customer, operator=operator), EVIL)
    page = invoice_html(replace(document, reason=EVIL, checkpoint=EVIL), operator, customer, "en")
    assert "<script" not in page
    assert "<b>" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 10

    row = usage_row(1, 8, customer=EVIL, model=EVIL, region=EVIL, outcome=EVIL)
    page = usage_html(report([row], [lane(EVIL, node=EVIL)], operator=operator), "lt")
    assert "<script" not in page
    assert "<b>" not in page


def test_a_draft_says_so_and_has_no_number_and_no_way_to_pay() -> None:
    page = invoice(draft())
    assert page.count("DRAFT") >= 3
    assert "Draft acme.2026-10.1: for review only." in page
    assert "IBAN" not in page
    assert "Amount payable" not in page
    assert "JUODRAŠTIS" in invoice(draft(), "lt")


def test_an_issued_invoice_says_when_and_how_to_pay() -> None:
    page = invoice(issued(draft(), "TLC-2026-000001"))
    assert "DRAFT" not in page
    assert "Due date 15 Nov 2026" in page
    assert "IBAN LT02 9999 9000 0000 0001" in page
    assert "Payment reference TLC-2026-000001" in page
    assert "Amount payable 4,159.36 EUR" in page


def test_a_supplementary_invoice_names_the_earlier_ones() -> None:
    first = issued(draft(LINES[:2]), "TLC-2026-000001")
    page = invoice(issued(draft(LINES, [first]), "TLC-2026-000002"))
    assert "you have also received: TLC-2026-000001 of 1 Nov 2026." in page


def test_a_credit_note_names_the_invoice_and_asks_for_no_money() -> None:
    first = issued(draft(), "TLC-2026-000001")
    note = issued(draft(LINES[1:], [first]), "TLCK-2026-000001")
    page = invoice(note)
    assert "Credit note TLCK-2026-000001" in page
    assert "This credit note corrects: TLC-2026-000001 of 1 Nov 2026." in page
    assert "Amount credited 448.15 EUR" in page
    assert "Due date" not in page
    assert "IBAN" not in page
    assert "Kreditinė PVM sąskaita faktūra" in invoice(note, "lt")


def test_a_credit_without_usage_lines_prints_its_reason_as_it_was_worded() -> None:
    first = issued(draft(), "TLC-2026-000001")
    [entry, *_] = first.lines
    part = replace(
        entry.line, model=None, meter="adjustment", price_row=None, price_base=1, unit="item", tokens=0
    )
    line = replace(part, quantity=1, unit_price=Decimal("12.5"), list_price=Decimal("12.5"), amount=1_250)
    worded = replace(entry, line=line, description="Gedimas spalio 12 d.", part="adjustment:1")
    note = replace(
        first, kind="credit_note", lines=(worded,), corrects=(Reference("X-1", date(2026, 11, 1)),)
    )
    page = invoice(finish(note))
    assert "Adjustments 1 Gedimas spalio 12 d. 1 item 12.5 12.50" in page
    assert "Price per unit" in page


def test_allowances_charges_and_two_rates_of_vat_are_shown_each() -> None:
    base = draft(LINES[:1])
    exempt = replace(base.lines[0], tax_category="Z", tax_rate=Decimal(0))
    document = finish(
        replace(
            base,
            lines=(*base.lines, exempt),
            allowances=(AllowanceOrCharge("Loyalty", "95", 3_704, "S", Decimal(21), 37_037, Decimal(10)),),
            charges=(AllowanceOrCharge("Set-up", "ABK", 500, "S", Decimal(21)),),
        )
    )
    taxes = (*document.taxes[:1], replace(document.taxes[1], reason="Zero rate, Article 42"))
    assert all(isinstance(tax, Tax) for tax in taxes)
    page = invoice(replace(document, taxes=taxes))
    assert "Sum of lines 740.74 Allowance: Loyalty, 10% of 370.37 −37.04 Charge: Set-up 5.00" in page
    assert "Total without VAT 708.70" in page
    assert "VAT 21% on 338.33 (category S) 71.05" in page
    assert "VAT 0% on 370.37 (category Z) 0.00" in page
    assert "Zero rate, Article 42" in page


def test_windows_tiers_free_units_packages_and_fees_are_worded_in_both_languages() -> None:
    english, lithuanian = invoice(everything()), invoice(everything(), "lt")
    for said in (
        "Packages &ensp; tariff vilnius@2026-10-01, row 3 1 Output tokens · in packages (tokens: 2,500,001)"
        " 3 packages 2 / package 6.00",
        "2 Input tokens · included tariff vilnius@2026-10-01, row 2 1,000,000 tokens 0 0.00",
        "3 Input tokens · window spot, step 1 (× 0.6) contract acme@2026-10-11, row 1 40,123,456 tokens 0.21 8.43",
        "Output tokens · window night (× 0.5) · tier 2",
        "Agreed fees &ensp; contract acme@2026-10-11 10 Reserved capacity 1 item 338.71 / item 338.71",
    ):
        assert said in english, said
    for said in (
        "Paketai &ensp; tarifas vilnius@2026-10-01, 3 eilutė 1 Išvesties žetonai · paketais (žetonai: 2 500 001)"
        " 3 paketai 2 / paketas 6,00",
        "2 Įvesties žetonai · įskaičiuota",
        "Įvesties žetonai · laikas spot, 1 lygis (× 0,6)",
        "Sutarti mokesčiai &ensp; sutartis acme@2026-10-11 10 Reserved capacity 1 vnt. 338,71 / vnt. 338,71",
    ):
        assert said in lithuanian, said


def test_discounts_and_the_floor_are_worded_in_both_languages_and_a_goodwill_credit_as_it_was() -> None:
    assert (
        "Segment discount (vilnius@2026-10-01), 15% of 80.00 −12.00"
        " Segment discount (vilnius@2026-10-12), 15% of 20.00 −3.00"
        " Contract discount, 2.5% of 17.00 −0.43 Allowance: Gedimas spalio 12 d. −10.00"
        " Shortfall to the commitment 567.89 Total without VAT" in invoice(everything())
    )
    assert (
        "Sutarties nuolaida, 2,5 % nuo 17,00 −0,43 Nuolaida: Gedimas spalio 12 d. −10,00"
        " Trūkumas iki įsipareigotos sumos 567,89 Suma be PVM" in invoice(everything(), "lt")
    )


def test_a_discount_that_shrank_says_that_it_is_less_than_before() -> None:
    [first, *_] = everything().allowances
    document = replace(everything(), allowances=(), charges=(replace(first, base=None, percent=None),))
    page = invoice(finish(document))
    assert "Segment discount, less than before 12.00" in page


def test_lines_of_one_model_stand_under_its_name_with_what_priced_them() -> None:
    page = invoice(draft())
    assert (
        "claude-opus-4 &ensp; tariff vilnius@2026-10-01, row 2 1 Input tokens 123,456,789 tokens 3 370.37"
        in page
    )
    assert "5 Output tokens · tier 2 tariff vilnius@2026-10-01, row 2 1,234,567 tokens 1.2 1.48" in page
    assert "3 Input tokens contract acme, row 1 40,123,456 tokens 0.35 14.04" in page


def test_decimal_marks_of_prices_stand_below_one_another() -> None:
    page = invoice_html(draft(), OPERATOR, CUSTOMER, "en")
    rooms = re.findall(r"padding-right: ([0-9.]+)ch\">([0-9.]+)<", page)
    assert rooms == [("2.5", "3"), ("1", "0.3"), ("0", "0.35"), ("1", "1.6"), ("1", "1.2"), ("2.5", "100")]


def test_kinds_without_a_page_and_unknown_formats_are_refused_by_name() -> None:
    document = replace(draft(), kind="self_billed_invoice")
    with pytest.raises(Refusal) as refused:
        render_document(document, OPERATOR, CUSTOMER, "en", "pdf")
    assert refused.value.code == "not_rendered"
    with pytest.raises(Refusal) as refused:
        render_document(draft(), OPERATOR, CUSTOMER, "en", "docx")
    assert (refused.value.code, refused.value.remedy) == ("unknown_format", "one of: pdf")


def test_addresses_and_ibans_as_they_are_printed() -> None:
    assert address_lines(Address("Bandymų g. 12", "Kaunas", "44240", "LT"), "LT", "lt") == (
        "Bandymų g. 12",
        "44240 Kaunas",
        "Lietuva",
    )
    assert address_lines(None, "DE", "en") == ("Germany",)
    assert address_lines(Address(city="Nowhere"), "ZZ-X", "en") == ("Nowhere", "ZZ-X")
    assert grouped_iban("LT02 9999 90000000 0001") == "LT02 9999 9000 0000 0001"


def test_the_usage_report_says_what_is_missing() -> None:
    page = texts(usage_html(report(DETAIL, [lane(holes=1_234, held=2, complete_to=None)]), "en"))
    assert "Completeness Not complete" in page
    assert "Complete up to nothing yet" in page
    assert "The figures may still grow" in page
    assert "vilnius-1 0 nothing yet 1,234 2 0" in page
    assert "prompts, outputs, IP addresses and names of persons" in page


def test_the_usage_report_says_what_nobody_witnessed_and_what_was_served_uncounted() -> None:
    row = {**DETAIL[0], "unwitnessed_requests": 2}
    gap = {
        "kind": "unmetered",
        "node": "vilnius-1",
        "lane": "0",
        "from": "2026-10-05T00:00:00.000000Z",
        "to": "2026-10-05T00:03:20.000000Z",
        "requests": 17,
        "reason": "the <disk> was full",
    }
    page = texts(usage_html(report([row], gaps=[gap, {**gap, "reason": None}]), "en"))
    assert "Of 3 requests 2 have no figure from the engine itself" in page
    assert "What is not there" in page
    assert "vilnius-1 served without being counted" in page
    assert re.search(r"vilnius-1 .*00:00.* .*00:03.* the &lt;disk&gt; was full 17", page)
    assert re.search(r"vilnius-1 .* not accepted yet 17", page)
    assert "Completeness Not complete" in page
    accepted = texts(usage_html(report([row], gaps=[gap]), "en"))
    assert "Completeness Complete but for accepted gaps" in accepted
    assert "The figures may still grow" not in accepted
    assert "Unwitnessed" not in texts(usage_html(report(DETAIL), "lt"))
    assert "neturi paties variklio" not in texts(usage_html(report(DETAIL), "lt"))


def test_the_usage_report_names_an_import_that_is_half_taken_in_or_back() -> None:
    lanes = [lane(), lane(str(UNFINISHED["id"]), kind="import", state="unfinished", due=False)]
    page = texts(usage_html(report(DETAIL, lanes, unfinished=[UNFINISHED]), "en"))
    assert "Completeness Not complete" in page
    assert "The figures may still grow" in page
    assert (
        "import-30595fc101760851 (file 7d9f7d9f7d9f7d9f…) is not finished: 130,000 of its 1,380,000 rows are in the figures"
    ) in page
    assert "vilnius-1 import-30595fc101760851 not finished 0 0 0" in page
    back = {**UNFINISHED, "state": "voiding"}
    assert "is not wholly taken back" in texts(usage_html(report(DETAIL, unfinished=[back]), "en"))
    assert "nebaigtas" in texts(usage_html(report(DETAIL, unfinished=[UNFINISHED]), "lt"))


def test_a_very_long_table_lists_the_greatest_rows_says_so_and_sums_all() -> None:
    rows = [
        usage_row(1, 8 * n, customer=f"c{n:04}", model="m", region="LT-VL", outcome="finished")
        for n in range(1, LISTED_ROWS + 101)
    ]
    page = texts(usage_html(report(rows), "en"))
    assert (
        "The 500 rows with most tokens of 600; the CSV and JSON forms of this report hold all of them."
        in page
    )
    assert "c0600 m 1 0 4,800" in page
    assert "c0100" not in page
    assert page.count("Total 600 0 1,442,400") == 5
