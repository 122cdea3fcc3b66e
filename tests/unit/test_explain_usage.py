"""`invoice explain` over a month with everything in it: each line from its hours to its cents, and the floor by days."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest
from priced_month import SITE, USED, WITHOUT_FLOOR, Month, month, stated, used
from usage_cells import usage_table

from billing.document import CREDIT_NOTE, Document, to_json
from billing.draft import reference
from billing.rated_again import rated_again
from reports.explain import NOT_WORKED_OUT, WHOLE_DOCUMENT, explain
from reports.explain_figures import step
from reports.explain_text import explain_text

Steps = dict[str, dict[str, tuple[str, str]]]


@pytest.fixture(scope="module")
def steps() -> Steps:
    books = month()
    return by_title(books, books.close())


def by_title(books: Month, document: Document) -> Steps:
    """A line's description → what → (from, to)."""
    titles = {entry.id: entry.description for entry in document.lines}
    return {titles.get(line, line): steps for line, steps in books.explained(document).items()}


def test_the_steps_of_every_line_end_in_its_quantity_and_its_amount() -> None:
    books = month()
    document = books.close()
    lines = {entry["line"]: entry["steps"] for entry in explain(to_json(document), books.again(document))}
    for entry in document.lines:
        assert lines[entry.id][-1]["to"] == f"{entry.line.amount / 100:.2f} EUR"
        assert not any(each["what"] == NOT_WORKED_OUT for each in lines[entry.id])
        if entry.line.item is None:
            before_price = [each["what"] for each in lines[entry.id]].index("list price") - 1
            unit = entry.line.unit if entry.line.quantity == 1 else f"{entry.line.unit}s"
            assert lines[entry.id][before_price]["to"] == f"{entry.line.quantity} {unit}"


def test_what_the_row_does_not_price_and_what_is_free_are_said(steps: Steps) -> None:
    free = steps["qwen3-32b · input tokens · included"]
    assert free["usage"] == (
        "qwen3-32b on vilnius-1 (LT-VL), finished, hour 2026-10-05 12:00+03:00, in no window",
        "1900000 tokens",
    )
    assert free["counted as input"] == (
        "1500000 input + 400000 cached_input: the row has no price for cached_input",
        "1900000 tokens",
    )
    assert free["included"] == (
        "1000000 are free in the period, used up in order of time: 1000000 of them in these hours",
        "1000000 tokens",
    )


def test_a_graduated_pool_says_what_it_took_and_what_lay_before(steps: Steps) -> None:
    assert steps["qwen3-32b · output tokens · night · tier 2"] == {
        "usage": (
            "qwen3-32b on vilnius-1 (LT-VL), finished, hour 2026-10-05 23:00+03:00, in window night",
            "25000000 tokens",
        ),
        "tier": (
            "the row's pool took 67000000 tokens in the period, 17000000 of them in tier 2 (over 50000000); before the"
            " first of these it held 40000000",
            "15000000 tokens",
        ),
        "list price": (
            "file unknown, tariff vilnius, row 1, output, tier 2 (over 50000000)",
            "1.2 EUR per 1000000 tokens",
        ),
        "factor": (
            "1.2 × 0.5, file unknown, window night: mon tue wed thu fri, 22:00-06:00 Europe/Vilnius",
            "0.6 EUR per 1000000 tokens",
        ),
        "exact product": ("15000000 × 0.6 ÷ 1000000", "9 EUR"),
        "rounded": ("9 EUR, half away from zero", "9.00 EUR"),
    }


def test_a_price_series_says_which_step_of_it_and_at_what_prices(steps: Steps) -> None:
    assert steps["qwen3-32b · input tokens · spot, step 2"]["factor"] == (
        "0.4 × 1.25, file unknown, window spot: sat sun holiday of LT, 00:00-24:00 Europe/Vilnius;"
        " step 2 (over 40): 1 hour of spot.csv at 44.25",
        "0.5 EUR per 1000000 tokens",
    )


def test_a_volume_price_and_packages_say_the_total_that_decides(steps: Steps) -> None:
    assert steps["whisper-3 · output tokens · tier 2"]["volume tier"] == (
        "1250000 tokens of the row in the period: all of them at tier 2 (over 1000000)",
        "1250000 tokens",
    )
    packages = steps["audio seconds · packages"]
    assert packages["packages"] == (
        "90000 seconds of the row in the period, 36000 to a package, each started one counts",
        "3 packages",
    )
    assert packages["list price"][1] == "2 EUR per package"
    assert packages["exact product"] == ("3 × 2", "6 EUR")


def test_unbilled_usage_names_its_outcome(steps: Steps) -> None:
    line = steps["qwen3-32b · output tokens · not billed"]
    assert line["list price"] == ("failed: not billed", "0 EUR per 1000000 tokens")


def test_a_fee_says_on_how_many_days_it_held(steps: Steps) -> None:
    assert steps["Reserved capacity"]["fee"] == (
        "file unknown, contract acme@2026-10-11: 500.00 EUR a month, in force on 21 of 31 days: 500.00 × 21 ÷ 31,"
        " rounded",
        "338.71 EUR",
    )


def test_discounts_and_the_floor_say_of_what_they_are(steps: Steps) -> None:
    whole = steps[WHOLE_DOCUMENT]
    assert whole["Segment discount"] == (
        "file unknown, tariff vilnius: 15 % for segment sme, of 97.05 on lines from its rows",
        "-14.56 EUR",
    )
    assert whole["Contract discount"] == (
        "file unknown, contract acme@2026-10-11: 10 % of 4.00, its lines less their segment discount",
        "-0.40 EUR",
    )
    assert whole["floor"] == (
        "file unknown, contract acme@2026-10-11; file unknown, tariff vilnius: commitment 1000.00 on 21 days,"
        " minimum 5.00 on 10 days; a day's average, rounded",
        "679.03 EUR",
    )
    assert whole["Commitment"] == ("679.03 − 86.09 of usage after discounts", "592.94 EUR")
    assert whole["net"][1] == "1017.74 EUR"
    assert whole["rated at"] == ("close 1 of 2026-10, 2026-11-02T09:00:00Z", "as the month rates now")


def test_a_later_document_takes_off_what_the_first_one_asked_for() -> None:
    books = month(USED[:1], WITHOUT_FLOOR)
    books.close()
    books.usage.append(used(20, 9, prompt_tokens=1_000_000))
    books.usage.append(used(5, 10, completion_tokens=12_000_000))
    later = books.close()
    line = by_title(books, later)["qwen3-32b · output tokens · tier 1"]
    assert line["usage"][1] == "52000000 tokens"
    assert line["exact product"] == ("50000000 × 1.6 ÷ 1000000", "80 EUR")
    assert line["less earlier documents"] == ("50000000 − 40000000 on INV-2026-000001", "10000000 tokens")
    assert line["difference"] == ("80.00 − 64.00 on INV-2026-000001", "16.00 EUR")


def test_the_first_document_says_that_usage_came_since_and_shows_its_own_figures() -> None:
    books = month(USED[:1], WITHOUT_FLOOR)
    first = books.close()
    books.usage.append(used(5, 10, completion_tokens=2_000_000))
    steps = by_title(books, first)
    line = steps["qwen3-32b · output tokens · tier 1"]
    assert line["quantity"][1] == "40000000 tokens"
    assert line["list price"][0] == "file unknown, tariff vilnius, row 1, output, tier 1 (up to 50000000)"
    assert line[NOT_WORKED_OUT][0].startswith("rated at this close; usage that came or was taken back since")
    assert "usage" not in line
    assert "usage" in steps["qwen3-32b · input tokens"], "what nothing came to is still worked out"
    assert steps[WHOLE_DOCUMENT]["rated at"][1] == "usage and adjustments that came since are not in it"


def test_a_document_is_explained_by_the_version_that_it_was_billed_from() -> None:
    books = month(USED[:1], WITHOUT_FLOOR)
    first = books.close()
    before = books.explained(first)
    books.supersede(books.site.replace("price: 1.60", "price: 1.70"))
    after = books.explained(first)
    at, came_to = after[WHOLE_DOCUMENT].pop("rated at")
    assert at.endswith(", by what was superseded since: tariff vilnius")
    assert came_to == "as the month rated then"
    del before[WHOLE_DOCUMENT]["rated at"]
    assert after == before

    second = books.close()
    third_site = books.site.replace("price: 1.70", "price: 1.80")
    before = books.explained(second)
    books.supersede(third_site)
    after = books.explained(second)
    assert {line: steps for line, steps in after.items() if line != WHOLE_DOCUMENT} == {
        line: steps for line, steps in before.items() if line != WHOLE_DOCUMENT
    }
    [new] = [entry.id for entry in second.lines if entry.line.quantity == 40_000_000]
    assert after[new]["list price"][1] == "1.7 EUR per 1000000 tokens", "its own version, not the third"


def test_drafts_were_not_asked_for_before_and_holidays_are_those_of_the_close() -> None:
    books = month(USED[:1], WITHOUT_FLOOR)
    document = books.close()
    draft = replace(document, id="acme.2026-10.0", number=None, state="draft")
    last = books.book.closes[-1]
    fixed = replace(last, facts={**last.facts, "holidays": {"LT": ["2026-10-09"]}})
    again = rated_again(
        document, usage_table(books.usage), stated(books.site), (), [draft, document], [fixed]
    )
    assert again.earlier == ()
    assert again.facts.holidays["LT"] == {date(2026, 10, 9)}


def test_a_former_version_whose_text_was_not_kept_is_named_and_none_of_its_new_figures_shown() -> None:
    books = month(USED[:1], WITHOUT_FLOOR)
    first = books.close()
    books.site = books.site.replace("price: 1.60", "price: 1.70")
    steps = by_title(books, first)
    assert steps["qwen3-32b · output tokens · tier 1"][NOT_WORKED_OUT][0] == (
        "superseded since this close, and the line rates otherwise now: tariff vilnius"
    )
    assert steps["qwen3-32b · output tokens · tier 1"]["list price"] == (
        "tariff vilnius, row 1, tier 1",
        "1.6 EUR per 1000000 tokens",
    )
    assert steps[WHOLE_DOCUMENT]["rated at"][1] == "superseded since: tariff vilnius"

    second = books.close()
    explained = books.explained(second)
    [former] = [entry.id for entry in second.lines if entry.line.quantity == -40_000_000]
    [new] = [entry.id for entry in second.lines if entry.line.quantity == 40_000_000]
    assert explained[former]["asked for before"] == ("40000000 on INV-2026-000001", "-40000000 tokens")
    assert explained[former]["its amount there"] == ("64.00 on INV-2026-000001", "-64.00 EUR")
    assert explained[new]["list price"][1] == "1.7 EUR per 1000000 tokens"
    assert explained[new]["rounded"][1] == "68.00 EUR"


def test_a_credit_note_says_what_the_bill_lost() -> None:
    books = month(USED[:1], WITHOUT_FLOOR)
    books.close()
    books.usage = [used(5, 9, prompt_tokens=1_900_000, cached_tokens=400_000, completion_tokens=10_000_000)]
    note = books.close()
    assert note.kind == CREDIT_NOTE
    line = by_title(books, note)["qwen3-32b · output tokens · tier 1"]
    assert line["rounded"][1] == "16.00 EUR"
    assert line["less earlier documents"] == (
        "10000000 − 40000000 on INV-2026-000001; a credit note turns the sign",
        "30000000 tokens",
    )
    assert line["difference"] == (
        "16.00 − 64.00 on INV-2026-000001; a credit note turns the sign",
        "48.00 EUR",
    )


def test_a_credit_note_that_mirrors_its_invoice_says_so() -> None:
    books = month(USED[:1], WITHOUT_FLOOR)
    invoice = books.close()
    mirrored = replace(
        invoice, id="acme.2026-10.2", kind=CREDIT_NOTE, number=None, state="draft", reason="A wrong address"
    )
    mirrored = replace(mirrored, corrects=(reference(invoice),))
    steps = by_title(books, mirrored)
    assert steps["qwen3-32b · output tokens · tier 1"][NOT_WORKED_OUT][0] == (
        "this credit note takes INV-2026-000001 back line by line: A wrong address"
    )


def test_the_text_fits_eighty_columns_and_parts_thousands() -> None:
    books = month()
    document = books.close()
    content = to_json(document)
    text = explain_text(content, explain(content, books.again(document)))
    assert max(map(len, text.splitlines())) == 80
    assert "it held 40,000,000" in " ".join(text.split())
    assert "→ 15,000,000 tokens" in text
    assert "500.00 × 21 ÷ 31" in text


def test_negative_quantities_and_those_of_four_digits_are_parted_too_and_years_are_not() -> None:
    steps = [
        step("usage", "taken back in the year 2025, 5000 tokens before", "-999900 tokens"),
        step("less", "3 − -4999990 on TLC-2026-000001", "1 token"),
    ]
    content = {"lines": [], "number": "TLC-2026-000001"}
    text = explain_text(content, [{"line": WHOLE_DOCUMENT, "steps": steps}])
    for said in ("-999,900 tokens", "-4,999,990 on TLC-2026-000001", "year 2025, 5,000 tokens"):
        assert said in text


def test_a_row_for_long_prompts_says_which_prompts_were_long_and_which_were_not() -> None:
    site = SITE.replace(
        "prices:\n", "prices:\n  - {models: [qwen3-*], prompt_over: 128_000, input: 0.80, output: 3.00}\n", 1
    )
    short = used(5, 9, completion_tokens=1_000_000, prompt_tokens=1_000)
    long = used(5, 9, completion_tokens=2_000_000, prompt_tokens=500_000)
    books = month((short, long), site)
    document = books.close()
    explained = books.explained(document)
    said = {
        entry.line.price_row: explained[entry.id]["usage"][0].partition("no window")[2]
        for entry in document.lines
        if entry.line.meter == "output"
    }
    assert said == {"tariff:1": ", prompts over 128000 tokens", "tariff:2": ", prompts up to 128000 tokens"}
