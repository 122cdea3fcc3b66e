"""Random site files over the whole pricing language, and random usage, for Hypothesis.

A site is drawn as documents (maps and lists with text at the leaves), so that a test can turn one of
its prices; `site_text` makes YAML of it. Hours are few: the edges of a month, of versions, of nights, the night on
which clocks change, and holidays; only there do rules meet.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

BASE = (Path(__file__).parent.parent / "vectors" / "rating" / "base.yaml").read_text()
Site = list[dict[str, Any]]
METERS = ("input", "cached_input", "output", "reasoning", "requests", "audio_seconds")

PRICES = st.sampled_from(["3", "0.1", "0.40", "1.5", "15.123456", "7.5", "0.000001", "0"])
FACTORS = st.sampled_from(["0.5", "0.333", "1.25", "0.1", "0.8", "1", "0"])
PERCENTS = st.sampled_from(["0%", "2.5%", "15%", "33.33%", "100%"])
AMOUNTS = st.sampled_from(["0", "0.01", "3.10", "40", "1_000.00"])
UNITS = st.sampled_from(["1", "1_000", "123_456", "5_000_000"])
MODELS = st.sampled_from(["a", "qwen3-8b", "qwen3-32b", "Zeta"])
DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun", "holiday"]


@dataclass(frozen=True, slots=True)
class Month:
    """A period to draw from: days on which versions begin, and hours worth looking at, from `start` on."""

    name: str
    start: datetime
    days: tuple[str, ...]
    hours: tuple[int, ...]


def _month(name: str, start: datetime, days: tuple[str, ...], around: Sequence[int]) -> Month:
    length = ((start.replace(day=28) + timedelta(days=7)).replace(day=1) - start).days * 24
    near = [hour + step for hour in (0, *around, length) for step in range(-4, 5)]
    return Month(name, start, days, tuple(sorted({*near, 12, 100, 300})))


# hours from midnight UTC of the first: the clocks' change, versions' midnights, holidays
MONTHS = (
    _month("2026-10", datetime(2026, 10, 1, tzinfo=UTC), ("2026-10-02", "2026-10-26"), (22, 577, 598)),
    _month("2026-03", datetime(2026, 3, 1, tzinfo=UTC), ("2026-03-02", "2026-03-29"), (22, 256, 673)),
    _month("2026-12", datetime(2026, 12, 1, tzinfo=UTC), ("2026-12-02", "2026-12-24"), (22, 550, 574, 622)),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a property needs of its sites: leave `requests` unpriced, `prompt_over` out, or price `all_meters`."""

    requests: bool = True
    prompt_over: bool = True
    all_meters: bool = False
    voids: bool = True


ANYTHING = Limits()


def examples(count: int) -> settings:
    """So many of them, however long one takes."""
    return settings(
        max_examples=count,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@st.composite
def pricings(draw: st.DrawFn) -> Any:
    kind = draw(st.sampled_from(["plain", "plain", "graduated", "volume", "package"]))
    if kind == "plain":
        return draw(PRICES)
    if kind == "package":
        return {"package": {"size": str(draw(st.integers(1, 3_000_000))), "price": draw(PRICES)}}
    bounds = sorted(draw(st.sets(st.integers(1, 4_000_000), max_size=3)))
    tiers = [{"up_to": str(bound), "price": draw(PRICES)} for bound in bounds]
    return {kind: [*tiers, {"price": draw(PRICES)}]}


@st.composite
def price_rows(draw: st.DrawFn, limits: Limits, last: bool = False) -> dict[str, Any]:
    row: dict[str, Any] = {
        "models": ["*"] if last else [draw(st.sampled_from(["qwen3-*", "a", "*-8b", "Zeta"]))]
    }
    if not last:
        regions = draw(st.sampled_from([None, ["LT-VL"], ["LT-K*"]]))
        row |= {"regions": regions} if regions else {}
        over = draw(st.sampled_from([None, None, "32_000", "200_000"])) if limits.prompt_over else None
        row |= {"prompt_over": over} if over else {}
    optional = ("cached_input", "reasoning", "requests") if limits.requests else ("cached_input", "reasoning")
    chosen = {meter for meter in optional if limits.all_meters or draw(st.booleans())}
    # now and then a row lacks what it needs: its usage is unpriced
    needed = {"input", "output", "audio_seconds"}
    if limits is ANYTHING and draw(st.integers(0, 19)) == 0:
        needed -= {draw(st.sampled_from(sorted(needed)))} if last else set()
    return {**row, **{meter: draw(pricings()) for meter in METERS if meter in chosen | needed}}


@st.composite
def windows(draw: st.DrawFn, month: Month, number: int) -> dict[str, Any]:
    window: dict[str, Any] = {"name": f"w{number}"}
    if draw(st.booleans()):
        window["days"] = sorted(draw(st.sets(st.sampled_from(DAYS), min_size=1, max_size=6)))
    if draw(st.booleans()):
        first, last = draw(st.sampled_from([(22, 6), (0, 24), (3, 4), (8, 20), (23, 1), (0, 3)]))
        window["hours"] = f"{first:02}:00-{last:02}:00"
    if draw(st.integers(0, 3)):
        return {**window, "factor": draw(FACTORS)}
    # most series cover the month, some begin after its first hours
    first_hour = month.start + timedelta(hours=draw(st.sampled_from([-8, -8, -8, 20])))
    cycle = draw(st.lists(st.sampled_from(["-5.5", "0", "39.99", "40", "41.2"]), min_size=1, max_size=5))
    bounds = sorted(draw(st.sets(st.sampled_from([-1, 0, 40]), min_size=1, max_size=2)))
    steps = [{"up_to": str(bound), "factor": draw(FACTORS)} for bound in bounds]
    series = {"file": "spot.csv", "first": first_hour.strftime("%Y-%m-%dT%H:%M:%SZ")}
    prices = [cycle[hour % len(cycle)] for hour in range(780)]
    return {**window, "series": {**series, "prices": prices}, "steps": [*steps, {"factor": draw(FACTORS)}]}


@st.composite
def tariffs(draw: st.DrawFn, month: Month, limits: Limits, name: str, begin: str | None) -> dict[str, Any]:
    rows = [draw(price_rows(limits)) for _ in range(draw(st.integers(0, 2)))]
    body: dict[str, Any] = {"kind": "tariff", "id": name, "operator": "telecentras", "currency": "EUR"}
    body |= {"valid_from": begin} if begin else {}
    body |= {"timezone": "Europe/Rome"} if name == "special" else {}
    if limits is ANYTHING and draw(st.integers(0, 9)) == 0:
        body["valid_until"] = month.name + "-30"
    body["prices"] = [*rows, draw(price_rows(limits, last=True))]
    if draw(st.integers(0, 3)):
        body["windows"] = [draw(windows(month, n)) for n in range(draw(st.integers(1, 3)))]
        body |= {"holidays": "IT"} if draw(st.booleans()) else {}
    if draw(st.integers(0, 3)):
        body["segments"] = {"sme": draw(PERCENTS), "research": draw(PERCENTS)}
    if draw(st.booleans()):
        body["included"] = {
            meter: draw(UNITS) for meter in draw(st.sets(st.sampled_from(METERS), min_size=1))
        }
    if draw(st.booleans()):
        body["minimum"] = draw(AMOUNTS)
    if draw(st.integers(0, 4)) == 0:
        body["bill_outcomes"] = draw(st.sampled_from([["finished"], ["finished", "failed", "aborted"]]))
    if draw(st.integers(0, 2)) == 0 and not limits.all_meters:
        body["bill_output"] = "generated"
    return body


@st.composite
def contracts(draw: st.DrawFn, month: Month, limits: Limits, begin: str | None) -> dict[str, Any]:
    body: dict[str, Any] = {"kind": "contract", "customer": "acme"}
    body["tariff"] = draw(st.sampled_from(["vilnius", "special"]))
    body |= {"valid_from": begin} if begin else {}
    if draw(st.integers(0, 3)) == 0:
        body["valid_until"] = month.name + "-30"
    if draw(st.booleans()):
        body["prices"] = [{**draw(price_rows(limits, last=draw(st.booleans()))), "only": "true"}]
    if draw(st.booleans()):
        body["discount"] = draw(PERCENTS)
    if draw(st.booleans()):
        body["commitment"] = draw(AMOUNTS)
    if draw(st.booleans()):
        body["included"] = {
            meter: draw(UNITS) for meter in draw(st.sets(st.sampled_from(METERS), min_size=1))
        }
    if draw(st.booleans()):
        every = ["month", "once"] if begin else ["month"]
        body["fees"] = [{"name": "Support", "amount": "31.00", "every": "month"}]
        body["fees"] += [{"name": "Setup", "amount": "250.00", "every": "once"}] if "once" in every else []
    return body


@st.composite
def sites(draw: st.DrawFn, month: Month, limits: Limits = ANYTHING) -> Site:
    """The documents beside `base.yaml`'s: tariffs vilnius and special, acme's contracts, segments of both customers, a
    node that moves to another region, another default tariff.
    """
    documents = [
        draw(tariffs(month, limits, name, begin))
        for name in ("vilnius", "special")
        for begin in (
            None,
            *sorted(draw(st.sets(st.sampled_from(month.days), max_size=1 + (name == "vilnius")))),
        )
    ]
    for begin in draw(st.sampled_from([(), (), (None,), month.days[:1], (None, month.days[1]), month.days])):
        documents.append(draw(contracts(month, limits, begin)))
    for customer in ("acme", "beta"):
        segment = draw(st.sampled_from([None, "sme", "research", "private"]))
        if segment:
            named = {"operator": "telecentras", "name": "Pavyzdys", "country": "LT", "segment": segment}
            begin = draw(st.sampled_from(["2026-01-01", month.days[1]]))
            documents.append({"kind": "customer", "id": customer, "valid_from": begin, **named})
    if draw(st.integers(0, 3)) == 0:
        moved = {"kind": "node", "id": "kaunas-1", "operator": "telecentras", "region": "LT-VL"}
        documents.append({**moved, "valid_from": month.days[1]})
    if draw(st.integers(0, 3)) == 0:
        operator = {"kind": "operator", "id": "telecentras", "name": "AB Pavyzdys", "country": "LT"}
        operator |= {"vat_id": "LT100001234510", "currency": "EUR", "timezone": "Europe/Vilnius"}
        documents.append({**operator, "default_tariff": "special", "valid_from": month.days[0]})
    return documents


def site_text(site: Site) -> str:
    """The documents as YAML that `tally apply` takes, behind `base.yaml`."""
    return BASE + "\n---\n".join(json.dumps(each) for each in site)


@st.composite
def events(draw: st.DrawFn, month: Month, limits: Limits = ANYTHING) -> dict[str, Any]:
    prompt = draw(
        st.one_of(
            st.integers(0, 2_000),
            st.sampled_from([32_000, 32_001, 200_000, 200_001]),
            st.integers(0, 2_000_000),
        )
    )
    completion = draw(st.integers(0, 2_000_000))
    reasoning = draw(st.integers(0, completion))
    sign = -1 if limits.voids and draw(st.integers(0, 9)) == 0 else 1
    event = {
        "time": month.start
        + timedelta(hours=draw(st.sampled_from(month.hours)), minutes=draw(st.integers(0, 59))),
        "customer": draw(st.sampled_from(["acme", "beta"])),
        "node": draw(st.sampled_from(["vilnius-1", "kaunas-1"])),
        "model": draw(MODELS),
        "outcome": draw(st.sampled_from(["finished", "finished", "aborted", "failed", "interrupted"])),
        "requests": sign,
        "prompt_tokens": sign * prompt,
        "cached_tokens": sign * draw(st.integers(0, prompt)),
        "completion_tokens": sign * completion,
        "reasoning_tokens": sign * reasoning,
        "audio_seconds": sign * draw(st.integers(0, 100)),
    }
    if draw(st.booleans()):
        # what is split into parts keeps request by request that reasoning is generated
        least = 0 if limits.requests else reasoning
        event["generated_tokens"] = sign * draw(st.integers(least, 2_100_000))
    return event


@st.composite
def pieces(draw: st.DrawFn, event: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The event as two of the same hour, whose quantities sum to its own; each part's reasoning is generated there."""
    names = ("cached_tokens", "reasoning_tokens", "audio_seconds")
    first = {name: draw(st.integers(0, event[name])) for name in names}
    rest = event["prompt_tokens"] - event["cached_tokens"]
    first["prompt_tokens"] = first["cached_tokens"] + draw(st.integers(0, rest))
    for name in ("completion_tokens", "generated_tokens"):
        if name in event:
            rest = event[name] - event["reasoning_tokens"]
            first[name] = first["reasoning_tokens"] + draw(st.integers(0, rest))
    second = {name: event[name] - quantity for name, quantity in first.items()}
    return [{**event, **first}, {**event, **second}]


def price_places(site: Site) -> list[tuple[Any, ...]]:
    """The path of every price of a site's rows."""
    return [
        (number, "prices", row, *path)
        for number, document in enumerate(site)
        for row, prices in enumerate(document.get("prices", ()))
        for meter, pricing in prices.items()
        if meter in METERS
        for path in _paths((meter,), pricing)
    ]


def _paths(path: tuple[Any, ...], pricing: Any) -> Iterator[tuple[Any, ...]]:
    if isinstance(pricing, str):
        yield path
    elif "package" in pricing:
        yield (*path, "package", "price")
    else:
        [(kind, tiers)] = pricing.items()
        yield from ((*path, kind, tier, "price") for tier in range(len(tiers)))


def with_price_raised(site: Site, path: tuple[Any, ...], by: str) -> Site:
    """The site with one price raised."""
    raised = copy.deepcopy(site)
    holder: Any = raised
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = format(Decimal(holder[path[-1]]) + Decimal(by), "f")
    return raised
