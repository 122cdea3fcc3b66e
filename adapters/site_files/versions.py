"""Which version each applied document is: a new one, a changed one, or one that is stored already.

A document with `valid_from` is that version. Without one it is the first version, which holds from ever,
where it is the first of its id or where the files state dated versions beside it (a history, as `get`
writes it). Otherwise it says how things shall be from now on: the same as the version that holds at the
next local midnight, that version with further hours behind its price series, or a new version from then.
So applying a file twice changes nothing, and applying an edited one changes tomorrow, never today.
One that `supersedes` a version is that version (`superseding`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from adapters.site_files.reading import STANDARD_INPUT, SiteDocument
from adapters.site_files.store import Superseded
from adapters.site_files.superseding import further_hours, same_content, with_reason
from adapters.site_files.tariff_scalars import FIRST
from billing.site import in_force, version_name
from billing.stored import StoredDocument
from metering.refusal import Fault

UTC = ZoneInfo("UTC")
"""The zone of what belongs to no operator."""

State = Literal["created", "changed", "unchanged"]
Identity = tuple[str, str, str]
"""(operator, kind, id): what versions are versions of."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A document of the files, the version it is, and what applying it does to that version.

    `former`: the stored version whose place it takes, changed or superseded.
    """

    document: SiteDocument
    version: StoredDocument
    state: State
    former: StoredDocument | None = None

    @property
    def supersedes(self) -> bool:
        """Whether it takes its former's place; one that only grows by hours of a series, or is new, does not."""
        if self.former is None or "supersedes" not in self.version.body:
            return False
        return further_hours(self.former, self.version) is None

    @property
    def takes_back(self) -> bool:
        """Whether it would undo a correction by saying nothing of it, as a file from before it does."""
        if self.former is None or "supersedes" not in self.former.body:
            return False
        return "supersedes" not in self.version.body


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
    zones = zones_of(documents, stored)
    placed: list[Placed] = []
    for identity, group in _groups(documents, stored).items():
        zone = zones.get(identity[0], UTC)
        timeline = known.get(identity, [])
        history = any(document.valid_from is not None for document in group)
        distinct: dict[date | None, SiteDocument] = {}
        for document in group:
            first = distinct.setdefault(document.valid_from, document)
            if first.body != document.body:
                faults.append(_twice(first, document))
        for document in distinct.values():
            tomorrow = now.astimezone(zone_of(document.body, zone)).date() + timedelta(days=1)
            if not _is_there(document, timeline, faults):
                continue
            each = _place(document, identity[0], timeline, history, tomorrow)
            _check_end(each, faults)
            _check_correction(each, faults)
            placed.append(each)
    return placed


def _place(
    document: SiteDocument,
    operator: str,
    timeline: Sequence[StoredDocument],
    history: bool,
    tomorrow: date,
) -> Placed:
    valid_from = document.valid_from
    if valid_from is None and timeline and not history and "supersedes" not in document.body:
        begun = in_force([_endless(version) for version in timeline], tomorrow)
        newest = begun.version if begun is not None else None
        if newest is not None and same_content(document.body, newest.body):
            return Placed(document, _where_it_stands(newest, document), "unchanged")
        if newest is not None:
            longer = replace(
                newest, body=with_reason(document.body, newest.body), places=plain_places(document)
            )
            if further_hours(newest, longer) is not None:
                return Placed(document, longer, "changed", newest)
        valid_from = tomorrow
    version = StoredDocument(
        document.kind, document.id, operator, valid_from, document.body, plain_places(document)
    )
    same = [other for other in timeline if other.valid_from == valid_from]
    if not same:
        return Placed(document, version, "created")
    if same_content(version.body, same[0].body):
        return Placed(document, _where_it_stands(same[0], document), "unchanged")
    longer = replace(version, body=with_reason(version.body, same[0].body))
    if further_hours(same[0], longer) is not None:
        return Placed(document, longer, "changed", same[0])
    return Placed(document, version, "changed", same[0])


def _where_it_stands(stored: StoredDocument, document: SiteDocument) -> StoredDocument:
    """A stored version with the lines at which its file states it now; standard input names none that lasts."""
    if document.where.startswith(f"{STANDARD_INPUT}:"):
        return stored
    return replace(stored, places=plain_places(document))


def plain_places(document: SiteDocument) -> dict[str, str]:
    """Where the keys of a document stand, as a version keeps it: `prices.1.input` -> `tariff.yaml:12`. What lies
    deeper (tiers, the hours of a series) is not kept."""
    kept = {
        ".".join(str(step + 1) if isinstance(step, int) else step for step in path): where
        for path, where in document.places.items()
        if len(path) <= 3
    }
    return {**kept, "": document.where}


def _is_there(document: SiteDocument, timeline: Sequence[StoredDocument], faults: list[Fault]) -> bool:
    """Whether what is superseded is there, else a fault. Where nothing of the id is stored yet, the files are a history
    that was written elsewhere."""
    former = document.body.get("supersedes")
    if former is None or not timeline or document.valid_from in {each.valid_from for each in timeline}:
        return True
    what = f"supersedes: {document.kind} {document.id} has no version {former}"
    known = ", ".join(str(version.valid_from or FIRST) for version in timeline)
    faults.append(Fault(what, document.place("supersedes"), f"allowed: {known}"))
    return False


def _check_correction(placed: Placed, faults: list[Fault]) -> None:
    """A file from before a correction doesn't take it back, and one that is edited after it doesn't correct again: both
    would go unsaid. Each correction has a reason of its own."""
    former, body = placed.former, placed.version.body
    if former is None or "supersedes" not in former.body:
        return
    if not placed.takes_back:
        if placed.supersedes and body["reason"] == former.body["reason"]:
            what = f"{shown(former)} took another's place already for that reason, and said something else"
            remedy = (
                "leave `supersedes` and `reason` out, and prices change from the next midnight or `valid_from`; "
                f"or give the reason for which {former.body['supersedes']} is corrected again"
            )
            faults.append(Fault(what, placed.document.place("reason"), remedy))
        return
    what = f"{shown(former)} took another's place ({former.body['reason']}), and this is not what it says"
    said = f"`supersedes: {former.body['supersedes']}` and `reason: …`"
    remedy = f"is this file older? `tally get {former.kind} {former.id}` shows it; else say {said} again"
    faults.append(Fault(what, placed.document.where, remedy))


def check_not_taken_back(
    placed: Sequence[Placed], superseded: Sequence[Superseded], faults: list[Fault]
) -> None:
    """A correction that was itself corrected is no correction any more: its file, applied again, is an older one."""
    known: dict[tuple[Identity, date | None], list[Superseded]] = defaultdict(list)
    for former in superseded:
        known[identity_of(former.document), former.document.valid_from].append(former)
    for each in placed:
        version = each.version
        befores = known.get((identity_of(version), version.valid_from), []) if each.supersedes else []
        before = next((before for before in befores if before.document.body == version.body), None)
        if before is not None:
            what = f"{shown(version)} said this until {before.at:%Y-%m-%d}, when another took its place ({before.reason})"
            remedy = f"is this file older? `tally get {version.kind} {version.id}` shows what holds; else name a new reason"
            faults.append(Fault(what, each.document.place("reason"), remedy))


def _twice(first: SiteDocument, second: SiteDocument) -> Fault:
    what = f"{second.kind} {version_name(second.id, second.valid_from)} stands twice with different content"
    remedy = f"the first is at {first.where}; give one of them a valid_from of its own"
    if "supersedes" in second.body or "supersedes" in first.body:
        former, at = (first, "the first") if "supersedes" in second.body else (second, "this one")
        remedy = f"{at} is superseded by the other: remove it ({former.where})"
    return Fault(what, second.where, remedy)


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


def zone_of(body: Mapping[str, str], otherwise: ZoneInfo) -> ZoneInfo:
    """A version's days are those of its own zone, where it states one (a tariff may)."""
    return ZoneInfo(body["timezone"]) if "timezone" in body else otherwise


def zones_of(documents: Sequence[SiteDocument], stored: Sequence[StoredDocument]) -> dict[str, ZoneInfo]:
    """Each operator's zone; what belongs to no operator goes by UTC."""
    declared = [(each.kind, each.id, each.body) for each in stored]
    declared += [(each.kind, each.id, each.body) for each in documents]
    zones: dict[str, ZoneInfo] = {}
    for kind, identity, body in declared:
        if kind == "operator" and "timezone" in body:
            zones.setdefault(identity, ZoneInfo(body["timezone"]))
    return zones
