"""The public price sheet as a page: whole, escaped, in its reader's language, and never with a contract."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal
from html.parser import HTMLParser

import pytest
from price_sheet_examples import RICH, price_sheet, tariff_of

from billing.site import Address
from billing.tariff import Tariff, Window
from reports import figures
from reports.languages import SHEET_LANGUAGES, sheet_words
from reports.price_sheet import price_sheet_html

EVIL = '<b>Bold</b> & "Sons" <script>alert(1)</script>'
VOID = {"meta", "br"}


def texts(page: str) -> str:
    """The page's text: style sheet and tags gone, spaces single."""
    plain = re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*</style>", "", page, flags=re.DOTALL))
    return re.sub(r"\s+", " ", plain.replace("\u00a0", " "))


def said(language: str = "en", **changed: object) -> str:
    return texts(price_sheet_html(price_sheet(**changed), language))


class Outline(HTMLParser):
    """Tags that do not close, levels of headings, and attributes that name something elsewhere in the page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.names: list[str] = []
        self.cells: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "th":
            self.cells.append(given)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.names += [value for name, value in attrs if name == "aria-labelledby" and value]
        self.names += [value[1:] for name, value in attrs if name == "href" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()


def outline(language: str) -> Outline:
    found = Outline()
    found.feed(price_sheet_html(price_sheet(), language))
    return found


def test_prices_stand_per_region_row_meter_and_window() -> None:
    page = said()
    section = page[
        page.index("Prices in region LT-KL qwen3-*") : page.index("Prices in region LT-VL qwen3-*")
    ]
    assert (
        "qwen3-* requests with more than 128,000 prompt tokens Usage Base price night 22:00–06:00 Mon–Fri × 0.5 "
        "weekend Sat, Sun, public holidays × 0.7 "
        "Input tokens 0.60 0.30 0.42 Cached input tokens 0.15 0.075 0.105 Output tokens 2.40 1.20 1.68 "
        "Reasoning tokens as output tokens" in section
    )
    assert (
        "Output tokens the first 50,000,000 1.60 0.80 1.12 from 50,000,001 to 200,000,000 1.40 0.70 0.98 "
        "beyond 200,000,000 1.20 0.60 0.84" in section
    )
    assert "Seconds of audio 100.00 50.00 70.00" in section
    assert "llama-*" not in section
    assert "All other models" in section
    rome = page[
        page.index("Prices in region IT-RM All models") : page.index("Prices in region LT-KL qwen3-*")
    ]
    assert "Requests 5.00 2.50 3.50" in rome


def test_volume_and_packages_are_told_with_what_they_mean() -> None:
    page = said()
    assert "Input tokens in total up to 10,000,000 0.60 0.30 0.42 in total over 10,000,000 0.50" in page
    assert "Output tokens per package of 1,000,000 2.00 2.00 2.00" in page
    assert "all units of the month cost the price of the step that their total falls in" in page
    assert "the same at every hour" in page
    assert "per 1,000,000 requests. Audio: per 1,000,000 seconds. Packages: per package." in page


def test_what_is_priced_by_packages_alone_is_not_said_to_be_per_million() -> None:
    tariff = tariff_of(RICH.replace("requests: 5", "requests: {package: {size: 10_000, price: 0.05}}"))
    page = said(tariff=tariff)
    assert "without VAT. Audio: per 1,000,000 seconds. Packages: per package." in page
    assert "Requests per package of 10,000 0.05 0.05 0.05" in page


def test_windows_have_their_days_hours_and_share_of_the_base_price() -> None:
    page = said()
    assert "night Mon–Fri 22:00–06:00 (next day) 50% of the base price" in page
    assert "weekend Sat, Sun, public holidays all day 70% of the base price" in page
    assert "spot every day 10:00–16:00 by the hour's price (spot.csv)" in page.replace("&#39;", "'")
    assert "Hours are local time in Europe/Vilnius" in page
    assert "Public holidays in 2026 1 Jan 2026 24 Dec 2026" in page


def with_windows(*windows: str) -> Tariff:
    """The rich tariff with other windows."""
    head, _, rest = RICH.partition("windows:")
    listed = "".join(f"  - {window}\n" for window in windows)
    return tariff_of(f"{head}windows:\n{listed}segments{rest.partition('segments')[2]}")


def test_each_step_of_a_series_has_its_prices_in_a_table_that_says_where_the_series_comes_from() -> None:
    section = said().replace("&#39;", "'").partition("Prices in region LT-VL")[2].partition("llama-*")[2]
    assert (
        "spot, 10:00–16:00, every day: by the hour's price (spot.csv) "
        "Usage up to 40 × 0.6 up to 80.5 × 0.9 above 80.5 × 1 "
        "Input tokens in total up to 10,000,000 0.36 0.54 0.60 in total over 10,000,000 0.30 0.45 0.50 "
        "All other models" in section
    ), "what counts as another is said once, and packages cost the same at every hour"
    assert "Prices in region LT-VL" in said()


def test_a_few_steps_stand_beside_the_base_price() -> None:
    spot = (
        "{name: spot, days: [sat], hours: '10:00-16:00', series: {first: 2026-09-30T21:00:00Z, prices: [40]}, "
        "steps: [{up_to: -5, factor: 0.25}, {factor: 1.5}]}"
    )
    page = said(tariff=with_windows("{name: night, hours: '22:00-06:00', factor: 0.5}", spot))
    assert (
        "Usage Base price night 22:00–06:00 every day × 0.5 spot 10:00–16:00 Sat up to −5 × 0.25 "
        "spot 10:00–16:00 Sat above −5 × 1.5 Input tokens 0.60 0.30 0.15 0.90" in page
    )
    assert "by the hour&#39;s price (an hourly list)" in page


def test_many_steps_go_on_in_a_further_table_and_a_series_of_one_step_says_so() -> None:
    steps = ", ".join(f"{{up_to: {bound}, factor: 0.{bound}}}" for bound in range(1, 6))
    spot = "series: {file: a.csv, first: 2026-09-30T21:00:00Z, prices: [40]}, steps: "
    page = said(tariff=with_windows(f"{{name: spot, {spot}[{steps}, {{factor: 1}}]}}"), regions=("IT-RM",))
    assert page.count("spot, every day: by the hour&#39;s price (a.csv)") == 2
    assert "Usage up to 1 × 0.1 up to 2 × 0.2 up to 3 × 0.3 up to 4 × 0.4 Input tokens 0.06" in page
    assert "Usage up to 5 × 0.5 above 5 × 1 Input tokens 0.30 0.60" in page
    page = said(tariff=with_windows(f"{{name: spot, {spot}[{{factor: 0.5}}]}}"))
    assert "Usage Base price spot every day any price × 0.5" in page


def test_a_series_is_explained_in_a_sentence() -> None:
    assert (
        "In the window spot the price changes from hour to hour with a published price (spot.csv), which is known from "
        "1 Oct 2026 00:00 to 1 Oct 2026 03:00. While it is at most 40, you pay 60% of the base price; "
        "at most 80.5, you pay 90% of the base price; higher, 100%." in said()
    )


def test_who_sells_from_when_until_when_and_what_is_billed() -> None:
    page = said()
    for text in (
        "AB Pavyzdys Price list Tariff vilnius Valid from 1 Oct 2026 Last day 31 Dec 2026 Currency EUR",
        "All prices are in EUR per 1,000,000 tokens, without VAT. Requests: per 1,000,000 requests.",
        "Small and medium-sized enterprises −15% Research institutions −40% What is billed",
        "Free in each calendar month: 1,000,000 input tokens, 200,000 output tokens.",
        "A month with usage costs at least 5.00 EUR without VAT.",
        "Output is billed as it was delivered to you.",
        "Billed are requests that finished, that you cut short or that a fault cut short.",
        "Free of charge are requests that failed.",
        "Pavyzdžio g. 1 01100 Vilnius Lithuania Registration no. 123456789 VAT no. LT100001234510",
    ):
        assert text in page, text


def test_a_tariff_of_one_row_has_a_short_sheet() -> None:
    head, _, _ = RICH.partition("prices:")
    plain = tariff_of(head + 'prices: [{models: ["*"], input: 0.4, output: 1}]')
    page = said(tariff=replace(plain, valid_from=None), valid_until=None, regions=("LT-VL",))
    assert "Prices All models Usage Price Input tokens 0.40 Cached input tokens as input tokens" in page
    assert "Last day until further notice" in page
    for word in ("Valid from", "region", "Prices by time", "Discounts", "asterisk", "calendar month"):
        assert word not in page, word


def test_regions_with_the_same_rows_share_a_section_and_without_nodes_rows_say_where_they_hold() -> None:
    page = said(regions=("IT-MI", "IT-RM", "LT-VL"))
    assert "Prices in regions IT-MI, IT-RM All models" in page
    page = said(regions=())
    assert "Prices qwen3-* requests with more than 128,000 prompt tokens LT-*" in page


def test_many_windows_have_no_columns_of_prices() -> None:
    tariff = tariff_of()
    many = tuple(
        Window(f"w{n}", frozenset(("mon",)), n, n + 1, Decimal("0.9")) for n in range(4)
    )  # four of a fixed factor
    page = said(tariff=replace(tariff, windows=many))
    assert "Usage Price Input tokens 0.60 Cached input tokens 0.15" in page
    assert "w3 Mon 03:00–04:00 90% of the base price" in page


def test_each_language_writes_its_own_words_marks_and_days() -> None:
    assert "Išvesties žetonai pirmieji 50 000 000 1,60 0,80 1,12" in said("lt")
    assert "night pr–pn 22:00–06:00 (kitos dienos) 50 % bazinės kainos" in said("lt")
    assert "Ausgabe-Tokens die ersten 50.000.000 1,60 0,80 1,12" in said("de")
    assert "Gültig ab 01.10.2026 Letzter Tag 31.12.2026" in said("de")
    assert "Token di output i primi 50.000.000 1,60 0,80 1,12" in said("it")
    assert "weekend sab, dom, festivi tutto il giorno 70% del prezzo base" in said("it")
    assert "Izvades tokeni pirmie 50 000 000 1,60 0,80 1,12" in said("lv")
    assert "spot, 10:00–16:00, katru dienu: pēc stundas cenas (spot.csv)" in said("lv")
    assert "Spēkā no 01.10.2026. Pēdējā diena 31.12.2026." in said("lv")
    assert "Väljundtokenid esimesed 50 000 000 1,60 0,80 1,12" in said("et")
    assert "weekend L, P, riigipühad ööpäev läbi 70% põhihinnast" in said("et")
    assert "Tuotostokenit ensimmäiset 50 000 000 1,60 0,80 1,12" in said("fi")
    assert "Kun se on enintään 40, maksetaan 60 % perushinnasta; enintään 80,5, maksetaan 90 %" in said("fi")
    assert "Utdatatoken de första 50 000 000 1,60 0,80 1,12" in said("sv")
    assert "Anrop som slutfördes, som ni avbröt eller som avbröts av ett fel debiteras." in said("sv")


@pytest.mark.parametrize("language", SHEET_LANGUAGES)
def test_a_page_is_whole_in_itself_and_says_its_language(language: str) -> None:
    page = price_sheet_html(price_sheet(), language)
    assert page.startswith(f'<!doctype html>\n<html lang="{language}">')
    assert not re.search(r"<(script|link|img|iframe)|https?:|url\(|@import|@font-face", page)
    assert '<meta name="viewport"' in page


@pytest.mark.parametrize("language", SHEET_LANGUAGES)
def test_headings_descend_step_by_step_and_tables_have_headers(language: str) -> None:
    found = outline(language)
    assert found.open == []
    assert found.headings[0] == 1
    assert all(after - before <= 1 for before, after in zip(found.headings, found.headings[1:], strict=False))
    assert all(cell.get("scope") in ("col", "row", "colgroup") for cell in found.cells)
    assert len(found.ids) == len(set(found.ids))
    assert set(found.names) <= set(found.ids)


def evil_sheets() -> Iterator[str]:
    tariff = tariff_of()
    rows = (replace(tariff.rows[0], models=(EVIL,), regions=(EVIL,)), *tariff.rows[1:])
    operator = replace(
        price_sheet().operator, name=EVIL, registration=EVIL, address=Address(EVIL, EVIL, EVIL, "LT")
    )
    spot = tariff.windows[2]
    assert spot.series is not None
    windows = (replace(spot, name=EVIL, series=replace(spot.series, file=EVIL)),)
    evil = replace(tariff, id=EVIL, rows=rows, windows=windows)
    for regions in ((EVIL,), ()):
        yield price_sheet_html(price_sheet(operator=operator, tariff=evil, regions=regions), "en")


def test_no_name_becomes_markup() -> None:
    for page in evil_sheets():
        assert "<script" not in page
        assert "<b>" not in page
        assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 8


def test_every_word_stands_in_every_language_with_the_same_blanks() -> None:
    for name, english in sheet_words("en").items():
        for language in SHEET_LANGUAGES:
            text = sheet_words(language)[name]
            assert text.strip(), name
            assert sorted(re.findall(r"{\w+}", text)) == sorted(re.findall(r"{\w+}", english)), name


def test_a_price_has_at_least_two_decimals_and_all_of_its_own() -> None:
    assert [figures.price(Decimal(text), "en") for text in ("3", "0.4", "0.075", "1000")] == [
        "3.00",
        "0.40",
        "0.075",
        "1,000.00",
    ]


def test_the_holidays_are_left_out_where_no_window_asks_for_them() -> None:
    tariff = tariff_of()
    assert "Public holidays in" not in said(tariff=replace(tariff, windows=tariff.windows[:1]))
    assert date(2026, 12, 24) in price_sheet().holidays


def test_a_price_in_a_window_has_all_the_digits_that_are_billed() -> None:
    page = said(
        tariff=tariff_of(
            RICH.replace("factor: 0.5}", "factor: 0.333333}").replace(
                "input: 0.40", "input: 123456789012.123456789012"
            )
        )
    )
    assert "41,152,221,851.778148221851736996" in page
