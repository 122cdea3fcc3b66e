"""Request ids that are there already: within the file itself, and in the archive of the same node around the same time.

The same request with the same content is left out; with other content the import is refused, since one of the two must
be wrong. Only rows that carry a request id are compared. There is no table of ids: the archive's batches of the node
whose time touches the file's span ± 1 day are read, one at a time. What stays of them is 48 bytes for an event whose
request id the file has, and 16 for a void.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from adapters.importing.rows import (
    CANONICAL,
    NUMBERS,
    SLICE_ROWS,
    SortedRows,
    canonical_rows,
    text_digest,
    text_digests,
)
from metering.refusal import Fault, Refusal

DAY_US = 86_400_000_000
NAMED = 100  # how many clashes are listed before "and N more"
Ranks = npt.NDArray[np.int64]
Digests = npt.NDArray[np.void]  # 16 bytes each
_DIGEST = np.dtype("V16")


@dataclass(frozen=True, slots=True)
class Known:
    """Which ranks of the file are known already (True: leave out)."""

    mask: npt.NDArray[np.bool_]

    @property
    def count(self) -> int:
        return int(self.mask.sum())


@dataclass(frozen=True, slots=True)
class _Matches:
    """Rows of the file beside sealed events of the same request id: the row's rank, the event's own id, the digest of the
    event's content."""

    ranks: Ranks
    requests: Digests
    contents: Digests


def find_known(rows: SortedRows, archived: Iterable[pa.Table], slugs: Mapping[bytes, str]) -> Known:
    """The rows whose request ids are known. `archived`: event tables; `slugs`: subject id → slug.

    Refusals: request_id_clash, where an id is known with other content.
    """
    mask = np.zeros(rows.count, dtype=bool)
    index = _RequestIndex(rows)
    if not len(index.ranks):
        return Known(mask)
    repeats, earlier = index.repeats()
    matches = _standing_matches(
        index, archived, {subject: text_digest(slug) for subject, slug in slugs.items()}
    )
    compared = np.unique(np.concatenate([repeats, earlier, matches.ranks]))
    contents = _contents(rows, compared)

    def content(ranks: Ranks) -> Digests:
        return contents[np.searchsorted(compared, ranks)]

    clashes: set[int] = set()
    for ranks, theirs in ((repeats, content(earlier)), (matches.ranks, matches.contents)):
        same = content(ranks) == theirs
        mask[ranks[same]] = True
        clashes.update(ranks[~same].tolist())
    if clashes:
        _refuse(rows, sorted(clashes))
    return Known(mask)


class _RequestIndex:
    """The file's request ids in their order, to find rows by them."""

    def __init__(self, rows: SortedRows) -> None:
        ids = np.concatenate([text_digests(part.column("request_id")) for part in rows.slices()])
        given = np.flatnonzero(ids != np.zeros(1, dtype=_DIGEST)[0])
        written = ids[given].view(
            "S16"
        )  # ordered as text; of one length, so that trailing zeros tell nothing apart
        order = np.argsort(written, kind="stable")
        self.ranks: Ranks = given[order]
        self._ids = written[order]

    def repeats(self) -> tuple[Ranks, Ranks]:
        """The rows whose id an earlier row of the file has, and that row."""
        at = np.flatnonzero(self._ids[1:] == self._ids[:-1]) + 1
        return self.ranks[at], self.ranks[at - 1]

    def find(self, ids: Digests) -> tuple[npt.NDArray[np.intp], Ranks]:
        """Pairs (place in `ids`, rank) of equal ids."""
        wanted = ids.view("S16")
        begins = np.searchsorted(self._ids, wanted, "left")
        counts = np.searchsorted(self._ids, wanted, "right") - begins
        places = np.repeat(np.arange(len(ids)), counts)
        within = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
        return places, self.ranks[begins[places] + within]


def _standing_matches(
    index: _RequestIndex, archived: Iterable[pa.Table], slug_digests: Mapping[bytes, bytes]
) -> _Matches:
    """The usage events of the archive that share a request id with a row, and that no void has taken back."""
    ranks: list[Ranks] = [np.empty(0, np.int64)]
    requests: list[Digests] = [np.empty(0, _DIGEST)]
    contents: list[Digests] = [np.empty(0, _DIGEST)]
    voided: list[Digests] = [np.empty(0, _DIGEST)]
    for events in archived:
        voided.append(
            _digests(events.filter(pc.equal(events.column("kind"), "void")).column("names").to_pylist())
        )
        usage = events.filter(pc.equal(events.column("kind"), "usage"))
        known_as = _request_digests(usage)
        places, found = index.find(known_as)
        if len(places):
            matched = usage.take(places)
            ranks.append(found)
            requests.append(_digests(matched.column("request").to_pylist()))
            contents.append(_content_digests(_canonical_events(matched, known_as[places], slug_digests)))
    own = np.concatenate(requests)
    standing = ~np.isin(own.view("S16"), np.concatenate(voided).view("S16"))
    return _Matches(np.concatenate(ranks)[standing], own[standing], np.concatenate(contents)[standing])


def _contents(rows: SortedRows, ranks: Ranks) -> Digests:
    """The digests of these rows; `ranks` rise."""
    return np.concatenate([np.empty(0, _DIGEST), *_content_slices(rows, ranks)])


def _content_slices(rows: SortedRows, ranks: Ranks) -> Iterator[Digests]:
    for start in range(0, rows.count, SLICE_ROWS):
        within = ranks[np.searchsorted(ranks, start) : np.searchsorted(ranks, start + SLICE_ROWS)] - start
        if len(within):
            yield _content_digests(canonical_rows(rows.slice(start, SLICE_ROWS))[within])


def _content_digests(canonical: npt.NDArray[np.void]) -> Digests:
    return _digests([hashlib.sha256(row.tobytes()).digest()[:16] for row in canonical])


def _digests(each: list[bytes]) -> Digests:
    return np.frombuffer(b"".join(each), dtype=_DIGEST)


def _request_digests(events: pa.Table) -> Digests:
    """An import kept the digest of its caller's id; a sidecar's own id is known to the world as 32 hex digits."""
    kept = events.column("request_digest").to_pylist()
    minted = events.column("request").to_pylist()
    return _digests(
        [
            digest if digest is not None else hashlib.sha256(request.hex().encode()).digest()[:16]
            for digest, request in zip(kept, minted, strict=True)
        ]
    )


def _canonical_events(
    events: pa.Table, request_digests: Digests, slug_digests: Mapping[bytes, bytes]
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
    made["request_id"] = request_digests
    return made


def _refuse(rows: SortedRows, ranks: list[int]) -> None:
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
