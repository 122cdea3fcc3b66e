"""A file of usage rows that is being read, and what a reader makes of it: chunks of text columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from metering.refusal import Fault

CHUNK_ROWS = 65_536
CHUNK_BYTES = 8 << 20
MAX_LINE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class TextChunk:
    """Rows as text. `lines[i]` is where row i stood in the file, from 1 (Parquet: the row)."""

    columns: pa.Table
    lines: pa.Array


@dataclass(slots=True)
class SourceFile:
    """A file being read: how much has gone by, and the rows that could not even be cut into columns."""

    path: Path
    format: str
    bytes_total: int
    bytes_read: Callable[[], int] = lambda: 0
    faults: list[Fault] = field(default_factory=list)

    def where(self, line: int) -> str:
        return f"{self.path.name}:{line}" if self.format != "Parquet" else f"{self.path.name}: row {line}"
