"""The PDFs themselves: read back with pypdf, laid out by the machine's own fonts."""

from __future__ import annotations

import io
import re
import socket
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from paper_examples import (
    CUSTOMER,
    DETAIL,
    LINES,
    OPERATOR,
    draft,
    everything,
    issued,
    many_lines,
    report,
    usage_line,
)
from pypdf import PdfReader

from billing.document import Document, to_json
from reports import pdf
from reports.invoice import render_invoice_pdf
from reports.usage_page import usage_pdf


def read(content: bytes) -> PdfReader:
    return PdfReader(io.BytesIO(content))


def rendered(document: Document, language: str = "en") -> PdfReader:
    return read(render_invoice_pdf(document, OPERATOR, CUSTOMER, language))


def root_of(reader: PdfReader) -> Any:
    """The file's catalogue."""
    return reader.trailer["/Root"]


def text_of(reader: PdfReader) -> str:
    """All pages' text, spaces single and breakable."""
    text = " ".join(page.extract_text() for page in reader.pages)
    return re.sub(r"\s+", " ", text)


def fonts_of(reader: PdfReader) -> Iterator[tuple[str, bool]]:
    """(name, whether its file is embedded) of every font of every page."""
    for page in reader.pages:
        resources: Any = page["/Resources"]
        for font in resources["/Font"].values():
            [descendant] = font.get_object()["/DescendantFonts"]
            descriptor = descendant.get_object()["/FontDescriptor"].get_object()
            embedded = any(key in descriptor for key in ("/FontFile", "/FontFile2", "/FontFile3"))
            yield str(descriptor["/FontName"]), embedded


INVOICE = issued(draft(), "TLC-2026-000001")


def test_an_english_invoice_holds_its_figures() -> None:
    text = text_of(rendered(INVOICE))
    for said in (
        "VAT invoice",
        "TLC-2026-000001",
        "1 Oct 2026 – 31 Oct 2026",
        "Registration no. 123456789",
        "VAT no. LT100001234510",
        "VAT no. LT999990010",
        "9,876,543,210 tokens",
        "2,962.96",
        "Total without VAT 3,437.49",
        "VAT 21% on 3,437.49 (category S) 721.87",
        "Total with VAT 4,159.36 EUR",
        "LT02 9999 9000 0000 0001",
        "Page 1 of 1",
    ):
        assert said in text, said


def test_a_lithuanian_invoice_holds_the_same_figures_in_its_own_writing() -> None:
    text = text_of(rendered(INVOICE, "lt"))
    for said in (
        "PVM sąskaita faktūra",
        "2026-10-01 – 2026-10-31",
        "Įmonės kodas 123456789",
        "9 876 543 210 žetonai",
        "2 962,96",
        "Suma be PVM 3 437,49",
        "PVM 21 % nuo 3 437,49 (kategorija S) 721,87",
        "Suma su PVM 4 159,36 EUR",
        "Mokėtina suma 4 159,36 EUR",
        "Puslapis 1 iš 1",
    ):
        assert said in text, said


@pytest.mark.parametrize(
    ("language", "said"),
    [
        (
            "en",
            (
                "Output tokens · in packages (tokens: 2,500,001) 3 packages 2 / package 6.00",
                "(× 0.6)",
                "Reserved capacity 1 item 338.71 / item 338.71",
                "Shortfall to the commitment 567.89",
                "Total with VAT 1,505.63 EUR",
            ),
        ),
        (
            "lt",
            (
                "Išvesties žetonai · paketais (žetonai: 2 500 001) 3 paketai 2 / paketas 6,00",
                "(× 0,6)",
                "Reserved capacity 1 vnt. 338,71 / vnt. 338,71",
                "Trūkumas iki įsipareigotos sumos 567,89",
                "Suma su PVM 1 505,63 EUR",
            ),
        ),
    ],
)
def test_an_invoice_with_everything_in_it_keeps_its_layout(language: str, said: tuple[str, ...]) -> None:
    reader = rendered(issued(everything(), "TLC-2026-000007"), language)
    assert len(reader.pages) == 2
    text = text_of(reader)
    for each in said:
        assert each in text, each


def test_a_document_and_its_json_give_the_same_bytes_each_time() -> None:
    first = render_invoice_pdf(INVOICE, OPERATOR, CUSTOMER, "lt")
    assert render_invoice_pdf(to_json(INVOICE), OPERATOR, CUSTOMER, "lt") == first
    assert render_invoice_pdf(INVOICE, OPERATOR, CUSTOMER, "en") != first


def test_another_language_than_those_with_words_is_english() -> None:
    finnish = render_invoice_pdf(INVOICE, OPERATOR, CUSTOMER, "fi")
    assert finnish == render_invoice_pdf(INVOICE, OPERATOR, CUSTOMER, "en")
    assert finnish == render_invoice_pdf(INVOICE, OPERATOR, CUSTOMER, None)


def test_two_hundred_lines_keep_their_heads_their_page_numbers_and_their_figures() -> None:
    reader = rendered(issued(draft(many_lines(200)), "TLC-2026-000002"))
    pages = [page.extract_text() for page in reader.pages]
    assert len(pages) == 8
    for number, page in enumerate(pages, 1):
        assert "Price per 1,000,000" in page
        assert f"Page {number} of 8" in page
        assert ("VAT invoice TLC-2026-000002" in page) is (number > 1)
    text = text_of(reader)
    assert len(re.findall(r"1,000,[0-9]{3} tokens", text)) == 200


@pytest.mark.parametrize("count", [13, 14, 17, 33, 37])
def test_totals_never_stand_alone_on_a_page(count: int) -> None:
    last = rendered(issued(draft(many_lines(count)), "TLC-2026-000003")).pages[-1].extract_text()
    assert "Total with VAT" in last
    assert re.search(r"1,000,[0-9]{3}", last)


def test_a_model_with_more_lines_than_a_page_breaks_within() -> None:
    lines = [usage_line("m", "output", 10**6 + n, "0.4", tier=n) for n in range(1, 61)]
    assert len(rendered(draft(lines)).pages) == 2


def test_a_draft_carries_its_mark_on_every_page_and_no_number() -> None:
    reader = rendered(draft(many_lines(60)), "lt")
    assert len(reader.pages) > 1
    assert all("JUODRAŠTIS" in page.extract_text() for page in reader.pages)
    assert "TLC" not in text_of(reader)


def test_markup_in_a_name_is_printed_as_it_is() -> None:
    name = "<b>Acme</b> & <script>alert(1)</script> UAB"
    text = text_of(rendered(replace(INVOICE, customer_name=name)))
    assert name in text


def test_very_long_names_wrap_inside_the_page() -> None:
    name = "Labaiilgaspavadinimas" * 12
    reader = rendered(replace(INVOICE, customer_name=name, purchase_order="P" * 200))
    assert name in "".join(reader.pages[0].extract_text().split())


def test_the_file_is_made_to_be_archived_and_says_title_author_and_language() -> None:
    reader = rendered(INVOICE, "lt")
    metadata = reader.metadata
    assert metadata is not None
    assert metadata.title == "PVM sąskaita faktūra TLC-2026-000001"
    assert metadata.author == "AB Pavyzdys"
    assert root_of(reader)["/Lang"] == "lt"
    assert str(metadata["/CreationDate"]).startswith("D:20261101")
    xmp = root_of(reader)["/Metadata"].get_data().decode()
    assert 'pdfaid:part="3"' in xmp
    assert 'pdfaid:conformance="B"' in xmp
    assert "/OutputIntents" in root_of(reader)


def test_every_font_is_embedded_and_from_this_machine() -> None:
    fonts = set(fonts_of(rendered(draft())))
    assert fonts
    assert all(embedded and "DejaVu" in name for name, embedded in fonts), fonts


@pytest.mark.parametrize(
    "address", ["https://example.com/a.png", "file:///etc/hostname", "data:image/png;base64,AA"]
)
def test_a_page_fetches_nothing(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socket(*_: object, **__: object) -> socket.socket:
        raise AssertionError("a page opened a socket")

    monkeypatch.setattr(socket, "socket", no_socket)
    with pytest.raises(pdf.OutsideAddressError, match="fetch nothing"):
        pdf.to_pdf(f'<html lang="en"><title>x</title><img src="{address}" alt="x">', "invoice.css")


def test_a_fault_of_a_page_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(RuntimeWarning, match="invoice.css"):
        pdf.to_pdf('<html lang="en"><title>x</title><p style="colour: red">x', "invoice.css")


def test_the_usage_report_in_both_languages() -> None:
    english = read(usage_pdf(report(DETAIL), "en"))
    text = text_of(english)
    assert "Token usage report · October 2026" in text
    assert "baltic-letters qwen3-32b 2 0 10,000,000" in text
    assert "Total 7 1 10,003,840" in text
    assert "Every stream of the period is complete beyond its end." in text
    assert root_of(english)["/Lang"] == "en"
    lithuanian = text_of(read(usage_pdf(report(DETAIL), "lt")))
    assert "Žetonų naudojimo ataskaita · 2026 m. spalis" in lithuanian
    assert "Iš viso 7 1 10 003 840" in lithuanian
    assert "2026-10-25" in lithuanian
    assert all(embedded for _, embedded in fonts_of(english))


def test_an_invoice_takes_a_third_of_a_second() -> None:
    """Of processor time, on a quiet machine; the bound leaves room for a busy or slow one."""
    document = issued(draft([*LINES, *LINES[:2]]), "TLC-2026-000004")
    render_invoice_pdf(document, OPERATOR, CUSTOMER, "lt")
    taken = []
    for _ in range(3):
        begun = time.process_time()
        render_invoice_pdf(document, OPERATOR, CUSTOMER, "lt")
        taken.append(time.process_time() - begun)
    print(f"{statistics.median(taken) * 1000:.0f} ms of processor time an invoice of one page")
    assert statistics.median(taken) < 1.5
