"""How a log lies in the archive: tiles and entry bundles (https://c2sp.org/tlog-tiles).

The tree's hashes are cut into tiles of 256 neighbours. Tile n of level l holds the hashes of the complete subtrees of
256^l leaves numbered 256 n … 256 n + 255, 32 bytes each; the leaves themselves lie in bundles of 256, each leaf with its
length before it as two big-endian bytes. n is written in groups of three digits, all but the last with an `x`:

    tile/0/x001/x234/067            tile 1,234,067 of level 0
    tile/entries/x001/x234/067      the leaves under it
    tile/1/000.p/17                 a tile that holds 17 hashes so far

What has a width keeps it: the same name always holds the same bytes. When a tile is full, its partial ones may go.
A hash that no tile holds is made of those that are there: the root over the right edge, and any proof.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from metering.merkle import EMPTY_ROOT, HASH_BYTES, node_hash, root_of_hashes
from metering.refusal import Refusal

WIDTH = 256
_LEVEL_BITS = 8
_LENGTH_BYTES = 2
ENTRIES = "entries"
_PATH = re.compile(r"tile/(entries|[0-9]{1,2})/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([0-9]{1,3}))?")

#: The bytes of the object of this name, below the log's folder; None where there is none.
Get = Callable[[str], bytes | None]


@dataclass(frozen=True, slots=True)
class TileName:
    """A tile, or with level `entries` a bundle; `width` is how many hashes, or leaves, it holds."""

    level: int | str
    number: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        groups = [f"{self.number % 1000:03d}"]
        rest = self.number // 1000
        while rest:
            groups.insert(0, f"x{rest % 1000:03d}")
            rest //= 1000
        partial = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{self.level}/{'/'.join(groups)}{partial}"

    @property
    def ends(self) -> int:
        """How many leaves a log has at least that has this tile."""
        level = 0 if isinstance(self.level, str) else self.level
        return (self.number * WIDTH + self.width) << (_LEVEL_BITS * level)


def read_tile_name(path: str) -> TileName | None:
    """The tile whose `path` this is; None for anything else."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    level: int | str = ENTRIES if found[1] == ENTRIES else int(found[1])
    number = int(found[2].replace("/", "").replace("x", ""))
    name = TileName(level, number, int(found[3] or WIDTH))
    return name if name.path == path else None


def bundle(leaves: Sequence[bytes]) -> bytes:
    """The entry bundle of these leaves, each shorter than 65,536 bytes."""
    return b"".join(len(leaf).to_bytes(_LENGTH_BYTES, "big") + leaf for leaf in leaves)


def read_bundle(content: bytes, width: int, where: str = "") -> list[bytes]:
    """The `width` leaves of an entry bundle. Refusal `damaged_log` if it is not exactly one."""
    leaves: list[bytes] = []
    at = 0
    while at < len(content):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(content[at:start], "big")
        leaves.append(content[start:at])
    if at != len(content) or len(leaves) != width:
        raise damaged_log("an entry bundle holds other leaves than its name says", where)
    return leaves


class LogTiles:
    """A log of `size` leaves, read from its tiles; each tile is fetched once."""

    def __init__(self, get: Get, size: int) -> None:
        self.size = size
        self._get = get
        self._tiles: dict[tuple[int, int], bytes] = {}

    def range_hash(self, start: int, end: int) -> bytes:
        """The tree hash of the leaves [start, end), a subtree of the log: complete ones from the left.

        Refusal `damaged_log` where a tile is missing or has the wrong size; whether it is the right one only the root
        tells.
        """
        if start == end:
            return EMPTY_ROOT
        parts: list[bytes] = []
        while start < end:
            # The largest complete subtree that begins here and ends in time.
            height = min((end - start).bit_length() - 1, (start & -start).bit_length() - 1 if start else 63)
            parts.append(self._complete(height, start >> height))
            start += 1 << height
        hashed = parts.pop()
        while parts:
            hashed = node_hash(parts.pop(), hashed)
        return hashed

    def root(self, size: int | None = None) -> bytes:
        """The tree hash of the first `size` leaves, or of all."""
        return self.range_hash(0, self.size if size is None else size)

    def leaves(self, start: int, end: int) -> Iterator[bytes]:
        """The leaves [start, end) from their bundles, one bundle at a time."""
        for number in range(start // WIDTH, (end + WIDTH - 1) // WIDTH):
            first = number * WIDTH
            width = min(WIDTH, self.size - first)
            name = TileName(ENTRIES, number, width)
            leaves = read_bundle(self._fetched(name), width, name.path)
            yield from leaves[max(start - first, 0) : end - first]

    def hashes(self, level: int, number: int, width: int) -> list[bytes]:
        """The first `width` hashes of a tile."""
        tile = self._tile(level, number)
        return [tile[at : at + HASH_BYTES] for at in range(0, width * HASH_BYTES, HASH_BYTES)]

    def _complete(self, height: int, number: int) -> bytes:
        """The hash of the complete subtree of 2^height leaves that begins at number · 2^height."""
        level, within = divmod(height, _LEVEL_BITS)
        first = number << within
        tile, offset = divmod(first, WIDTH)
        hashes = self._tile(level, tile)
        at = offset * HASH_BYTES
        cut = hashes[at : at + (HASH_BYTES << within)]
        if len(cut) != HASH_BYTES << within:
            raise damaged_log("a tile holds too few hashes", TileName(level, tile).path)
        return root_of_hashes([cut[i : i + HASH_BYTES] for i in range(0, len(cut), HASH_BYTES)])

    def _tile(self, level: int, number: int) -> bytes:
        if (level, number) not in self._tiles:
            width = min(WIDTH, (self.size >> (_LEVEL_BITS * level)) - number * WIDTH)
            name = TileName(level, number, width)
            content = self._fetched(name)
            if len(content) != width * HASH_BYTES:
                raise damaged_log("a tile does not hold as many hashes as its name says", name.path)
            self._tiles[level, number] = content
        return self._tiles[level, number]

    def _fetched(self, name: TileName) -> bytes:
        """The object of this name, or the full one that has taken a partial one's place, cut to the width."""
        content = self._get(name.path)
        if content is None and name.width < WIDTH:
            whole = self._get(TileName(name.level, name.number).path)
            if whole is not None and name.level == ENTRIES:
                content = bundle(read_bundle(whole, WIDTH, name.path)[: name.width])
            elif whole is not None:
                content = whole[: name.width * HASH_BYTES]
        if content is None:
            raise damaged_log("a part of the log is not in the archive", name.path)
        return content


def damaged_log(what: str, where: str) -> Refusal:
    """The refusal where what is archived of a log is not what was signed."""
    return Refusal("damaged_log", what, where=where, remedy="restore the archive from its backup")
