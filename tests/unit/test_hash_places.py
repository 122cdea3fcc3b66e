"""Places by hash, many in little memory."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from adapters.hash_places import HashPlaces

# Few beginnings, so that many hashes share the 8 bytes that are searched for.
HASHES = st.builds(
    lambda begins, ends: bytes([begins]) * 8 + bytes([ends]) * 24, st.integers(0, 3), st.integers(0, 5)
)


@given(st.lists(st.tuples(HASHES, st.integers(0, 2**32 - 1))), HASHES)
def test_what_was_added_last_under_a_hash_is_found(added: list[tuple[bytes, int]], asked: bytes) -> None:
    places = HashPlaces()
    for hash_, place in added:
        places.add(hash_, place)
    known = dict(added)
    assert [places.get(hash_) for hash_ in known] == list(known.values())
    assert places.get(asked) == known.get(asked)
    assert (asked in places) == (asked in known)
    assert list(places.items()) == added


def test_it_goes_on_taking_after_it_was_asked() -> None:
    places = HashPlaces()
    for number in range(1000):
        places.add(sha256(b"%d" % number).digest(), number)
        assert places.get(sha256(b"0").digest()) == 0
    assert len(places) == 1000
