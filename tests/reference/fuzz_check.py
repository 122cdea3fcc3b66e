"""What must hold of any bytes that are given as a site file: refused with faults, or applied, kept and rated.

An applied file survives `get` → `apply` unchanged, its warnings have lines and remedies, and random usage under it is
rated as the slow bill rates it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from random import Random

from fuzzed_sites import some_usage
from plain_bill import PlainLine, plain_bills
from rated_bills import plain_key, plain_unpriced, rated_bills
from usage_cells import usage_table

from adapters.site_files.apply import Applied, apply_site
from adapters.site_files.reading import SiteFiles, read_files
from adapters.site_files.store import MemorySiteStore
from adapters.site_files.writing import get_documents, to_yaml
from billing.facts import facts_from_documents
from billing.holiday import with_holidays
from billing.line import Line
from billing.period import Period
from metering.refusal import Refusal

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
OCTOBER = Period(2026, 10)
MOST_SECONDS = 5.0
"""Of this thread's time, for reading, checking and applying one file of a few thousand bytes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a file: whether it was applied, and of how many lines and unpriced quantities its bills were."""

    applied: bool
    lines: int = 0
    unpriced: int = 0


def check_file(raw: bytes, random: Random) -> Outcome:
    store = MemorySiteStore()
    kept = asyncio.run(_kept(store, raw, random))
    return Outcome(False) if kept is None else _rates_as_the_slow_bill_does(store, kept, random)


async def _kept(store: MemorySiteStore, raw: bytes, random: Random) -> str | None:
    """What `get` writes of an applied file; None: it was refused. Applied again it changes nothing; nor does the file
    itself, and in an empty store it makes the same documents (one of these two for each file, to save time)."""
    began = time.thread_time()
    files = read_files(["-"], lambda: raw)
    first = await _applied(store, files)
    took = time.thread_time() - began
    assert took < MOST_SECONDS, f"{took:.1f} s for {len(raw)} bytes"
    if isinstance(first, Refusal):
        assert first.code == "bad_site_files"
        assert first.faults
        assert all(fault.what and fault.where.startswith("-") for fault in first.faults), first.faults
        assert not store.documents
        return None
    assert first.changed == ()
    assert all(each.what and each.remedy and each.where.startswith("-:") for each in first.warnings), (
        first.warnings
    )
    assert not any("\n" in str(each) for each in first.warnings)
    text = to_yaml(await get_documents(store))
    kept = dict(store.documents)
    written, fresh = read_files(["-"], lambda: text.encode()), MemorySiteStore()
    for target, again in ((store, written), random.choice(((store, files), (fresh, written)))):
        found = await _applied(target, again)
        assert isinstance(found, Applied), found.faults
        assert target is fresh or found.created == found.changed == ()
        assert target.documents == kept
    return text


async def _applied(store: MemorySiteStore, files: SiteFiles) -> Applied | Refusal:
    try:
        return await apply_site(store, files, NOW)
    except Refusal as refused:
        return refused


def _rates_as_the_slow_bill_does(store: MemorySiteStore, text: str, random: Random) -> Outcome:
    versions = list(store.documents.values())
    operators = [each for each in versions if each.kind == "operator"]
    customers = sorted({each.id for each in versions if each.kind == "customer"})
    nodes = sorted({each.id for each in versions if each.kind == "node"})
    if len({each.id for each in operators}) != 1 or not customers or not nodes:
        return Outcome(True)
    if operators[0].body["currency"] != "EUR" or any(each.kind in ("party", "share") for each in versions):
        return Outcome(True)
    facts = with_holidays(facts_from_documents(versions), OCTOBER)
    usage = some_usage(random, customers, nodes)
    made, slow = rated_bills(usage_table(usage), facts, OCTOBER), plain_bills(text, usage, "2026-10")
    assert plain_unpriced(made.rated) == slow.unpriced
    lines = 0
    for customer in {*made.bills, *slow.bills}:
        found = {plain_key(line): plain_line(line) for line in made.rated.lines.get(customer, ())}
        wanted = slow.bills[customer].lines if customer in slow.bills else {}
        assert found == wanted, customer
        net = made.bills[customer].net if customer in made.bills else 0
        assert net == (slow.bills[customer].net if customer in slow.bills else 0), customer
        lines += len(found)
    return Outcome(True, lines, len(slow.unpriced))


def plain_line(line: Line) -> PlainLine:
    """A line in the slow bill's words."""
    return PlainLine(
        line.quantity,
        Fraction(line.list_price),
        Fraction(line.factor),
        line.price_base,
        line.amount,
        line.tokens,
    )
