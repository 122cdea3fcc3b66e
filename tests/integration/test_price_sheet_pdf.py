"""The price sheet as PDF: read back with pypdf, in every language, also when it is long."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from price_sheet_examples import price_sheet, tariff_of
from pypdf import PdfReader

from billing.tariff import Tariff
from reports.languages import SHEET_LANGUAGES
from reports.price_sheet import price_sheet_pdf

TOLD = {
    "en": "Price list vilnius Prices in region LT-KL 0.105 50,000,001 31 Dec 2026",
    "lt": "Kainoraštis vilnius 0,105 50 000 001 2026-12-31",
    "de": "Preisliste vilnius 0,105 50.000.001 31.12.2026",
    "lv": "Cenrādis vilnius Spriešanas tokenu 0,105 50 000 001 31.12.2026.",
    "et": "Hinnakiri vilnius põhihind 0,105 50 000 001 dets",
    "fi": "Hinnasto vilnius päivä 0,105 50 000 001 31.12.2026",
    "sv": "Prislista vilnius Gäller från 0,105 50 000 001 dec.",
    "it": "Listino prezzi vilnius 0,105 50.000.001 31 dic 2026",
}


def pages(content: bytes) -> list[str]:
    found = [page.extract_text() for page in PdfReader(io.BytesIO(content)).pages]
    return [re.sub(r"\s+", " ", text) for text in found]


@pytest.mark.parametrize("language", SHEET_LANGUAGES)
def test_a_sheet_on_paper_holds_its_prices_in_each_language(language: str) -> None:
    text = " ".join(pages(price_sheet_pdf(price_sheet(), language)))
    for word in TOLD[language].split():
        assert word in text, word


def test_the_same_sheet_gives_the_same_bytes() -> None:
    assert price_sheet_pdf(price_sheet(), "lt") == price_sheet_pdf(price_sheet(), "lt")


def long_tariff(rows: int) -> Tariff:
    """Rows of 30 models each, after the tariff's own first row."""
    tariff = tariff_of()
    models = tuple(f"some-organisation/a-rather-long-name-of-a-model-{n}-instruct-fp8" for n in range(30))
    many = tuple(replace(tariff.rows[1], models=models, regions=()) for _ in range(rows))
    return replace(tariff, rows=(*many, tariff.rows[-1]))


def test_a_long_sheet_breaks_between_rows_and_numbers_its_pages() -> None:
    found = pages(price_sheet_pdf(price_sheet(tariff=long_tariff(12)), "en"))
    assert len(found) > 4
    for number, page in enumerate(found, 1):
        assert f"Page {number} of {len(found)}" in page
    assert sum(page.count("Seconds of audio") for page in found) == 24, (
        "twelve rows, each with its base prices and those of a series"
    )
    assert "a-rather-long-name-of-a-model-29-instruct-fp8" in found[0]
