"""What a close keeps of the facts that it rated by: holidays once for all, and which bodies of which versions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import date
from typing import Any

import pytest
from books_in_memory import BookInMemory, BooksInMemory
from small_books import (
    BASE,
    NOW,
    OCTOBER,
    OPERATOR,
    TARIFF,
    add_usage,
    books_with,
    close,
    credit,
    event,
    run,
)
from usage_cells import site_documents, site_facts, usage_table

from billing import holiday
from billing.issue import issue_documents, issue_period
from billing.kept_facts import as_kept, body_digest
from billing.period import Period
from metering.refusal import Refusal

HOLIDAYS_ARE_HALF = (
    BASE
    + """kind: tariff
id: vilnius
operator: telecentras
currency: EUR
prices: [{models: [m], input: 1_000_000, output: 0}]
windows: [{name: holidays, days: [holiday], factor: 0.5}]
"""
)


def calendars(monkeypatch: pytest.MonkeyPatch, **days: date) -> None:
    """The `holidays` library as it says from now on: a day each calendar, but for those that are not named."""

    def calendar_days(name: str, year: int) -> frozenset[date]:
        return frozenset(day for each, day in days.items() if each == name and day.year == year)

    monkeypatch.setattr(holiday, "calendar_days", calendar_days)


def kept(books: BooksInMemory) -> Mapping[str, Any]:
    facts: Mapping[str, Any] = books.books[OPERATOR].closes[-1].facts
    return facts


def test_the_holidays_of_a_periods_first_close_hold_for_all_its_closes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    books = BooksInMemory({OPERATOR: BookInMemory(site_facts(HOLIDAYS_ARE_HALF), usage_table([event(100)]))})
    calendars(monkeypatch, LT=date(2026, 10, 5))
    assert close(books, issue=True)["issued"][0]["net"] == "50.00"
    assert kept(books)["holidays"] == {"LT": ["2026-10-05"]}

    calendars(monkeypatch, LT=date(2026, 10, 6))
    assert close(books, issue=True)["issued"] == []
    add_usage(books, event(100), event(10, day=6))
    assert close(books, issue=True)["issued"][0]["net"] == "10.00"
    assert kept(books)["holidays"] == {"LT": ["2026-10-05"]}


def test_a_period_that_was_not_closed_yet_goes_by_the_calendar_of_its_own_close(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usage = [event(100), event(100, month=9, day=7)]
    books = BooksInMemory({OPERATOR: BookInMemory(site_facts(HOLIDAYS_ARE_HALF), usage_table(usage))})
    calendars(monkeypatch, LT=date(2026, 10, 5))
    close(books, issue=True)
    calendars(monkeypatch, LT=date(2026, 9, 7))
    assert close(books, period=Period(2026, 9))["drafts"][0]["net"] == "50.00"
    assert kept(books)["holidays"] == {"LT": ["2026-09-07"]}


def test_a_calendar_that_a_later_close_needs_is_fixed_then_and_one_that_none_needs_is_not_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    books = BooksInMemory({OPERATOR: BookInMemory(site_facts(HOLIDAYS_ARE_HALF), usage_table([event(100)]))})
    calendars(monkeypatch, LT=date(2026, 10, 5), LV=date(2026, 10, 7))
    close(books, issue=True)
    books.books[OPERATOR].stated = site_facts(HOLIDAYS_ARE_HALF + "holidays: LV\n")
    assert close(books, issue=True)["issued"][0]["net"] == "50.00", "the 5th is no holiday in LV"
    assert kept(books)["holidays"] == {"LT": ["2026-10-05"], "LV": ["2026-10-07"]}
    calendars(monkeypatch)
    books.books[OPERATOR].stated = site_facts(HOLIDAYS_ARE_HALF)
    assert close(books, issue=True)["issued"][0]["net"] == "-50.00"
    assert kept(books)["holidays"] == {"LT": ["2026-10-05"], "LV": ["2026-10-07"]}


def test_a_superseded_version_has_its_name_and_another_digest() -> None:
    books = books_with(event(100))
    close(books)
    first = kept(books)
    [tariff] = [each for each in books.books[OPERATOR].stated.documents if each.kind == "tariff"]
    assert first["tariffs"] == ["vilnius"]
    assert first["versions"]["tariff vilnius"] == body_digest(tariff)
    assert set(first["versions"]) == {
        *("operator telecentras", "node vilnius-1", "node kaunas-1", "tariff vilnius", "customer acme"),
    }, "beta has no bill"

    changed = BASE + "kind: tariff\nid: vilnius\noperator: telecentras\ncurrency: EUR\n"
    changed += "prices: [{models: [m], input: 2_000_000, output: 0}]\n"
    books.books[OPERATOR].stated = site_facts(changed)
    close(books)
    second = kept(books)
    differing = {
        name for name in first["versions"] if first["versions"][name] != second["versions"].get(name)
    }
    assert differing == {"tariff vilnius"}


def test_versions_beside_the_period_are_not_kept() -> None:
    tariffs = "".join(
        f"---\nkind: tariff\nid: vilnius\noperator: telecentras\ncurrency: EUR\nvalid_from: {day}\n"
        "prices: [{models: [m], input: 1_000_000, output: 0}]\n"
        for day in ("2026-08-01", "2026-09-15", "2026-10-15", "2026-11-15")
    )
    books = books_with(event(100), site=tariffs)
    close(books)
    found = [name for name in kept(books)["versions"] if name.startswith("tariff")]
    assert found == ["tariff vilnius@2026-09-15", "tariff vilnius@2026-10-15"]


def test_the_digest_is_of_the_bodys_json_with_sorted_keys() -> None:
    [document] = site_documents(
        'kind: tariff\nid: t\noperator: o\ncurrency: EUR\nprices: [{models: ["*"], output: 1.60, input: 0.40}]\n'
    )
    said = '{"currency":"EUR","prices":[{"input":"0.4","models":["*"],"output":"1.6"}]}'
    assert body_digest(document) == hashlib.sha256(said.encode()).hexdigest()


def spot(hours: int) -> str:
    """A tariff whose prices follow a series from October on, so many hours."""
    prices = ", ".join(["40"] * hours)
    return (
        "kind: tariff\nid: vilnius\noperator: telecentras\ncurrency: EUR\nvalid_from: 2026-10-01\n"
        "prices: [{models: [m], input: 1_000_000, output: 0}]\n"
        f"windows: [{{name: spot, series: {{file: s.csv, first: 2026-09-30T21:00:00Z, prices: [{prices}]}},"
        " steps: [{up_to: 50, factor: 0.5}, {factor: 1}]}]\n"
    )


def test_a_draft_is_issued_although_hours_were_added_behind_its_month() -> None:
    books = BooksInMemory({OPERATOR: BookInMemory(site_facts(BASE + spot(745)), usage_table([event(100)]))})
    close(books)
    assert kept(books)["hours"] == {"tariff vilnius@2026-10-01": [745]}
    books.books[OPERATOR].stated = site_facts(BASE + spot(800))
    [issued] = run(issue_period(books, OPERATOR, OCTOBER, NOW))
    assert issued.net == 50_00


def test_a_version_that_only_grew_by_hours_is_the_one_that_the_close_went_by() -> None:
    books = BooksInMemory({OPERATOR: BookInMemory(site_facts(BASE + spot(745)), usage_table([event(100)]))})
    close(books)
    then = kept(books)
    for now, lost in ((745, ()), (800, ()), (700, ("tariff vilnius@2026-10-01",))):
        found = as_kept(site_facts(BASE + spot(now)), [], then["versions"], then["hours"])
        assert (found.superseded, found.lost) == ((), lost)


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        (BASE + TARIFF.replace("1_000_000", "7_000_000"), ["tariff vilnius"]),
        (
            BASE
            + TARIFF
            + "---\n"
            + TARIFF.replace("currency: EUR", "currency: EUR\nvalid_from: 2026-10-20"),
            ["tariff vilnius@2026-10-20"],
        ),
        (
            BASE + TARIFF + "---\n{kind: contract, customer: acme, tariff: vilnius, discount: 10%}\n",
            ["contract acme"],
        ),
        (BASE.replace("name: Acme UAB", "name: Acme UAB\nsegment: sme") + TARIFF, ["customer acme"]),
    ],
)
def test_a_draft_is_not_issued_once_what_it_rests_on_says_something_else(
    changed: str, names: list[str]
) -> None:
    books = books_with(event(100), event(3, customer="beta"))
    close(books)
    books.books[OPERATOR].stated = site_facts(changed)
    with pytest.raises(Refusal) as refused:
        run(issue_documents(books, OPERATOR, ["acme.2026-10.1"], NOW))
    assert refused.value.code == "facts_changed"
    assert [each.what for each in refused.value.faults] == [f"{name} changed since close 1" for name in names]
    close(books)
    assert run(issue_period(books, OPERATOR, OCTOBER, NOW)), "closed again it rests on what is there"


def test_what_concerns_another_customer_or_nobody_yet_holds_no_draft_back() -> None:
    books = books_with(event(100))
    close(books)
    other = "---\n{kind: contract, customer: beta, tariff: vilnius, discount: 10%}\n"
    other += "---\n{kind: node, id: riga-1, operator: telecentras, region: LV-RI}\n---\n"
    other += TARIFF.replace("id: vilnius", "id: trial")
    books.books[OPERATOR].stated = site_facts(BASE + TARIFF + other)
    assert run(issue_period(books, OPERATOR, OCTOBER, NOW))


FLAT = TARIFF.replace("id: vilnius", "id: flat")


def on_flat(days: str) -> str:
    return f"---\n{{kind: contract, customer: acme, tariff: flat{days}}}\n---\n"


@pytest.mark.parametrize(
    ("contract", "held"),
    [
        ("", False),
        (on_flat(", valid_from: 2026-11-01"), False),
        (on_flat(", valid_until: 2026-09-30"), False),
        (on_flat(", valid_from: 2026-10-31"), True),
        (on_flat(", valid_until: 2026-10-02"), True),
    ],
)
def test_a_tariff_that_none_of_them_was_on_in_the_month_holds_no_draft_back(
    contract: str, held: bool
) -> None:
    site = (contract or "---\n") + FLAT
    books = books_with(event(100), site=site)
    close(books)
    changed = site.replace("1_000_000", "7_000_000")
    books.books[OPERATOR].stated = site_facts(BASE + TARIFF + changed)
    if held:
        with pytest.raises(Refusal, match="tariff flat changed since close 1"):
            run(issue_period(books, OPERATOR, OCTOBER, NOW))
    else:
        assert run(issue_period(books, OPERATOR, OCTOBER, NOW))


def test_who_was_put_on_another_tariff_since_the_close_is_named_by_contract() -> None:
    books = books_with(event(100), site=on_flat("") + FLAT)
    close(books)
    moved = on_flat("").replace("flat", "vilnius") + FLAT.replace("1_000_000", "7_000_000")
    books.books[OPERATOR].stated = site_facts(BASE + TARIFF + moved)
    with pytest.raises(Refusal) as refused:
        run(issue_period(books, OPERATOR, OCTOBER, NOW))
    assert [each.where for each in refused.value.faults] == ["2026-10", "2026-10"]
    assert "contract acme changed since close 1" in [each.what for each in refused.value.faults]


@pytest.mark.parametrize(("zone", "held"), [("Europe/Vilnius", False), ("Asia/Tokyo", True)])
def test_a_version_that_begins_with_the_next_month_holds_no_draft_back(zone: str, held: bool) -> None:
    """Tokyo's November begins while October still is in Vilnius."""
    later = TARIFF.replace("currency: EUR", f"currency: EUR\ntimezone: {zone}\nvalid_from: 2026-11-01")
    books = books_with(event(100), site=f"---\n{later}")
    close(books)
    changed = later.replace("1_000_000", "7_000_000")
    books.books[OPERATOR].stated = site_facts(f"{BASE}{TARIFF}---\n{changed}")
    if held:
        with pytest.raises(Refusal, match="vilnius@2026-11-01 changed since close 1"):
            run(issue_period(books, OPERATOR, OCTOBER, NOW))
    else:
        assert run(issue_period(books, OPERATOR, OCTOBER, NOW))


def test_a_credit_note_that_was_asked_for_is_issued_whatever_became_of_the_facts() -> None:
    books = books_with(event(100))
    close(books, issue=True)
    run(credit(books, "acme.2026-10.1", 10_00, issue=False))
    books.books[OPERATOR].stated = site_facts(BASE + TARIFF.replace("1_000_000", "7_000_000"))
    [note] = run(issue_period(books, OPERATOR, OCTOBER, NOW))
    assert (note.kind, note.net) == ("credit_note", 10_00)
