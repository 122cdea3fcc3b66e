"""The real traces under a tariff with everything in it: every customer's net is the slow exact bill's, to the cent."""

from __future__ import annotations

import csv
import io
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import priced_site
import pytest
import real_trace
from command import Tally, decompressed, over, public_trace
from plain_bill import PlainPeriod, plain_bills

from adapters.postgres.database import DatabaseUrls

OCTOBER = "2026-10"
#: 01:00 in Vilnius, in the night in which the clocks change; the tariff changes a day later.
CLAUDE_ORIGIN = datetime(2026, 10, 24, 22, tzinfo=UTC)
SERVEGEN_ORIGIN = datetime(2026, 10, 24, 12, tzinfo=UTC)
SERVEGEN = (
    *("--node", "vilnius-1", "--map", "customer=client", "--map", "time=t_ms", "--time-unit", "ms"),
    *("--map", "prompt_tokens=input_tokens", "--map", "completion_tokens=output_tokens"),
    *(
        "--map",
        "reasoning_tokens=reasoning_tokens",
        "--map",
        "request_id=request_id",
        "--set",
        "model=reasoner",
    ),
)
_BANDS = (0, 32_000, 128_000, 200_000, 256_000, 512_000, 1_000_000)
_ADDED_UP = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")


def test_claude_code_every_sessions_net_is_the_slow_bills_to_the_cent(
    fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path
) -> None:
    events = list(real_trace.events(CLAUDE_ORIGIN))
    site = priced_site.text({event["customer"] for event in events})
    tally = applied(fresh_urls(), tmp_path, site)
    trace = str(real_trace.trace())
    tally("import", trace, *real_trace.OPTIONS, "--time-origin", CLAUDE_ORIGIN.isoformat())

    told = closed(tally)
    slow = plain_bills(site, events, OCTOBER)

    assert len(told) == 710
    assert told == nets_of(slow)
    assert_everything_is_used(
        slow, {"night", "weekend", "small-hours", "spot:1", "spot:3", "late", "peak", "base"}
    )


@pytest.mark.proof
def test_servegen_every_tenants_net_is_the_slow_bills_to_the_cent(
    fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = public_trace("servegen_r1_24h_requests.csv.zst")
    rows = list(csv.DictReader(io.StringIO(decompressed(trace))))
    site = priced_site.text({row["client"] for row in rows})
    tally = applied(fresh_urls(), tmp_path, site)
    tally("import", str(trace), *SERVEGEN, "--time-origin", SERVEGEN_ORIGIN.isoformat())

    begun = time.monotonic()
    told = closed(tally)
    with capsys.disabled():
        print(f"\nclosing {len(told)} tenants of {len(rows):,} requests: {time.monotonic() - begun:.1f} s")
    slow = plain_bills(site, added_up(map(servegen_event, rows)), OCTOBER)

    assert len(told) == 73
    assert told == nets_of(slow)
    assert_everything_is_used(slow, {"night", "weekend", "small-hours", "spot:2"})


def applied(urls: DatabaseUrls, folder: Path, site: str) -> Tally:
    """A data folder with the site in it."""
    file = folder / "site.yaml"
    file.write_text(site)
    return over(urls, folder / "data", file)


def closed(tally: Tally) -> dict[str, int]:
    """Closes October; every customer's net in cents."""
    [done] = tally("period", "close", OCTOBER)["operators"]
    nets = {draft["customer"]: Decimal(draft["net"]) * 100 for draft in done["drafts"]}
    assert all(net == int(net) for net in nets.values())
    return {**{customer: int(net) for customer, net in nets.items()}, **dict.fromkeys(done["zero"], 0)}


def nets_of(slow: PlainPeriod) -> dict[str, int]:
    assert slow.unpriced == {}
    return {customer: bill.net for customer, bill in slow.bills.items()}


def assert_everything_is_used(slow: PlainPeriod, windows: set[str]) -> None:
    """The tariff is not only long: its parts are on these bills."""
    keys = [key for bill in slow.bills.values() for key in bill.lines]
    parts = {name.partition(":")[0] for bill in slow.bills.values() for name in bill.parts}
    assert {key.window for key in keys} >= windows
    assert {key.tier for key in keys} >= {None, "free", 1, 2}
    assert {key.meter for key in keys} >= {"input", "output", "requests", "fee"}
    assert {key.price_row for key in keys} >= {"contract:1", "tariff:1"} | {None}
    assert parts == {"segment", "discount", "floor"}


def servegen_event(row: dict[str, str]) -> dict[str, Any]:
    return {
        "time": SERVEGEN_ORIGIN + timedelta(milliseconds=int(row["t_ms"])),
        "customer": row["client"],
        "node": "vilnius-1",
        "model": "reasoner",
        "prompt_tokens": int(row["input_tokens"]),
        "completion_tokens": int(row["output_tokens"]),
        "reasoning_tokens": int(row["reasoning_tokens"]),
    }


def added_up(events: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Events of one hour, customer, model, node and prompt band as one: whole numbers, added.

    What was generated is what was told, so the smaller of reasoning and generated is reasoning, event by event.
    """
    sums: dict[tuple[Any, ...], Counter[str]] = {}
    for event in events:
        hour = event["time"].replace(minute=0, second=0, microsecond=0)
        band = max(bound for bound in _BANDS if bound == 0 or bound < event["prompt_tokens"])
        key = (hour, event["customer"], event["model"], event["node"], band)
        assert event["reasoning_tokens"] <= event["completion_tokens"]
        total = sums.setdefault(key, Counter())
        for name in _ADDED_UP:
            total[name] += event.get(name, 1 if name == "requests" else 0)
    for (hour, customer, model, node, band), total in sums.items():
        named = {"time": hour, "customer": customer, "model": model, "node": node, "band": band}
        yield {**named, **total, "generated_reasoning_tokens": total["reasoning_tokens"]}
