"""The Merkle tree hash of RFC 6962, section 2.1, with SHA-256.

    MTH({})      = SHA-256()
    MTH({d0})    = SHA-256(0x00 ‖ d0)
    MTH(D[n])    = SHA-256(0x01 ‖ MTH(D[0:k]) ‖ MTH(D[k:n])), k the largest power of two below n

Leaves and inner nodes are hashed under different first bytes, so that no inner node can be shown as a leaf. Splitting
at the largest power of two is the same as pairing neighbours level by level and lifting an unpaired last node
unchanged, which is how it is computed here: two hashes a leaf, in plain loops.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

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
