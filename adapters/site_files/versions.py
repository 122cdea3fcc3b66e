"""Which version each applied document is: a new one, a changed one, or one that is stored already.

A document with `valid_from` is that version. Without one it is the first version, which holds from ever,
where it is the first of its id or where the files state dated versions beside it (a history, as `get`
writes it). Otherwise it says how things shall be from now on: the same as the version that holds at the
next local midnight, or a new version from then. So applying a file twice changes nothing, and applying an
edited one changes tomorrow, never today.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Literal
from zoneinfo import ZoneInfo

from adapters.site_files.reading import SiteDocument
from adapters.site_files.store import Span, Subject
from billing.site import in_force, version_name
from billing.stored import StoredDocument
from metering.refusal import Fault

State = Literal["created", "changed", "unchanged"]
Identity = tuple[str, str, str]
"""(operator, kind, id): what versions are versions of."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A document of the files, the version it is, and what applying it does to that version."""

    document: SiteDocument
    version: StoredDocument
    state: State


def identity_of(version: StoredDocument) -> Identity:
    return version.operator, version.kind, version.id


def shown(version: StoredDocument) -> str:
    """`tariff/vilnius@2026-10-01`: how a version is named to people and scripts."""
    return f"{version.kind}/{version_name(version.id, version.valid_from)}"


def timelines(versions: Sequence[StoredDocument]) -> dict[Identity, list[StoredDocument]]:
    """The versions of each identity, oldest first."""
    found: dict[Identity, list[StoredDocument]] = defaultdict(list)
    for version in sorted(versions, key=begin):
        found[identity_of(version)].append(version)
    return found


def begin(version: StoredDocument) -> date:
    return version.valid_from or date.min


def end(version: StoredDocument, timeline: Sequence[StoredDocument]) -> date:
    """The first local day on which a version of this timeline does not hold."""
    later = [begin(other) for other in timeline if begin(other) > begin(version)]
    return min([*later, version.valid_until or date.max])


def merged(placed: Sequence[Placed], stored: Sequence[StoredDocument]) -> list[StoredDocument]:
    """All versions as they stand once the files are applied."""
    result = {(identity_of(version), version.valid_from): version for version in stored}
    for each in placed:
        result[(identity_of(each.version), each.version.valid_from)] = each.version
    return list(result.values())


def place_versions(
    documents: Sequence[SiteDocument], stored: Sequence[StoredDocument], now: datetime, faults: list[Fault]
) -> list[Placed]:
    """Say of each document which version it is. `now` is an aware instant; `faults` takes contradictions.

    Documents with faults are left out, so are contracts of unknown customers.
    """
    known = timelines(stored)
    zones = _zones(documents, stored)
    placed: list[Placed] = []
    for identity, group in _groups(documents, stored).items():
        zone = zones.get(identity[0], UTC)
        timeline = known.get(identity, [])
        history = any(document.valid_from is not None for document in group)
        distinct: dict[date | None, SiteDocument] = {}
        for document in group:
            first = distinct.setdefault(document.valid_from, document)
            if first.body != document.body:
                name = f"{document.kind} {version_name(document.id, document.valid_from)}"
                remedy = f"the first is at {first.where}; give one of them a valid_from of its own"
                faults.append(Fault(f"{name} stands twice with different content", document.where, remedy))
        for document in distinct.values():
            own_zone = ZoneInfo(document.body["timezone"]) if "timezone" in document.body else zone
            midnight = now.astimezone(own_zone).date() + timedelta(days=1)
            each = _place(document, identity[0], timeline, history, midnight)
            _check_end(each, faults)
            placed.append(each)
    return placed


def check_issued(
    placed: Sequence[Placed],
    stored: Sequence[StoredDocument],
    issued: Mapping[Subject, Span],
    faults: list[Fault],
) -> None:
    """Refuse what would change a version that issued documents rest on, by its content or by cutting it
    short.
    """
    known = timelines(stored)
    for each in placed:
        span = issued.get(_rests_on(each.version))
        timeline = known.get(identity_of(each.version), [])
        if each.state == "unchanged" or span is None:
            continue
        held = [other for other in timeline if begin(other) <= begin(each.version)]
        if not held:
            continue
        before = held[-1]
        if begin(each.version) >= span.end or end(before, timeline) <= max(span.first, begin(each.version)):
            continue
        remedy = f"let a later version follow: valid_from {span.end} or later, or none for the next midnight"
        what = f"{shown(before)} was used by issued documents and can't be changed"
        faults.append(Fault(what, each.document.where, remedy))


def _rests_on(version: StoredDocument) -> Subject:
    """The subject whose issued documents hold a version fast; a node's region is in all of its operator's."""
    if version.kind == "node":
        return Subject(version.operator, "operator", version.operator)
    return Subject(*identity_of(version))


def _place(
    document: SiteDocument,
    operator: str,
    timeline: Sequence[StoredDocument],
    history: bool,
    midnight: date,
) -> Placed:
    valid_from = document.valid_from
    if valid_from is None and timeline and not history:
        begun = in_force([_endless(version) for version in timeline], midnight)
        newest = begun.version if begun is not None else None
        if newest is not None and newest.body == document.body:
            return Placed(document, newest, "unchanged")
        valid_from = midnight
    version = StoredDocument(document.kind, document.id, operator, valid_from, document.body)
    same = [other for other in timeline if other.valid_from == valid_from]
    if not same:
        return Placed(document, version, "created")
    return Placed(document, version, "unchanged" if same[0].body == version.body else "changed")


@dataclass(frozen=True, slots=True)
class _Endless:
    """A version without its `valid_until`: an ended version applied again is still the same version."""

    version: StoredDocument
    valid_from: date | None
    valid_until: date | None = None


def _endless(version: StoredDocument) -> _Endless:
    return _Endless(version, version.valid_from)


def _check_end(placed: Placed, faults: list[Fault]) -> None:
    """A dated document's own days were checked when it was read; here the date may have come from the
    clock.
    """
    version = placed.version
    until = version.valid_until
    if placed.document.valid_from is None and until is not None and until <= begin(version):
        faults.append(
            Fault(
                f"valid_until: {until} is not after {begin(version)}, from which this version would hold",
                placed.document.place("valid_until"),
                "name a later day, or state valid_from",
            )
        )


def _groups(
    documents: Sequence[SiteDocument], stored: Sequence[StoredDocument]
) -> dict[Identity, list[SiteDocument]]:
    customers = {version.id: version.operator for version in stored if version.kind == "customer"}
    for document in documents:
        if document.kind == "customer":
            customers.setdefault(document.id, document.operator)
    groups: dict[Identity, list[SiteDocument]] = defaultdict(list)
    for document in documents:
        operator = document.operator
        if document.kind == "contract":
            operator = customers.get(document.id, "")
        if operator and not document.faulty:
            groups[(operator, document.kind, document.id)].append(document)
    return groups


def _zones(documents: Sequence[SiteDocument], stored: Sequence[StoredDocument]) -> dict[str, tzinfo]:
    """Each operator's zone; what belongs to no operator goes by UTC."""
    declared = [(each.kind, each.id, each.body) for each in stored]
    declared += [(each.kind, each.id, each.body) for each in documents]
    zones: dict[str, tzinfo] = {}
    for kind, identity, body in declared:
        if kind == "operator" and "timezone" in body:
            zones.setdefault(identity, ZoneInfo(body["timezone"]))
    return zones
