"""Inclusion and consistency proofs, made from any log and checked, and no others taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering import merkle

SIZES = st.integers(1, 70)


def leaves_of(size: int) -> list[bytes]:
    return [b"leaf %d" % at for at in range(size)]


def proof_of(leaves: list[bytes], ranges: list[tuple[int, int]]) -> list[bytes]:
    return [merkle.root(leaves[start:end]) for start, end in ranges]


@given(SIZES, st.data())
def test_every_leaf_of_every_tree_is_proved_to_stand_where_it_stands_and_nowhere_else(
    size: int, data: st.DataObject
) -> None:
    leaves, index = leaves_of(size), data.draw(st.integers(0, size - 1))
    root, proof = merkle.root(leaves), proof_of(leaves, merkle.inclusion_ranges(index, size))
    for place in range(size + 2):
        held = merkle.inclusion_holds(merkle.leaf_hash(leaves[index]), place, size, proof, root)
        assert held == (place == index)
    assert len(proof) <= (size - 1).bit_length()


@given(SIZES, st.data())
def test_every_tree_is_proved_to_begin_with_every_smaller_one(size: int, data: st.DataObject) -> None:
    leaves, first = leaves_of(size), data.draw(st.integers(0, size))
    old, new = merkle.root(leaves[:first]), merkle.root(leaves)
    proof = proof_of(leaves, merkle.consistency_ranges(first, size))
    assert merkle.consistency_holds(first, size, old, new, proof)
    other = merkle.root([b"other", *leaves[1:first]]) if first else merkle.root([b"other"])
    assert not merkle.consistency_holds(first, size, other, new, proof)
    if first:  # every tree begins with the empty one
        assert not merkle.consistency_holds(first, size, old, merkle.root([*leaves, b"more"]), proof)
    assert not merkle.consistency_holds(first, size, old, new, [*proof, old])
    if proof:
        assert not merkle.consistency_holds(first, size, old, new, proof[:-1])


@given(SIZES, SIZES, st.lists(st.binary(min_size=32, max_size=32), max_size=8))
def test_no_proof_of_chance_holds(first: int, second: int, proof: list[bytes]) -> None:
    old, new = merkle.root(leaves_of(first)), merkle.root([b"another", *leaves_of(second)])
    assert not merkle.consistency_holds(first, second, old, new, proof)
    assert not merkle.inclusion_holds(old, first - 1, second, proof, new)


def test_a_hash_of_another_length_is_no_hash() -> None:
    leaves = leaves_of(2)
    root = merkle.root(leaves)
    left, right = map(merkle.leaf_hash, leaves)
    assert merkle.inclusion_holds(left, 0, 2, [right], root)
    assert not merkle.inclusion_holds(left + right[:1], 0, 2, [right[1:]], root)
    assert not merkle.consistency_holds(1, 2, left, root, [right + b"\0"])


@pytest.mark.parametrize(("index", "size"), [(0, 0), (-1, 3), (3, 3)])
def test_what_is_not_in_the_tree_is_not_proved(index: int, size: int) -> None:
    assert not merkle.inclusion_holds(merkle.EMPTY_ROOT, index, size, [], merkle.EMPTY_ROOT)
    with pytest.raises(AssertionError):
        merkle.inclusion_ranges(index, size)
