"""Revenue shares: what each party is due, and the entries that say so."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.journal import Entry, Posting, imbalances
from billing.period import Period
from billing.posting import settlement_entry
from billing.settlement import Settlement, settle, settlement_from_json, settlement_json
from billing.site import Share, SharePart

OCTOBER = Period(2026, 10)
NOW = datetime(2026, 11, 2, tzinfo=UTC)


def share(**percents: str) -> Share:
    parts = tuple(SharePart(party, Decimal(percent)) for party, percent in percents.items())
    return Share("operator", "operator", parts)


def settled(base: int, version: Share | None, *earlier: Settlement) -> Settlement:
    settlement = settle("operator", OCTOBER, "EUR", base, version, earlier)
    assert settlement is not None
    return settlement


def test_a_cent_left_over_goes_to_the_party_named_first_and_the_operator_last() -> None:
    first = settled(1, share(a="50", b="50"))
    assert [(each.party, each.amount) for each in first.shares] == [("a", 1), ("b", 0), ("operator", 0)]


def test_without_a_share_the_operator_keeps_all_of_it_and_nothing_is_posted() -> None:
    alone = settled(100, None)
    assert [(each.party, each.amount) for each in alone.shares] == [("operator", 100)]
    assert settlement_entry(alone, NOW) is None


def test_a_party_whose_share_ended_gives_back_what_it_was_settled() -> None:
    first = settled(1000, share(a="15", b="2.5"))
    second = settled(1000, share(b="2.5"), first)
    assert [(each.party, each.percent, each.amount, each.due) for each in second.shares] == [
        ("b", Decimal("2.5"), 25, 0),
        ("a", Decimal(0), 0, -150),
        ("operator", Decimal("97.5"), 975, 150),
    ]
    entry = settlement_entry(second, NOW)
    assert entry is not None
    assert [(each.account, each.subject, each.amount) for each in entry.postings] == [
        ("share_expense", None, -150),
        ("payable", "a", 150),
    ]


def test_a_party_with_the_operators_id_is_still_another() -> None:
    """Site files refuse it; whatever was stored before they did still settles, again and again."""
    version = share(operator="10", a="20")
    first = settled(1000, version)
    assert [(each.party, each.due) for each in first.shares] == [
        ("operator", 100),
        ("a", 200),
        ("operator", 700),
    ]
    assert settle("operator", OCTOBER, "EUR", 1000, version, [first]) is None
    second = settled(2000, version, first)
    assert [each.due for each in second.shares] == [100, 200, 700]


def test_nothing_to_settle_is_no_settlement() -> None:
    assert settle("operator", OCTOBER, "EUR", 0, share(a="15"), []) is None
    first = settled(1000, share(a="15"))
    assert settle("operator", OCTOBER, "EUR", 1000, share(a="15"), [first]) is None


@given(
    st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=6),
    st.lists(st.integers(0, 3333), min_size=1, max_size=3),
)
def test_whatever_came_before_parties_end_with_their_split_and_parts_sum_to_the_whole(
    bases: list[int], hundredths: list[int]
) -> None:
    version = share(**{f"party{n}": str(Decimal(part).scaleb(-2)) for n, part in enumerate(hundredths)})
    earlier: list[Settlement] = []
    for base in bases:
        settlement = settle("operator", OCTOBER, "EUR", base, version, earlier)
        if settlement is not None:
            assert sum(each.amount for each in settlement.shares) == base
            assert settlement_from_json(settlement_json(settlement)) == settlement
            earlier.append(settlement)
    directly = settle("operator", OCTOBER, "EUR", bases[-1], version, [])
    due: dict[str, int] = {}
    for each in earlier:
        for part in each.shares:
            due[part.party] = due.get(part.party, 0) + part.due
    assert {party: amount for party, amount in due.items() if amount} == (
        {part.party: part.amount for part in directly.shares if part.amount} if directly else {}
    )
    entries = [entry for entry in (settlement_entry(each, NOW) for each in earlier) if entry]
    assert imbalances(posting for entry in entries for posting in entry.postings) == {}


def test_an_entry_that_does_not_balance_in_each_currency_is_our_own_bug() -> None:
    euros, krona = Posting("receivable", "acme", "EUR", 100), Posting("revenue", None, "SEK", -100)
    assert imbalances([euros, krona]) == {"EUR": 100, "SEK": -100}
    with pytest.raises(AssertionError, match="does not balance"):
        Entry(NOW, OCTOBER, "invoice", (euros, krona), document="acme.2026-10.1")
