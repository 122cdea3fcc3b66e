"""Prices tried on real usage before they are published: what `tally tariff simulate` says is what `period close` then bills.

The prices are asked about, applied as they stand in the file, and the months closed. Figures are small enough to
follow: a million tokens of input cost 0.40, at night half of it, the first million of output is free.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from command import EXAMPLE, Json, Tally, over, write_rows

from adapters.postgres.database import DatabaseUrls

MONTHS = ("2026-08", "2026-09", "2026-10")
NOW = """kind: tariff
id: vilnius
operator: telecentras
currency: EUR
prices:
  - models: ["*"]
    input: 0.40
    output: 1.60
segments: {startup: 10%}
"""
AGAIN = "supersedes: first\nreason: agreed for this year\n"
THEN = (
    NOW.replace("output: 1.60", "output: {graduated: [{up_to: 2_000_000, price: 2.00}, {price: 1.50}]}")
    + """windows:
  - {name: night, hours: "22:00-06:00", factor: 0.5}
included: {output: 1_000_000}
minimum: 2.00
"""
    + AGAIN
)
USAGE = (
    ("2026-08-10T09:00:00Z", "baltic-letters", "mistral-small", 1_000_003, 250_000),
    ("2026-10-05T09:00:00Z", "baltic-letters", "mistral-small", 3_000_000, 1_500_000),
    ("2026-10-05T20:00:00Z", "baltic-letters", "qwen3-32b", 2_000_001, 4_000_000),
    ("2026-10-06T12:00:00Z", "acme", "qwen3-32b", 7_000_000, 0),
    ("2026-08-31T21:30:00Z", "acme", "mistral-small", 12_345_678, 900_000),
)


@pytest.fixture
def tally(fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path) -> Tally:
    now = tmp_path / "now.yaml"
    now.write_text(NOW)
    (tmp_path / "then.yaml").write_text(THEN)
    operator, customers = EXAMPLE / "1-operator.yaml", EXAMPLE / "3-customers.yaml"
    tally = over(fresh_urls(), tmp_path / "data", operator, now, customers)
    tally.folder = tmp_path
    rows = [
        dict(zip(("time", "customer", "model", "prompt_tokens", "completion_tokens"), each, strict=True))
        for each in USAGE
    ]
    tally("import", str(write_rows(tmp_path / "usage.csv", rows)), "--node", "vilnius-1")
    return tally


def simulate(tally: Tally, *options: str, periods: tuple[str, ...] = ("2026-08..2026-10",)) -> Json:
    asked = [part for each in periods for part in ("--period", each)]
    return tally("tariff", "simulate", "--tariff", "then.yaml", *asked, *options)


def billed(tally: Tally, period: str) -> dict[str, Decimal]:
    """Net by customer, once the period was closed."""
    [row] = tally("period", "close", period)["operators"]
    return {each["customer"]: Decimal(each["net"]) for each in row["drafts"]}


def side(found: Json, name: str) -> dict[str, Decimal]:
    changes = found["customers"]["changes"]
    return {each["customer"]: Decimal(each[name]) for each in changes if Decimal(each[name])}


def test_both_sides_are_what_a_close_bills_before_and_after_the_file_is_applied(tally: Tally) -> None:
    asked = {month: simulate(tally, periods=(month,)) for month in MONTHS}
    year = simulate(tally)
    assert simulate(tally, periods=("2026-10", "2026-08..2026-09")) == year, "however it is asked, and twice"
    assert [each["period"] for each in year["periods"]] == list(MONTHS)
    assert tally("invoice", "list")["invoices"] == [], "nothing is kept of it but a cache"
    assert tally("get", "tariff", "vilnius")["documents"][0]["prices"][0]["output"] == "1.6"

    for month in MONTHS:
        assert side(asked[month], "now") == billed(tally, month)
    tally("apply", "then.yaml")
    for month in MONTHS:
        assert side(asked[month], "then") == billed(tally, month)

    nets = {each["period"]: (Decimal(each["now"]), Decimal(each["then"])) for each in year["periods"]}
    for month in MONTHS:
        told = asked[month]["net"]
        assert nets[month] == (Decimal(told["now"]), Decimal(told["then"]))
    for name in ("now", "then"):
        total = Decimal(year["net"][name])
        undivided = sum(Decimal(each[name]) for each in year["undivided"])
        assert sum(Decimal(each[name]) for each in year["parts"]) == total
        assert sum(Decimal(each[name]) for each in year["segments"]) == total
        for divided in ("models", "regions", "hours"):
            assert sum(Decimal(each[name]) for each in year[divided]) + undivided == total

    after = simulate(tally)
    assert after["net"] == {"now": year["net"]["then"], "then": year["net"]["then"], "change": "0.00"}
    assert after["customers"]["unchanged"] == len(after["customers"]["changes"])


def test_usage_and_facts_that_came_since_are_in_the_next_answer(tally: Tally) -> None:
    first = simulate(tally, periods=("2026-10",))
    row = {
        "time": "2026-10-07T12:00:00Z",
        "customer": "acme",
        "model": "mistral-small",
        "prompt_tokens": 5_000_000,
        "completion_tokens": 0,
    }
    tally("import", str(write_rows(tally.folder / "more.csv", [row])), "--node", "vilnius-1")
    second = simulate(tally, periods=("2026-10",))
    for name in ("now", "then"):
        assert Decimal(second["net"][name]) - Decimal(first["net"][name]) == Decimal("2.00")

    (tally.folder / "now.yaml").write_text(
        NOW.replace("0.40", "0.80") + "supersedes: first\nreason: input costs more\n"
    )
    tally("apply", "now.yaml")
    third = simulate(tally, periods=("2026-10",))
    assert Decimal(third["net"]["now"]) > Decimal(second["net"]["now"])
    assert third["net"]["then"] == second["net"]["then"]


@pytest.mark.parametrize(("name", "begins"), [("p.svg", b"<?xml"), ("p.PNG", b"\x89PNG\r\n")])
def test_a_picture_is_written_beside_the_text(tally: Tally, name: str, begins: bytes) -> None:
    line = ("tariff", "simulate", "--tariff", "then.yaml", "--period", "2026-10")
    ran = tally.run(*line, "--out", name)
    assert ran.exit_code == 0, ran
    assert ran.stdout.startswith(
        "telecentras, tariff vilnius, 2026-10\nreplaced: vilnius; put there: vilnius\n"
    )
    assert all(len(text) <= 80 for text in ran.stdout.splitlines()), ran
    for table in ("Net revenue in EUR", "By segment", "By model", "By region", "By hour", "Customers: "):
        assert table in ran.stdout, ran
    assert (tally.folder / name).read_bytes().startswith(begins)
    assert simulate(tally, "--out", name, periods=("2026-10",))["picture"] == name


def test_what_is_odd_in_the_file_is_said_once(tally: Tally) -> None:
    cliff = "input: {volume: [{up_to: 1_000_000, price: 0.40}, {price: 0.20}]}"
    (tally.folder / "then.yaml").write_text(NOW.replace("input: 0.40", cliff))
    warnings = tally("check", "then.yaml")["warnings"]
    assert warnings, "a tier of a volume price under which more costs less"
    ran = tally.run("tariff", "simulate", "--tariff", "then.yaml", "--period", "2026-10", "--json")
    assert ran.exit_code == 0, ran
    said = [line for line in ran.stderr.splitlines() if line.startswith("warning: ")]
    assert len(said) == len(set(said)) == len(warnings), ran
    assert ran.document["warnings"] == warnings
    assert ran.document["net"], "warnings leave stdout alone"


def test_what_cannot_be_asked_is_refused_by_name(tally: Tally) -> None:
    (tally.folder / "bad.yaml").write_text(
        NOW.replace("0.40", "four").replace("currency: EUR", "currency: SEK")
    )
    (tally.folder / "other.yaml").write_text("kind: node\nid: n9\noperator: telecentras\nregion: LT-VL\n")
    october = ("--period", "2026-10")

    def refused(file: str, *options: str) -> Json:
        return tally.refused("tariff", "simulate", "--tariff", file, *options)

    bad = refused("bad.yaml", *october)
    assert bad["code"] == "bad_site_files"
    assert {fault["where"] for fault in bad["faults"]} == {"bad.yaml:4", "bad.yaml:7"}
    assert refused("other.yaml", *october)["code"] == "no_tariff"
    absent = refused("absent.yaml", *october)
    assert (absent["code"], absent["faults"][0]["where"]) == ("bad_site_files", "absent.yaml")
    assert refused("then.yaml", "--period", "2026-11..2026-10")["code"] == "bad_period"
    assert refused("then.yaml", *october, "--operator", "nobody")["code"] == "no_tariff"
    assert refused("then.yaml", *october, "--out", "picture.pdf")["code"] == "unknown_format"
    assert not (tally.folder / "picture.pdf").exists()
    assert tally.run("tariff", "simulate", "--tariff", "then.yaml").exit_code == 2, "--period is asked for"
