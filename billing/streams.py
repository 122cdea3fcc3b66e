"""How each lane stands: complete up to when, what is missing, what is held. Pure; `tally streams` prints it.

A hole is counted in batches: the numbers between what is accepted and what came after it. Where a whole epoch's end is
missing, nobody knows how long it was; that counts as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from billing.acceptance import FORK, HOLE, OTHER_BRANCH
from billing.held_cases import HeldBatch, cases
from billing.inspection import LaneName, Place
from billing.unfinished_import import UnfinishedImport, unfinished_json
from metering.instant import time_text

#: So many held batches of a lane are named one by one.
_NAMED = 20
#: How long a seal may take longer than the one that tells of it: two lanes' batches travel apart.
SIBLING_PATIENCE_US = 60_000_000
#: A running sidecar seals every 10 s, with or without requests: one that has not for so long does not run, or its batches
#: do not arrive.
SILENT_S = 60


@dataclass(frozen=True, slots=True)
class AsideBatch:
    """A batch that no enrolled key vouches for: whose it claims to be, what is wrong, and where it is kept below held/.

    Under the code `not_kept` it stands for so many `batches` that came beyond what is kept (aside.py).
    """

    operator: str
    node: str
    lane: str
    code: str
    what: str
    path: str
    batches: int = 1


@dataclass(frozen=True, slots=True)
class Stream:
    """A lane as the ledger knows it. `place` and `complete_to` are None before its first accepted batch. `retired`: a
    person said that it will never seal again; `revoked`: all of its keys are; `dropped`: hashes of batches that people
    decided against; `unfinished`: of an import, or of its void, that has begun and not ended.
    """

    name: LaneName
    kind: str
    place: Place | None
    complete_to_us: int | None
    ended: bool
    held: Sequence[HeldBatch]
    set_aside: int  # batches that claim to be of this lane, and no key vouches for
    enrolled_us: int = 0
    retired: bool = False
    revoked: bool = False
    dropped: frozenset[str] = frozenset()
    unfinished: bool = False

    @property
    def is_due(self) -> bool:
        """Whether it still has to say that it is complete."""
        return self.kind == "sidecar" and not self.ended and not self.retired

    def state(self, now: datetime) -> str:
        """import, unfinished, final, retired, revoked, silent (no seal came for a minute) or live."""
        if self.kind != "sidecar":
            return "unfinished" if self.unfinished else self.kind
        if self.ended or self.retired:
            return "final" if self.ended else "retired"
        if self.revoked:
            return "revoked"
        since_us = self.enrolled_us if self.complete_to_us is None else self.complete_to_us
        return "silent" if now.timestamp() * 1_000_000 - since_us > SILENT_S * 1_000_000 else "live"


@dataclass(frozen=True, slots=True)
class MissingSibling:
    """A lane of which the node's first lane told a seal that has not come; `said_us` is when it was told."""

    operator: str
    node: str
    lane: str
    epoch: str
    number: int
    hash: str
    said_us: int


@dataclass(frozen=True, slots=True)
class FaultyRoot:
    """An accepted batch whose Merkle root does not hold: why, and since when that is known."""

    name: LaneName
    place: Place
    hash: str
    what: str
    found_us: int


@dataclass(frozen=True, slots=True)
class Hole:
    """Batches that have not come: `first` to `last` of an epoch, or, with first above last, the end of the one
    before."""

    epoch: str
    first: int
    last: int

    @property
    def batches(self) -> int:
        return max(1, self.last - self.first + 1)

    def __str__(self) -> str:
        if self.first > self.last:
            return f"what came before {self.epoch}-{self.first}"
        span = f"{self.first}" if self.first == self.last else f"{self.first}…{self.last}"
        return f"{self.epoch}-{span}"


def holes(stream: Stream) -> list[Hole]:
    """The holes of a lane, as far as what is held behind them shows."""
    held = {batch.hash for batch in stream.held}
    there: dict[str, list[int]] = {}
    for batch in stream.held:
        there.setdefault(batch.place.epoch, []).append(batch.place.number)
    if stream.place is not None:
        there.setdefault(stream.place.epoch, []).append(stream.place.number)
    found: set[Hole] = set()
    for batch in stream.held:
        if batch.code == HOLE and batch.previous not in held:
            below = (n for n in there[batch.place.epoch] if n < batch.place.number)
            found.add(Hole(batch.place.epoch, max(below, default=-1) + 1, batch.place.number - 1))
    return sorted(found, key=lambda hole: (hole.epoch, hole.first))


def stream_row(stream: Stream, now: datetime) -> dict[str, object]:
    """A row of `tally streams`. `lag_s`: whole seconds since the lane is complete; null where none is due."""
    missing = holes(stream)
    return {
        **stream.name._asdict(),
        "kind": stream.kind,
        "state": stream.state(now),
        "due": stream.is_due,
        "epoch": None if stream.place is None else stream.place.epoch,
        "number": None if stream.place is None else stream.place.number,
        "complete_to": None if stream.complete_to_us is None else time_text(stream.complete_to_us),
        "holes": sum(hole.batches for hole in missing),
        "forks": sum(batch.code in (FORK, OTHER_BRANCH) for batch in stream.held),
        "held": len(stream.held),
        "lag_s": _lag_s(stream, now),
        "set_aside": stream.set_aside,
        "missing": [str(hole) for hole in missing],
        "held_batches": [
            {
                "epoch": batch.place.epoch,
                "number": batch.place.number,
                "hash": batch.hash,
                "code": batch.code,
                "what": batch.what,
            }
            for batch in stream.held[:_NAMED]
        ],
        "cases": [
            {
                "code": case.root.code,
                "epoch": case.root.place.epoch,
                "number": case.root.place.number,
                "hash": case.root.hash,
                "batches": len(case.batches),
                "what": case.root.what,
                "ends": case.ends,
                "commands": list(case.commands),
            }
            for case in cases(stream.name, stream.held, stream.dropped)[:_NAMED]
        ],
    }


def stream_document(
    streams: Sequence[Stream],
    aside: Sequence[AsideBatch],
    now: datetime,
    siblings: Sequence[MissingSibling] = (),
    roots: Sequence[FaultyRoot] = (),
    unfinished: Sequence[UnfinishedImport] = (),
) -> dict[str, object]:
    """The document of `tally streams`. `set_aside` counts all batches that no key vouches for, of known lanes or not;
    the first of them are named. `missing_siblings` are seals that a node's first lane told of and that have not come.
    `root_faults` counts the accepted batches of which nothing can be proven; the first of them are named.
    `unfinished_imports` are imports and voids that have begun and not ended, this moment's among them.
    """
    held = {(stream.name, batch.hash) for stream in streams for batch in stream.held}
    return {
        "missing_siblings": [
            {
                "operator": each.operator,
                "node": each.node,
                "lane": each.lane,
                "epoch": each.epoch,
                "number": each.number,
                "said": time_text(each.said_us),
            }
            for each in siblings
            if now.timestamp() * 1_000_000 - each.said_us >= SIBLING_PATIENCE_US
            and (LaneName(each.operator, each.node, each.lane), each.hash) not in held
        ],
        "operators": _complete_to(streams),
        "lanes": [stream_row(stream, now) for stream in streams],
        "unfinished_imports": [unfinished_json(each) for each in unfinished],
        "root_faults": len(roots),
        "root_fault_batches": [
            {
                **fault.name._asdict(),
                **fault.place._asdict(),
                "hash": fault.hash,
                "what": fault.what,
                "found": time_text(fault.found_us),
            }
            for fault in roots[:_NAMED]
        ],
        "set_aside": sum(batch.batches for batch in aside),
        "set_aside_batches": [
            asdict(batch) for batch in sorted(aside, key=lambda batch: -batch.batches)[:_NAMED]
        ],
    }


def _complete_to(streams: Sequence[Stream]) -> list[dict[str, object]]:
    """Up to when every due lane of each operator is complete; null where one has sent nothing yet, or none is due."""
    due: dict[str, list[int | None]] = {stream.name.operator: [] for stream in streams}
    for stream in streams:
        if stream.is_due:
            due[stream.name.operator].append(stream.complete_to_us)
    whole = {owner: [end for end in ends if end is not None] for owner, ends in due.items()}
    return [
        {
            "operator": owner,
            "due": len(ends),
            "complete_to": time_text(min(whole[owner])) if ends and len(whole[owner]) == len(ends) else None,
        }
        for owner, ends in due.items()
    ]


def has_difference(document: Mapping[str, object]) -> bool:
    """Whether something is missing, forked, held, set aside, told of only or unproven: `tally streams` then exits with 3."""
    lanes = document["lanes"]
    assert isinstance(lanes, list)
    strange = document["set_aside"] or document["missing_siblings"] or document["root_faults"]
    return bool(strange) or any(row["holes"] or row["forks"] or row["held"] for row in lanes)


def _lag_s(stream: Stream, now: datetime) -> int | None:
    if stream.complete_to_us is None or not stream.is_due:
        return None
    return max(0, int(now.timestamp()) - stream.complete_to_us // 1_000_000)
