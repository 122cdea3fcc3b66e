"""`invoice explain`: each step from tokens to cents, made again from the document alone."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper_examples import LINES, draft, issued, usage_line

from billing.document import Document, to_json
from billing.document_parts import AllowanceOrCharge
from billing.draft import finish
from reports.explain import WHOLE_DOCUMENT, explain
from reports.explain_text import explain_text


def steps_of(document: Document, line: str) -> dict[str, tuple[str, str]]:
    """What → (from, to) of one line."""
    [found] = [entry for entry in explain(to_json(document)) if entry["line"] == line]
    return {step["what"]: (step["from"], step["to"]) for step in found["steps"]}


def test_a_line_is_explained_from_its_quantity_to_its_cents() -> None:
    steps = steps_of(draft(), "5")
    assert steps == {
        "quantity": (
            "usage of qwen3-32b in 2026-10, meter output, window base, tier 2",
            "1234567 tokens",
        ),
        "list price": ("tariff vilnius@2026-10-01, row 2, tier 2", "1.2 EUR per 1000000 tokens"),
        "factor": ("1.2 × 1, window base", "1.2 EUR per 1000000 tokens"),
        "exact product": ("1234567 × 1.2 ÷ 1000000", "1.4814804 EUR"),
        "rounded": ("1.4814804 EUR, half away from zero", "1.48 EUR"),
    }


def test_a_price_of_a_contract_names_the_contract_and_its_row() -> None:
    assert steps_of(draft(), "3")["list price"][0] == "contract acme, row 1"


def test_the_document_is_explained_from_its_lines_to_what_is_payable() -> None:
    goodwill = AllowanceOrCharge("Goodwill", "95", 1_234, "S", Decimal(21))
    document = issued(finish(replace(draft(), allowances=(goodwill,))), "TLC-2026-000001")
    assert steps_of(document, WHOLE_DOCUMENT) == {
        "sum of the lines": ("370.37 + 2962.96 + 14.04 + 80.00 + 1.48 + 8.64", "3437.49 EUR"),
        "allowance: Goodwill": ("3437.49 − 12.34", "3425.15 EUR"),
        "net": ("lines − allowances + charges", "3425.15 EUR"),
        "VAT, category S": ("3425.15 × 21 % = 719.2815", "719.28 EUR"),
        "gross": ("3425.15 + 719.28", "4144.43 EUR"),
        "payable": ("4144.43 − 0.00 paid before", "4144.43 EUR"),
    }


def test_a_later_document_says_where_its_cent_comes_from() -> None:
    """Of 0.016 EUR in all, 0.0149996 were rounded to a cent; the second cent falls to the small rest."""
    first = issued(draft([usage_line("m", "input", 37_499, "0.4")]), "TLC-1")
    later = draft([usage_line("m", "input", 40_000, "0.4")], [first])
    steps = steps_of(later, "1")
    assert steps["quantity"] == (
        "usage of m in 2026-10, beyond earlier documents, meter input, window base",
        "2501 tokens",
    )
    assert steps["rounded"] == ("0.0010004 EUR, half away from zero", "0.00 EUR")
    assert steps["difference"][1] == "0.01 EUR"


def test_a_credit_note_says_what_was_credited() -> None:
    first = issued(draft(), "TLC-1")
    note = draft(LINES[1:], [first])
    assert steps_of(note, "1")["quantity"] == (
        "usage of claude-opus-4 in 2026-10, taken back, meter input, window base",
        "123456789 tokens",
    )
    assert steps_of(note, WHOLE_DOCUMENT)["credited"][1] == "448.15 EUR"


def test_free_and_unbilled_quantities_say_why_they_cost_nothing() -> None:
    priced = usage_line("m", "output", 5_000_000, "2")
    free = usage_line("m", "input", 1_000_000, "0", tier="free")
    unbilled = usage_line("m", "reasoning", 7, "0", tier="unbilled")
    document = draft([free, priced, unbilled])
    assert steps_of(document, "1")["list price"][0] == "included: free of charge"
    assert steps_of(document, "3")["list price"][0] == "an outcome that is not billed"


@given(st.integers(1, 10**12), st.decimals(0, 10_000, places=9).filter(lambda price: price > 0))
def test_the_exact_product_is_exact_and_the_rounded_one_its_nearest_cent(
    quantity: int, price: Decimal
) -> None:
    line = usage_line("m", "input", quantity, str(price))
    big = usage_line("z", "input", 10**12, "1")  # so that there is a document even when the line rounds to 0
    steps = steps_of(draft([line, big]), "1")
    exact = Fraction(steps["exact product"][1].removesuffix(" EUR"))
    cents = Fraction(steps["rounded"][1].removesuffix(" EUR"))
    assert exact == Fraction(price) * quantity / 1_000_000
    assert abs(exact - cents) <= Fraction(1, 200)


def test_the_text_shows_a_heading_a_line_and_obeys_no_escape_sequence() -> None:
    document = to_json(draft([usage_line("evil\x1b[2J", "input", 1_000_000, "0.4")]))
    text = explain_text(document, explain(document))
    assert text.splitlines()[0] == "line 1: evil\N{REPLACEMENT CHARACTER}[2J · input tokens"
    assert "→ 0.40 EUR" in text
    assert "document acme.2026-10.1" in text
    assert "\x1b" not in text


def test_a_document_that_does_not_add_up_is_our_own_bug() -> None:
    content = to_json(draft())
    content["taxes"][0]["amount"] = "1.00"
    with pytest.raises(AssertionError):
        explain(content)
