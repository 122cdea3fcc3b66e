"""The auditor of a world in which everything was killed. It believes nobody and imports nothing of Tallygrid.

It lays four books side by side: the sender's, the engine's list of what it heard, the events in the archive (read as
anybody may read it: Parquet and text), and what the commands say that they have counted and billed.

    lost      a whole answer, or a request that the engine heard, without its event; an imported row without one;
              an event that is not in the totals or not billed
    double    an event, a row or a document that is there more than once
    wrong     anything else that does not fit: other tokens, a hole in a chain, a number left out, books out of balance
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from kill_sender import CUT, LEFT, REFUSED, WHOLE, Sent

FIGURES = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
USAGE_FIGURES = ("requests", "aborted", *FIGURES, "generated_tokens", "audio_seconds")

Event = Mapping[str, Any]
Document = Mapping[str, Any]


@dataclass(slots=True)
class Findings:
    """What the auditor found; all three lists shall be empty."""

    lost: list[str] = field(default_factory=list)
    double: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def expect(self, said: object, true: object, what: str) -> None:
        if said != true:
            self.wrong.append(f"{what}: {said}, not {true}")

    def __bool__(self) -> bool:
        return bool(self.lost or self.double or self.wrong)


# -- the archive ---------------------------------------------------------------------------------------------------------


def archived_events(archive: Path) -> dict[str, list[Event]]:
    """The events of every accepted batch, by lane; `epoch` is the lane's life in which they were written."""
    found: dict[str, list[Event]] = defaultdict(list)
    for path in sorted(archive.rglob("*.parquet")):
        epoch = path.name.partition("-")[0]
        found[path.parent.name] += [row | {"epoch": epoch} for row in pq.ParquetFile(path).read().to_pylist()]
    return found


def check_chains(archive: Path, findings: Findings) -> None:
    """Every lane is one chain of seals from its beginning, without a hole, and has closed what it opened."""
    lanes: dict[str, dict[str, tuple[str, dict[str, str]]]] = defaultdict(dict)
    for path in archive.rglob("*.seal"):
        note = path.read_bytes()
        text = note.decode().partition("\n\n")[0].splitlines()[1:]
        seal = dict(line.split(" ", 1) for line in text)
        if seal["previous"] in lanes[path.parent.name]:
            findings.double.append(f"two seals of {path.parent.name} follow {seal['previous']}")
        lanes[path.parent.name][seal["previous"]] = (hashlib.sha256(note).hexdigest(), seal)
    for lane, seals in lanes.items():
        _check_chain(lane, seals, findings)


def _check_chain(lane: str, seals: Mapping[str, tuple[str, dict[str, str]]], findings: Findings) -> None:
    previous, epoch, number, last, seen = "genesis", "", -1, 0, 0
    seal: dict[str, str] = {}
    while previous in seals:
        previous, seal = seals[previous]
        seen += 1
        if seal["epoch"] != epoch:
            epoch, number, last = seal["epoch"], -1, 0
        findings.expect(int(seal["number"]), number + 1, f"{lane}: number of a seal")
        findings.expect(int(seal["first"]), last + 1, f"{lane}: first of a seal")
        number, last = number + 1, int(seal["last"])
    findings.expect(seen, len(seals), f"{lane}: seals in one chain")
    if seal["kind"] == "sidecar":
        findings.expect(seal["closed"], seal["opened"], f"{lane}: closed of the opened requests")


# -- requests ------------------------------------------------------------------------------------------------------------


def check_requests(
    book: Sequence[Sent], heard: set[str], events: Sequence[Event], findings: Findings
) -> None:
    """One event for each request that the engine heard; whole answers with their tokens; none out of nowhere."""
    counts = Counter(event["request"].hex() for event in events)
    by_id = {event["request"].hex(): event for event in events}
    findings.double += [f"request {name} has {count} events" for name, count in counts.items() if count > 1]
    findings.lost += [f"the engine heard {name}, no event" for name in sorted(heard - set(by_id))]
    for sent in book:
        if sent.fate == WHOLE:
            _check_whole(sent, by_id, findings)
    for name in sorted(set(by_id) - heard):
        # Its intent was written, and the sidecar died before it told the engine.
        findings.expect(by_id[name]["outcome"], "interrupted", f"outcome of {name}, which no engine heard of")
        findings.expect(_tokens(by_id[name]), (0, 0, 0, 0), f"tokens of {name}, which no engine heard of")
    fates = Counter(sent.fate for sent in book)
    certain = fates[WHOLE] + fates[LEFT]
    if not certain <= len(by_id) <= certain + fates[CUT]:
        findings.wrong.append(f"{len(by_id)} events of {dict(fates)}")
    findings.expect(fates[REFUSED], 0, "refused requests")
    whole = {(sent.answered or "").removeprefix("chatcmpl-") for sent in book if sent.fate == WHOLE}
    for name in set(by_id) - whole:
        if by_id[name]["outcome"] not in ("finished", "aborted", "interrupted"):
            findings.wrong.append(f"{name} is {by_id[name]['outcome']}")


def _check_whole(sent: Sent, by_id: Mapping[str, Event], findings: Findings) -> None:
    name = (sent.answered or "").removeprefix("chatcmpl-")
    event = by_id.get(name)
    if event is None:
        findings.lost.append(f"the whole answer {name} has no event")
        return
    asked = sent.tokens
    findings.expect(event["outcome"], "finished", f"outcome of the whole answer {name}")
    findings.expect(
        _tokens(event),
        (asked.prompt, asked.cached, asked.completion, asked.reasoning),
        f"tokens of the whole answer {name}",
    )


def check_only_life(died_at: str, events: Sequence[Event], findings: Findings) -> None:
    """A sidecar that died once, at its n-th intent or outcome, had written exactly n: as many are there."""
    step, _, count = died_at.partition(":")
    first = min(events, key=lambda event: event["time"])["epoch"]
    interrupted = [event["epoch"] for event in events if event["outcome"] == "interrupted"]
    if step == "outcome":
        written = sum(event["epoch"] == first for event in events)
        _compare(written, int(count), "outcomes before the sidecar died", findings)
    if step == "intent":
        written = sum(event["epoch"] not in interrupted for event in events) + len(interrupted)
        _compare(written, int(count), "intents before the sidecar died", findings)


def check_import(
    rows: Sequence[tuple[str, int, int, int, int]], events: Sequence[Event], findings: Findings
) -> None:
    """Each row of an imported file is one event, and nothing else is."""
    expected = Counter(row[1:] for row in rows)
    found = Counter(_tokens(event) for event in events)
    findings.lost += [f"row {row} was not imported" for row in expected - found]
    findings.double += [f"row {row} was imported {found[row]} times" for row in found - expected]


def _tokens(event: Event) -> tuple[int, int, int, int]:
    prompt, cached, completion, reasoning = (event[name] for name in FIGURES)
    return prompt, cached, completion, reasoning


# -- totals and documents ------------------------------------------------------------------------------------------------


def check_usage(usage: Document, events: Sequence[Event], findings: Findings) -> None:
    """`tally usage --by model,outcome` says what the events sum up to."""
    sums: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for event in events:
        one = sums[event["model"], event["outcome"]]
        one["requests"] += 1
        one["aborted"] += event["outcome"] == "aborted"
        for name in (*FIGURES, "audio_seconds"):
            one[name] += event[name]
        generated = event["generated_tokens"]
        one["generated_tokens"] += event["completion_tokens"] if generated is None else generated
    said = {(row["model"], row["outcome"]): row for row in usage["rows"]}
    findings.expect(sorted(said), sorted(sums), "kinds of usage")
    for kind in set(said) & set(sums):
        for name in USAGE_FIGURES:
            _compare(said[kind][name], sums[kind][name], f"{name} of {kind} in usage", findings)
    for name in USAGE_FIGURES:
        _compare(
            usage["total"][name], sum(one[name] for one in sums.values()), f"{name} in all usage", findings
        )


def _compare(said: int, true: int, what: str, findings: Findings) -> None:
    if said < true:
        findings.lost.append(f"{what}: {said} of {true}")
    if said > true:
        findings.double.append(f"{what}: {said} instead of {true}")


def check_documents(
    documents: Sequence[Document], balance: Document, events: Sequence[Event], findings: Findings
) -> None:
    """Documents bill each billed token once, are numbered without a gap, and the journal agrees with them."""
    billed = [event for event in events if event["outcome"] != "failed"]
    tokens = sum(document["sign"] * line["tokens"] for document in documents for line in document["lines"])
    _compare(
        tokens, sum(e["prompt_tokens"] + e["completion_tokens"] for e in billed), "tokens billed", findings
    )
    numbers: dict[str, list[int]] = defaultdict(list)
    for document in documents:
        findings.expect(document["state"], "issued", f"state of {document['id']}")
        if document["number"]:
            numbers[document["kind"]].append(int(document["number"].rpartition("-")[2]))
    for kind, used in numbers.items():
        findings.double += [f"{kind} {number} is there twice" for number, n in Counter(used).items() if n > 1]
        findings.expect(sorted(set(used)), list(range(1, len(set(used)) + 1)), f"numbers of {kind}s")
    findings.expect(balance["balanced"], True, "trial balance")
    said = {row["account"]: Decimal(row["balance"]) for row in balance["accounts"]}
    for account, amount in (("receivable", "gross"), ("revenue", "net")):
        true = sum(document["sign"] * Decimal(document[amount]) for document in documents)
        findings.expect(abs(said.get(account, Decimal(0))), true, f"balance of {account}")


def check_streams(streams: Document, data: Path, findings: Findings) -> None:
    """No lane has a hole, a fork or anything held, and nothing waits in the spool."""
    for lane in streams["lanes"]:
        for name in ("holes", "forks", "held"):
            findings.expect(lane[name], 0, f"{name} of {lane['lane']}")
    for folder in ("held", "spool/telecentras/vilnius-1"):
        left = [path for path in (data / folder).rglob("*") if path.suffix in (".seal", ".parquet", ".done")]
        findings.expect([path.name for path in left], [], f"files left in {folder}")


def as_text(findings: Findings) -> str:
    """The findings, a few of each kind, for a person who looks for the cause."""
    return json.dumps({name: getattr(findings, name)[:12] for name in ("lost", "double", "wrong")}, indent=1)
