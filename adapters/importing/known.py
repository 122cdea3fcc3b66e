"""Request ids that are there already: within the file itself, and in the archive of the same node around the same time.

The same request with the same content is left out; with other content the import is refused, since one of the two must
be wrong. Only rows that carry a request id are compared. There is no table of ids: the archive's batches of the node
whose time touches the file's span ± 1 day are read, three columns first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from adapters.importing.rows import CANONICAL, NUMBERS, SortedRows, canonical_rows, text_digest, text_digests
from metering.refusal import Fault, Refusal

DAY_US = 86_400_000_000
NAMED = 100  # how many clashes are listed before "and N more"


@dataclass(frozen=True, slots=True)
class Known:
    """Which ranks of the file are known already (True: leave out)."""

    mask: npt.NDArray[np.bool_]

    @property
    def count(self) -> int:
        return int(self.mask.sum())


def find_known(rows: SortedRows, archived: Iterable[pa.Table], slugs: Mapping[bytes, str]) -> Known:
    """The rows whose request ids are known. `archived`: event tables; `slugs`: subject id → slug.

    Refusals: request_id_clash, where an id is known with other content.
    """
    mask = np.zeros(rows.count, dtype=bool)
    ids = np.concatenate([text_digests(part.column("request_id")) for part in rows.slices()])
    given = ids != np.zeros(1, dtype="V16")[0]
    if not given.any():
        return Known(mask)
    content = np.concatenate([canonical_rows(part) for part in rows.slices()])
    clashes: list[int] = []
    _within_the_file(ids, given, content, mask, clashes)
    digests = {subject: text_digest(slug) for subject, slug in slugs.items()}
    file_ids = pa.array(ids.tolist(), pa.binary(16))
    for events in _standing(archived):
        theirs = _request_digests(events)
        at = pc.index_in(file_ids, value_set=pa.array(theirs, pa.binary(16)))
        matched = np.flatnonzero(np.asarray(pc.is_valid(at)) & given)
        if not len(matched):
            continue
        places = np.asarray(pc.fill_null(at, 0))[matched]
        same = content[matched] == _canonical_events(events, theirs, digests)[places]
        mask[matched[same]] = True
        clashes.extend(int(rank) for rank in matched[~same])
    if clashes:
        _refuse(rows, clashes)
    return Known(mask)


def _within_the_file(
    ids: npt.NDArray[np.void],
    given: npt.NDArray[np.bool_],
    content: npt.NDArray[np.void],
    mask: npt.NDArray[np.bool_],
    clashes: list[int],
) -> None:
    """A row that repeats an earlier row's id is known, or a clash."""
    ranks = np.flatnonzero(given)
    as_text = ids[ranks].view("S16") if len(ranks) else ids[ranks]
    order = np.argsort(as_text, kind="stable")
    sorted_ids = ids[ranks][order]
    repeats = np.flatnonzero(sorted_ids[1:] == sorted_ids[:-1]) + 1
    for repeat in repeats:
        rank, earlier = int(ranks[order[repeat]]), int(ranks[order[repeat - 1]])
        if content[rank] == content[earlier]:
            mask[rank] = True
        else:
            clashes.append(rank)


def _standing(archived: Iterable[pa.Table]) -> list[pa.Table]:
    """The events that no void has taken back, amendments and voids themselves left out."""
    tables = list(archived)
    voided: set[bytes] = set()
    for events in tables:
        names = events.filter(pc.equal(events.column("kind"), "void")).column("names")
        voided.update(name for name in names.to_pylist() if name)
    taken = pa.array(sorted(voided), pa.binary(16))
    standing = []
    for events in tables:
        usage = events.filter(pc.equal(events.column("kind"), "usage"))
        standing.append(usage.filter(pc.invert(pc.is_in(usage.column("request"), value_set=taken))))
    return [events for events in standing if events.num_rows]


def _request_digests(events: pa.Table) -> list[bytes]:
    """An import kept the digest of its caller's id; a sidecar's own id is known to the world as 32 hex digits."""
    kept = events.column("request_digest").to_pylist()
    minted = events.column("request").to_pylist()
    return [
        digest if digest is not None else hashlib.sha256(request.hex().encode()).digest()[:16]
        for digest, request in zip(kept, minted, strict=True)
    ]


def _canonical_events(
    events: pa.Table, request_digests: list[bytes], slug_digests: Mapping[bytes, bytes]
) -> npt.NDArray[np.void]:
    """Sealed events in the structure of canonical rows."""
    made = np.zeros(events.num_rows, dtype=CANONICAL)
    for name in NUMBERS:
        values = events.column(name)
        made[name] = np.asarray(pc.fill_null(values.cast(pa.int64()), 0))
    made["generated_given"] = np.asarray(pc.cast(pc.is_valid(events.column("generated_tokens")), pa.int64()))
    for name in ("model", "outcome"):
        made[name] = text_digests(events.column(name).cast(pa.string()))
    for name in ("customer", "project", "key"):
        ids = events.column(name).to_pylist()
        each = b"".join(slug_digests.get(value, value) if value is not None else bytes(16) for value in ids)
        made[name] = np.frombuffer(each, dtype="V16")
    made["request_id"] = np.frombuffer(b"".join(request_digests), dtype="V16")
    return made


def _refuse(rows: SortedRows, clashes: list[int]) -> None:
    ranks = sorted(set(clashes))
    faults = []
    for rank in ranks[:NAMED]:
        row = rows.slice(rank, 1).to_pylist()[0]
        faults.append(
            Fault(
                f"request id {row['request_id']!r} of customer {row['customer']} is known with other content"
            )
        )
    more = f", {len(ranks) - NAMED} of them not listed" if len(ranks) > NAMED else ""
    raise Refusal(
        "request_id_clash",
        f"{len(ranks)} rows carry request ids that are known with other content{more}",
        remedy="one of the two is wrong: mend the file, or take the earlier import back with `tally import void`",
        faults=faults,
    )
