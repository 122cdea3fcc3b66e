"""What stays of events that expired: the cells that they came to, batch by batch, and which decision let them go.

    OPERATOR/DAY/NODE/LANE/_expired-DIGEST.cells    of some batches of that lane's day: the cells of each
    OPERATOR/_expired/DIGEST.list                   one decision: the names of all such objects that it is about

DIGEST is SHA-256 of the object. The decision (a row `expiry`, and so a leaf of the log) holds the digest of its list, and
the list those of the cells, so a batch whose events are gone has expired only where a decision names it, and what it
came to can't be changed afterwards. With them a rebuild is what it was before anything went, cell by cell and up to any
close; that the cells of a batch come to the control totals of its seal is checked each time.

The cells are Parquet (zstd), in the order of the lane: `batch` (the hash of the seal) and the columns of `archive_cells`.
The list is text, its lines in order, each ended by a newline:

    tallygrid/expired/v1
    2026-10-05/vilnius-1/sidecar-0/_expired-6f0c….cells
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from adapters.archive_cells import SUM_SCHEMA
from billing.objects import Objects
from metering.refusal import Refusal

FORMAT = "tallygrid/expired/v1"
_SCHEMA = pa.schema([pa.field("batch", pa.string(), nullable=False), *SUM_SCHEMA])
_NAME = re.compile(r"(\d{4}-\d{2}-\d{2}/[^/]+/[^/]+)/(_expired-[0-9a-f]{64}\.cells)")


def put_cells(objects: Objects, folder: str, cells: Sequence[tuple[str, pa.Table]]) -> str:
    """Keeps the cells (SUM_SCHEMA) of batches, (hash, cells), of the lane's day `folder`; the object's path."""
    tables = [table.add_column(0, _SCHEMA.field(0), [[name] * table.num_rows]) for name, table in cells]
    sink = io.BytesIO()
    pq.write_table(pa.concat_tables(tables).cast(_SCHEMA), sink, compression="zstd")
    content = sink.getvalue()
    path = f"{folder}/_expired-{sha256(content).hexdigest()}.cells"
    objects.put([(path, content)])
    return path


def put_list(objects: Objects, operator: str, paths: Iterable[str]) -> str:
    """Keeps the list of a decision's cells objects; its digest, which the decision is to hold."""
    names = sorted(path.removeprefix(f"{operator}/") for path in paths)
    content = "".join(f"{line}\n" for line in (FORMAT, *names)).encode()
    digest = sha256(content).hexdigest()
    objects.put([(_list_path(operator, digest), content)])
    return digest


def read_lists(
    objects: Objects, operator: str, digests: Iterable[str]
) -> tuple[Mapping[str, Sequence[str]], Sequence[Refusal]]:
    """By lanes' day (its folder) the paths of the cells that decisions name; and the lists that are not as they were."""
    found: dict[str, list[str]] = {}
    faults: list[Refusal] = []
    for digest in digests:
        path = _list_path(operator, digest)
        content = objects.get(path)
        if content is None or sha256(content).hexdigest() != digest:
            faults.append(_damaged(path, "what expired by a decision", content))
            continue
        for line in content.decode().splitlines()[1:]:
            name = _NAME.fullmatch(line)
            assert name is not None, "the digest is that of a list that we wrote"
            paths = found.setdefault(f"{operator}/{name[1]}", [])
            if (each := f"{operator}/{line}") not in paths:
                paths.append(each)
    return found, faults


def read_cells(objects: Objects, paths: Sequence[str]) -> tuple[Mapping[str, pa.Table], Sequence[Refusal]]:
    """Hash of a batch -> the cells that its events came to; and the objects that are not as they were."""
    found: dict[str, pa.Table] = {}
    faults: list[Refusal] = []
    for path in paths:
        content = objects.get(path)
        if content is None or f"_expired-{sha256(content).hexdigest()}.cells" != path.rpartition("/")[2]:
            faults.append(_damaged(path, "what expired events came to", content))
            continue
        table = pq.read_table(io.BytesIO(content), schema=_SCHEMA)
        cells = table.drop_columns(["batch"])
        batches = pc.dictionary_encode(table["batch"].combine_chunks())
        codes = batches.indices.to_numpy()
        begins = np.flatnonzero(np.diff(codes, prepend=-1))
        for begin, end in zip(begins, [*begins[1:], len(codes)], strict=True):
            found.setdefault(batches.dictionary[codes[begin]].as_py(), cells.slice(begin, end - begin))
    return found, faults


def _list_path(operator: str, digest: str) -> str:
    return f"{operator}/_expired/{digest}.list"


def _damaged(path: str, what: str, content: bytes | None) -> Refusal:
    said = "is not in the archive" if content is None else "is not what its name says"
    return Refusal("damaged_object", f"{what} {said}", where=path, remedy="restore it from a backup")
