"""What holds now is rated once: kept beside its usage, and asked for again only under the very same facts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rated_bills import facts_for
from usage_cells import usage_table

from adapters import what_if
from adapters.kept_outcomes import documents_digest, keep_outcome, kept_outcome, outcome_path
from adapters.usage_cache import Prepared
from adapters.what_if import simulated
from billing.facts import Facts
from billing.hourly import hour_number, read_hourly
from billing.period import Period
from billing.usage_runs import UsageRuns, usage_runs
from billing.what_if import PeriodOutcome, period_outcome

BASE = (Path(__file__).parent.parent / "vectors" / "rating" / "base.yaml").read_text()
OCTOBER = Period(2026, 10)
TARIFF = """---
kind: tariff
id: vilnius
operator: telecentras
currency: EUR
holidays: LT
prices: [{models: ['*'], input: 0.4, output: 1.6}]
windows: [{name: free, days: [holiday], factor: 0.5}]
"""
Rated = Callable[..., PeriodOutcome]


@pytest.fixture
def facts() -> Facts:
    return facts_for(BASE + TARIFF, OCTOBER)


@pytest.fixture
def runs(facts: Facts) -> UsageRuns:
    start, end = OCTOBER.bounds(facts.operator[-1].zone)
    usage = [
        {"time": start, "customer": name, "node": "vilnius-1", "model": "m", "prompt_tokens": 12_345_678}
        for name in ("acme", "beta")
    ]
    return usage_runs(read_hourly(usage_table(usage), start, end)[0], hour_number(start))


@pytest.fixture
def rated(monkeypatch: pytest.MonkeyPatch) -> list[Facts]:
    """The facts of each side that was rated, in turn."""
    asked: list[Facts] = []

    def counted(runs: UsageRuns, facts: Facts, *others: object) -> PeriodOutcome:
        asked.append(facts)
        outcome: PeriodOutcome = period_outcome(runs, facts, *others)  # type: ignore[arg-type]  # as it was called
        return outcome

    monkeypatch.setattr(what_if, "period_outcome", counted)
    return asked


def dearer(facts: Facts) -> Facts:
    other = facts_for(BASE + TARIFF.replace("0.4", "0.7"), OCTOBER)
    return replace(facts, tariffs=other.tariffs)


def test_a_second_question_rates_only_what_is_asked_about(
    facts: Facts, runs: UsageRuns, rated: list[Facts], tmp_path: Path
) -> None:
    usage, then = {OCTOBER: Prepared(runs, tmp_path)}, dearer(facts)
    first = simulated(usage, facts, then, {})
    assert [each.tariffs for each in rated] == [facts.tariffs, then.tariffs]
    rated.clear()
    assert simulated(usage, facts, then, {}) == first
    assert [each.tariffs for each in rated] == [then.tariffs]
    assert len(list(tmp_path.iterdir())) == 1


def test_other_documents_and_other_holidays_are_rated_again_and_the_old_outcome_goes(
    facts: Facts, runs: UsageRuns, rated: list[Facts], tmp_path: Path
) -> None:
    usage = {OCTOBER: Prepared(runs, tmp_path)}
    simulated(usage, facts, facts, {})
    changed = facts_for(BASE + TARIFF.replace("0.4", "0.7"), OCTOBER)
    for now, fixed in ((changed, {}), (facts, {}), (facts, {OCTOBER: {"LT": ["2026-10-01"]}})):
        rated.clear()
        one = simulated(usage, now, now, fixed)
        assert len(rated) == 2
        assert one.parts["net"].change == 0
        assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"ARROW1\0\0", None])
def test_an_outcome_that_is_not_whole_is_rated_and_kept_again(
    content: bytes | None, facts: Facts, runs: UsageRuns, rated: list[Facts], tmp_path: Path
) -> None:
    usage = {OCTOBER: Prepared(runs, tmp_path)}
    first = simulated(usage, facts, facts, {})
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-20] if content is None else content)
    rated.clear()
    assert simulated(usage, facts, facts, {}) == first
    assert simulated(usage, facts, facts, {}) == first
    assert len(rated) == 3


def test_where_nothing_can_be_kept_it_is_answered_all_the_same(
    facts: Facts, runs: UsageRuns, rated: list[Facts], tmp_path: Path
) -> None:
    usage = {OCTOBER: Prepared(runs, tmp_path / "absent")}
    first = simulated(usage, facts, facts, {})
    assert simulated(usage, facts, facts, {}) == first
    assert len(rated) == 4
    assert not list(tmp_path.iterdir())


def test_amounts_beyond_64_bits_are_kept_exactly(facts: Facts, runs: UsageRuns, tmp_path: Path) -> None:
    outcome = period_outcome(runs, facts, OCTOBER)
    large = replace(outcome.bills, usage=outcome.bills.usage.astype(object) * 10**30)
    documents = documents_digest(facts)
    assert documents is not None
    path = outcome_path(tmp_path, documents, facts)
    keep_outcome(path, replace(outcome, bills=large, packages=10**40))
    kept = kept_outcome(path)
    assert kept is not None
    assert kept.bills.usage.tolist() == large.usage.tolist() == [494 * 10**30] * 2
    assert kept.packages == 10**40
