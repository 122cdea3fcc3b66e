"""What a close keeps of the facts that it rated by, so that whoever checks it later can rate the month again.

    {"tariffs": ["vilnius@2026-10-01"], "contracts": ["acme"],      versions that priced a line
     "holidays": {"LT": ["2026-10-25", "2026-11-01"]},              days that windows went by, fixed by the first close
     "versions": {"tariff vilnius@2026-10-01": "9f86d0…", …},       what was in force, with a digest of its body
     "hours": {"tariff vilnius@2026-10-01": [0, 745]}}              how far price series went, by window; 0: it has none

`versions` holds the operator, its nodes and tariffs, and the customers that have a bill with their contracts. A version
that was superseded keeps its name, so the digest says by which of the bodies the close went; price series are in the
body. It is the SHA-256 of the stored body's JSON in UTF-8, keys by code point and no spaces:

    {"currency":"EUR","prices":[{"input":"0.4","models":["*"],"output":"1.6"}]}

A series grows day by day in a version that stays the same. With `hours` its text of the close is found in today's: cut
to so many hours it has the digest that was kept. So a digest alone decides whether the facts are those of the close.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

from billing.facts import Facts, facts_from_documents
from billing.holiday import holiday_texts
from billing.next_documents import Outcome
from billing.period import Period, midnight
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
    versions = {
        _name(each): each
        for each in _in_force_within(facts.documents, period)
        if each.kind in _OF_THE_OPERATOR or (each.kind in _OF_A_CUSTOMER and each.id in billed)
    }
    return {
        "tariffs": sorted(outcome.tariffs),
        "contracts": sorted(outcome.contracts),
        "holidays": {**{name: list(days) for name, days in fixed.items()}, **holiday_texts(facts)},
        "versions": {name: body_digest(each) for name, each in versions.items()},
        "hours": {name: hours for name, each in versions.items() if any(hours := _hours(each))},
    }


def changed_since(
    facts: Facts, period: Period, kept: Mapping[str, Any], customers: Collection[str]
) -> tuple[str, ...]:
    """Names of the versions that bills of these customers would rest on today and did not at the close that `kept` these
    facts, or the reverse: their text is another one, they came into force within the period, or are no longer.

    Nodes and tariffs whose ids were not known then are none of them: no bill goes by a tariff before what is known says
    so, and usage of a new node is for the next close to find. Nor are tariffs that none of the customers was on in the
    period, and versions that begin after it.
    """
    digests: Mapping[str, str] = kept.get("versions", {})
    hours: Mapping[str, Sequence[int]] = kept.get("hours", {})
    whose = {f"{kind} {customer}" for kind in _OF_A_CUSTOMER for customer in customers}
    whose |= {_subject(name) for name in digests if name.partition(" ")[0] in _OF_THE_OPERATOR}
    now = {
        name: each
        for each in _in_force_within(facts.documents, period)
        if _subject(name := _name(each)) in whose
    }
    then = {name for name in digests if _subject(name) in whose}
    same = {name for name, each in now.items() if _with_digest(each, digests.get(name), hours.get(name, ()))}
    return tuple(sorted(_that_matter((then | set(now)) - same, facts, period, kept, customers)))


def _that_matter(
    changed: Collection[str],
    facts: Facts,
    period: Period,
    kept: Mapping[str, Any],
    customers: Collection[str],
) -> Iterator[str]:
    """Of versions that changed, those that a bill of these customers may rest on.

    Who was on which tariff is asked of today's facts, which is enough: had it been said otherwise at the close, then by
    an operator's or a contract's version that is itself among `changed`, and stays there.
    """
    operators = facts.operator[-1].zone
    after = midnight(period.next.first_day, operators)
    on_it = {f"tariff {tariff}" for tariff in _tariffs_of(facts, period, customers)}
    priced = {f"tariff {version}" for version in kept.get("tariffs", ())}
    zones = {f"tariff {each.version}": each.zone for versions in facts.tariffs.values() for each in versions}
    for name in changed:
        if name in priced:
            yield name
            continue
        _, _, day = name.partition("@")
        begins = midnight(date.fromisoformat(day), zones.get(name, operators)) if day else None
        if (begins is None or begins < after) and (not name.startswith("tariff ") or _subject(name) in on_it):
            yield name


def _tariffs_of(facts: Facts, period: Period, customers: Collection[str]) -> Iterator[str]:
    """Ids of the tariffs that contracts of these customers, or the operator's default, name in the period."""
    named = [
        each
        for each in facts.documents
        if each.kind == "operator" or (each.kind == "contract" and each.id in customers)
    ]
    for version in _in_force_within(named, period):
        if _begin(version) < period.next.first_day:
            tariff = version.body.get("tariff" if version.kind == "contract" else "default_tariff")
            if tariff is not None:
                yield tariff


@dataclass(frozen=True, slots=True)
class AsKept:
    """Facts as a close went by them. `superseded`: versions that are taken from their former text; `lost`: those that
    say something else now and whose text of then was not kept, so that they stand as they are now.
    """

    facts: Facts
    superseded: tuple[str, ...]
    lost: tuple[str, ...]


def as_kept(
    facts: Facts,
    former: Iterable[StoredDocument],
    kept: Mapping[str, str],
    hours: Mapping[str, Sequence[int]] = {},
) -> AsKept:
    """`facts` with each version in the text that a close kept the digest of, found among the `former` ones that others
    took the place of; one that only grew by hours of a series (`hours`, as kept) says the same of what it was used for.
    Versions that the close did not go by stay; the holidays are for the caller to add.
    """
    now = {_name(each): each for each in facts.documents}
    changed = {
        name: digest
        for name, digest in kept.items()
        if name not in now or not _with_digest(now[name], digest, hours.get(name, ()))
    }
    then = {name: each for each in former if changed.get(name := _name(each)) == body_digest(each)}
    known = facts_from_documents({**now, **then}.values()) if then else facts
    return AsKept(known, tuple(then), tuple(name for name in changed if name not in then))


def body_digest(document: StoredDocument) -> str:
    """SHA-256 of the body, in hexadecimal digits."""
    text = json.dumps(document.body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _hours(version: StoredDocument) -> list[int]:
    """How many hours the series of each window goes; 0 where it has none."""
    return [len(window.get("series", {}).get("prices", ())) for window in version.body.get("windows", ())]


def _with_digest(version: StoredDocument, digest: str | None, hours: Sequence[int]) -> bool:
    """Whether a version has the text of that digest, or had it before its series grew beyond so many `hours`."""
    if body_digest(version) == digest:
        return True
    grown = _hours(version)
    if (
        len(grown) != len(hours)
        or not any(grown)
        or any(n < then for n, then in zip(grown, hours, strict=True))
    ):
        return False
    windows = [
        {**window, "series": {**window["series"], "prices": window["series"]["prices"][:then]}}
        if then
        else window
        for window, then in zip(version.body["windows"], hours, strict=True)
    ]
    return body_digest(replace(version, body={**version.body, "windows": windows})) == digest


def _subject(name: str) -> str:
    """`tariff vilnius` of `tariff vilnius@2026-10-01`; ids hold no "@"."""
    return name.partition("@")[0]


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
