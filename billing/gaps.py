"""Gaps: intervals in which a node served requests that nobody wrote down one by one (a fact of the sidecar's seals).

Such usage can't be billed, and a period that holds some can't close before a person has said, with a reason, that it
stays so. What was accepted at a close of the period stays accepted at its later ones, as long as it is the same gap: a
gap that grew is another one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from billing.period import Period
from metering.instant import time_text, time_us_of
from metering.refusal import Fault, Refusal


@dataclass(frozen=True, slots=True)
class Gap:
    """`requests` served unmetered on a node from `begins_us` to `ends_us` (µs since 1970, UTC); `reason`: why a person
    accepted that, None while nobody has.
    """

    node: str
    lane: str
    begins_us: int
    ends_us: int
    requests: int
    reason: str | None = None


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
    """The gaps, each once: the same beginning in a lane is the same gap, said again or grown. Oldest first."""
    by_begin: dict[tuple[str, str, int], Gap] = {}
    for gap in gaps:
        key = (gap.node, gap.lane, gap.begins_us)
        before = by_begin.get(key)
        if before is None or (gap.ends_us, gap.requests) > (before.ends_us, before.requests):
            by_begin[key] = gap
    return sorted(by_begin.values(), key=lambda gap: (gap.begins_us, gap.node, gap.lane))


def with_reasons(gaps: Iterable[Gap], earlier: Iterable[Mapping[str, Any]]) -> list[Gap]:
    """The gaps with the reasons that earlier closes of the period accepted them for; `earlier` are rows of `gap_json`."""
    said = {gap_from(row): str(row["reason"]) for row in earlier}
    return [replace(gap, reason=said.get(gap)) for gap in gaps]


def accept(
    gaps: Iterable[Gap], earlier: Iterable[Mapping[str, Any]], accepted: AcceptedGaps, period: Period
) -> list[Gap]:
    """The period's gaps, every one with its reason.

    Refusal `unmetered_interval` if one of them was accepted neither now nor at an earlier close (`earlier`).
    """
    found = [
        replace(gap, reason=accepted.reason) if gap.reason is None and gap.node in accepted.nodes else gap
        for gap in with_reasons(gaps, earlier)
    ]
    open_ones = [gap for gap in found if gap.reason is None]
    if open_ones:
        faults = [Fault(_said(gap), f"{gap.node}/{gap.lane}") for gap in open_ones]
        first = open_ones[0]
        strangers = ", ".join(sorted(set(accepted.nodes) - {gap.node for gap in found}))
        named = f"; {strangers}, named by --accept-gap, served nothing unmetered there" if strangers else ""
        raise Refusal(
            "unmetered_interval",
            f"{_said(first)} on {first.node}, so the usage of {period} is not whole{named}",
            where=f"{first.node}/{first.lane}",
            remedy=f"bill without them: --accept-gap {first.node} --reason WHY (kept with the close, printed on the"
            " usage report)",
            faults=faults if len(faults) > 1 else (),
        )
    return found


def gap_json(gap: Gap) -> dict[str, Any]:
    """A gap as `period close`, `reconcile` and the usage report tell it."""
    return {
        "node": gap.node,
        "lane": gap.lane,
        "from": time_text(gap.begins_us),
        "to": time_text(gap.ends_us),
        "requests": gap.requests,
        "reason": gap.reason,
    }


def gap_from(row: Mapping[str, Any]) -> Gap:
    """The gap of a row of `gap_json`, without its reason."""
    return Gap(row["node"], row["lane"], time_us_of(row["from"]), time_us_of(row["to"]), int(row["requests"]))


def _said(gap: Gap) -> str:
    many = "request was" if gap.requests == 1 else "requests were"
    return f"{gap.requests:,} {many} served unmetered from {time_text(gap.begins_us)} to {time_text(gap.ends_us)}"
