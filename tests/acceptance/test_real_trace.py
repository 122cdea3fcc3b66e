"""The real trace on the whole road: import, usage, close, issue, books and settlement against independent figures."""

from __future__ import annotations

import json
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
import real_trace
from command import Json, Tally, vilnius
from plain_bill import plain_nets

OCTOBER = "2026-10"
SHARES = {"embedded-llm": Decimal("0.15"), "model-fund": Decimal("0.025")}


@dataclass(frozen=True, slots=True)
class Road:
    """The trace, imported, closed as drafts, issued: what each command said."""

    tally: Tally
    imported: Json
    usage: Json
    drafted: Json
    issued: list[Json]
    balance: Json


@pytest.fixture(scope="module")
def road() -> Iterator[Road]:
    command = real_trace.import_command()
    with vilnius() as tally:
        begun = time.monotonic()
        imported = tally(*command)
        print(f"import of {imported['events']:,} requests: {time.monotonic() - begun:.1f} s")
        usage = tally("usage", "--by", "customer")
        begun = time.monotonic()
        [drafted] = tally("period", "close", OCTOBER)["operators"]
        print(f"close of {len(drafted['drafts'])} customers: {time.monotonic() - begun:.1f} s")
        issued = tally("invoice", "issue", "--period", OCTOBER)["invoices"]
        balance = tally("ledger", "trial-balance")
        yield Road(tally, imported, usage, drafted, issued, balance)


def test_usage_is_the_sources_own_totals_for_every_session(road: Road) -> None:
    own = real_trace.own_totals()

    assert road.imported["events"] == real_trace.REQUESTS
    assert len(own) == real_trace.SESSIONS
    assert real_trace.totals_of(road.usage) == own


def test_the_same_file_again_adds_nothing(road: Road) -> None:
    again = road.tally(*real_trace.import_command())

    assert again["id"] == road.imported["id"]
    assert (again["events"], again["already_known"]) == (0, real_trace.REQUESTS)
    assert road.tally("usage", "--by", "customer") == road.usage


def test_an_import_killed_at_each_step_of_its_road_goes_on_where_it_stood() -> None:
    command = real_trace.import_command()
    with vilnius() as tally:
        for step in ("making:1", "head:1", "sealed:2", "in-transaction:1", "committed:1", "acknowledged:1"):
            killed = tally.run(*command, TALLY_KILL_AT=step)
            assert killed.exit_code == -9, killed

        tally(*command)

        assert real_trace.totals_of(tally("usage", "--by", "customer")) == real_trace.own_totals()
        again = tally(*command)
        assert (again["events"], again["already_known"]) == (0, real_trace.REQUESTS)
        [lane] = tally("streams")["lanes"]
        assert (lane["holes"], lane["forks"], lane["held"]) == (0, 0, 0)
        assert list((tally.data / "scratch").iterdir()) == []  # what the killed ones left is gone too


def test_documents_and_zero_bills_are_all_customers_with_usage(road: Road) -> None:
    drafts, zero = road.drafted["drafts"], road.drafted["zero"]

    assert len(drafts) + len(zero) == real_trace.SESSIONS
    assert {draft["customer"] for draft in drafts} | set(zero) == set(real_trace.own_totals())
    assert road.drafted["issued"] == road.drafted["waiting"] == []


def test_every_customers_net_is_that_of_an_independent_bill_to_the_cent(road: Road) -> None:
    plain = plain_nets(real_trace.example_site(), real_trace.events(), OCTOBER)
    under_contract = {customer: plain.pop(customer) for customer in ("acme", "river-institute")}
    assert under_contract == {"acme": 0, "river-institute": 0}, (
        "who used nothing and owes nothing has no document"
    )

    billed = {draft["customer"]: _cents(draft["net"]) for draft in road.drafted["drafts"]}
    billed |= dict.fromkeys(road.drafted["zero"], 0)
    assert billed == plain
    assert {each["customer"]: _cents(each["net"]) for each in road.issued} == {
        customer: net for customer, net in plain.items() if net
    }


def test_the_tokens_of_all_lines_are_the_tokens_that_were_used(road: Road) -> None:
    tokens: dict[str, int] = defaultdict(int)
    for line in _lines_of_every_invoice(road):
        tokens[line["meter"]] += line["tokens"]
    for customer in road.drafted["zero"]:  # no document has their tokens
        [row] = [row for row in road.usage["rows"] if row["customer"] == customer]
        tokens["input"] += row["prompt_tokens"] - row["cached_tokens"]
        tokens["cached_input"] += row["cached_tokens"]
        tokens["output"] += row["completion_tokens"]

    used = road.usage["total"]
    assert tokens == {
        "input": used["prompt_tokens"] - used["cached_tokens"],
        "cached_input": used["cached_tokens"],
        "output": used["completion_tokens"],
    }


def test_numbers_have_no_gap_and_no_repeat(road: Road) -> None:
    year = road.issued[0]["issue_date"][:4]
    assert [each["number"] for each in road.issued] == [
        f"TLC-{year}-{n:06}" for n in range(1, len(road.issued) + 1)
    ]
    assert {each["state"] for each in road.issued} == {"issued"}


def test_the_books_balance_and_hold_what_the_documents_say(road: Road) -> None:
    accounts = {row["account"]: Decimal(row["balance"]) for row in road.balance["accounts"]}

    assert road.balance["balanced"] is True
    assert accounts["receivable"] == sum(each["sign"] * Decimal(each["gross"]) for each in road.issued)
    assert -accounts["revenue"] == sum(each["sign"] * Decimal(each["net"]) for each in road.issued)
    assert -accounts["vat"] == sum(each["sign"] * Decimal(each["tax"]) for each in road.issued)
    assert all(Decimal(each["gross"]) == Decimal(each["net"]) + Decimal(each["tax"]) for each in road.issued)


def test_a_settlement_shares_the_whole_net_and_a_second_one_finds_nothing_due(road: Road) -> None:
    [settled] = road.tally("settlement", "run", "--period", OCTOBER)["settlements"]
    again = road.tally("settlement", "run", "--period", OCTOBER)["settlements"]

    net = sum(each["sign"] * Decimal(each["net"]) for each in road.issued)
    amounts = {share["party"]: Decimal(share["amount"]) for share in settled["shares"]}
    assert Decimal(settled["base"]) == net
    assert sum(amounts.values()) == net
    for party, share in SHARES.items():
        assert abs(amounts[party] - net * share) < Decimal("0.01")
    assert again == []
    assert road.tally("settlement", "show", settled["id"]) == settled
    assert road.tally("ledger", "trial-balance")["balanced"] is True


def _lines_of_every_invoice(road: Road) -> Iterator[Json]:
    """Through the API: a command for each of hundreds of documents would take a minute."""
    secret = road.tally("key", "create", "--role", "auditor")["secret"]
    with road.tally.serving("api", "--listen", "127.0.0.1:0") as told, ThreadPoolExecutor(4) as askers:

        def show(reference: str) -> Any:
            asked = urllib.request.Request(
                f"{told['api']}/v1/invoices/{reference}", headers={"Authorization": f"Bearer {secret}"}
            )
            with urllib.request.urlopen(asked) as answer:
                return json.loads(answer.read())

        for document in askers.map(show, [each["id"] for each in road.issued]):
            yield from document["lines"]


def _cents(amount: str) -> int:
    cents = Decimal(amount) * 100
    assert cents == int(cents)
    return int(cents)
