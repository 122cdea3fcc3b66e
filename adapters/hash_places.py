"""Where things lie, by a hash that names them: 48 bytes each, for there may be a hundred million.

What comes in is appended; what is asked for is searched among the sorted first 8 bytes of all hashes, then compared.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np

HASH_BYTES = 32


class HashPlaces:
    """Hash of 32 bytes -> a number below 2^32. Of what was added twice the later holds."""

    def __init__(self) -> None:
        self._hashes = bytearray()
        self._places: array[int] = array("I")
        self._sorted: tuple[np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, hash_: bytes) -> bool:
        return self.get(hash_) is not None

    def add(self, hash_: bytes, place: int) -> None:
        assert len(hash_) == HASH_BYTES
        self._sorted = None
        self._hashes += hash_
        self._places.append(place)

    def get(self, hash_: bytes) -> int | None:
        """The place; None where the hash was not added."""
        if self._sorted is None:
            begins = np.frombuffer(bytes(self._hashes), dtype=">u8")[:: HASH_BYTES // 8]
            order = np.argsort(begins, kind="stable").astype(np.uint32)
            self._sorted = begins[order].astype(np.uint64), order
        begins, order = self._sorted
        wanted = np.uint64(int.from_bytes(hash_[:8], "big"))
        first, last = np.searchsorted(begins, wanted, "left"), np.searchsorted(begins, wanted, "right")
        for at in reversed(order[first:last].tolist()):
            if self._hashes[at * HASH_BYTES : (at + 1) * HASH_BYTES] == hash_:
                place: int = self._places[at]
                return place
        return None

    def items(self) -> Iterator[tuple[bytes, int]]:
        """As they were added."""
        for at, place in enumerate(self._places):
            yield bytes(self._hashes[at * HASH_BYTES : (at + 1) * HASH_BYTES]), place
