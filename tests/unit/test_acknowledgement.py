"""The text by which intake says that a batch is accepted: what it looks like, and what is no acknowledgement."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from metering import note
from metering.acknowledgement import (
    ACKNOWLEDGEMENT_FORMAT,
    Acknowledgement,
    acknowledgement_text,
    intake_name,
    parse_acknowledgement,
    peek_acknowledgement,
    read_acknowledgement,
    sign_acknowledgement,
)
from metering.refusal import Refusal

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
EXAMPLE = Acknowledgement(
    "telecentras", "vilnius-1", "sidecar-0", "000102030405060708090a0b0c0d0e0f", 4, "ab" * 32
)
TEXT = (
    b"tallygrid/acknowledgement/v1\n"
    b"operator telecentras\n"
    b"node vilnius-1\n"
    b"lane sidecar-0\n"
    b"epoch 000102030405060708090a0b0c0d0e0f\n"
    b"number 4\n"
    b"hash abababababababababababababababababababababababababababababababab\n"
)


def refused(call: object, *arguments: object) -> str:
    assert callable(call)
    with pytest.raises(Refusal) as caught:
        call(*arguments)
    return caught.value.code


def test_the_example_is_written_byte_for_byte_and_read_back() -> None:
    assert acknowledgement_text(EXAMPLE) == TEXT
    assert parse_acknowledgement(TEXT) == EXAMPLE
    signed = sign_acknowledgement(EXAMPLE, KEY)
    assert signed.startswith(TEXT + "\n— telecentras/intake ".encode())
    assert read_acknowledgement(signed, PUBLIC) == peek_acknowledgement(signed) == EXAMPLE


@given(st.integers(0, 10**19 - 1), st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32))
def test_every_place_in_a_chain_can_be_said(number: int, epoch: bytes, digest: bytes) -> None:
    said = Acknowledgement("o", "n", "l", epoch.hex(), number, digest.hex())
    assert read_acknowledgement(sign_acknowledgement(said, KEY), PUBLIC) == said


def test_every_flipped_bit_is_refused() -> None:
    signed = sign_acknowledgement(EXAMPLE, KEY)
    for at in range(8 * len(signed)):
        flipped = bytearray(signed)
        flipped[at // 8] ^= 1 << at % 8
        assert refused(read_acknowledgement, bytes(flipped), PUBLIC) in (
            "bad_acknowledgement",
            "bad_signature",
        )


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace(b"v1", b"v2"),
        TEXT.replace(b"number 4\n", b""),
        TEXT.replace(b"number 4", b"number 04"),
        TEXT.replace(b"number 4", b"number -4"),
        TEXT.replace(b"node vilnius-1\nlane sidecar-0", b"lane sidecar-0\nnode vilnius-1"),
        TEXT + b"number 5\n",
        TEXT.replace(b"lane sidecar-0", b"lane ../sidecar-0"),
        TEXT.replace(b"abab", b"ABAB"),
        TEXT[:-1],
        b"",
    ],
)
def test_a_text_that_is_not_exactly_one_is_refused(text: bytes) -> None:
    assert refused(parse_acknowledgement, text) == "bad_acknowledgement"


def test_another_key_or_another_name_vouches_for_nothing() -> None:
    stranger = Ed25519PrivateKey.from_private_bytes(bytes(32))
    assert refused(read_acknowledgement, sign_acknowledgement(EXAMPLE, stranger), PUBLIC) == "bad_signature"
    by_a_lane = note.sign(TEXT, "telecentras/vilnius-1/sidecar-0", KEY)
    assert refused(read_acknowledgement, by_a_lane, PUBLIC) == "bad_signature"
    other_operator = note.sign(TEXT, intake_name("kaunas"), KEY)
    assert refused(read_acknowledgement, other_operator, PUBLIC) == "bad_signature"


def test_two_signatures_or_a_long_text_are_no_acknowledgement() -> None:
    signed = sign_acknowledgement(EXAMPLE, KEY)
    second = note.sign(TEXT, "witness", KEY).rpartition(b"\n\n")[2]
    assert refused(peek_acknowledgement, signed + second) == "bad_acknowledgement"
    assert refused(peek_acknowledgement, signed + b"x" * 2_048) == "bad_acknowledgement"


def test_what_no_reader_would_take_is_not_signed() -> None:
    bad = Acknowledgement("o", "n", "l", "00", 0, "00")
    assert refused(sign_acknowledgement, bad, KEY) == "bad_acknowledgement"
    assert ACKNOWLEDGEMENT_FORMAT.encode() in acknowledgement_text(bad)
