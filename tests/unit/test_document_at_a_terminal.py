"""A document at a terminal: amounts below one another, and no line wider than eighty columns."""

from __future__ import annotations

import io

from paper_examples import everything, issued
from rich.console import Console

from adapters.cli.document_text import document_text
from adapters.cli.invoice_preview import preview_text
from billing.document import to_json


def printed(parts: list[object]) -> list[str]:
    written = io.StringIO()
    console = Console(file=written, width=80, highlight=False)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str))
    return written.getvalue().splitlines()


def test_a_document_with_everything_in_it_fits_eighty_columns_and_cuts_nothing() -> None:
    lines = printed(list(document_text(to_json(issued(everything(), "TLC-2026-000007")))))
    assert lines[0] == "invoice TLC-2026-000007 · Acme UAB · 2026-10"
    assert all(len(line) <= 80 for line in lines)
    assert not any("…" in line for line in lines)
    text = " ".join(" ".join(lines).split())
    for said in (
        "1 output tokens · packages 3 2 package 6.00",
        "40,123,456 0.21 M tokens 8.43",
        "10 Reserved capacity 1 338.71 item 338.71",
        "allowance: Segment discount, 15%",
        "charge: Commitment 567.89",
        "gross, EUR 1505.63",
    ):
        assert said in text, said


def test_a_preview_says_what_its_figures_leave_open() -> None:
    document = {
        **to_json(everything()),
        "state": "preview",
        "bill_net": "1244.32",
        "issued_net": "0.00",
        "until": "2026-10-15T12:00:00Z",
        "unpriced": [
            {
                "model": "m",
                "meter": "input",
                "region": "LT-VL",
                "tokens": 12345,
                "first_hour": "2026-10-05T12:00:00Z",
                "why": "no price row matches",
            }
        ],
        "warnings": [
            {
                "what": "7 requests of node n1, past its end",
                "where": "node/n1",
                "remedy": "retire",
                "requests": 7,
            }
        ],
    }
    lines = printed(preview_text(document))
    assert lines[:2] == [
        "preview: an invoice for Acme UAB · 2026-10",
        "usage of whole hours, before 2026-10-15T12:00:00Z",
    ]
    assert lines[-4:] == [
        "fees, commitments and minimums are those of the whole month",
        "no price: 12,345 of input of m in region LT-VL, from 2026-10-05T12:00:00Z: no price row matches",
        "what has no price is not in these figures, and a close would be refused",
        "warning: 7 requests of node n1, past its end (retire)",
    ]


def test_a_preview_of_lines_that_come_to_nothing_says_that_there_would_be_no_document() -> None:
    document = {
        **to_json(everything()),
        "net": "0.00",
        "bill_net": "0.00",
        "issued_net": "0.00",
        "until": None,
        "unpriced": [],
        "warnings": [],
    }
    assert "these lines come to 0 EUR: a close would make no document of them" in printed(
        preview_text(document)
    )
