"""Values at exact places of a JSON text, however it is cut, and nothing else of it."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.json_picks import MAX_VALUE_BYTES, JsonPicks, Places

PLACES: Places = {b"usage": None, b"response": {b"usage": None, b"status": None}}


def picked(text: bytes, cuts: list[int], places: Places = PLACES) -> dict[bytes, bytes]:
    picks = JsonPicks(places)
    for start, end in pairwise([0, *sorted(cuts), len(text)]):
        picks.feed(text, start, end)
    return picks.values


def test_a_value_counts_at_its_own_place_only() -> None:
    text = (
        b'{"response":{"tools":[{"usage":{"input_tokens":0}}],"text":"\\"usage\\":{}","metadata":{"usage":"x","status":1},'
        b'"usage" : {"input_tokens": 16, "a": [1, {"usage": 2}]} ,"status":"completed"},"other":{"response":{"usage":3}}}'
    )
    assert picked(text, []) == {
        b"response.usage": b'{"input_tokens": 16, "a": [1, {"usage": 2}]}',
        b"response.status": b'"completed"',
    }


def test_the_first_of_two_counts() -> None:
    assert picked(b'{"usage":1,"usage":2}', []) == {b"usage": b"1"}


@pytest.mark.parametrize(
    "text", [b"", b"]", b"}}", b'"usage":1', b'{"usage"', b"\xff{,,,:::}", b"[1,2]", b"null"]
)
def test_what_is_no_such_text_yields_nothing(text: bytes) -> None:
    assert picked(text + b'{"usage":1', []) in ({}, {b"usage": b"1"})


def test_a_value_without_measure_is_not_kept() -> None:
    text = b'{"usage":"' + b"x" * MAX_VALUE_BYTES + b'","response":{"usage":1}}'
    picks = JsonPicks(PLACES)
    for at in range(0, len(text), 1000):
        picks.feed(text[at : at + 1000])
    assert picks.values == {b"response.usage": b"1"}


inner = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda values: (
        st.lists(values)
        | st.dictionaries(st.sampled_from(["usage", "status", "response", 'a"', "\\"]), values)
    ),
    max_leaves=12,
)
texts = st.dictionaries(st.sampled_from(["usage", "response", "status", "x", 'a"b\\']), inner)


@given(texts, st.booleans(), st.lists(st.integers(0, 400), max_size=8), st.sampled_from([None, 1]))
def test_however_it_is_cut_the_values_are_those_that_a_parser_finds(
    value: dict[str, object], ascii_only: bool, cuts: list[int], indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    found = {
        place: json.loads(raw) for place, raw in picked(text, [min(cut, len(text)) for cut in cuts]).items()
    }
    expected = {b"usage": value["usage"]} if "usage" in value else {}
    response = value.get("response")
    if isinstance(response, dict):
        expected |= {
            b"response." + name.encode(): response[name] for name in ("usage", "status") if name in response
        }
    assert found == expected


@given(st.binary(max_size=80), st.lists(st.integers(0, 80), max_size=5))
def test_no_bytes_make_it_fail(text: bytes, cuts: list[int]) -> None:
    picked(text, [min(cut, len(text)) for cut in cuts])
