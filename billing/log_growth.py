"""A log that grows: leaves go in, tiles and a root come out.

Kept is the right edge alone, for each level of tiles the hashes of the tile that is not full yet: less than 256 a level,
whatever the log's size. The tree hash follows from them: a level's hashes, with what the levels below come to as an
incomplete last one, are paired like any leaves.
"""

from __future__ import annotations

from collections.abc import Sequence

from billing.log_tiles import ENTRIES, WIDTH, LogTiles, TileName, bundle, damaged_log
from metering.merkle import EMPTY_ROOT, leaf_hashes, root_of_hashes

#: A tile or an entry bundle with its bytes.
Tile = tuple[TileName, bytes]


class GrowingLog:
    """The right edge of a log of `size` leaves."""

    def __init__(self) -> None:
        self.size = 0
        self._leaves: list[bytes] = []  # those of the last bundle, if it is not full
        self._edges: list[list[bytes]] = [[]]  # by level, the hashes of the last tile, if it is not full
        self._full: list[int] = [0]  # by level, how many tiles are full

    @classmethod
    def read(cls, tiles: LogTiles) -> GrowingLog:
        """The log as its tiles say. Refusal `damaged_log` where they don't fit together; compare the root."""
        log = cls()
        log.size = size = tiles.size
        log._edges, log._full = [], []
        count = size
        level = 0
        while count or level == 0:
            full, width = divmod(count, WIDTH)
            log._full.append(full)
            log._edges.append(tiles.hashes(level, full, width) if width else [])
            count, level = full, level + 1
        log._leaves = list(tiles.leaves(size - size % WIDTH, size))
        if leaf_hashes(log._leaves) != log._edges[0]:
            raise damaged_log("the newest entry bundle and its tile do not agree", f"{size} leaves")
        return log

    def add(self, leaves: Sequence[bytes]) -> list[Tile]:
        """Appends leaves; returns what became full with them, bundles and tiles."""
        made: list[Tile] = []
        for leaf, hashed in zip(leaves, leaf_hashes(leaves), strict=True):
            self._leaves.append(leaf)
            self._edges[0].append(hashed)
            if len(self._leaves) == WIDTH:
                made += self._close()
        self.size += len(leaves)
        return made

    def unfinished(self) -> list[Tile]:
        """The bundle and the tiles at the right edge that are not full, as they are now."""
        made: list[Tile] = []
        if self._leaves:
            made.append((TileName(ENTRIES, self._full[0], len(self._leaves)), bundle(self._leaves)))
        for level, (full, edge) in enumerate(zip(self._full, self._edges, strict=True)):
            if edge:
                made.append((TileName(level, full, len(edge)), b"".join(edge)))
        return made

    def root(self) -> bytes:
        """The tree hash of all leaves."""
        below: list[bytes] = []
        for edge in self._edges:
            hashes = edge + below
            below = [root_of_hashes(hashes)] if hashes else []
        return below[0] if below else EMPTY_ROOT

    def _close(self) -> list[Tile]:
        """The last bundle is full: it, its tile, and the tiles above that became full with it."""
        made: list[Tile] = [(TileName(ENTRIES, self._full[0]), bundle(self._leaves))]
        self._leaves = []
        level = 0
        while len(self._edges[level]) == WIDTH:
            edge = self._edges[level]
            made.append((TileName(level, self._full[level]), b"".join(edge)))
            self._edges[level] = []
            self._full[level] += 1
            level += 1
            if level == len(self._edges):
                self._edges.append([])
                self._full.append(0)
            self._edges[level].append(root_of_hashes(edge))
        return made
