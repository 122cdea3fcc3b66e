"""An import, or a void, that was stopped after its lane began: whoever stops it has to hear which one it was."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class ImportStoppedError(asyncio.CancelledError):
    """The cancellation of an import that is listed already; `id` is the import's."""

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.id = id


@contextmanager
def stopped_by_its_id(id: str) -> Iterator[None]:
    """A cancellation of the block says which import it was that stopped."""
    try:
        yield
    except asyncio.CancelledError:
        raise ImportStoppedError(id) from None
