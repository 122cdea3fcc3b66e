"""From raw events (mappings, as `plain_bill` takes them) to what rating reads: hourly usage, and facts from
YAML.

`usage_table` sums nothing: each event is a row of its own, which rating must add up itself; tests shuffle
and split rows at will.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from adapters.site_files.nodes import parse_documents
from adapters.site_files.reading import read_document
from billing.facts import Facts, facts_from_documents
from billing.stored import StoredDocument
from metering.event import QUANTITIES
from metering.refusal import Fault

Event = Mapping[str, Any]


def site_documents(text: str) -> list[StoredDocument]:
    """The documents of a site file of one operator, read as `tally apply` reads it."""
    faults: list[Fault] = []
    read = [read_document(node, faults) for node in parse_documents(text.encode(), "site.yaml", faults)]
    assert not faults, faults
    found = [each for each in read if each is not None]
    # a contract's operator is looked up by its customer; here there is only one
    operator = next((each.id for each in found if each.kind == "operator"), "telecentras")
    return [
        StoredDocument(each.kind, each.id, each.operator or operator, each.valid_from, each.body)
        for each in found
    ]


def site_facts(text: str) -> Facts:
    """The facts that it declares."""
    return facts_from_documents(site_documents(text))


def usage_table(events: Iterable[Event]) -> pa.Table:
    """Hourly usage with a row an event."""
    rows = [_row(event) for event in events]
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in _TYPES.items()}
    return pa.table(columns)


_WORD = pa.string()
_TYPES = {
    "hour": pa.timestamp("us", "UTC"),
    "customer": _WORD,
    "node": _WORD,
    "model": _WORD,
    "outcome": _WORD,
    "band": pa.int64(),
    "late": pa.bool_(),
    **dict.fromkeys(QUANTITIES, pa.int64()),
}


def _row(event: Event) -> dict[str, Any]:
    prompt = event.get("prompt_tokens", 0)
    completion = event.get("completion_tokens", 0)
    reasoning = event.get("reasoning_tokens", 0)
    generated = event.get("generated_tokens", completion)
    # a void's quantities are those of what it takes back, turned
    taken_back = completion < 0 or generated < 0 or reasoning < 0
    smaller = max(reasoning, generated) if taken_back else min(reasoning, generated)
    return {
        "hour": event["time"].replace(minute=0, second=0, microsecond=0),
        "customer": event["customer"],
        "node": event["node"],
        "model": event["model"],
        "outcome": event.get("outcome", "finished"),
        "band": max(bound for bound in _BANDS if bound < max(1, abs(prompt))),
        "late": event.get("late", False),
        "requests": event.get("requests", 1),
        "prompt_tokens": prompt,
        "cached_tokens": event.get("cached_tokens", 0),
        "completion_tokens": completion,
        "reasoning_tokens": reasoning,
        "generated_tokens": generated,
        "generated_reasoning_tokens": smaller,
        "audio_seconds": event.get("audio_seconds", 0),
        "unwitnessed_requests": 0 if "generated_tokens" in event else event.get("requests", 1),
    }


_BANDS = (0, 32_000, 128_000, 200_000, 256_000, 512_000, 1_000_000)
