"""The pricing language as site files: each part accepted, kept in canonical text, typed, and written back unchanged."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.site_files.apply import Applied, apply_site
from adapters.site_files.json_schema import site_file_schema
from adapters.site_files.legal_scalars import countries
from adapters.site_files.reading import SiteFiles, read_files
from adapters.site_files.store import MemorySiteStore
from adapters.site_files.writing import get_documents, to_yaml
from billing.facts import Facts, facts_from_documents
from billing.holiday import calendar_names, is_calendar
from billing.tariff import (
    METERS,
    OUTCOMES,
    PROMPT_BANDS,
    WEEKDAYS,
    Contract,
    Fee,
    Graduated,
    Package,
    Plain,
    Step,
    Tariff,
    Tier,
    Volume,
)
from metering.refusal import Refusal

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
HEAD = """\
kind: operator
id: o
name: O
country: LT
currency: EUR
timezone: Europe/Vilnius
---
kind: customer
id: acme
operator: o
name: Acme
country: LT
---
"""
TARIFF = "kind: tariff\nid: t\noperator: o\ncurrency: EUR\n"
PRICES = "prices: [{models: ['*'], input: 0.40, output: 2}]\n"
CONTRACT = "---\nkind: contract\ncustomer: acme\ntariff: t\n"
SCHEMA = jsonschema.Draft202012Validator(site_file_schema())


def read(text: str) -> SiteFiles:
    return read_files(["-"], text.encode)


def accepted(text: str) -> Facts:
    """The facts of a file, which fits the published schema and which get and apply leave as it is."""
    store = MemorySiteStore()
    applied = asyncio.run(apply_site(store, read(HEAD + text), NOW))
    facts = facts_from_documents(store.documents.values())
    documents = asyncio.run(get_documents(store))
    for document in documents:
        SCHEMA.validate(document)
    again: Applied = asyncio.run(apply_site(store, read(to_yaml(documents)), NOW))
    assert again.created == again.changed == ()
    assert set(again.unchanged) == set(applied.created)
    assert facts_from_documents(store.documents.values()) == facts
    return facts


def tariff(text: str) -> Tariff:
    return accepted(TARIFF + text).tariffs["t"][0]


def contract(text: str) -> Contract:
    return accepted(TARIFF + PRICES + CONTRACT + text).contracts["acme"][0]


def refused(text: str) -> list[str]:
    with pytest.raises(Refusal) as caught:
        asyncio.run(apply_site(MemorySiteStore(), read(HEAD + text), NOW))
    return [fault.what for fault in caught.value.faults]


def test_a_row_may_price_long_prompts_alone() -> None:
    (long, rest) = tariff(
        "prices:\n- {models: ['*'], prompt_over: 128_000, input: 0.80}\n- {models: ['*'], input: 0.40}\n"
    ).rows
    assert (long.prompt_over, rest.prompt_over) == (128_000, None)
    assert long.matches("m", "LT-VL", 128_000)
    assert not long.matches("m", "LT-VL", 32_000)


def test_a_meter_is_priced_plainly_by_tiers_by_volume_or_by_packages() -> None:
    (row,) = tariff("""prices:
- models: ["*"]
  input: 1_000.50
  cached_input: {graduated: [{up_to: 50_000_000, price: 1.60}, {price: 1.20}]}
  output: {volume: [{up_to: 10_000_000, price: 0.60}, {price: 0.50}]}
  requests: {package: {size: 1_000_000, price: 2.00}}
""").rows
    assert row.prices == {
        "input": Plain(Decimal("1000.5")),
        "cached_input": Graduated((Tier(50_000_000, Decimal("1.6")), Tier(None, Decimal("1.2")))),
        "output": Volume((Tier(10_000_000, Decimal("0.6")), Tier(None, Decimal("0.5")))),
        "requests": Package(1_000_000, Decimal(2)),
    }


@pytest.mark.parametrize(
    ("said", "begin", "end"),
    [
        ("22:00-06:00", 22, 6),
        ("8:00-18:00", 8, 18),
        ("00:00-24:00", 0, 24),
        ("22:00-00:00", 22, 24),  # midnight is the end of the day that it ends
    ],
)
def test_a_window_has_whole_hours_which_may_go_on_across_midnight(said: str, begin: int, end: int) -> None:
    (window,) = tariff(f'{PRICES}windows: [{{name: w, hours: "{said}", factor: 0.50}}]\n').windows
    assert (window.begin, window.end, window.factor) == (begin, end, Decimal("0.5"))


def test_a_window_without_days_and_hours_is_always() -> None:
    (window,) = tariff(f"{PRICES}windows: [{{name: all-of-it, factor: 2}}]\n").windows
    assert (window.begin, window.end, window.days) == (0, 24, frozenset({*WEEKDAYS, "holiday"}))


def test_a_window_for_holidays_asks_for_a_calendar_of_the_tariff_or_of_the_operators_country() -> None:
    windows = "windows: [{name: free-days, days: [sat, sun, holiday], factor: 0.7}]\n"
    assert tariff(PRICES + windows).holidays == "LT"
    assert tariff(f"{PRICES}{windows}holidays: DE-BY\n").holidays == "DE-BY"
    assert all(is_calendar(country) for country in countries()), "an operator's country is one of them"


def test_a_tariff_says_which_output_and_which_outcomes_it_bills_and_what_is_free() -> None:
    found = tariff(
        f"{PRICES}bill_output: generated\nbill_outcomes: [finished, failed]\nsegments: {{sme: 15.50%, research: 40%}}\n"
        "included: {input: 1_000_000}\nminimum: 5.00\n"
    )
    assert (found.bill_output, found.bill_outcomes) == ("generated", ("finished", "failed"))
    assert found.segments == {"sme": Decimal("15.5"), "research": Decimal(40)}
    assert (found.included, found.minimum) == ({"input": 1_000_000}, 500)


def test_a_contract_has_a_discount_a_commitment_included_units_and_fees() -> None:
    found = contract(
        "valid_from: 2026-10-01\ndiscount: 10%\ncommitment: 1000.00\nincluded: {output: 5_000_000}\n"
        "fees: [{name: Reserved capacity, amount: 500.00}, {name: Set-up, amount: 50, every: once}]\n"
    )
    assert (found.discount, found.commitment, found.included) == (Decimal(10), 100_000, {"output": 5_000_000})
    assert found.fees == (Fee("Reserved capacity", 50_000, "month"), Fee("Set-up", 5_000, "once"))


def test_a_commitment_of_nothing_is_a_stated_one() -> None:
    assert contract("commitment: 0.00\n").commitment == 0
    assert contract("discount: 0%\n").commitment is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("minimum: 5.50\n", "minimum: 5.5 has more decimals than ISK"),
        (f"{CONTRACT}commitment: 5.50\n", "commitment: 5.5 has more decimals than ISK"),
        (f"{CONTRACT}fees: [{{name: a, amount: 5.50}}]\n", "fees[1].amount: 5.5 has more decimals than ISK"),
    ],
)
def test_an_amount_has_no_more_decimals_than_its_currency(text: str, said: str) -> None:
    icelandic = (HEAD + TARIFF + PRICES + text).replace("currency: EUR", "currency: ISK")
    with pytest.raises(Refusal) as caught:
        asyncio.run(apply_site(MemorySiteStore(), read(icelandic), NOW))
    assert [fault.what for fault in caught.value.faults] == [said]


def test_what_is_due_once_needs_a_day_and_names_are_not_taken_twice() -> None:
    once = f"{CONTRACT}fees: [{{name: Set-up, amount: 5, every: once}}]\n"
    (said,) = refused(TARIFF + PRICES + once)
    assert said.startswith("fees[1]: Set-up is due once, when the contract begins")
    twice = f"{CONTRACT}fees: [{{name: a, amount: 5}}, {{name: a, amount: 6}}]\n"
    assert refused(TARIFF + PRICES + twice) == ["fees[2].name: the fee a stands twice"]
    windows = "windows: [{name: a, factor: 1}, {name: b, factor: 1}, {name: a, factor: 1}]\n"
    assert refused(TARIFF + PRICES + windows) == ["windows[3].name: the window a stands twice"]


# -- series ----------------------------------------------------------------------------------------------------------

SPOT = """\
windows: [{name: spot, series: prices/spot.csv, steps: [{up_to: -5, factor: 0}, {up_to: 40, factor: 0.6}, {factor: 1}]}]
"""


def applied_with(csv: bytes | None, folder: Path, windows: str = SPOT) -> MemorySiteStore:
    """The store after applying a tariff whose series lies in a folder beside it."""
    (folder / "prices").mkdir(exist_ok=True)
    if csv is not None:
        (folder / "prices" / "spot.csv").write_bytes(csv)
    file = folder / "site.yaml"
    file.write_text(HEAD + TARIFF + PRICES + windows, encoding="utf-8")
    store = MemorySiteStore()
    asyncio.run(apply_site(store, read_files([file]), NOW))
    return store


def test_a_series_is_read_from_a_file_beside_and_kept_with_its_version(tmp_path: Path) -> None:
    store = applied_with(
        b"hour,price\n2026-10-25T02:00:00+03:00,41.20\n2026-10-25T03:00:00+03:00,-0.50\n"
        b"2026-10-25T03:00:00+02:00,-0\n",  # the hour that this night has twice
        tmp_path,
    )
    (window,) = facts_from_documents(store.documents.values()).tariffs["t"][0].windows
    assert window.steps == (
        Step(Decimal(-5), Decimal(0)),
        Step(Decimal(40), Decimal("0.6")),
        Step(None, Decimal(1)),
    )
    assert window.series is not None
    assert (window.series.file, window.series.prices) == (
        "prices/spot.csv",
        (Decimal("41.2"), Decimal("-0.5"), Decimal(0)),
    )
    first = int(datetime(2026, 10, 24, 23, tzinfo=UTC).timestamp()) // 3600
    assert [window.series.at(first + n) for n in (-1, 0, 2, 3)] == [None, Decimal("41.2"), Decimal(0), None]


def test_get_writes_a_series_out_and_apply_takes_it_without_the_file(tmp_path: Path) -> None:
    store = applied_with(b"\xef\xbb\xbfhour, price\r\n2026-10-01T00:00:00Z, 41.20\r\n\r\n", tmp_path)
    written = to_yaml(asyncio.run(get_documents(store, "tariff")))
    assert '    file: prices/spot.csv\n    first: "2026-10-01T00:00:00Z"\n    prices: ["41.2"]\n' in written
    assert asyncio.run(apply_site(store, read(written), NOW)).unchanged == ("tariff/t",)


def test_a_year_of_hours_is_written_in_lines_that_people_can_scroll_through(tmp_path: Path) -> None:
    hours = (datetime.fromtimestamp(1_790_000_000 // 3600 * 3600 + 3600 * n, UTC) for n in range(8760))
    store = applied_with(
        b"hour,price\n" + b"".join(f"{h.isoformat()},41.20\n".encode() for h in hours), tmp_path
    )
    written = to_yaml(asyncio.run(get_documents(store)))
    assert len(written.splitlines()) < 1000
    assert asyncio.run(apply_site(store, read(written), NOW)).changed == ()


HOUR = b"2026-10-01T00:00:00Z,1\n"


@pytest.mark.parametrize(
    ("csv", "line", "said"),
    [
        (None, 0, "'prices/spot.csv' cannot be read: No such file or directory"),
        (b"", 1, "the first line is not the header of a series"),
        (b"time;price\n", 1, "the first line is not the header of a series"),
        (b"hour,price\n", 1, "0 hours"),
        (b"hour,price\n\xff,1\n", 2, "is not UTF-8 text"),
        (b"hour,price\n" + HOUR + b"2026-10-01T01:00:00Z,1\xa0\n", 3, "is not UTF-8 text"),
        (b"hour,price\n2026-10-01T00:00:00Z,--1\n", 2, "'--1' has more than one minus sign"),
        (b"hour,price\n" + HOUR + HOUR, 3, "2026-10-01T00:00:00Z is out of order, or twice"),
        (b"hour,price\n" + HOUR + b"2026-10-01T02:00:00Z,1\n", 3, "2026-10-01T02:00:00Z is after a gap"),
        (b"hour,price\n" + HOUR + b"\n" + b"2026-10-01T01:00:00Z,1\n", 3, "'' is not an hour and a price"),
        (b"hour,price\n2026-10-01T00:00:00,1\n", 2, "'2026-10-01T00:00:00' has no offset"),
        (b"hour,price\n2026-10-01T00:15:00Z,1\n", 2, "is not a whole hour of UTC"),
        (b"hour,price\n2026-10-01T00:00:00+05:30,1\n", 2, "is not a whole hour of UTC"),
        (b"hour,price\n1.10.2026 00:00,1\n", 2, "is not a time"),
        (b"hour,price\n2026-10-01T00:00:00Z,41,20\n", 2, "is not an hour and a price"),
        (b"hour,price\n2026-10-01T00:00:00Z,n/a\n", 2, "'n/a' is not a decimal number"),
        (b"hour,price\n2026-10-01T00:00:00Z,0.1234567\n", 2, "has too many digits"),
    ],
)
def test_a_line_of_a_series_that_is_wrong_is_named_with_its_file_and_line(
    csv: bytes | None, line: int, said: str, tmp_path: Path
) -> None:
    with pytest.raises(Refusal) as caught:
        applied_with(csv, tmp_path)
    (fault,) = caught.value.faults
    assert said in fault.what
    assert fault.where == (
        f"{tmp_path / 'prices' / 'spot.csv'}:{line}" if line else f"{tmp_path / 'site.yaml'}:19"
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/etc/passwd", "is not the name of a file beside this one"),
        ("' /etc/passwd'", "is not the name of a file beside this one"),
        ("../secret.csv", "leads out of the folder of this file"),
        ("prices/../../secret.csv", "leads out of the folder of this file"),
        ("linked.csv", "it lies outside the folder of the site file"),
        ("away/secret.csv", "it lies outside the folder of the site file"),
        ("loop.csv", "Too many levels of symbolic links"),
        ("pipe.csv", "not a regular file"),
        ("prices", "not a regular file"),
        ("other.csv", "the first line is not the header of a series"),
    ],
)
def test_a_series_lies_in_the_folder_of_its_site_file_and_no_other_file_is_shown(
    name: str, said: str, tmp_path: Path
) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    (tmp_path / "secret.csv").write_text("PASSWORD=hunter2\n")
    (folder / "other.csv").write_text("PASSWORD=hunter2\n")
    (folder / "linked.csv").symlink_to(tmp_path / "secret.csv")
    (folder / "away").symlink_to(tmp_path)
    (folder / "loop.csv").symlink_to(folder / "loop.csv")
    os.mkfifo(folder / "pipe.csv")
    with pytest.raises(Refusal) as caught:
        applied_with(None, folder, SPOT.replace("prices/spot.csv", name))
    (fault,) = caught.value.faults
    assert said in fault.what
    assert "hunter2" not in f"{caught.value.what} {fault}"


def test_a_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "newest.csv").symlink_to(tmp_path / "prices" / "spot.csv")
    windows = SPOT.replace("prices/spot.csv", "newest.csv")
    assert applied_with(b"hour,price\n" + HOUR, tmp_path, windows).documents


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "site.yaml")
    found = read_files([tmp_path / "site.yaml", "/dev/zero"])
    assert [(fault.what, fault.where) for fault in found.faults] == [
        ("cannot be read: not a regular file", str(tmp_path / "site.yaml")),
        ("cannot be read: not a regular file", "/dev/zero"),
    ]


def test_every_wrong_line_of_a_series_is_listed_up_to_twenty(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as caught:
        applied_with(b"hour,price\n" + b"what,ever\n" * 1000, tmp_path)
    assert [fault.where.rpartition(":")[2] for fault in caught.value.faults] == [str(n) for n in range(2, 23)]


# -- whatever the language can say -----------------------------------------------------------------------------------


def decimals(most: int, places: int) -> st.SearchStrategy[str]:
    return st.decimals(0, most, places=places, allow_nan=False).map(lambda value: f"{value:f}")


def some(items: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[list[Any]]:
    return st.lists(items, min_size=1, max_size=most)


@st.composite
def tiers(draw: st.DrawFn) -> list[dict[str, str]]:
    bounds = sorted(draw(st.sets(st.integers(1, 10**9), max_size=3)))
    return [
        *({"up_to": f"{bound:_}", "price": draw(decimals(99, 3))} for bound in bounds),
        {"price": draw(decimals(99, 3))},
    ]


pricings = (
    decimals(1000, 4)
    | st.fixed_dictionaries({"graduated": tiers()})
    | st.fixed_dictionaries({"volume": tiers()})
    | st.fixed_dictionaries(
        {"package": st.fixed_dictionaries({"size": st.integers(1, 10**9).map(str), "price": decimals(99, 2)})}
    )
)
rows = st.fixed_dictionaries(
    {
        "models": some(st.sampled_from(["*", "qwen3-*", "claude-*", "Qwen/*", "llama-4"]), 2),
        "input": pricings,
        "output": pricings,
    },
    optional={
        "regions": some(st.sampled_from(["LT-*", "IT-62", "*"]), 2),
        "prompt_over": st.sampled_from(PROMPT_BANDS).map(str),
        **{meter: pricings for meter in METERS if meter not in ("input", "output")},
    },
)
signed = st.decimals(-500, 4000, places=2).map(lambda value: f"{value:f}")


@st.composite
def spot(draw: st.DrawFn) -> dict[str, Any]:
    bounds = sorted(draw(st.sets(st.integers(-100, 1000), max_size=3)))
    steps = [{"up_to": str(bound), "factor": draw(decimals(3, 2))} for bound in bounds]
    first = datetime.fromtimestamp(draw(st.integers(480_000, 500_000)) * 3600, UTC)
    return {
        "series": {"first": first.isoformat(), "prices": draw(some(signed, 30))},
        "steps": [*steps, {"factor": draw(decimals(3, 2))}],
    }


@st.composite
def windows(draw: st.DrawFn) -> list[dict[str, Any]]:
    names = draw(
        st.lists(
            st.from_regex(r"[a-z0-9][a-z0-9_-]{0,8}", fullmatch=True), min_size=1, max_size=3, unique=True
        )
    )
    found = []
    for name in names:
        begin, end = draw(st.lists(st.integers(0, 23), min_size=2, max_size=2, unique=True))
        priced = draw(spot()) if draw(st.booleans()) else {"factor": draw(decimals(9, 3))}
        days = draw(st.lists(st.sampled_from([*WEEKDAYS, "holiday"]), min_size=1, unique=True))
        found.append({"name": f"w{name}", "days": days, "hours": f"{begin}:00-{end:02}:00", **priced})
    return found


tariffs = st.fixed_dictionaries(
    {"prices": some(rows)},
    optional={
        "bill_output": st.sampled_from(["delivered", "generated"]),
        "bill_outcomes": st.lists(st.sampled_from(OUTCOMES), min_size=1, unique=True),
        "windows": windows(),
        "holidays": st.sampled_from(calendar_names()),
        "segments": st.dictionaries(
            st.sampled_from(["sme", "research", "private"]),
            decimals(100, 2).map(lambda text: f"{text}%"),
            min_size=1,
        ),
        "included": st.dictionaries(st.sampled_from(METERS), st.integers(1, 10**9).map(str), min_size=1),
        "minimum": decimals(1000, 2),
        "valid_until": st.just("2099-01-01"),
    },
)
contracts = st.fixed_dictionaries(
    {"valid_from": st.just("2026-10-01")},
    optional={
        "prices": some(rows.map(lambda row: {**row, "only": "true"})),
        "discount": decimals(100, 2).map(lambda text: f"{text} %"),
        "commitment": decimals(10_000, 2),
        "included": st.dictionaries(st.sampled_from(METERS), st.integers(1, 10**9).map(str), min_size=1),
        "fees": st.lists(
            st.fixed_dictionaries(
                {"name": st.sampled_from(["Set-up", "Hosting", "Vieta"]), "amount": decimals(1000, 2)},
                optional={"every": st.sampled_from(["month", "once"])},
            ),
            min_size=1,
            unique_by=lambda fee: fee["name"],
        ),
        "supersedes": st.just("2026-10-01"),
    },
)


@settings(max_examples=60, deadline=None)
@given(tariffs, contracts)
def test_whatever_is_accepted_survives_get_and_apply_unchanged(
    prices: dict[str, Any], agreed: dict[str, Any]
) -> None:
    if "supersedes" in agreed:
        agreed = {**agreed, "reason": "a wrong price"}
    documents = [
        {"kind": "tariff", "id": "t", "operator": "o", "currency": "EUR", **prices},
        {"kind": "contract", "customer": "acme", "tariff": "t", **agreed},
    ]
    facts = accepted(yaml.safe_dump_all(documents, allow_unicode=True))
    assert len(facts.tariffs["t"][0].rows) == len(prices["prices"])
    assert len(facts.contracts["acme"][0].fees) == len(agreed.get("fees", ()))
