"""The Merkle tree hash of RFC 6962, section 2.1, with SHA-256.

    MTH({})      = SHA-256()
    MTH({d0})    = SHA-256(0x00 ‖ d0)
    MTH(D[n])    = SHA-256(0x01 ‖ MTH(D[0:k]) ‖ MTH(D[k:n])), k the largest power of two below n

Leaves and inner nodes are hashed under different first bytes, so that no inner node can be shown as a leaf. Splitting
at the largest power of two is the same as pairing neighbours level by level and lifting an unpaired last node
unchanged, which is how it is computed here: two hashes a leaf, in plain loops.

A proof is a list of hashes of subtrees. Which ones is a question of numbers alone, and is answered here as ranges of
leaves, so that whoever proves may take the hashes from leaves in memory or from the tiles of a log (log_tiles.py).
Whoever checks needs neither: RFC 9162, sections 2.1.3.2 and 2.1.4.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

HASH_BYTES = 32

#: Tree hash of no leaves.
EMPTY_ROOT = sha256(b"").digest()


def leaf_hashes(leaves: Iterable[bytes]) -> list[bytes]:
    """SHA-256(0x00 ‖ leaf) of each leaf, 32 bytes each."""
    return [sha256(b"\x00" + leaf).digest() for leaf in leaves]


def root(leaves: Sequence[bytes]) -> bytes:
    """The tree hash (32 bytes) of the leaves in their order."""
    return root_of_hashes(leaf_hashes(leaves))


def root_of_hashes(hashes: list[bytes]) -> bytes:
    """The tree hash (32 bytes) of leaves whose leaf hashes are given."""
    if not hashes:
        return EMPTY_ROOT
    level = hashes
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        above = [sha256(b"\x01" + left + right).digest() for left, right in pairs]
        if len(level) % 2:
            above.append(level[-1])
        level = above
    return level[0]


def leaf_hash(leaf: bytes) -> bytes:
    """SHA-256(0x00 ‖ leaf)."""
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right)."""
    return sha256(b"\x01" + left + right).digest()


def inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    """The subtrees [start, end) whose hashes, in this order, prove leaf `index` in the tree of `size` leaves.

    PATH(m, D[n]) of RFC 9162, section 2.1.3.1. AssertionError unless 0 ≤ index < size.
    """
    assert 0 <= index < size
    ranges: list[tuple[int, int]] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    return ranges[::-1]


def consistency_ranges(first: int, second: int) -> list[tuple[int, int]]:
    """The subtrees [start, end) whose hashes, in this order, prove that the tree of `second` leaves begins with the
    tree of `first`; none where they are one tree, or the first is empty.

    PROOF(m, D[n]) of RFC 9162, section 2.1.4.1. AssertionError unless 0 ≤ first ≤ second.
    """
    assert 0 <= first <= second
    ranges: list[tuple[int, int]] = []
    if first == 0:
        return ranges
    start, end = 0, second
    while first < end:
        middle = start + _split(end - start)
        if first <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    if start:  # else the verifier has this subtree: it is the first tree, whose root it knows
        ranges.append((start, end))
    return ranges[::-1]


def inclusion_holds(leaf: bytes, index: int, size: int, proof: Sequence[bytes], tree_root: bytes) -> bool:
    """Whether `proof` shows that the leaf of hash `leaf` stands at `index` of the tree (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    place, last = index, size - 1
    hashed = leaf
    for sibling in proof:
        if last == 0 or len(sibling) != HASH_BYTES:
            return False
        if place % 2 or place == last:
            hashed = node_hash(sibling, hashed)
            while place % 2 == 0 and place:
                place, last = place >> 1, last >> 1
        else:
            hashed = node_hash(hashed, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and hashed == tree_root


def consistency_holds(
    first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether `proof` shows that the second tree begins with the first one (RFC 9162, section 2.1.4.2).

    Every tree begins with the empty one, without a proof.
    """
    if not 0 <= first <= second:
        return False
    if first in (0, second):
        return not proof and first_root == (EMPTY_ROOT if first == 0 else second_root)
    path = list(proof) if first & (first - 1) else [first_root, *proof]
    if not path or any(len(each) != HASH_BYTES for each in path):
        return False
    place, last = first - 1, second - 1
    while place % 2:
        place, last = place >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if place % 2 or place == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while place % 2 == 0 and place:
                place, last = place >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and old == first_root and new == second_root


def _split(leaves: int) -> int:
    """The largest power of two below `leaves`, which is at least 2."""
    return 1 << ((leaves - 1).bit_length() - 1)
