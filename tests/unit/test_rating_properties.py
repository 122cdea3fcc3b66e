"""Rating against the slow plain bill, over random sites and usage; and what may never change a bill."""

from __future__ import annotations

import ast
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import plain_bill
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from usage_cells import site_facts, usage_table

from billing.adjustment import Adjustment
from billing.bill import difference, make_bill
from billing.document import Document
from billing.draft import next_document
from billing.issue import as_issued
from billing.period import Period
from billing.rating import Rated, rate

BASE = (Path(__file__).parent.parent / "vectors" / "rating" / "base.yaml").read_text()
OCTOBER = Period(2026, 10)
START = datetime(2026, 9, 30, 19, tzinfo=UTC)
PRICES = st.sampled_from(["0", "0.1", "0.40", "1.5", "3", "0.000001", "15.123456"])
MODELS = st.sampled_from(["a", "qwen3-8b", "qwen3-32b", "Zeta"])


@st.composite
def pricings(draw: st.DrawFn) -> str:
    if draw(st.booleans()):
        return draw(PRICES)
    bounds = sorted(draw(st.sets(st.integers(1, 3_000_000), max_size=3)))
    tiers = [f"{{up_to: {bound}, price: {draw(PRICES)}}}" for bound in bounds]
    return f"{{graduated: [{', '.join([*tiers, f'{{price: {draw(PRICES)}}}'])}]}}"


@st.composite
def price_rows(draw: st.DrawFn, last: bool) -> str:
    models = "*" if last else draw(st.sampled_from(["qwen3-*", "a", "*-8b", "Zeta"]))
    regions = "" if last else draw(st.sampled_from(["", "regions: [LT-VL], ", "regions: [LT-K*], "]))
    optional = [meter for meter in ("cached_input", "reasoning", "requests") if draw(st.booleans())]
    meters = ["input", "output", "audio_seconds", *optional]
    prices = ", ".join(f"{meter}: {draw(pricings())}" for meter in meters)
    return f'  - {{models: ["{models}"], {regions}{prices}}}'


@st.composite
def sites(draw: st.DrawFn) -> str:
    parts = [BASE.rstrip().removesuffix("---")]
    for begin in ("", *draw(st.sets(st.sampled_from(["2026-10-02", "2026-10-26"])))):
        rows = [draw(price_rows(last=False)) for _ in range(draw(st.integers(0, 2)))]
        head = "kind: tariff\nid: vilnius\noperator: telecentras\ncurrency: EUR\n"
        head += f"valid_from: {begin}\n" if begin else ""
        parts.append(head + "prices:\n" + "\n".join([*rows, draw(price_rows(last=True))]) + "\n")
    if draw(st.booleans()):
        until = draw(st.sampled_from(["", "valid_until: 2026-10-26\n"]))
        rows_text = draw(price_rows(last=draw(st.booleans())))
        # `only`: rule 3 holds for meters that the row leaves out
        rows_text = rows_text.replace("{models", "{only: true, models")
        parts.append(
            f"kind: contract\ncustomer: acme\ntariff: vilnius\nvalid_from: 2026-10-02\n{until}prices:\n{rows_text}\n"
        )
    return "---\n".join(parts)


@st.composite
def events(draw: st.DrawFn, voids: bool = True) -> dict[str, Any]:
    # few hours, around the month's edges, a version's begin and the night the clocks change
    hour = draw(
        st.sampled_from([0, 1, 2, 3, 30, 50, 51, 582, 583, 584, 585, 605, 606, 607, 745, 746, 747, 748])
    )
    prompt, completion = draw(st.integers(0, 2_000_000)), draw(st.integers(0, 2_000_000))
    sign = -1 if voids and draw(st.integers(0, 9)) == 0 else 1
    return {
        "time": START + timedelta(hours=hour, minutes=draw(st.integers(0, 59))),
        "customer": draw(st.sampled_from(["acme", "beta"])),
        "node": draw(st.sampled_from(["vilnius-1", "kaunas-1"])),
        "model": draw(MODELS),
        "outcome": draw(st.sampled_from(["finished", "finished", "aborted", "failed", "interrupted"])),
        "requests": sign,
        "prompt_tokens": sign * prompt,
        "cached_tokens": sign * draw(st.integers(0, prompt)),
        "completion_tokens": sign * completion,
        "reasoning_tokens": sign * draw(st.integers(0, completion)),
        "audio_seconds": sign * draw(st.integers(0, 100)),
    }


def nets(rated: Rated) -> dict[str, int]:
    return {customer: sum(line.amount for line in lines) for customer, lines in rated.lines.items()}


def keyed(rated: Rated) -> dict[str, dict[plain_bill.Key, tuple[int, int]]]:
    keys: dict[str, dict[plain_bill.Key, tuple[int, int]]] = {}
    for customer, lines in rated.lines.items():
        for line in lines:
            assert None not in (line.tariff_version, line.price_row, line.model)
            key = (
                *(str(line.tariff_version), line.contract_version, str(line.price_row)),
                *(str(line.model), line.meter, line.tier),
            )
            keys.setdefault(customer, {})[key] = (line.quantity, line.amount)
        keys.setdefault(customer, {})
    return keys


EXAMPLES = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@EXAMPLES
@given(sites(), st.lists(events(), max_size=25))
def test_rating_equals_the_slow_plain_bill_line_by_line(site: str, usage: list[dict[str, Any]]) -> None:
    rated = rate(usage_table(usage), site_facts(site), OCTOBER)
    assert rated.unpriced == ()
    assert keyed(rated) == plain_bill.plain_lines(site, usage, "2026-10")


@EXAMPLES
@given(sites(), st.lists(events(), max_size=25), st.randoms(use_true_random=False))
def test_neither_order_nor_partial_sums_change_a_bill(
    site: str, usage: list[dict[str, Any]], chance: random.Random
) -> None:
    facts, table = site_facts(site), usage_table(usage)
    order = list(range(table.num_rows))
    chance.shuffle(order)
    pieces = [table.take([at]) for at in order] or [table]
    whole = rate(table, facts, OCTOBER)
    assert rate(pa.concat_tables(pieces), facts, OCTOBER) == whole
    names = [name for name in table.column_names if pa.types.is_int64(table[name].type) and name != "band"]
    keys = [name for name in table.column_names if name not in names]
    merged = table.group_by(keys).aggregate([(name, "sum") for name in names])
    merged = merged.rename_columns([name.removesuffix("_sum") for name in merged.column_names])
    assert rate(merged, facts, OCTOBER) == whole


@EXAMPLES
@given(sites(), st.lists(events(), max_size=25))
def test_every_token_in_is_a_token_on_a_line(site: str, usage: list[dict[str, Any]]) -> None:
    rated = rate(usage_table(usage), site_facts(site), OCTOBER)
    inside = [
        each for each in usage if each["time"].astimezone(site_facts(site).operator[0].zone).month == 10
    ]
    tokens = sum(each["prompt_tokens"] + each["completion_tokens"] for each in inside)
    lines = [line for of_customer in rated.lines.values() for line in of_customer]
    assert sum(rated.tokens.values()) == tokens == sum(line.tokens for line in lines)
    assert all(line.quantity for line in lines)


@EXAMPLES
@given(
    sites(),
    sites(),
    st.lists(st.lists(events(), max_size=8), min_size=1, max_size=4),
    st.integers(-5000, 5000),
)
def test_successive_documents_sum_to_the_bill_in_quantities_and_net(
    first: str, second: str, waves: list[list[dict[str, Any]]], goodwill: int
) -> None:
    """Usage arrives in waves, the tariff changes under way, an adjustment is made: what is issued adds up."""
    usage: list[dict[str, Any]] = []
    issued: list[Document] = []
    at = datetime(2026, 11, 2, tzinfo=UTC)
    adjustment = Adjustment("2026-10.1", "acme", OCTOBER, goodwill, "Goodwill", "finance", at)
    for number, wave in enumerate(waves):
        usage += [{**each, "customer": "acme"} for each in wave]
        facts = site_facts(second if number == len(waves) - 1 else first)
        lines = rate(usage_table(usage), facts, OCTOBER).lines.get("acme", ())
        bill = make_bill("acme", OCTOBER, "EUR", lines, facts, [adjustment] if number else [])
        draft = next_document(bill, issued, facts.operator[0], facts.customers["acme"][0])
        if draft is None:
            assert sum(each.sign * each.net for each in issued) == bill.net
            continue
        assert isinstance(draft, Document)
        assert draft.net > 0
        assert all(line.line.quantity and line.line.unit_price >= 0 for line in draft.lines)
        assert draft.lines
        issued.append(as_issued(draft, f"{draft.kind}-{number}", facts.operator[0], at))
        left = difference(bill, issued)
        assert (left.lines, left.parts) == ((), ())
        assert sum(each.sign * each.net for each in issued) == bill.net


def test_the_slow_bill_imports_nothing_of_what_it_checks() -> None:
    source = Path(plain_bill.__file__).read_text()
    imported: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {each.name.split(".")[0] for each in node.names}
        if isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert imported == {
        "__future__",
        "re",
        "collections",
        "datetime",
        "fractions",
        "typing",
        "zoneinfo",
        "yaml",
    }
