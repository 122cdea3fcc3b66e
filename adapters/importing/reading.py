"""A file's rows, all of them good and in order, or a refusal that names the bad ones."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from adapters.importing.decode import Decoder
from adapters.importing.formats import text_chunks
from adapters.importing.mapping import ImportOptions
from adapters.importing.rows import ScratchRows, SortedRows
from adapters.importing.source_file import SourceFile
from metering.refusal import Refusal

LISTED_FAULTS = 100


def read_rows(
    source: SourceFile,
    path: Path,
    options: ImportOptions,
    skip_bad: Path | None,
    scratch: Path,
    now: datetime,
    progress: Callable[[str, int, int], None],
) -> tuple[SortedRows, int]:
    """All good rows in order, and how many bad ones were skipped. Refusals: bad_rows, empty_file."""
    decoder = Decoder(options, source.where, now)
    spilled = ScratchRows(scratch / "rows.arrow")
    for chunk in text_chunks(source):
        rows, good = decoder.decode(chunk.columns, chunk.lines)
        spilled.append(rows if good.all() else rows.filter(pa.array(good)))
        progress("reading", source.bytes_read(), source.bytes_total)
    rows_in_order = spilled.sorted()
    faults = [*source.faults, *(fault for _, fault in sorted(decoder.faults, key=lambda pair: pair[0]))]
    if faults and skip_bad is None:
        more = f" ({len(faults) - LISTED_FAULTS} more not listed)" if len(faults) > LISTED_FAULTS else ""
        raise Refusal(
            "bad_rows",
            f"{len(faults)} of the rows cannot be used{more}; nothing was imported",
            where=str(path),
            remedy="mend them, or leave them out with --skip-bad FILE, which lists them there",
            faults=faults[:LISTED_FAULTS],
        )
    if faults and skip_bad is not None:
        try:
            skip_bad.write_text("".join(f"{fault}\n" for fault in faults))
        except OSError as problem:
            raise Refusal(
                "cannot_write",
                f"cannot write: {problem.strerror}; nothing was imported",
                where=str(skip_bad),
                remedy="name a file in a folder that you may write to",
            ) from None
    if rows_in_order.count == 0:
        remedy = "rows of usage stand behind the head, one request each; is it the file that you mean?"
        raise Refusal("empty_file", "the file holds no usable row", where=str(path), remedy=remedy)
    return rows_in_order, len(faults)
