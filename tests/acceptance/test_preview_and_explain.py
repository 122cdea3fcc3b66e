"""A month previewed, closed and explained with commands alone, under a tariff with windows, tiers and included tokens.

Figures are small enough to follow: a million tokens of input cost 0.40, at night half of it, the first million is free.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command import EXAMPLE, Json, Tally, over, write_rows

from adapters.postgres.database import DatabaseUrls

OCTOBER = "2026-10"
TARIFF = """kind: tariff
id: day-and-night
operator: telecentras
currency: EUR
prices:
  - models: ["*"]
    input: 0.40
    output: {graduated: [{up_to: 2_000_000, price: 1.60}, {price: 1.20}]}
windows:
  - {name: night, hours: "22:00-06:00", factor: 0.5}
included: {input: 1_000_000}
segments: {startup: 10%}
minimum: 2.00
---
kind: contract
customer: baltic-letters
tariff: day-and-night
fees: [{name: Reserved capacity, amount: 31.00}]
"""


@pytest.fixture
def tally(fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path) -> Tally:
    (tmp_path / "prices.yaml").write_text(TARIFF)
    tally = over(fresh_urls(), tmp_path / "data", EXAMPLE)
    tally.folder = tmp_path
    tally("apply", "prices.yaml")
    return tally


def use(tally: Tally, time: str, prompt: int, completion: int) -> None:
    row = {
        "time": time,
        "customer": "baltic-letters",
        "model": "mistral-small",
        "prompt_tokens": prompt,
        "completion_tokens": completion,
    }
    tally("import", str(write_rows(tally.folder / f"{time.replace(':', '-')}.csv", [row])))


def preview(tally: Tally, *options: str) -> Json:
    return tally("invoice", "preview", "--customer", "baltic-letters", "--period", OCTOBER, *options)


def steps_of(explained: Json, line: str) -> dict[str, tuple[str, str]]:
    [found] = [each for each in explained["lines"] if each["line"] == line]
    return {step["what"]: (step["from"], step["to"]) for step in found["steps"]}


def test_a_month_is_previewed_closed_explained_and_explained_again_after_late_usage(tally: Tally) -> None:
    use(tally, "2026-10-05T09:00:00Z", 3_000_000, 1_500_000)
    use(tally, "2026-10-05T20:00:00Z", 2_000_000, 1_000_000)

    morning = preview(tally, "--until", "2026-10-05T19:59:00Z")
    whole = preview(tally)
    assert (morning["until"], whole["until"]) == ("2026-10-05T19:00:00Z", None)
    assert (morning["state"], morning["number"], morning["line_total"]) == ("preview", None, "34.20")
    assert (whole["line_total"], whole["net"], whole["issued_net"]) == ("35.30", "34.87", "0.00")
    assert tally("invoice", "list")["invoices"] == [], "a preview keeps nothing"

    [row] = tally("period", "close", OCTOBER, "--issue")["operators"]
    [first] = [each for each in row["issued"] if each["customer"] == "baltic-letters"]
    assert first["net"] == whole["net"]
    nothing = preview(tally)
    assert (nothing["net"], nothing["bill_net"], nothing["issued_net"]) == ("0.00", "34.87", "34.87")

    explained = tally("invoice", "explain", first["number"])
    shown = tally("invoice", "show", first["number"])
    for line in shown["lines"]:
        assert list(steps_of(explained, line["id"]).values())[-1][1] == f"{line['amount']} EUR"
    [night] = [line for line in shown["lines"] if line["window"] == "night" and line["tier"] == 2]
    steps = steps_of(explained, night["id"])
    assert steps["tier"] == (
        "the row's pool took 2500000 tokens in the period, 500000 of them in tier 2 (over 2000000); before the first of"
        " these it held 1500000",
        "500000 tokens",
    )
    assert steps["list price"][0] == (
        "prices.yaml:8, tariff day-and-night, row 1, output, tier 2 (over 2000000)"
    )
    assert steps["factor"] == (
        "1.2 × 0.5, prices.yaml:10, window night: every day, 22:00-06:00 Europe/Vilnius",
        "0.6 EUR per 1000000 tokens",
    )
    [fee] = [line for line in shown["lines"] if line["meter"] == "fee"]
    assert steps_of(explained, fee["id"])["fee"] == (
        "prices.yaml:18, contract baltic-letters: 31.00 EUR a month, in force on 31 of 31 days: 31.00 × 31 ÷ 31, rounded",
        "31.00 EUR",
    )
    assert steps_of(explained, "document")["Segment discount"] == (
        "prices.yaml:12, tariff day-and-night: 10 % for segment startup, of 4.30 on lines from its rows",
        "-0.43 EUR",
    )
    assert steps_of(explained, "document")["rated at"][1] == "as the month rates now"

    use(tally, "2026-10-05T20:30:00Z", 10_000_000, 0)
    [row] = tally("period", "close", OCTOBER, "--issue")["operators"]
    [second] = [each for each in row["issued"] if each["customer"] == "baltic-letters"]
    later = tally("invoice", "explain", second["number"], "--line", "1")
    [only] = later["lines"]
    assert steps_of(later, "1")["difference"] == (f"2.40 − 0.40 on {first['number']}", "2.00 EUR")
    assert only["line"] == "1"
    again = tally("invoice", "explain", first["number"])
    assert steps_of(again, "document")["rated at"][1] == "usage and adjustments that came since are not in it"
    assert tally.refused("invoice", "explain", first["number"], "--line", "99")["code"] == "unknown_line"


def test_what_a_person_reads_fits_eighty_columns(tally: Tally) -> None:
    use(tally, "2026-10-05T20:00:00Z", 2_000_000, 1_000_000)
    shown = tally.run("invoice", "preview", "--customer", "baltic-letters", "--period", OCTOBER)
    tally("period", "close", OCTOBER)
    explained = tally.run("invoice", "explain", "baltic-letters.2026-10.1")
    assert all(len(line) <= 80 for line in explained.stdout.splitlines()), explained
    assert shown.stdout.startswith("preview: an invoice for Baltic Letters MB · 2026-10\n"), shown
    assert "fees, commitments and minimums are those of the whole month" in shown.stdout
    assert "→ 1,000,000 tokens" in explained.stdout


def test_a_preview_is_refused_by_name(tally: Tally) -> None:
    assert tally.refused("invoice", "preview", "--customer", "nobody")["code"] == "unknown_customer"
    options = ("invoice", "preview", "--customer", "acme", "--period", OCTOBER, "--until")
    assert tally.refused(*options, "noon")["code"] == "bad_time"
    assert tally.refused(*options, "2026-10-01")["code"] == "bad_until"
