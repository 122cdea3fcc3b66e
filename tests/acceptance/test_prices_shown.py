"""Prices that a node's operator declared, as `tally tariff show` says them and `tally tariff sheet` publishes them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from command import EXAMPLE, Tally, over
from pypdf import PdfReader

from adapters.postgres.database import DatabaseUrls

SITE = """kind: tariff
id: nights
operator: telecentras
currency: EUR
valid_from: 2026-10-01
prices:
  - models: ["qwen3-*"]
    regions: [LT-*]
    prompt_over: 128_000
    input: 0.60
    output: 2.40
  - models: ["qwen3-*"]
    regions: [LT-*]
    input: 0.40
    output: {graduated: [{up_to: 50_000_000, price: 1.60}, {price: 1.20}]}
windows:
  - {name: night, hours: "22:00-06:00", factor: 0.5}
segments: {startup: 15%}
---
kind: contract
customer: baltic-letters
tariff: nights
valid_from: 2026-10-01
prices:
  - models: ["qwen3-32b"]
    only: true
    input: 0.30
    output: 1.00
discount: 10%
"""


@pytest.fixture
def tally(fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path) -> Tally:
    site = tmp_path / "nights.yaml"
    site.write_text(SITE)
    found = over(fresh_urls(), tmp_path / "data", EXAMPLE, site)
    found.folder = tmp_path
    return found


def test_the_prices_of_an_hour_are_said_with_their_row_window_and_place(tally: Tally) -> None:
    line = ("tariff", "show", "nights", "--at", "2026-10-25T03:30+03:00", "--model", "qwen3-32b")
    found = tally(*line, "--region", "LT-VL")

    site = tally.folder / "nights.yaml"
    assert (found["tariff_version"], found["place"]) == ("nights@2026-10-01", f"{site}:1")
    assert [found["window"][key] for key in ("name", "factor", "place")] == ["night", "0.5", f"{site}:17"]
    usual, long = found["prices"]
    assert (usual["price_row"], usual["prompt_up_to"], usual["place"]) == ("tariff:2", 128_000, f"{site}:12")
    assert (long["price_row"], long["prompt_over"], long["place"]) == ("tariff:1", 128_000, f"{site}:7")
    tiers = [tier for meter in usual["meters"] if meter["meter"] == "output" for tier in meter["tiers"]]
    assert tiers == [
        {"tier": 1, "up_to": 50_000_000, "list_price": "1.6", "unit_price": "0.8"},
        {"tier": 2, "up_to": None, "list_price": "1.2", "unit_price": "0.6"},
    ]
    assert found["changes"] == [
        {
            "at": "2026-10-25T04:00:00Z",
            "local": "2026-10-25T06:00:00+02:00",
            "what": "no window, factor 1",
        }
    ]
    shown = tally.run(*line).stdout
    assert max(len(each) for each in shown.splitlines() if str(site) not in each) <= 80
    said = " ".join(shown.split())
    assert f"window night (mon tue wed thu fri sat sun holiday 22:00-06:00) [{site}:17]: factor 0.5" in said
    assert "next: 2026-10-25 06:00:00+02:00: no window, factor 1" in said


def test_a_customer_sees_its_contracts_rows_first_and_nobody_elses_tariff(tally: Tally) -> None:
    at = ("--at", "2026-10-25T12:00+02:00")
    found = tally("tariff", "show", "nights", *at, "--customer", "baltic-letters", "--model", "qwen3-32b")
    assert [(row["price_row"], row["version"]) for row in found["prices"]] == [
        ("contract:1", "baltic-letters@2026-10-01")
    ]
    assert (found["segment_discount"], found["contract_discount"]) == ("15", "10")

    other = tally.refused("tariff", "show", "nights", *at, "--customer", "acme")
    assert (other["code"], other["remedy"]) == ("other_tariff", "tally tariff show vilnius --customer acme")
    twice = tally.refused("tariff", "show", "nights", "--at", "2026-10-25T03:30")
    assert (twice["code"], twice["remedy"]) == (
        "ambiguous_time",
        "say which: 2026-10-25T03:30+03:00 or 2026-10-25T03:30+02:00",
    )


def test_the_sheet_is_written_in_the_operators_language_and_holds_no_contract(tally: Tally) -> None:
    page, paper = tally.folder / "prices.html", tally.folder / "prices.pdf"
    made = tally("tariff", "sheet", "nights", "--at", "2026-10-25", "--out", str(page))
    assert [made[key] for key in ("tariff_version", "regions", "language", "format")] == [
        "nights@2026-10-01",
        ["LT-VL"],
        "lt",
        "html",
    ]
    text = page.read_text(encoding="utf-8")
    assert '<html lang="lt">' in text
    assert "Kainoraštis" in text
    assert "AB Pavyzdys" in text
    assert "baltic" not in text.lower()
    assert "0,30" in text  # the night's price of long prompts; the contract's own 1.00 is nowhere
    assert "1,00<" not in text

    tally("tariff", "sheet", "nights", "--language", "de", "--region", "LT-VL", "--out", str(paper))
    read = PdfReader(io.BytesIO(paper.read_bytes())).pages[0].extract_text()
    assert "Preisliste" in read
    assert "qwen3-*" in read

    refused = tally.refused("tariff", "sheet", "nights", "--language", "pl", "--out", str(page))
    assert (refused["code"], refused["remedy"]) == (
        "unknown_language",
        "one of: en, lt, de, it, lv, et, fi, sv",
    )


def test_a_day_that_no_sheet_is_of_is_refused_with_the_days_that_there_are(tally: Tally) -> None:
    for command in ("show", "sheet"):
        out = ("--out", str(tally.folder / "old.html")) if command == "sheet" else ()
        refused = tally.refused("tariff", command, "nights", "--at", "1900-01-01", *out)
        assert refused["code"] == "bad_time"
        assert "1900-01-01 is out of range: prices are asked for in the years 2000 to 2199" in refused["what"]


def test_a_sheet_of_today_names_the_version_that_follows(tally: Tally) -> None:
    """A version that was applied and begins later is not on the sheet; who publishes it asks for its day."""
    site = tally.folder / "later.yaml"
    site.write_text(
        "kind: tariff\nid: nights\noperator: telecentras\ncurrency: EUR\nvalid_from: 2199-01-01\n"
        "prices: [{models: ['*'], input: 9, output: 9}]\n"
    )
    page = tally.folder / "next.html"
    tally("apply", str(site))
    made = tally("tariff", "sheet", "nights", "--at", "2026-10-25", "--out", str(page))
    assert made["next"] == {"tariff_version": "nights@2199-01-01", "valid_from": "2199-01-01"}
    made = tally("tariff", "sheet", "nights", "--at", "2199-01-01", "--out", str(page))
    assert (made["tariff_version"], made["next"]) == ("nights@2199-01-01", None)
