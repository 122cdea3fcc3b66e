"""A price of 0.1 is "0.1" from the file to the bill: never a binary float, which cannot hold it.

The amount shows it too: 150,000 tokens at 0.1 per million are 0.015 EUR, which rounds half away from zero to 0.02; the
nearest float is below 0.015 and would give 0.01.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from command import EXAMPLE, Json, Tally, over, write_rows
from pypdf import PdfReader

from adapters.postgres.database import DatabaseUrls

SITE = """kind: tariff
id: tenth
operator: telecentras
currency: EUR
prices:
  - models: ["*"]
    input: {input}
    output: 0.3
---
kind: customer
id: tenth-of-a-euro
operator: telecentras
name: Tenth UAB
country: LT
business: true
language: en
address: {{street: x, city: Vilnius, postcode: "01100", country: LT}}
---
kind: contract
customer: tenth-of-a-euro
tariff: tenth
"""
USAGE = {
    "time": "2026-10-12T09:30:00Z",
    "customer": "tenth-of-a-euro",
    "model": "m",
    "prompt_tokens": 150_000,
    "completion_tokens": 10,
}


def billed(tally: Tally, folder: Path, written: str) -> Json:
    """The invoice of one request at an input price written so in the file."""
    site = folder / "tenth.yaml"
    site.write_text(SITE.format(input=written))
    tally("apply", str(EXAMPLE), str(site))
    tally("import", str(write_rows(folder / "usage.csv", [USAGE])))
    [closed] = tally("period", "close", "2026-10", "--issue")["operators"]
    [issued] = closed["issued"]
    return tally("invoice", "show", issued["id"])


@pytest.mark.parametrize("written", ["0.1", "0.1000000000"])
def test_a_price_of_one_tenth_stays_one_tenth(
    fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path, written: str
) -> None:
    tally = over(fresh_urls(), tmp_path / "data")

    invoice = billed(tally, tmp_path, written)

    [declared] = tally("get", "tariff", "tenth")["documents"]
    assert declared["prices"][0]["input"] == "0.1"
    line = next(line for line in invoice["lines"] if line["meter"] == "input")
    assert (line["list_price"], line["unit_price"], line["factor"]) == ("0.1", "0.1", "1")
    assert (line["quantity"], line["amount"]) == (150_000, "0.02")
    [explained] = [
        each for each in tally("invoice", "explain", invoice["id"])["lines"] if each["line"] == line["id"]
    ]
    assert any("0.1 EUR per 1000000" in step["to"] for step in explained["steps"]), explained
    tally("invoice", "render", invoice["id"], "--out", str(tmp_path / "invoice.pdf"))
    page = PdfReader(io.BytesIO((tmp_path / "invoice.pdf").read_bytes())).pages[0].extract_text()
    assert "0.10" in page or "0.1 " in page, page
    assert "0.1000000000000000055" not in page


def test_what_get_prints_can_be_applied_again_and_changes_nothing(
    fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path
) -> None:
    tally = over(fresh_urls(), tmp_path / "data")
    billed(tally, tmp_path, "0.1")

    printed = tmp_path / "printed.yaml"
    printed.write_text(tally.run("get").stdout)
    again = tally("apply", str(printed))

    assert 'input: "0.1"\n' in printed.read_text()  # quoted: text, whoever reads it
    assert (again["created"], again["changed"]) == ([], [])
