"""Gaps: what of a period's usage is not there, and a person has to know of before the period closes without it.

    unmetered    a node served requests that nobody wrote down one by one (a fact of its sidecar's seals)
    incomplete   a due lane has not said yet that it is complete up to the period's end (completeness.py)
    retired      a lane that a person retired, between its last accepted seal and that moment (`tally node retire`)
    hole         numbers of a lane will never come, as a person decided (`tally intake repair --accept-hole`)
    dropped      a person decided which branch of a fork counts, or that a batch never will (`… --drop`)
    unproven     a person decided that nothing will ever prove the events of a batch, which are billed as its seal counts
                 them (`… --root`)

The first two stop a close until a person says, with a reason, that it stays so. The others were decided on with a reason
before; every close that they touch prints them. What was accepted at a close of the period stays accepted at its later
ones, as long as it is the same gap: one that grew is another one, a lane that has come further is not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from billing.period import Period
from metering.instant import time_text, time_us_of
from metering.refusal import Fault, Refusal

UNMETERED, INCOMPLETE, HOLE, DROPPED, UNPROVEN = "unmetered", "incomplete", "hole", "dropped", "unproven"
RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class Gap:
    """What a lane's usage lacks between `begins_us` and `ends_us` (µs since 1970, UTC): `requests` of them, None where
    nobody knows; `reason`: why a person accepted that, None while nobody has.
    """

    node: str
    lane: str
    begins_us: int
    ends_us: int
    requests: int | None
    reason: str | None = None
    kind: str = UNMETERED


@dataclass(frozen=True, slots=True)
class AcceptedGaps:
    """What whoever closes accepts: the gaps of these nodes, for this reason."""

    nodes: Collection[str] = ()
    reason: str = ""


NO_GAPS = AcceptedGaps()


def asked(nodes: Sequence[str], reason: str | None) -> AcceptedGaps:
    """What a command's options say. Refusal `empty_reason` where either stands without the other."""
    told = (reason or "").strip()
    if bool(nodes) != bool(told):
        raise Refusal(
            "empty_reason",
            "a gap is accepted with a reason, and a reason is for a gap",
            where="--accept-gap, --reason",
            remedy="--accept-gap NODE --reason WHY; both are kept with the close",
        )
    return AcceptedGaps(frozenset(nodes), told)


def newest(gaps: Iterable[Gap]) -> list[Gap]:
    """Unmetered gaps, each once: the same beginning in a lane is the same gap, said again or grown. Oldest first."""
    by_begin: dict[tuple[str, str, int], Gap] = {}
    for gap in gaps:
        key = (gap.node, gap.lane, gap.begins_us)
        before = by_begin.get(key)
        if before is None or (gap.ends_us, gap.requests or 0) > (before.ends_us, before.requests or 0):
            by_begin[key] = gap
    return in_order(by_begin.values())


def in_order(gaps: Iterable[Gap]) -> list[Gap]:
    """Oldest first."""
    return sorted(gaps, key=lambda gap: (gap.begins_us, gap.node, gap.lane, gap.kind))


def with_reasons(gaps: Iterable[Gap], earlier: Iterable[Mapping[str, Any]]) -> list[Gap]:
    """The gaps with the reasons that earlier closes of the period accepted them for; `earlier` are rows of `gap_json`."""
    said = [(gap_from(row), str(row["reason"])) for row in earlier]
    return [
        replace(gap, reason=next((reason for known, reason in said if _is_within(gap, known)), None))
        if gap.reason is None
        else gap
        for gap in gaps
    ]


def _is_within(gap: Gap, known: Gap) -> bool:
    """Whether `gap` is the known one, or what is left of it now that its lane has come further."""
    if gap.kind == INCOMPLETE and gap.begins_us > known.begins_us:
        gap = replace(gap, begins_us=known.begins_us)
    return gap == known


def accept(
    gaps: Iterable[Gap], earlier: Iterable[Mapping[str, Any]], accepted: AcceptedGaps, period: Period
) -> list[Gap]:
    """The period's gaps, every one with its reason.

    Refusals `incomplete_lane`, `unmetered_interval` if one of them was accepted neither now nor at an earlier close
    (`earlier`).
    """
    found = [
        replace(gap, reason=accepted.reason) if gap.reason is None and gap.node in accepted.nodes else gap
        for gap in with_reasons(gaps, earlier)
    ]
    open_ones = [gap for gap in found if gap.reason is None]
    if open_ones:
        strangers = ", ".join(sorted(set(accepted.nodes) - {gap.node for gap in found}))
        raise _refusal(open_ones, strangers, period)
    return found


def _refusal(gaps: Sequence[Gap], strangers: str, period: Period) -> Refusal:
    lagging = [gap for gap in gaps if gap.kind == INCOMPLETE]
    first = (lagging or gaps)[0]
    named = f"; {strangers}, named by --accept-gap, lacks nothing there" if strangers else ""
    without = f"--accept-gap {first.node} --reason WHY (kept with the close, printed on the usage report)"
    return Refusal(
        "incomplete_lane" if lagging else "unmetered_interval",
        f"{_said(first)} on {first.node}, so the usage of {period} is not whole{named}",
        where=f"{first.node}/{first.lane}",
        remedy="start its sidecar or let its batches come, and close then (`tally streams` says how far it is);"
        f" if it will never seal again: tally node retire --node {first.node} --lane {first.lane} --reason WHY;"
        f" or bill without it: {without}"
        if lagging
        else f"bill without them: {without}",
        faults=[Fault(_said(gap), f"{gap.node}/{gap.lane}") for gap in gaps] if len(gaps) > 1 else (),
    )


def gap_json(gap: Gap) -> dict[str, Any]:
    """A gap as `period close`, `reconcile` and the usage report tell it."""
    return {
        "kind": gap.kind,
        "node": gap.node,
        "lane": gap.lane,
        "from": time_text(gap.begins_us),
        "to": time_text(gap.ends_us),
        "requests": gap.requests,
        "reason": gap.reason,
    }


def gap_from(row: Mapping[str, Any]) -> Gap:
    """The gap of a row of `gap_json`, without its reason."""
    span = time_us_of(row["from"]), time_us_of(row["to"])
    return Gap(row["node"], row["lane"], *span, row["requests"], kind=row["kind"])


def _said(gap: Gap) -> str:
    if gap.kind == INCOMPLETE:
        return f"the lane {gap.lane} is complete up to {time_text(gap.begins_us)} only, not to {time_text(gap.ends_us)},"
    assert gap.requests is not None, (
        "whoever serves unmetered counts, and what was decided on comes with its reason"
    )
    many = "request was" if gap.requests == 1 else "requests were"
    return f"{gap.requests:,} {many} served unmetered from {time_text(gap.begins_us)} to {time_text(gap.ends_us)}"


def gap_sentence(row: Mapping[str, Any]) -> str:
    """What a row of `gap_json` says, in words: `without …`."""
    what = {
        UNMETERED: "what {node} served unmetered",
        INCOMPLETE: "what {node}/{lane}, which was not complete, may have served",
        RETIRED: "what {node}/{lane} may have served before it was retired",
        HOLE: "batches of {node}/{lane} that never came",
        DROPPED: "batches of {node}/{lane} that were dropped",
        UNPROVEN: "proof of what {node}/{lane} sealed",
    }[row["kind"]].format_map(row)
    many = (
        ""
        if row["requests"] is None
        else f" ({row['requests']:,} {'request' if row['requests'] == 1 else 'requests'})"
    )
    return f"without {what}{many} from {row['from']} to {row['to']}: {row['reason']}"
