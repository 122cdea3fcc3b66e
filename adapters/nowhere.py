"""Source, archive and held store of what is taken in again: it lies in the archive already, and nobody waits for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from billing.intake_ports import StoredBatch


class Nowhere:
    """All three ports of intake; what it takes is kept where it lies, and nothing is held.

    `settled`: what was held when the backup was made and is accepted now; it may go once that is committed.
    """

    def __init__(self) -> None:
        self.settled: list[str] = []

    def deliveries(self) -> Any:
        return iter(())

    def positions(self, tokens: Sequence[object]) -> Sequence[Any]:
        del tokens
        return ()

    def acknowledge(self, tokens: Sequence[object], marks: object) -> None:
        """Nobody waits."""

    def put(self, batches: Sequence[StoredBatch]) -> None:
        """A batch that is held after all is a difference, which is named, and nothing of it stays."""

    def get(self, path: str) -> StoredBatch | None:
        del path
        return None

    def note(self, path: str) -> bytes | None:
        del path
        return None

    def events(self, path: str) -> pa.Table:
        raise AssertionError(f"nothing lies nowhere: {path}")

    def remove(self, paths: Sequence[str]) -> None:
        self.settled += paths
