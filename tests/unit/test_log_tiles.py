"""Tiles and bundles: any log grown in any steps reads back as the same tree, whole or in part."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.log_growth import GrowingLog
from billing.log_tiles import ENTRIES, WIDTH, LogTiles, TileName, bundle, read_bundle, read_tile_name
from metering import merkle
from metering.refusal import Refusal


def leaf(at: int) -> bytes:
    return b"leaf %d" % at


class Folder:
    """Tiles as an archive keeps them: a name has one content."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.log = GrowingLog()

    def grow(self, size: int) -> None:
        made = self.log.add([leaf(at) for at in range(self.log.size, size)]) + self.log.unfinished()
        for name, content in made:
            assert self.kept.setdefault(name.path, content) == content

    def tiles(self, size: int) -> LogTiles:
        return LogTiles(self.kept.get, size)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 700), min_size=1, max_size=5))
def test_a_log_grown_in_any_steps_has_the_root_of_its_leaves(steps: list[int]) -> None:
    folder, sizes = Folder(), []
    for step in steps:
        sizes.append(folder.log.size + step)
        folder.grow(sizes[-1])
        if step % 2:
            folder.log = GrowingLog.read(folder.tiles(folder.log.size))  # as another process goes on
    for size in sizes:
        leaves = [leaf(at) for at in range(size)]
        tiles = folder.tiles(size)
        assert tiles.root() == merkle.root(leaves)
        assert list(tiles.leaves(0, size)) == leaves
    assert folder.log.root() == merkle.root([leaf(at) for at in range(folder.log.size)])


def test_a_log_of_three_levels_of_tiles_proves_every_kind_of_leaf() -> None:
    folder, size = Folder(), 256 * 256 + 256 + 3
    folder.grow(size)
    assert {name.split("/")[1] for name in folder.kept} == {"0", "1", "2", ENTRIES}
    tiles = folder.tiles(size)
    root = tiles.root()
    assert root == merkle.root([leaf(at) for at in range(size)])
    for index in (0, 255, 256, 65_535, 65_536, size - 1):
        proof = [tiles.range_hash(*part) for part in merkle.inclusion_ranges(index, size)]
        assert merkle.inclusion_holds(merkle.leaf_hash(leaf(index)), index, size, proof, root)
        assert tiles.range_hash(index, index + 1) == merkle.leaf_hash(leaf(index))
    for first in (1, 256, 300, 65_536, 65_700):
        proof = [tiles.range_hash(*part) for part in merkle.consistency_ranges(first, size)]
        assert merkle.consistency_holds(first, size, tiles.root(first), root, proof)
    again = GrowingLog.read(tiles)
    assert (again.size, again.root()) == (size, root)
    again.add([leaf(size)])
    assert again.root() == merkle.root([leaf(at) for at in range(size + 1)])


def test_an_older_checkpoint_is_still_read_when_its_partial_tiles_are_gone() -> None:
    folder = Folder()
    folder.grow(100)
    folder.grow(600)
    folder.kept = {path: content for path, content in folder.kept.items() if ".p/100" not in path}
    assert folder.tiles(100).root() == merkle.root([leaf(at) for at in range(100)])
    assert list(folder.tiles(100).leaves(90, 100)) == [leaf(at) for at in range(90, 100)]


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_a_bundle_gives_back_its_leaves(leaves: list[bytes]) -> None:
    assert read_bundle(bundle(leaves), len(leaves)) == leaves


@pytest.mark.parametrize("content", [b"\x00", b"\x00\x05abc", b"\x00\x01a\x00"])
def test_a_bundle_cut_short_is_refused(content: bytes) -> None:
    with pytest.raises(Refusal, match="entry bundle"):
        read_bundle(content, 1)


def test_a_missing_or_damaged_tile_is_named() -> None:
    folder = Folder()
    folder.grow(300)
    path = "tile/0/001.p/44"
    whole = folder.kept[path]
    for wrong in (whole[:-1], None):
        if wrong is None:
            del folder.kept[path]
        else:
            folder.kept[path] = wrong
        with pytest.raises(Refusal) as found:
            folder.tiles(300).root()
        assert (found.value.code, found.value.where) == ("damaged_log", path)
    folder.kept[path] = bytes(32) + whole[32:]
    with pytest.raises(Refusal, match="do not agree"):
        GrowingLog.read(folder.tiles(300))


@given(st.one_of(st.integers(0, 5), st.just(ENTRIES)), st.integers(0, 10**7), st.integers(1, WIDTH))
def test_a_tiles_path_names_it(level: int | str, number: int, width: int) -> None:
    name = TileName(level, number, width)
    assert read_tile_name(name.path) == name


@pytest.mark.parametrize(
    "path", ["tile/0/67", "tile/0/x001/67", "tile/0/000.p/256", "tile/7/README", "checkpoint"]
)
def test_what_is_no_tiles_path_names_none(path: str) -> None:
    assert read_tile_name(path) is None


def test_a_tile_tells_how_many_leaves_its_log_has_at_least() -> None:
    assert TileName(ENTRIES, 1).ends == 512
    assert TileName(0, 1, 3).ends == 259
    assert TileName(1, 0, 2).ends == 512
