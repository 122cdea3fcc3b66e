"""A body is read as the engine's server reads it: with Python's `json`, whoever does the reading."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.http_refusal import Refused
from metering.request_json import read_body

texts = st.text(max_size=8) | st.sampled_from(["stream_options", "model", "\ud800", "\x7f", '"', "\\"])
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats() | st.booleans() | st.none()
values = st.recursive(
    texts | numbers, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)
members = st.lists(st.tuples(texts, values), max_size=5)


def body_of(members: list[tuple[str, object]], *, ascii_only: bool) -> bytes:
    """An object with these members, in this order, a name as often as it comes."""
    inside = ", ".join(
        f"{json.dumps(name, ensure_ascii=ascii_only)}:\t{json.dumps(value, ensure_ascii=ascii_only)}"
        for name, value in members
    )
    return f" {{{inside}}}\r\n".encode("utf-8", "surrogatepass")


@given(members, st.booleans())
def test_an_object_is_what_json_makes_of_it(members: list[tuple[str, object]], ascii_only: bool) -> None:
    body = body_of(members, ascii_only=ascii_only)
    read = read_body(body, "stream_options")
    assert read is not None
    assert not isinstance(read, Refused)
    assert repr(read[1]) == repr(json.loads(body))
    assert bool(read[2]) == ("stream_options" in read[1])


@given(st.binary(max_size=12) | st.text(max_size=12).map(str.encode))
def test_bytes_that_json_does_not_read_as_an_object_are_nobodys(body: bytes) -> None:
    read = read_body(body)
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if isinstance(value, dict) and not isinstance(read, Refused):
        assert read is not None
        assert repr(read[1]) == repr(value)
    else:
        assert read is None or isinstance(read, Refused)


@pytest.mark.parametrize(
    ("body", "stream"),
    [
        (b'{"stream": 1, "stream": true}', True),
        (b'{"stream": true, "n": NaN}', True),
        (b'{"stream": false, "n": 1e999}', False),
        (b'{"str\\u0065am": true}', True),
        (b'{"stream": true, "n": 123456789012345678901234567890}', True),
    ],
)
def test_the_last_of_two_counts_and_odd_numbers_spoil_nothing(body: bytes, stream: bool) -> None:
    read = read_body(body, "stream_options")
    assert read is not None
    assert not isinstance(read, Refused)
    assert read[1]["stream"] is stream
