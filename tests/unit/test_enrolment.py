"""Requests and answers of a node that is enrolled from afar: read as they were signed, or not at all."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from adapters.cli.node_side import hash_of_seal
from metering import note
from metering.enrolment import (
    MAX_LANES,
    Answer,
    Request,
    read_answer,
    read_request,
    sign_answer,
    sign_request,
)
from metering.refusal import Refusal

NODE, LANE, INTAKE, STRANGER = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in range(1, 5))
NODE_KEY, LANE_KEY, INTAKE_KEY = (key.public_key().public_bytes_raw() for key in (NODE, LANE, INTAKE))
AT_US = 1_790_000_000_000_000
REQUEST = Request(
    "telecentras", "vilnius-1", NODE_KEY, AT_US, (("sidecar-0", LANE_KEY), ("sidecar-1", INTAKE_KEY))
)
ANSWER = Answer("telecentras", "vilnius-1", NODE_KEY, AT_US, INTAKE_KEY, '{"keys": []}')


def refusal(content: bytes, read: object = read_request) -> str:
    with pytest.raises(Refusal) as refused:
        read(content)  # type: ignore[operator]  # one of the two readers
    return refused.value.code


def test_a_request_says_whose_it_is_and_which_key_signs_in_which_lane() -> None:
    signed = sign_request(REQUEST, NODE)
    assert read_request(signed) == REQUEST
    lines = signed.decode().splitlines()
    assert lines[0] == "tallygrid/enrolment/v1"
    assert lines[1:3] == ["operator telecentras", "node vilnius-1"]
    assert lines[5:8] == ["lanes 2", f"lane sidecar-0 {LANE_KEY.hex()}", f"lane sidecar-1 {INTAKE_KEY.hex()}"]
    assert lines[9].startswith("— telecentras/vilnius-1 ")


def test_an_answer_brings_the_key_of_intake_and_the_api_keys() -> None:
    assert read_answer(sign_answer(ANSWER, INTAKE)) == ANSWER


def test_a_request_that_another_key_signed_is_refused() -> None:
    text, _ = note.split_note(sign_request(REQUEST, NODE))
    assert refusal(note.sign(text, REQUEST.signer, STRANGER)) == "bad_signature"


def test_api_keys_that_were_changed_on_the_way_are_refused() -> None:
    document = json.loads(sign_answer(ANSWER, INTAKE))
    document["api_keys"] = '{"keys": ["mine"]}'
    assert refusal(json.dumps(document).encode(), read_answer) == "bad_enrolment"


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[1]", b"\xff", b'{"format": "tallygrid/enrolled/v1", "note": 1}']
)
def test_what_is_neither_is_refused_by_name(content: bytes) -> None:
    assert refusal(content) == refusal(content, read_answer) == "bad_enrolment"


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("lanes 2", "lanes 02"),
        ("lanes 2", "lanes 1"),
        ("lane sidecar-1", "lane sidecar-0"),
        ("lane sidecar-1", "lane Sidecar"),
        ("node vilnius-1", "node vilnius-2"),
        ("operator telecentras", "operator  telecentras"),
        ("tallygrid/enrolment/v1", "tallygrid/seal/v1"),
    ],
)
def test_a_line_that_no_node_writes_is_refused_even_where_it_is_signed(line: str, instead: str) -> None:
    text, _ = note.split_note(sign_request(REQUEST, NODE))
    changed = text.replace(line.encode(), instead.encode(), 1)
    assert changed != text
    assert refusal(note.sign(changed, REQUEST.signer, NODE)) == "bad_enrolment"


def test_a_request_names_at_most_256_lanes() -> None:
    lanes = tuple((f"sidecar-{n}", LANE_KEY) for n in range(MAX_LANES))
    assert len(read_request(sign_request(replace(REQUEST, lanes=lanes), NODE)).lanes) == MAX_LANES
    with pytest.raises(Refusal):
        sign_request(replace(REQUEST, lanes=(*lanes, ("one-more", LANE_KEY))), NODE)


@given(st.integers(0, 8 * len(sign_request(REQUEST, NODE)) - 1))
def test_no_bit_of_a_request_can_be_flipped(bit: int) -> None:
    signed = bytearray(sign_request(REQUEST, NODE))
    signed[bit // 8] ^= 1 << bit % 8
    assert refusal(bytes(signed)) in ("bad_enrolment", "bad_signature", "bad_note")


@pytest.mark.parametrize("text", ["a" * 64, "0" * 32 + "-17-" + "a" * 64])
def test_a_seal_is_named_by_its_hash_or_as_the_list_shows_it(text: str) -> None:
    assert hash_of_seal(text) == "a" * 64


@pytest.mark.parametrize("text", ["", "0000", "0" * 32 + "-17", "A" * 64, "now"])
def test_what_names_no_seal_is_refused(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        hash_of_seal(text)
    assert (refused.value.code, refused.value.where) == ("bad_seal_name", "--after")
