"""What applying site files does to versions, told as small stories around one operator."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from adapters.site_files import references
from adapters.site_files.apply import add_private_customers, apply_site
from adapters.site_files.reading import read_files
from adapters.site_files.store import MemorySiteStore, Span, Subject
from adapters.site_files.writing import get_documents, to_yaml
from billing.facts import facts_from_documents, tariff_in_force_at
from billing.site import in_force, in_force_at
from billing.tariff import Plain, PriceRow
from billing.tariff_facts import price_rows
from metering.refusal import Refusal

NOON = datetime(2026, 11, 22, 10, tzinfo=UTC)  # 12:00 in Vilnius
NEXT_DAY = datetime(2026, 11, 23, 10, tzinfo=UTC)

SITE = """\
kind: operator
id: telecentras
name: AB Pavyzdys
country: LT
currency: EUR
timezone: Europe/Vilnius
default_tariff: vilnius
---
kind: node
id: vilnius-1
operator: telecentras
region: LT-VL
---
kind: customer
id: acme
operator: telecentras
name: Acme UAB
country: LT
"""


def tariff(price: str, **keys: str) -> str:
    more = "".join(f"{key}: {value}\n" for key, value in keys.items())
    return (
        f"kind: tariff\nid: vilnius\noperator: telecentras\ncurrency: EUR\n{more}"
        f"prices:\n  - models: ['*']\n    input: {price}\n    output: 2\n"
    )


def contract(row: str = "", **keys: str) -> str:
    more = "".join(f"{key}: {value}\n" for key, value in keys.items())
    rows = f"prices:\n  - {row}\n" if row else ""
    return f"kind: contract\ncustomer: acme\ntariff: vilnius\n{more}{rows}"


def apply(store: MemorySiteStore, *documents: str, now: datetime = NOON) -> dict[str, list[str]]:
    text = "---\n".join(documents)
    applied = asyncio.run(apply_site(store, read_files(["-"], lambda: text.encode()), now))
    return {
        "created": list(applied.created),
        "changed": list(applied.changed),
        "unchanged": list(applied.unchanged),
    }


def refusals(store: MemorySiteStore, *documents: str, now: datetime = NOON) -> list[str]:
    before = dict(store.documents)
    with pytest.raises(Refusal) as refused:
        apply(store, *documents, now=now)
    assert store.documents == before
    return [str(fault) for fault in refused.value.faults]


@pytest.fixture
def store() -> MemorySiteStore:
    store = MemorySiteStore()
    apply(store, SITE, tariff("0.40"))
    return store


def prices(store: MemorySiteStore) -> dict[str, Decimal]:
    """Version -> its input price."""
    versions = facts_from_documents(store.documents.values()).tariffs["vilnius"]
    found = {}
    for version in versions:
        pricing = version.rows[0].prices["input"]
        assert isinstance(pricing, Plain)
        found[version.version] = pricing.price
    return found


def test_a_first_version_without_a_date_holds_from_ever(store: MemorySiteStore) -> None:
    facts = facts_from_documents(store.documents.values())
    assert prices(store) == {"vilnius": Decimal("0.4")}
    assert in_force(facts.tariffs["vilnius"], date(1999, 1, 1)) is not None


def test_applying_the_same_file_again_changes_nothing(store: MemorySiteStore) -> None:
    assert apply(store, SITE, tariff("0.40")) == {
        "created": [],
        "changed": [],
        "unchanged": ["operator/telecentras", "node/vilnius-1", "customer/acme", "tariff/vilnius"],
    }


def test_the_same_price_written_otherwise_is_the_same_version(store: MemorySiteStore) -> None:
    assert apply(store, tariff('"0.4"'))["unchanged"] == ["tariff/vilnius"]


def test_an_edited_file_without_a_date_holds_from_the_next_local_midnight(store: MemorySiteStore) -> None:
    assert apply(store, tariff("0.50"))["created"] == ["tariff/vilnius@2026-11-23"]
    assert prices(store) == {"vilnius": Decimal("0.4"), "vilnius@2026-11-23": Decimal("0.5")}


def test_the_next_midnight_is_that_of_the_tariffs_own_zone(store: MemorySiteStore) -> None:
    late = datetime(2026, 11, 22, 22, 30, tzinfo=UTC)  # already the 23rd in Vilnius, still the 22nd in Lisbon
    assert apply(store, tariff("0.50"), now=late)["created"] == ["tariff/vilnius@2026-11-24"]
    lisbon = tariff("0.60", timezone="Europe/Lisbon")
    assert apply(store, lisbon, now=late)["created"] == ["tariff/vilnius@2026-11-23"]


def test_an_edited_file_applied_twice_changes_once_today_and_tomorrow_alike(store: MemorySiteStore) -> None:
    apply(store, tariff("0.50"))
    for now in (NOON, NEXT_DAY):
        assert apply(store, tariff("0.50"), now=now)["unchanged"] == ["tariff/vilnius@2026-11-23"]


def test_a_second_edit_on_the_same_day_replaces_the_first(store: MemorySiteStore) -> None:
    apply(store, tariff("0.50"))
    assert apply(store, tariff("0.55"))["changed"] == ["tariff/vilnius@2026-11-23"]
    assert prices(store)["vilnius@2026-11-23"] == Decimal("0.55")


def test_an_edit_taken_back_later_is_a_version_of_its_own(store: MemorySiteStore) -> None:
    apply(store, tariff("0.50"))
    later = datetime(2026, 12, 1, 10, tzinfo=UTC)
    assert apply(store, tariff("0.40"), now=later)["created"] == ["tariff/vilnius@2026-12-02"]


def test_a_file_with_a_first_and_a_dated_version_is_a_history(store: MemorySiteStore) -> None:
    history = tariff("0.40"), tariff("0.60", valid_from="2026-10-01")
    assert apply(store, *history) == {
        "created": ["tariff/vilnius@2026-10-01"],
        "changed": [],
        "unchanged": ["tariff/vilnius"],
    }
    assert apply(store, *history)["created"] == []
    corrected = tariff("0.30"), tariff("0.60", valid_from="2026-10-01")
    assert apply(store, *corrected)["changed"] == ["tariff/vilnius"]


def test_a_dated_version_that_no_document_used_may_be_changed(store: MemorySiteStore) -> None:
    apply(store, tariff("0.60", valid_from="2026-12-01"))
    assert apply(store, tariff("0.65", valid_from="2026-12-01"))["changed"] == ["tariff/vilnius@2026-12-01"]


def test_an_ended_contract_applied_again_is_still_the_same(store: MemorySiteStore) -> None:
    ended = contract(valid_until="2026-11-30")
    assert apply(store, ended)["created"] == ["contract/acme"]
    next_year = datetime(2027, 3, 1, tzinfo=UTC)
    assert apply(store, ended, now=next_year)["unchanged"] == ["contract/acme"]
    facts = facts_from_documents(store.documents.values())
    assert in_force(facts.contracts["acme"], date(2026, 11, 29)) is not None
    assert in_force(facts.contracts["acme"], date(2026, 11, 30)) is None


def test_a_version_that_would_end_before_the_next_midnight_is_refused(store: MemorySiteStore) -> None:
    assert refusals(store, tariff("0.50", valid_until="2026-11-23")) == [
        "-:5: valid_until: 2026-11-23 is not after 2026-11-23, from which this version would hold "
        "(name a later day, or state valid_from)"
    ]


def test_one_version_twice_with_different_content_is_refused_and_with_the_same_is_taken() -> None:
    empty = MemorySiteStore()
    same = tariff("0.40", valid_from="2026-10-01")
    other = tariff("0.41", valid_from="2026-10-01")
    (said,) = refusals(empty, SITE, same, other)
    assert "tariff vilnius@2026-10-01 stands twice with different content (the first is at -:20" in said
    assert apply(empty, SITE, same, same)["created"][-1] == "tariff/vilnius@2026-10-01"


class TestIssued:
    """October has been issued: what its documents rest on stays as it is."""

    @pytest.fixture
    def issued(self, store: MemorySiteStore) -> MemorySiteStore:
        october = Span(date(2026, 10, 1), date(2026, 11, 1))
        for kind, identity in (("tariff", "vilnius"), ("operator", "telecentras"), ("customer", "acme")):
            store.spans[Subject("telecentras", kind, identity)] = october
        return store

    def test_a_used_version_cannot_be_changed_only_followed(self, issued: MemorySiteStore) -> None:
        changed = tariff("0.41"), tariff("0.60", valid_from="2026-12-01")
        assert refusals(issued, *changed) == [
            "-:1: tariff/vilnius was used by issued documents and can't be changed "
            "(let a later version follow: valid_from 2026-11-01 or later, or none for the next midnight; "
            "or correct it: `supersedes: first` and `reason: …`)"
        ]
        assert apply(issued, tariff("0.41"))["created"] == ["tariff/vilnius@2026-11-23"]

    def test_a_used_version_cannot_be_cut_short(self, issued: MemorySiteStore) -> None:
        (said,) = refusals(issued, tariff("0.60", valid_from="2026-10-15"))
        assert "tariff/vilnius was used by issued documents" in said
        assert apply(issued, tariff("0.60", valid_from="2026-11-01"))["created"]

    def test_a_node_goes_by_its_operators_documents(self, issued: MemorySiteStore) -> None:
        moved = "kind: node\nid: vilnius-1\noperator: telecentras\nregion: LT-KU\nvalid_from: 2026-10-15\n"
        (said,) = refusals(issued, moved)
        assert "node/vilnius-1 was used" in said
        new = "kind: node\nid: kaunas-1\noperator: telecentras\nregion: LT-KU\n"
        assert apply(issued, new)["created"] == ["node/kaunas-1"]

    def test_what_is_new_and_touches_no_used_version_may_begin_at_any_time(
        self, issued: MemorySiteStore
    ) -> None:
        assert apply(issued, contract(valid_from="2026-10-01"))["created"] == ["contract/acme@2026-10-01"]


class TestContractRows:
    """A contract's row hides the tariff's row for its glob, and must price what that one prices."""

    def test_a_row_that_lacks_a_meter_of_the_row_it_hides_is_refused(self, store: MemorySiteStore) -> None:
        assert refusals(store, contract("{models: ['qwen3-*'], input: 0.3}")) == [
            "-:5: row 1 of contract/acme hides row 1 of tariff/vilnius for qwen3-*, but has no price for output "
            "(price these meters in the contract's row, or say `only: true`)"
        ]

    def test_only_true_says_that_it_is_meant(self, store: MemorySiteStore) -> None:
        apply(store, contract("{models: ['qwen3-*'], input: 0.3, only: true}"))
        (agreed,) = facts_from_documents(store.documents.values()).contracts["acme"]
        assert agreed.rows[0].only
        assert list(agreed.rows[0].prices) == ["input"]

    def test_a_later_tariff_that_prices_more_is_held_to_the_stored_contract(
        self, store: MemorySiteStore
    ) -> None:
        apply(store, contract("{models: ['qwen3-*'], input: 0.3, output: 1}"))
        more = tariff("0.40").replace("output: 2", "output: 2\n    cached_input: 0.1")
        (said,) = refusals(store, more)
        assert said.startswith("-:6: row 1 of contract/acme hides row 1 of tariff/vilnius@2026-11-23")

    def test_a_tariff_is_read_once_however_many_contracts_are_on_it(
        self, store: MemorySiteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read: list[int] = []

        def counted(body: Mapping[str, Any]) -> tuple[PriceRow, ...]:
            read.append(1)
            return price_rows(body)

        monkeypatch.setattr(references, "price_rows", counted)
        customers = [
            f"kind: customer\nid: c{n}\noperator: telecentras\nname: C\ncountry: LT\n" for n in range(5)
        ]
        row = "{models: ['qwen3-*'], input: 0.3, output: 1}"
        apply(store, *customers, *(contract(row).replace("acme", f"c{n}") for n in range(5)))
        assert len(read) == 5 + 1

    def test_versions_that_never_hold_together_are_not_compared(self, store: MemorySiteStore) -> None:
        apply(store, contract("{models: ['qwen3-*'], input: 0.3, output: 1}", valid_until="2026-11-23"))
        more = tariff("0.40").replace("output: 2", "output: 2\n    cached_input: 0.1")
        assert apply(store, more)["created"] == ["tariff/vilnius@2026-11-23"]


class TestBetweenOperators:
    SECOND = (
        "kind: operator\nid: roma\nname: Roma\ncountry: IT\ncurrency: EUR\ntimezone: Europe/Rome\n---\n"
        "kind: customer\nid: gelato\noperator: roma\nname: Gelato\ncountry: IT\n"
    )

    def test_a_contract_takes_a_tariff_of_its_customers_operator(self, store: MemorySiteStore) -> None:
        gelato = "kind: contract\ncustomer: gelato\ntariff: vilnius\n"
        (said,) = refusals(store, self.SECOND, gelato)
        assert "tariff vilnius belongs to operator telecentras, not to roma" in said

    def test_a_customers_id_is_unique_in_the_installation(self, store: MemorySiteStore) -> None:
        again = self.SECOND.replace("gelato", "acme")
        (said,) = refusals(store, again)
        assert said.startswith("-:9: customer acme belongs to operator telecentras")

    def test_operators_and_parties_have_ids_apart(self, store: MemorySiteStore) -> None:
        party = "kind: party\nid: {}\nname: Fondas\ncountry: LT\n"
        operator = "kind: operator\nid: fund\nname: F\ncountry: LT\ncurrency: EUR\ntimezone: Europe/Vilnius\n"
        apply(store, party.format("fund"))
        assert refusals(store, party.format("telecentras")) == [
            "-:2: party telecentras has the id of an operator "
            "(take another id; an operator keeps what its parties leave, without a share of its own)"
        ]
        (refused,) = refusals(store, operator)
        assert "operator fund has the id of a party" in refused

    @pytest.mark.parametrize(
        ("key", "value"), [("timezone", "Europe/Riga"), ("country", "LV"), ("currency", "SEK")]
    )
    def test_an_operators_zone_country_and_currency_never_change(
        self, key: str, value: str, store: MemorySiteStore
    ) -> None:
        before = {"timezone": "Europe/Vilnius", "country": "LT", "currency": "EUR"}[key]
        moved = SITE.partition("---")[0].replace(f"{key}: {before}", f"{key}: {value}")
        said = refusals(store, moved + "valid_from: 2027-01-01\n")
        assert any(f"{key}: {value} differs from {before} (what is applied already)" in each for each in said)


def test_the_price_0_1_goes_from_file_to_facts_as_0_1(store: MemorySiteStore) -> None:
    apply(store, tariff("0.1", valid_from="2026-12-01"))
    assert str(prices(store)["vilnius@2026-12-01"]) == "0.1"


def test_what_stands_there_is_text_whatever_yaml_thinks_of_it(store: MemorySiteStore) -> None:
    apply(
        store,
        "kind: customer\nid: '007'\noperator: telecentras\nname: NO\ncountry: NO\nregistration: 1\n".replace(
            "registration: 1\n", "purchase_order: 0x1F\naddress: {postcode: 01100, city: null, street: 1e3}\n"
        ),
    )
    (found,) = asyncio.run(get_documents(store, "customer", "007"))
    assert found["name"] == "NO"
    assert found["purchase_order"] == "0x1F"
    assert found["address"] == {"postcode": "01100", "city": "null", "street": "1e3"}


def test_get_writes_what_apply_finds_unchanged(store: MemorySiteStore) -> None:
    apply(store, tariff("0.50"), contract("{models: ['qwen3-*'], input: 0.3, output: 1}"))
    text = to_yaml(asyncio.run(get_documents(store)))
    again = apply(store, text, now=NEXT_DAY)
    assert again["created"] == again["changed"] == []
    assert len(again["unchanged"]) == len(store.documents)


def test_get_of_something_unknown_is_refused_with_what_there_is(store: MemorySiteStore) -> None:
    with pytest.raises(Refusal, match="'tarif' is no kind") as refused:
        asyncio.run(get_documents(store, "tarif"))
    assert refused.value.remedy.startswith("did you mean tariff?")
    with pytest.raises(Refusal, match="no tariff 'vilnus'") as refused:
        asyncio.run(get_documents(store, "tariff", "vilnus"))
    assert refused.value.remedy == "did you mean vilnius? allowed: vilnius"


def test_an_import_makes_private_customers_of_ids_that_nobody_declared(store: MemorySiteStore) -> None:
    made = asyncio.run(add_private_customers(store, "telecentras", ["acme", "trace_0001", "trace_0001"]))
    assert made == ("trace_0001",)
    (customer,) = facts_from_documents(store.documents.values()).customers["trace_0001"]
    assert (customer.name, customer.country, customer.business) == ("trace_0001", "LT", False)
    with pytest.raises(Refusal) as refused:
        asyncio.run(add_private_customers(store, "telecentras", ["Trace 1", "fine"]))
    assert [fault.where for fault in refused.value.faults] == ["Trace 1"]
    assert "fine" not in facts_from_documents(store.documents.values()).customers


def test_a_version_changes_at_midnight_of_the_zone_not_of_utc(store: MemorySiteStore) -> None:
    apply(store, tariff("0.60", valid_from="2026-12-01"))
    versions = facts_from_documents(store.documents.values()).tariffs["vilnius"]
    before = datetime(2026, 11, 30, 21, tzinfo=UTC)  # 23:00 in Vilnius
    after = datetime(2026, 11, 30, 22, tzinfo=UTC)  # midnight
    for instant, expected in ((before, "vilnius"), (after, "vilnius@2026-12-01")):
        by_zone = in_force_at(versions, instant, versions[0].zone)
        by_tariff = tariff_in_force_at(versions, instant)
        assert by_zone is not None
        assert by_tariff is not None
        assert by_zone.version == by_tariff.version == expected
