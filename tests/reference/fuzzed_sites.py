"""Good site files by the thousand, out of a grammar of the whole pricing language, and usage for them.

    good_site(random)                       one operator's site as YAML
    some_usage(random, customers, nodes)    events: models, hours and prompt lengths where its rules change

The same seed gives the same file on every machine. Numbers are small where usage is (tiers, packages), so that a dozen
events cross edges. What becomes of good files when somebody slips is in `fuzzed_slips`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

MODELS = ("qwen3-32b", "qwen3-8b-coder", "llama-70b", "Qwen/Qwen3-VL", "m")
GLOBS = ("*", "qwen3-*", "qwen*", "*-coder", "llama-*", "m", "*/*", "*3*", "qwen3-32b", "nobody-*")
REGIONS = ("LT-VL", "LT-KU", "IT-RM")
REGION_GLOBS = ("*", "LT-*", "IT-*", "LT-VL", "*-RM", "DE-*")
METERS = ("input", "cached_input", "output", "reasoning", "requests", "audio_seconds")
PRICES = (
    "0",
    "0.40",
    "1.60",
    "2",
    "15.00",
    "0.0000004",
    "1234.5",
    "0.333333333333",
    "100.00",
    "999999999999",
)
BANDS = ("32_000", "128_000", "200_000", "256_000", "512_000", "1_000_000")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun", "holiday")
SEGMENTS = ("enterprise", "sme", "startup", "research", "public", "private")
OUTCOMES = ("finished", "aborted", "interrupted", "failed")
ZONES = ("Europe/Vilnius", "Europe/Rome", "UTC", "America/New_York", "Pacific/Auckland")
CALENDARS = ("LT", "IT", "DE-BY", "US", "UA")
BEGINS = ("2026-09-15", "2026-10-01", "2026-10-14", "2026-10-25", "2026-11-01", "2027-01-01")
CUSTOMERS = ("acme", "bara", "cedar")
NODES = {"n1": "LT-VL", "n2": "LT-KU", "n3": "IT-RM"}


def good_site(random: Random) -> str:
    """One operator's site, legal but for rare contradictions between its documents."""
    documents = [_operator(random)]
    documents += [
        f"kind: node\nid: {node}\noperator: telecentras\nregion: {region}" for node, region in NODES.items()
    ]
    documents += [_customer(random, name) for name in CUSTOMERS]
    for name in ("vilnius", "other")[: random.choice((1, 1, 2))]:
        later = sorted(random.sample(BEGINS, random.choice((0, 0, 1, 2))))
        documents += [_tariff(random, name, begin) for begin in (None, *later)]
    for name in random.sample(CUSTOMERS, random.choice((0, 1, 2))):
        dated = sorted(random.sample(BEGINS, random.choice((1, 2))))
        documents += [
            _contract(random, name, begin) for begin in (dated if random.random() < 0.5 else (None,))
        ]
    return "\n---\n".join(documents) + "\n"


def _operator(random: Random) -> str:
    keys = [
        "kind: operator",
        "id: telecentras",
        "name: AB Pavyzdys",
        f"country: {random.choice(('LT', 'IT', 'DE'))}",
        "currency: EUR",
        f"timezone: {random.choice(ZONES[:3])}",
        "default_tariff: vilnius",
    ]
    return "\n".join(keys + _maybe(random, 0.2, lambda: "numbering: {invoice: 'TLC-{yyyy}-{n:06}'}"))


def _customer(random: Random, name: str) -> str:
    segment = _maybe(random, 0.6, lambda: f"segment: {random.choice(SEGMENTS)}")
    return "\n".join(
        ["kind: customer", f"id: {name}", "operator: telecentras", "name: Acme UAB", "country: LT", *segment]
    )


def _tariff(random: Random, name: str, begin: str | None) -> str:
    keys = ["kind: tariff", f"id: {name}", "operator: telecentras", "currency: EUR"]
    keys += [f"valid_from: {begin}"] if begin else []
    keys += _maybe(random, 0.05, lambda: "valid_until: 2027-02-01")
    keys += _maybe(random, 0.2, lambda: f"timezone: {random.choice(ZONES)}")
    keys += _maybe(random, 0.3, lambda: f"bill_output: {random.choice(('delivered', 'generated'))}")
    keys += _maybe(
        random, 0.2, lambda: f"bill_outcomes: {_flow(random.sample(OUTCOMES, random.randint(1, 4)))}"
    )
    keys += [
        "prices:",
        *(f"  - {_row(random)}" for _ in range(random.randint(0, 3))),
        "  - " + _last_row(random),
    ]
    if random.random() < 0.6:
        keys += ["windows:"]
        keys += [f"  - {_window(random, number)}" for number in range(random.randint(1, 4))]
    keys += _maybe(random, 0.4, lambda: f"holidays: {random.choice(CALENDARS)}")
    keys += _maybe(random, 0.5, lambda: f"segments: {_percents(random)}")
    keys += _maybe(random, 0.4, lambda: f"included: {_included(random)}")
    keys += _maybe(random, 0.3, lambda: f"minimum: {random.choice(('5.00', '0', '0.01', '1_000.5'))}")
    return "\n".join(keys)


def _contract(random: Random, customer: str, begin: str | None) -> str:
    keys = ["kind: contract", f"customer: {customer}", "tariff: vilnius"]
    keys += [f"valid_from: {begin}"] if begin else []
    keys += _maybe(random, 0.1, lambda: "valid_until: 2027-01-15")
    if random.random() < 0.6:
        keys += ["prices:", *(f"  - {_row(random, 'only: true')}" for _ in range(random.randint(1, 2)))]
    keys += _maybe(random, 0.5, lambda: f"discount: {_percent(random)}")
    keys += _maybe(random, 0.4, lambda: f"commitment: {random.choice(('0', '10.00', '0.05', '2_500'))}")
    keys += _maybe(random, 0.4, lambda: f"included: {_included(random)}")
    if random.random() < 0.4:
        once = f", every: {random.choice(('month', 'once'))}" if begin else ""
        keys += [
            f"fees: [{{name: Line {random.randint(1, 3)}, amount: {random.choice(('5.00', '0', '99.99'))}{once}}}]"
        ]
    return "\n".join(keys)


def _row(random: Random, *more: str) -> str:
    keys = [f"models: {_flow(random.sample(GLOBS, random.choice((1, 1, 2))))}"]
    keys += _maybe(
        random, 0.3, lambda: f"regions: {_flow(random.sample(REGION_GLOBS, random.choice((1, 2))))}"
    )
    keys += _maybe(random, 0.3, lambda: f"prompt_over: {random.choice(BANDS)}")
    meters = [meter for meter in METERS if random.random() < 0.6] or ["input"]
    return _map([*keys, *(f"{meter}: {_pricing(random)}" for meter in meters), *more])


def _last_row(random: Random) -> str:
    """A row for every model, so that most usage has a price."""
    meters = [
        meter for meter in METERS if meter in ("input", "output", "audio_seconds") or random.random() < 0.4
    ]
    return _map(['models: ["*"]', *(f"{meter}: {_pricing(random)}" for meter in meters)])


def _pricing(random: Random) -> str:
    way = random.choice(("plain", "plain", "plain", "graduated", "volume", "package"))
    if way == "plain":
        return random.choice(PRICES)
    if way == "package":
        return f"{{package: {{size: {random.choice((1, 7, 1000, 100_000))}, price: {random.choice(PRICES[:6])}}}}}"
    bounds = sorted(random.sample((1, 2, 1000, 20_000, 150_000, 1_000_000, 10**15), random.randint(0, 3)))
    tiers = [f"{{up_to: {bound}, price: {random.choice(PRICES)}}}" for bound in bounds]
    return f"{{{way}: [{', '.join([*tiers, f'{{price: {random.choice(PRICES)}}}'])}]}}"


def _window(random: Random, number: int) -> str:
    keys = [f"name: {random.choice(('night', 'weekend', 'spot', 'w'))}-{number}"]
    keys += _maybe(random, 0.7, lambda: f"days: {_flow(random.sample(DAYS, random.randint(1, 5)))}")
    begin, end = random.sample(range(24), 2)
    keys += _maybe(random, 0.8, lambda: f'hours: "{begin:02}:00-{end:02}:00"')
    if random.random() < 0.8:
        return _map([*keys, f"factor: {random.choice(('0', '0.5', '0.7', '1', '1.25', '0.333333', '50'))}"])
    whole_month = random.random() < 0.1
    first, count = (
        ("2026-09-30T00:00:00Z", 24 * 33) if whole_month else ("2026-10-24T22:00:00Z", random.randint(1, 30))
    )
    prices = [random.choice(("-5", "0", "38.4", "41.20", "0.000001", "120")) for _ in range(count)]
    steps = "[{up_to: 0, factor: 0.2}, {up_to: 40, factor: 0.6}, {factor: 1.1}]"
    return _map([*keys, f"series: {{first: {first}, prices: {_flow(prices)}}}", f"steps: {steps}"])


def _percents(random: Random) -> str:
    return _map(
        [f"{segment}: {_percent(random)}" for segment in random.sample(SEGMENTS, random.randint(1, 3))]
    )


def _percent(random: Random) -> str:
    return random.choice(("10%", "15%", "2.5%", "0%", "100%", "33.333333%", "0.15%"))


def _included(random: Random) -> str:
    units = ("1", "1000", "30_000", "1_000_000_000_000")
    return _map([f"{meter}: {random.choice(units)}" for meter in random.sample(METERS, random.randint(1, 3))])


def _maybe(random: Random, chance: float, line: Callable[[], str]) -> list[str]:
    return [line()] if random.random() < chance else []


def _flow(words: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{word}"' if "*" in word else word for word in words) + "]"


def _map(keys: Sequence[str]) -> str:
    return "{" + ", ".join(keys) + "}"


def some_usage(random: Random, customers: Sequence[str], nodes: Sequence[str]) -> list[dict[str, Any]]:
    """Up to a dozen events of October 2026, many on the night of the daylight-saving change and around versions."""
    days = (1, 13, 14, 24, 25, 26, 31)
    events = []
    for _ in range(random.randint(1, 12)):
        at = datetime(2026, 10, random.choice(days), tzinfo=UTC) + timedelta(
            minutes=random.randrange(26 * 60)
        )
        prompt = random.choice((0, 1, 900, 20_001, 32_000, 32_001, 128_001, 300_000, 1_000_001))
        completion = random.choice((0, 1, 700, 20_000, 150_001))
        event: dict[str, Any] = {
            "time": at,
            "customer": random.choice(customers),
            "node": random.choice(nodes),
            "model": random.choice(MODELS),
            "outcome": random.choice(("finished", "finished", *OUTCOMES)),
            "prompt_tokens": prompt,
            "cached_tokens": random.choice((0, prompt // 3, prompt)),
            "completion_tokens": completion,
            "reasoning_tokens": random.choice((0, completion // 2, completion)),
            "audio_seconds": random.choice((0, 0, 0, 61)),
        }
        if random.random() < 0.3:
            event["generated_tokens"] = completion + random.choice((0, 5, 1000))
        events.append(event)
    return events
