"""What `tally streams` prints below its table: a line for each case, and the commands that end it. Pure.

Hashes are shortened to 16 digits, which is what the commands take; `--json` has all of them, and every batch by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from adapters.cli.framework import counted

_HASH = re.compile(r"\b([0-9a-f]{16})[0-9a-f]{16,}\b")


def shortened(text: str) -> str:
    """Text with 16 digits of each hash and epoch: `…follows seal e33060b7e3c9a1d2…`."""
    return _HASH.sub("\\1\N{HORIZONTAL ELLIPSIS}", text)


def streams_text(document: Mapping[str, Any]) -> list[str]:
    """The lines below the table, of the document of `tally streams`: held, silent, missing, unfinished, unproven, set
    aside."""
    said: list[str] = []
    for lane in document["lanes"]:
        said += _held(lane)
        said += _how_it_stands(lane)
    said += [
        f"missing: {_place(each)}: its sibling told of this seal at {each['said']}, and it has not come; is its sidecar's"
        " spool reachable, its lane enrolled?"
        for each in document["missing_siblings"]
    ]
    said += [f"unfinished: {each['what']}; {each['remedy']}" for each in document["unfinished_imports"]]
    return [*said, *_unproven(document), *_set_aside(document)]


def _place(each: Mapping[str, Any]) -> str:
    return f"{each['node']}/{each['lane']} {shortened(each['epoch'])}-{each['number']}"


def _held(lane: Mapping[str, Any]) -> Iterator[str]:
    """Case by case: what is held behind a batch waits for the same, and is only counted."""
    told = 0
    for case in lane["cases"]:
        told += case["batches"]
        more = f" and {case['batches'] - 1:,} behind it" if case["batches"] > 1 else ""
        yield f"held: {_place({**lane, **case})}{more}: {case['code']}: {shortened(case['what'])}"
        yield f"  what ends it: {case['ends']}"
        yield from (f"    {line}" for line in case["commands"])
    if lane["held"] > told:
        yield f"held: {lane['node']}/{lane['lane']}: {counted(lane['held'] - told, 'batch', 'batches')} in further cases"


def _how_it_stands(lane: Mapping[str, Any]) -> list[str]:
    where = f"{lane['node']}/{lane['lane']}"
    if lane["state"] == "silent":
        last = (
            "nothing came yet"
            if lane["complete_to"] is None
            else f"its last seal speaks of {lane['complete_to']}"
        )
        return [f"silent: {where}: {last}; does its sidecar run, and do its batches get here?"]
    if lane["state"] == "revoked":
        return [
            f"revoked: {where}: nothing more is accepted until it has a new key, from its node: tally node rotate (with"
            " --out FILE where it has no database)"
        ]
    return []


def _unproven(document: Mapping[str, Any]) -> list[str]:
    faults: Sequence[Mapping[str, Any]] = document["root_fault_batches"]
    if not faults:
        return []
    return [
        *(f"unproven: {_place(each)}: {shortened(each['what'])}" for each in faults),
        "accepted and counted, and nothing can be proven of their events:"
        f" {counted(document['root_faults'], 'batch', 'batches')}; restore the archive's files, then, or if they are gone"
        " for good:",
        *(f"    tally intake repair --root {each['hash'][:16]} --reason …" for each in faults),
    ]


def _set_aside(document: Mapping[str, Any]) -> Iterator[str]:
    """What claims the same lane for the same fault is one line, with the first of its files."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for stray in document["set_aside_batches"]:
        claim = (
            "/".join(part for part in (stray["node"], stray["lane"]) if part) or "no lane that can be read"
        )
        found.setdefault((claim, f"{stray['code']}: {shortened(stray['what'])}"), []).append(stray)
    for (claim, what), strays in found.items():
        batches = counted(sum(stray["batches"] for stray in strays), "batch", "batches")
        first = next((f"; held/{stray['path']}" for stray in strays if stray["path"]), "")
        yield f"set aside: claims {claim}: {what} ({batches}{first})"
    if document["set_aside"]:
        yield (
            "set aside, nobody's key vouches for them:"
            f" {counted(document['set_aside'], 'batch', 'batches')}; enrol their lanes, or, if they are a stranger's: tally"
            " intake repair --dismiss-strays --reason …"
        )
