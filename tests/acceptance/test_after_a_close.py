"""What comes after a close: late usage, goodwill, an import taken back, two closes at once, the same word said twice.

Usage of October 2026 at the example's tariff, in round figures: a million prompt tokens of `plain-model` cost 0.60 EUR,
of Acme's `qwen3-32b` 0.35 EUR.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from command import EXAMPLE, Json, Tally, over, write_rows

from adapters.postgres.database import DatabaseUrls

OCTOBER = "2026-10"


@pytest.fixture
def tally(fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path) -> Tally:
    return over(fresh_urls(), tmp_path / "data", EXAMPLE)


def import_tokens(tally: Tally, folder: Path, name: str, customer: str, millions: int) -> Json:
    """One request of so many million prompt tokens, imported as a file of that name."""
    row = {
        "time": "2026-10-12T09:30:00Z",
        "customer": customer,
        "model": "plain-model",
        "prompt_tokens": millions * 1_000_000,
        "completion_tokens": 0,
    }
    return tally("import", str(write_rows(folder / f"{name}.csv", [row])))


def close(tally: Tally, *options: str) -> Json:
    row: Json
    [row] = tally("period", "close", OCTOBER, *options)["operators"]
    return row


def invoices(tally: Tally, *options: str) -> list[Json]:
    listed: list[Json] = tally("invoice", "list", "--period", OCTOBER, *options)["invoices"]
    return listed


def test_late_usage_makes_a_supplementary_invoice_that_names_the_first(tally: Tally, tmp_path: Path) -> None:
    import_tokens(tally, tmp_path, "first", "acme", 100)
    [first] = close(tally, "--issue")["issued"]

    import_tokens(tally, tmp_path, "late", "acme", 50)
    [second] = close(tally, "--issue")["issued"]

    assert (first["net"], second["net"]) == ("60.00", "30.00")
    shown = tally("invoice", "show", second["number"])
    assert [each["number"] for each in shown["supplements"]] == [first["number"]]
    assert shown["kind"] == "invoice"
    assert [(line["quantity"], line["amount"]) for line in shown["lines"] if line["amount"] != "0.00"] == [
        (50_000_000, "30.00")
    ]
    assert close(tally, "--issue")["issued"] == []


def test_a_goodwill_credit_is_not_billed_again(tally: Tally, tmp_path: Path) -> None:
    import_tokens(tally, tmp_path, "first", "acme", 100)
    [first] = close(tally, "--issue")["issued"]

    drafted = tally("invoice", "credit", first["number"], "--net", "10.00", "--reason", "An outage")
    tally("invoice", "issue", drafted["id"])
    again = close(tally, "--issue")

    assert (drafted["kind"], drafted["net"], drafted["sign"], drafted["state"]) == (
        "credit_note",
        "10.00",
        -1,
        "draft",
    )
    assert [each["number"] for each in drafted["corrects"]] == [first["number"]]
    assert (again["drafts"], again["issued"], again["net"]) == ([], [], "0.00")
    assert sum(each["sign"] * Decimal(each["net"]) for each in invoices(tally)) == Decimal("50.00")
    revenue = {row["account"]: row["balance"] for row in tally("ledger", "trial-balance")["accounts"]}
    assert revenue["revenue"] == "-50.00"


def test_a_goodwill_credit_still_stands_when_late_usage_comes(tally: Tally, tmp_path: Path) -> None:
    import_tokens(tally, tmp_path, "first", "acme", 100)
    [first] = close(tally, "--issue")["issued"]
    tally("invoice", "credit", first["number"], "--net", "10.00", "--reason", "An outage", "--issue")

    import_tokens(tally, tmp_path, "late", "acme", 50)
    [second] = close(tally, "--issue")["issued"]

    assert second["net"] == "30.00"


def test_of_two_closes_at_once_the_second_waits_and_finds_nothing_to_do(tally: Tally, tmp_path: Path) -> None:
    for customer in ("acme", "baltic-letters", "river-institute"):
        import_tokens(tally, tmp_path, customer, customer, 100)

    both = [tally.start("period", "close", OCTOBER, "--issue", "--json") for _ in range(2)]
    ended = [each.wait() for each in both]

    assert [each.exit_code for each in ended] == [0, 0], ended
    issued = sorted(len(each.document["operators"][0]["issued"]) for each in ended)
    assert issued == [0, 3]
    year = invoices(tally)[0]["issue_date"][:4]
    assert [each["number"] for each in invoices(tally)] == [f"TLC-{year}-{n:06}" for n in (1, 2, 3)]
    assert tally("ledger", "trial-balance")["balanced"] is True


def test_issuing_a_draft_twice_gives_it_one_number(tally: Tally, tmp_path: Path) -> None:
    import_tokens(tally, tmp_path, "first", "acme", 100)
    [draft] = close(tally)["drafts"]

    [once] = tally("invoice", "issue", draft["id"])["invoices"]
    [twice] = tally("invoice", "issue", draft["id"])["invoices"]
    [by_number] = tally("invoice", "issue", once["number"])["invoices"]

    assert once == twice == by_number
    assert once["state"] == "issued"
    assert invoices(tally) == [once]


def test_an_import_taken_back_is_credited_at_the_next_close_and_may_come_again(
    tally: Tally, tmp_path: Path
) -> None:
    import_tokens(tally, tmp_path, "first", "acme", 100)
    wrong = import_tokens(tally, tmp_path, "wrong", "acme", 50)
    [invoice] = close(tally, "--issue")["issued"]

    void = tally("import", "void", wrong["id"], "--reason", "imported into the wrong node")
    [note] = close(tally, "--issue")["issued"]
    shown = tally("invoice", "show", note["number"])

    assert (invoice["net"], void["events"], void["prompt_tokens"]) == ("90.00", 1, -50_000_000)
    assert (shown["kind"], shown["net"], shown["sign"]) == ("credit_note", "30.00", -1)
    assert [each["number"] for each in shown["corrects"]] == [invoice["number"]]
    assert tally("usage")["total"]["prompt_tokens"] == 100_000_000
    assert tally("usage")["total"]["requests"] == 1

    twice = tally("import", "void", wrong["id"], "--reason", "imported into the wrong node")
    again = import_tokens(tally, tmp_path, "wrong", "acme", 50)
    [supplement] = close(tally, "--issue")["issued"]

    assert twice["events"] == 0
    assert (again["events"], again["already_known"]) == (1, 0)
    assert again["id"] != wrong["id"]
    assert supplement["net"] == "30.00"
    assert tally("usage")["total"]["prompt_tokens"] == 150_000_000


def test_settlements_follow_the_documents_and_settle_only_what_is_new(tally: Tally, tmp_path: Path) -> None:
    import_tokens(tally, tmp_path, "first", "acme", 100)
    [first] = close(tally, "--issue")["issued"]
    [settled] = tally("settlement", "run", "--period", OCTOBER)["settlements"]
    nothing = tally("settlement", "run", "--period", OCTOBER)["settlements"]
    tally("invoice", "credit", first["number"], "--net", "10.00", "--reason", "An outage", "--issue")
    [second] = tally("settlement", "run", "--period", OCTOBER)["settlements"]

    def amounts(settlement: Json) -> dict[str, str]:
        return {share["party"]: share["amount"] for share in settlement["shares"]}

    # 15 % and 2.5 % of 60.00, then of 50.00; the operator keeps the rest.
    assert amounts(settled) == {"embedded-llm": "9.00", "model-fund": "1.50", "telecentras": "49.50"}
    assert nothing == []
    assert amounts(second) == {"embedded-llm": "7.50", "model-fund": "1.25", "telecentras": "41.25"}
    assert {share["party"]: share["due"] for share in second["shares"]} == {
        "embedded-llm": "-1.50",
        "model-fund": "-0.25",
        "telecentras": "-8.25",
    }
    listed = tally("settlement", "list", "--period", OCTOBER)["settlements"]
    assert [each["id"] for each in listed] == [settled["id"], second["id"]]
