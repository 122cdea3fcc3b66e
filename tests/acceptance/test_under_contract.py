"""Who is under contract is billed without usage: a fee, a commitment; on paper, shared, and filled by late usage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from command import Json, over, write_rows
from small_books import BASE, SHARES, TARIFF

from adapters.postgres.database import DatabaseUrls

OCTOBER = "2026-10"
CONTRACTS = """---
{kind: customer, id: gamma, operator: telecentras, name: Gamma UAB, country: LT}
---
{kind: contract, customer: gamma, tariff: vilnius}
---
{kind: contract, customer: acme, tariff: vilnius, commitment: 40.00}
---
kind: contract
customer: beta
tariff: vilnius
valid_from: 2026-10-11
fees: [{name: Reserved capacity, amount: 31.00, every: month}]
"""


def test_fees_and_commitments_are_billed_printed_and_shared_without_usage(
    fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path
) -> None:
    site = tmp_path / "site.yaml"
    site.write_text(BASE + TARIFF + SHARES + CONTRACTS)
    tally = over(fresh_urls(), tmp_path / "data", site)

    def close() -> Json:
        row: Json
        [row] = tally("period", "close", OCTOBER, "--issue")["operators"]
        return row

    first = close()
    # 31.00 × 21 of 31 days; gamma is under contract, used nothing and owes nothing
    assert {each["customer"]: each["net"] for each in first["issued"]} == {
        "acme": "40.00",
        "beta": "21.00",
    }
    assert (first["zero"], first["net"]) == ([], "61.00")
    commitment, fee = (tally("invoice", "show", each["id"]) for each in first["issued"])
    assert [(each["description"], each["item"], each["part"]) for each in commitment["lines"]] == [
        ("Commitment", None, "floor")
    ]
    assert [(each["description"], each["item"], each["contract_version"]) for each in fee["lines"]] == [
        ("Reserved capacity", "Reserved capacity", "beta@2026-10-11")
    ]
    tally("invoice", "render", "--period", OCTOBER, "--all", "--out", str(tmp_path / "paper"))
    assert len(list((tmp_path / "paper").glob("*.pdf"))) == 2
    [settled] = tally("settlement", "run", "--period", OCTOBER)["settlements"]
    assert {each["party"]: each["amount"] for each in settled["shares"]} == {
        "embedded-llm": "9.15",
        "model-fund": "1.53",
        "telecentras": "50.32",
    }, "9.15, 1.525 and 50.325: the cent goes to the party named first"

    used: Json = {"time": "2026-10-12T09:30:00Z", "customer": "acme", "model": "m"}
    used |= {"prompt_tokens": 60, "completion_tokens": 0}
    tally("import", str(write_rows(tmp_path / "late.csv", [used])), "--node", "vilnius-1")
    [late] = close()["issued"]
    shown = tally("invoice", "show", late["id"])
    # 60 at 1.00, and the 40.00 that the commitment asked for are given back
    assert (shown["line_total"], shown["net"]) == ("60.00", "20.00")
    assert [(each["reason"], each["amount"]) for each in shown["allowances"]] == [("Commitment", "40.00")]
    assert [each["number"] for each in shown["supplements"]] == [commitment["number"]]
    assert tally("ledger", "trial-balance")["balanced"] is True
