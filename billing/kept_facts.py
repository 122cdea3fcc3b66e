"""What a close keeps of the facts that it rated by, so that whoever checks it later can rate the month again.

    {"tariffs": ["vilnius@2026-10-01"], "contracts": ["acme"],      versions that priced a line
     "holidays": {"LT": ["2026-10-25", "2026-11-01"]},              days that windows went by, fixed by the first close
     "versions": {"tariff vilnius@2026-10-01": "9f86d0…", …}}       what was in force, with a digest of its body

`versions` holds the operator, its nodes and tariffs, and the customers that have a bill with their contracts. A version
that was superseded keeps its name, so the digest says by which of the bodies the close went; price series are in the
body. It is the SHA-256 of the stored body's JSON in UTF-8, keys by code point and no spaces:

    {"currency":"EUR","prices":[{"input":"0.4","models":["*"],"output":"1.6"}]}
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from billing.facts import Facts, facts_from_documents
from billing.holiday import holiday_texts
from billing.next_documents import Outcome
from billing.period import Period
from billing.site import version_name
from billing.stored import StoredDocument

_OF_THE_OPERATOR = ("operator", "node", "tariff")
_OF_A_CUSTOMER = ("customer", "contract")


def kept_facts(
    facts: Facts, period: Period, outcome: Outcome, fixed: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """`facts` with the holidays of the period, and what its bills came to; `fixed`: the holidays that its last close
    kept. Of calendars that no window goes by any more they stay, should one do so again.
    """
    billed = set(outcome.customers)
    return {
        "tariffs": sorted(outcome.tariffs),
        "contracts": sorted(outcome.contracts),
        "holidays": {**{name: list(days) for name, days in fixed.items()}, **holiday_texts(facts)},
        "versions": {
            _name(each): body_digest(each)
            for each in _in_force_within(facts.documents, period)
            if each.kind in _OF_THE_OPERATOR or (each.kind in _OF_A_CUSTOMER and each.id in billed)
        },
    }


@dataclass(frozen=True, slots=True)
class AsKept:
    """Facts as a close went by them. `superseded`: versions that are taken from their former text; `lost`: those that
    say something else now and whose text of then was not kept, so that they stand as they are now.
    """

    facts: Facts
    superseded: tuple[str, ...]
    lost: tuple[str, ...]


def as_kept(facts: Facts, former: Iterable[StoredDocument], kept: Mapping[str, str]) -> AsKept:
    """`facts` with each version in the text that a close kept the digest of, found among the `former` ones that others
    took the place of. Versions that the close did not go by stay; the holidays are for the caller to add.
    """
    now = {_name(each): each for each in facts.documents}
    changed = {
        name: digest for name, digest in kept.items() if name not in now or body_digest(now[name]) != digest
    }
    then = {name: each for each in former if changed.get(name := _name(each)) == body_digest(each)}
    known = facts_from_documents({**now, **then}.values()) if then else facts
    return AsKept(known, tuple(then), tuple(name for name in changed if name not in then))


def body_digest(document: StoredDocument) -> str:
    """SHA-256 of the body, in hexadecimal digits."""
    text = json.dumps(document.body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _name(version: StoredDocument) -> str:
    return f"{version.kind} {version_name(version.id, version.valid_from)}"


def _in_force_within(documents: Iterable[StoredDocument], period: Period) -> Iterator[StoredDocument]:
    """Versions in force on a day of the period, or beside it: a tariff's days may be another zone's."""
    first, after = period.first_day - timedelta(days=1), period.next.first_day + timedelta(days=1)
    by_id: dict[tuple[str, str], list[StoredDocument]] = defaultdict(list)
    for document in documents:
        by_id[document.kind, document.id].append(document)
    for _, versions in sorted(by_id.items()):
        ordered = sorted(versions, key=_begin)
        for version, following in zip(ordered, [*ordered[1:], None], strict=True):
            ends = [version.valid_until or date.max, _begin(following) if following else date.max]
            if _begin(version) < after and min(ends) > first:
                yield version


def _begin(version: StoredDocument) -> date:
    return version.valid_from or date.min
