"""`tally demo --trace FILE`: a trace's rows as requests to send, read by the same reader as `tally import`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from adapters.cli.demo_load import DemoRequest
from adapters.importing.decode import Decoder
from adapters.importing.formats import open_source, text_chunks
from adapters.importing.mapping import read_options
from metering.refusal import Refusal


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """How the trace's columns are read, as for an import, and how many of its requests are sent."""

    mapped: Sequence[str]
    set_to: Sequence[str]
    time_unit: str | None
    time_origin: str | None
    time_zone: str | None
    limit: int | None


def read_trace(path: Path, options: TraceOptions, now: datetime) -> list[DemoRequest]:
    """The trace's requests in the file's order; their times do not count. Refusals: bad_rows, empty_file."""
    said = read_options(
        options.mapped, options.set_to, options.time_unit, options.time_origin, options.time_zone
    )
    source = open_source(path)
    decoder = Decoder(said, source.where, now)
    requests: list[DemoRequest] = []
    for chunk in text_chunks(source):
        rows, good = decoder.decode(chunk.columns, chunk.lines)
        requests.extend(_requests(rows.filter(pa.array(good))))
        if options.limit is not None and len(requests) >= options.limit:
            requests = requests[: options.limit]
            break
    faults = [*source.faults, *(fault for _, fault in decoder.faults)]
    if faults:
        raise Refusal(
            "bad_rows", f"{len(faults)} of the rows cannot be used", where=str(path), faults=faults[:100]
        )
    if not requests:
        remedy = "rows of usage stand behind the head, one request each; is it the file that you mean?"
        raise Refusal("empty_file", "the file holds no usable row", where=str(path), remedy=remedy)
    return requests


def _requests(rows: pa.Table) -> Iterator[DemoRequest]:
    for row in rows.to_pylist():
        yield DemoRequest(
            customer=row["customer"],
            project=row["project"] or "",
            model=row["model"],
            stream=False,
            prompt_tokens=row["prompt_tokens"],
            cached_tokens=row["cached_tokens"],
            completion_tokens=row["completion_tokens"],
            reasoning_tokens=row["reasoning_tokens"],
        )
