"""A version that was used is corrected by one that supersedes it; a price series grows; and both say what they touch."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import yaml

from adapters.site_files.apply import Applied, apply_site
from adapters.site_files.reading import read_files
from adapters.site_files.store import MemorySiteStore, Span, Subject
from adapters.site_files.writing import get_documents, get_superseded, superseded_to_yaml, to_yaml
from billing.facts import facts_from_documents
from billing.period import Period
from metering.refusal import Refusal

NOON = datetime(2026, 11, 22, 10, tzinfo=UTC)
OPERATOR = """\
kind: operator
id: telecentras
name: AB Pavyzdys
country: LT
currency: EUR
timezone: Europe/Vilnius
"""
TARIFF = """\
kind: tariff
id: vilnius
operator: telecentras
currency: EUR
valid_from: 2026-10-01
prices: [{models: ["*"], input: 0.40, output: 2}]
"""
BY_DEFAULT = OPERATOR + "default_tariff: vilnius\n"
CUSTOMER = "kind: customer\nid: acme\noperator: telecentras\nname: ACME\ncountry: LT\n"
CORRECTED = TARIFF.replace("0.40", "0.04").replace(
    "valid_from: 2026-10-01", "supersedes: 2026-10-01\nreason: the point stood wrong"
)


def apply(store: MemorySiteStore, *documents: str) -> Applied:
    text = "---\n".join(documents)
    return asyncio.run(apply_site(store, read_files(["-"], lambda: text.encode()), NOON))


def refusals(store: MemorySiteStore, *documents: str) -> list[str]:
    with pytest.raises(Refusal) as refused:
        apply(store, *documents)
    return [str(fault) for fault in refused.value.faults]


def use(store: MemorySiteStore) -> None:
    """October was closed and issued, at the tariff's prices."""
    october = Span(date(2026, 10, 1), date(2026, 11, 1))
    for kind, identity in (("tariff", "vilnius"), ("operator", "telecentras")):
        store.spans[Subject("telecentras", kind, identity)] = october
    store.closes["telecentras"] = [Period(2026, 9), Period(2026, 10)]


@pytest.fixture
def store() -> MemorySiteStore:
    store = MemorySiteStore()
    apply(store, BY_DEFAULT, TARIFF)
    use(store)
    return store


def test_a_used_version_is_superseded_by_name_and_the_former_one_is_kept_with_the_reason(
    store: MemorySiteStore,
) -> None:
    (former,) = [each for each in store.documents.values() if each.kind == "tariff"]
    applied = apply(store, CORRECTED)
    assert (applied.created, applied.changed) == ((), ("tariff/vilnius@2026-10-01",))
    assert [(each.document, each.reason) for each in store.superseded] == [(former, "the point stood wrong")]
    (tariff,) = facts_from_documents(store.documents.values()).tariffs["vilnius"]
    assert (tariff.version, str(tariff.rows[0].prices["input"])) == (
        "vilnius@2026-10-01",
        "Plain(price=Decimal('0.04'))",
    )


def test_an_apply_says_which_closed_periods_are_to_be_closed_again(store: MemorySiteStore) -> None:
    assert apply(store, CORRECTED).to_json()["re_rates"] == [{"operator": "telecentras", "period": "2026-10"}]
    assert apply(store, CORRECTED).re_rates == (), "the second time nothing changes"


def on_the_tariff(*days: str, tariff: str = TARIFF) -> MemorySiteStore:
    """A site without a default tariff, whose only customer is on it from a day, or until one."""
    store = MemorySiteStore()
    contract = "kind: contract\ncustomer: acme\ntariff: vilnius\n" + "".join(f"{day}\n" for day in days)
    apply(store, OPERATOR, tariff, CUSTOMER, contract)
    use(store)
    return store


@pytest.mark.parametrize(
    ("days", "again"),
    [
        ("valid_from: 2026-10-31", ["2026-10"]),
        ("valid_from: 2026-11-01", []),
        ("valid_from: 2026-11-02", []),
        ("valid_from: 2026-12-01", []),
        ("valid_until: 2026-10-01", []),
        ("valid_until: 2026-10-02", ["2026-10"]),
    ],
)
def test_a_tariff_that_nobody_was_on_in_a_closed_period_changes_nothing_in_it(
    days: str, again: list[str]
) -> None:
    applied = apply(on_the_tariff(days), CORRECTED)
    assert [str(each.period) for each in applied.re_rates] == again


@pytest.mark.parametrize(
    ("until", "again"), [("2026-10-01", ["2026-09"]), ("2026-10-02", ["2026-09", "2026-10"])]
)
def test_a_contract_that_ends_with_the_last_day_of_a_month_says_nothing_of_the_next(
    until: str, again: list[str]
) -> None:
    """`valid_until` is the first day on which it no longer holds: of 2026-10-01, September is the last month."""
    ever = TARIFF.replace("valid_from: 2026-10-01\n", "")
    corrected = CORRECTED.replace("valid_from: 2026-10-01\n", "").replace(
        "supersedes: 2026-10-01", "supersedes: first"
    )
    applied = apply(on_the_tariff(f"valid_until: {until}", tariff=ever), corrected)
    assert [str(each.period) for each in applied.re_rates] == again


@pytest.mark.parametrize(
    ("zone", "again"),
    [
        ("Asia/Tokyo", ["2026-09", "2026-10"]),
        ("Atlantic/Reykjavik", ["2026-10"]),
        ("Europe/Vilnius", ["2026-10"]),
    ],
)
def test_days_of_a_tariff_in_a_zone_of_its_own_touch_the_months_of_the_operators_zone(
    zone: str, again: list[str]
) -> None:
    """In Tokyo October begins while Vilnius still has six hours of September before it."""
    own = f"id: vilnius\ntimezone: {zone}\n"
    tariff, corrected = (each.replace("id: vilnius\n", own) for each in (TARIFF, CORRECTED))
    applied = apply(on_the_tariff(tariff=tariff), corrected)
    assert [str(each.period) for each in applied.re_rates] == again


def test_a_tariff_that_is_new_and_nobodys_re_rates_nothing(store: MemorySiteStore) -> None:
    assert apply(store, TARIFF.replace("id: vilnius", "id: other")).re_rates == ()


@pytest.mark.parametrize("kind", ["customer", "node"])
def test_whoever_a_bill_rests_on_is_re_rated_where_superseded(kind: str) -> None:
    store = MemorySiteStore()
    node = "kind: node\nid: vilnius-1\noperator: telecentras\nregion: LT-VL\n"
    apply(store, BY_DEFAULT, TARIFF, CUSTOMER, node)
    use(store)
    former = CUSTOMER if kind == "customer" else node
    changed = former.replace("ACME", "ACME UAB").replace("LT-VL", "LT-KU")
    applied = apply(store, f"{changed}supersedes: first\nreason: it stood wrong\n")
    assert [str(each.period) for each in applied.re_rates] == ["2026-09", "2026-10"]


def test_a_superseding_version_that_drops_a_model_is_warned_of_beside_the_former(
    store: MemorySiteStore,
) -> None:
    narrower = CORRECTED.replace('["*"]', '["qwen3-*"]')
    assert any(
        "as row 1 of vilnius@2026-10-01 as it is superseded did" in each.what
        for each in apply(store, narrower).warnings
    )


def test_applying_an_unchanged_file_again_moves_its_places_and_nothing_else(tmp_path: Path) -> None:
    store, file = MemorySiteStore(), tmp_path / "site.yaml"

    def again(text: str) -> Applied:
        file.write_text(text, encoding="utf-8")
        return asyncio.run(apply_site(store, read_files([file]), NOON))

    again(f"{OPERATOR}---\n{TARIFF}")
    before = dict(store.documents)
    moved = again(f"# a comment\n{OPERATOR}---\n{TARIFF}")
    assert (moved.created, moved.changed) == ((), ())
    assert store.documents == before
    [tariff] = [each for each in store.documents.values() if each.kind == "tariff"]
    assert tariff.places["prices.1"] == f"{file}:14"
    apply(store, OPERATOR, TARIFF)
    [tariff] = [each for each in store.documents.values() if each.kind == "tariff"]
    assert tariff.places["prices.1"] == f"{file}:14", "standard input is no place that lasts"


def test_applying_the_same_correction_twice_changes_nothing_and_neither_does_what_get_writes(
    store: MemorySiteStore,
) -> None:
    apply(store, CORRECTED)
    for text in (CORRECTED, to_yaml(asyncio.run(get_documents(store)))):
        again = apply(store, text)
        assert again.created == again.changed == ()
    assert len(store.superseded) == 1


def test_a_correction_that_was_corrected_is_not_taken_for_a_new_one(store: MemorySiteStore) -> None:
    again = CORRECTED.replace("0.04", "0.05").replace("the point", "again the point")
    apply(store, CORRECTED)
    apply(store, again)
    [said] = refusals(store, CORRECTED)
    assert "when another took its place (again the point stood wrong)" in said
    assert apply(store, CORRECTED.replace("the point", "after all the point")).changed
    assert len(store.superseded) == 3


def test_former_versions_are_shown_with_when_and_why(store: MemorySiteStore) -> None:
    before = to_yaml(asyncio.run(get_documents(store, "tariff", "vilnius")))
    apply(store, CORRECTED)
    apply(store, CORRECTED.replace("0.04", "0.05").replace("the point", "again the point"))
    [first, second] = former = asyncio.run(get_superseded(store, "tariff", "vilnius"))
    assert (first["reason"], first["document"]["prices"][0]["input"]) == ("the point stood wrong", "0.4")
    assert second["document"]["prices"][0]["input"] == "0.04"
    shown = superseded_to_yaml(former)
    assert shown.startswith(f"# superseded {first['at']}: the point stood wrong\n{before}---\n# superseded ")
    assert len(list(yaml.safe_load_all(shown))) == 2, "comments aside it is YAML"
    assert asyncio.run(get_superseded(store, "operator")) == []
    with pytest.raises(Refusal, match="no tariff 'nobody'"):
        asyncio.run(get_superseded(store, "tariff", "nobody"))


def test_a_file_that_no_longer_says_what_it_superseded_says_the_same(store: MemorySiteStore) -> None:
    apply(store, CORRECTED)
    settled = TARIFF.replace("0.40", "0.04")
    assert apply(store, settled).unchanged == ("tariff/vilnius@2026-10-01",)


@pytest.mark.parametrize("used", [True, False])
def test_a_file_from_before_a_correction_does_not_take_it_back_and_is_told_so_once(
    store: MemorySiteStore, used: bool
) -> None:
    apply(store, CORRECTED)
    if not used:
        store.spans.clear()
    assert refusals(store, TARIFF) == [
        "-:1: tariff/vilnius@2026-10-01 took another's place (the point stood wrong), and this is not what it says "
        "(is this file older? `tally get tariff vilnius` shows it; else say `supersedes: 2026-10-01` and `reason: …` again)"
    ]


def test_what_was_superseded_may_be_superseded_again(store: MemorySiteStore) -> None:
    apply(store, CORRECTED)
    apply(store, CORRECTED.replace("0.04", "0.05").replace("the point", "again the point"))
    assert [each.reason for each in store.superseded] == [
        "the point stood wrong",
        "again the point stood wrong",
    ]


def test_a_file_that_still_says_supersedes_does_not_correct_again_under_the_old_reason(
    store: MemorySiteStore,
) -> None:
    apply(store, CORRECTED)
    assert refusals(store, CORRECTED.replace("0.04", "0.05")) == [
        "-:6: tariff/vilnius@2026-10-01 took another's place already for that reason, and said something else "
        "(leave `supersedes` and `reason` out, and prices change from the next midnight or `valid_from`; "
        "or give the reason for which 2026-10-01 is corrected again)"
    ]
    dearer = CORRECTED.replace("0.04", "0.05").replace(
        "supersedes: 2026-10-01\nreason: the point stood wrong\n", ""
    )
    assert apply(store, dearer).created == ("tariff/vilnius@2026-11-23",)
    assert len(store.superseded) == 1


def test_a_version_without_a_date_is_called_first() -> None:
    store = MemorySiteStore()
    apply(store, BY_DEFAULT, TARIFF.replace("valid_from: 2026-10-01\n", ""))
    use(store)
    corrected = CORRECTED.replace("supersedes: 2026-10-01", "supersedes: first")
    applied = apply(store, corrected)
    assert applied.changed == ("tariff/vilnius",)
    assert [str(each.period) for each in applied.re_rates] == ["2026-09", "2026-10"]
    assert apply(store, corrected).unchanged == ("tariff/vilnius",)


def test_any_kind_may_be_superseded(store: MemorySiteStore) -> None:
    moved = OPERATOR.replace("AB Pavyzdys", "AB Pavyzdžiai") + "supersedes: first\nreason: its name\n"
    assert apply(store, moved).changed == ("operator/telecentras",)
    assert refusals(store, moved.replace("Europe/Vilnius", "Europe/Riga")), (
        "what never changes, never changes"
    )


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        (
            "supersedes: 2026-10-01",
            "supersedes: 2026-10-02",
            "-:5: supersedes: tariff vilnius has no version 2026-10-02 (allowed: 2026-10-01)",
        ),
        (
            "supersedes: 2026-10-01",
            "supersedes: first",
            "-:5: supersedes: tariff vilnius has no version first (allowed: 2026-10-01)",
        ),
        (
            "supersedes: 2026-10-01",
            "supersedes: 2026-10-01\nvalid_from: 2026-10-05",
            "-:6: valid_from: 2026-10-05 is not the version that is superseded, 2026-10-01 "
            "(leave valid_from out: the version keeps its own)",
        ),
        (
            "reason: the point stood wrong\n",
            "",
            "-:5: supersedes: the reason is missing "
            "(add `reason: …`: it is kept, and told to whoever asks why a price changed)",
        ),
    ],
)
def test_a_correction_of_nothing_or_without_a_reason_is_refused(
    store: MemorySiteStore, right: str, wrong: str, said: str
) -> None:
    assert refusals(store, CORRECTED.replace(right, wrong)) == [said]


def test_a_version_beside_the_one_that_supersedes_it_is_refused(store: MemorySiteStore) -> None:
    assert refusals(store, TARIFF, CORRECTED) == [
        "-:8: tariff vilnius@2026-10-01 stands twice with different content "
        "(the first is superseded by the other: remove it (-:1))"
    ]


def test_a_history_with_corrections_is_taken_where_nothing_of_it_is_known() -> None:
    empty = MemorySiteStore()
    assert apply(empty, OPERATOR, CORRECTED).created == ("operator/telecentras", "tariff/vilnius@2026-10-01")


def test_a_contract_that_begins_in_a_closed_period_says_so_too(store: MemorySiteStore) -> None:
    customer = "kind: customer\nid: acme\noperator: telecentras\nname: Acme\ncountry: LT\n"
    contract = "kind: contract\ncustomer: acme\ntariff: vilnius\nvalid_from: 2026-10-15\ndiscount: 10%\n"
    assert [str(each.period) for each in apply(store, customer, contract).re_rates] == ["2026-10"]


BETA = "kind: customer\nid: beta\noperator: telecentras\nname: Beta\ncountry: LT\n"
AGREED = "kind: contract\ncustomer: beta\ntariff: vilnius\n"


def test_a_first_contract_that_holds_from_ever_names_the_months_that_its_customer_was_billed_for(
    store: MemorySiteStore,
) -> None:
    apply(store, BETA)
    store.spans[Subject("telecentras", "customer", "beta")] = Span(date(2026, 10, 1), date(2026, 11, 1))
    for day, since in (("", "holds from ever"), ("valid_from: 2026-10-15\n", "holds from 2026-10-15")):
        trial = MemorySiteStore()
        trial.documents, trial.spans, trial.closes = dict(store.documents), store.spans, store.closes
        applied = apply(trial, f"{AGREED}{day}discount: 10%\n")
        assert [str(each.period) for each in applied.re_rates] == ["2026-10"]
        (odd,) = applied.warnings
        assert f"{since}, and its customer was billed for 2026-10-01 to 2026-10-31 already" in odd.what
        assert odd.remedy.startswith("`valid_from: 2026-11-01` or later")
    later = apply(store, f"{AGREED}valid_from: 2026-11-01\ndiscount: 10%\n")
    assert (later.re_rates, later.warnings) == ((), ())


@pytest.mark.parametrize(
    ("agreed", "months"),
    [("discount: 10%", []), ("commitment: 100.00", ["2026-09", "2026-10"])],
)
def test_a_contract_of_somebody_who_was_never_billed_changes_closed_months_only_where_it_asks_for_money_alone(
    agreed: str, months: list[str], store: MemorySiteStore
) -> None:
    applied = apply(store, BETA, f"{AGREED}{agreed}\n")
    assert [str(each.period) for each in applied.re_rates] == months
    assert applied.warnings == ()


# -- series ----------------------------------------------------------------------------------------------------------


SPOT = TARIFF.replace(
    "prices:",
    "windows:\n- {name: spot, series: spot.csv, steps: [{up_to: 40, factor: 0.6}, {factor: 1}]}\nprices:",
)


def hours(first: str, count: int) -> str:
    begin = datetime.fromisoformat(first).timestamp()
    rows = [datetime.fromtimestamp(begin + 3600 * n, UTC).isoformat() for n in range(count)]
    return "hour,price\n" + "".join(f"{hour},{40 + n % 2}\n" for n, hour in enumerate(rows))


def test_a_version_in_use_grows_by_the_hours_that_follow_what_was_issued(tmp_path: Path) -> None:
    store, file, series = MemorySiteStore(), tmp_path / "site.yaml", tmp_path / "spot.csv"
    file.write_text(f"{OPERATOR}---\n{SPOT}", encoding="utf-8")

    def again(text: str) -> Applied:
        series.write_text(text, encoding="utf-8")
        return asyncio.run(apply_site(store, read_files([file]), NOON))

    october = hours("2026-09-30T21:00:00+00:00", 745)  # up to the local midnight that ends it
    assert again(october).created[-1] == "tariff/vilnius@2026-10-01"
    use(store)
    longer = again(hours("2026-09-30T21:00:00+00:00", 746))
    assert longer.changed == ("tariff/vilnius@2026-10-01",)
    assert longer.re_rates == (), "October stays as it is"
    assert store.superseded == []
    assert again(hours("2026-09-30T21:00:00+00:00", 746)).unchanged[-1] == "tariff/vilnius@2026-10-01"
    for other in (october, october.replace(",41", ",42", 1), hours("2026-09-30T22:00:00+00:00", 800)):
        with pytest.raises(Refusal) as refused:
            again(other)
        assert "was used by issued documents" in str(refused.value.faults[0])


def test_a_version_from_ever_grows_too_and_stays_the_one_that_it_is(tmp_path: Path) -> None:
    store, file, series = MemorySiteStore(), tmp_path / "site.yaml", tmp_path / "spot.csv"
    undated = SPOT.replace("valid_from: 2026-10-01\n", "")
    file.write_text(f"{OPERATOR}---\n{undated}", encoding="utf-8")
    for count, changed in ((745, ()), (769, ("tariff/vilnius",)), (793, ("tariff/vilnius",))):
        series.write_text(hours("2026-09-30T21:00:00+00:00", count), encoding="utf-8")
        assert asyncio.run(apply_site(store, read_files([file]), NOON)).changed == changed
        use(store)
    [tariff] = [each for each in store.documents.values() if each.kind == "tariff"]
    assert len(tariff.body["windows"][0]["series"]["prices"]) == 793


@pytest.mark.parametrize("said", [True, False])
def test_a_version_that_took_anothers_place_grows_by_hours_too_and_corrects_nothing_by_it(
    said: bool, tmp_path: Path
) -> None:
    store, file, series = MemorySiteStore(), tmp_path / "site.yaml", tmp_path / "spot.csv"
    undated = f"{OPERATOR}---\n{SPOT}".replace("valid_from: 2026-10-01\n", "")
    correction = undated.replace("factor: 0.6", "factor: 0.7") + "supersedes: first\nreason: a slip\n"

    def again(text: str, hours_known: int) -> Applied:
        file.write_text(text, encoding="utf-8")
        series.write_text(hours("2026-09-30T21:00:00+00:00", hours_known), encoding="utf-8")
        return asyncio.run(apply_site(store, read_files([file]), NOON))

    again(undated, 745)
    use(store)
    assert again(correction, 745).changed == ("tariff/vilnius",)
    settled = correction if said else correction.partition("supersedes: ")[0]
    assert again(settled, 769).changed == ("tariff/vilnius",)
    (tariff,) = [each for each in store.documents.values() if each.kind == "tariff"]
    assert (tariff.body["reason"], len(tariff.body["windows"][0]["series"]["prices"])) == ("a slip", 769)
    assert [each.reason for each in store.superseded] == ["a slip"], "nothing more was corrected"


def test_hours_that_were_issued_without_a_price_are_not_filled_in_afterwards(tmp_path: Path) -> None:
    store, file, series = MemorySiteStore(), tmp_path / "site.yaml", tmp_path / "spot.csv"
    file.write_text(f"{OPERATOR}---\n{SPOT}", encoding="utf-8")
    series.write_text(hours("2026-09-30T21:00:00+00:00", 744), encoding="utf-8")
    asyncio.run(apply_site(store, read_files([file]), NOON))
    use(store)
    series.write_text(hours("2026-09-30T21:00:00+00:00", 800), encoding="utf-8")
    with pytest.raises(Refusal, match="1 fault in site files"):
        asyncio.run(apply_site(store, read_files([file]), NOON))


def test_a_version_knows_where_its_prices_stand(tmp_path: Path) -> None:
    store, file = MemorySiteStore(), tmp_path / "site.yaml"
    file.write_text(f"{OPERATOR}---\n{TARIFF}", encoding="utf-8")
    asyncio.run(apply_site(store, read_files([file]), NOON))
    (tariff,) = facts_from_documents(store.documents.values()).tariffs["vilnius"]
    places = {path: tariff.places[path] for path in ("", "prices", "prices.1", "prices.1.input")}
    assert places == {
        "": f"{file}:8",
        "prices": f"{file}:13",
        "prices.1": f"{file}:13",
        "prices.1.input": f"{file}:13",
    }
