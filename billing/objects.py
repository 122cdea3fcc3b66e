"""The port of object stores: immutable objects under names, durable when `put` returns.

The archive (sealed batches, the log's tiles and contents), what is held and backups are all kept through it. A name is
a relative path of words joined by `/`. It always holds the same bytes, since it holds a digest of them or is written
once; a checkpoint is the only kind of object that is replaced. `adapters/objects.py` keeps objects in a folder,
`adapters/s3_objects.py` in a bucket; one contract test runs on both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol


class Objects(Protocol):
    """Objects by name. Blocking; safe among threads and processes. Raises `Unavailable` while the store is down."""

    def put(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Stores all of them, durable when this returns; they become visible in the order given where the store is a
        folder. One that is there already with the same bytes is left alone. Refusal: damaged_object, where other
        bytes lie under the name."""
        ...

    def replace(self, path: str, content: bytes) -> None:
        """Puts `content` at `path` in one step, whatever is there; durable when this returns."""
        ...

    def get(self, path: str) -> bytes | None:
        """The whole object, or None if there is none (any more)."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Whole names that begin with `prefix`, sorted by code points; read folder by folder as one goes on."""
        ...

    def remove(self, paths: Sequence[str]) -> None:
        """Takes them away, durably; it does not matter whether they are there."""
        ...
