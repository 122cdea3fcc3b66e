"""Checkpoints of logs and the cosignatures of witnesses: one spelling, and no bit of them changes unnoticed."""

from __future__ import annotations

import contextlib

import pytest
from event_examples import KEY, PUBLIC_KEY

from metering import checkpoint as checkpoints
from metering import note
from metering.checkpoint import (
    Checkpoint,
    checkpoint_text,
    parse_checkpoint,
    read_checkpoint,
    sign_checkpoint,
)
from metering.cosignature import cosign, cosignatures, parse_witness, witness_key
from metering.merkle import EMPTY_ROOT, root
from metering.refusal import Refusal

LOG = "vilnius.tallygrid/log"
NEWEST = Checkpoint(LOG, 1, root([b""]))
TEXT = checkpoint_text(NEWEST)
VERIFIER = note.Verifier(LOG, PUBLIC_KEY)
SIGNED = sign_checkpoint(NEWEST, KEY)
TIME_S = 1_791_000_000


def refused(signed: bytes) -> bool:
    try:
        read_checkpoint(signed, VERIFIER)
    except Refusal:
        return True
    return False


def test_the_example_in_the_text_is_a_checkpoint() -> None:
    assert all(f"    {line}\n" in (checkpoints.__doc__ or "") for line in TEXT.decode().splitlines())


def test_a_signed_checkpoint_is_read_back() -> None:
    assert read_checkpoint(SIGNED, VERIFIER) == NEWEST
    extended = Checkpoint(LOG, 7, root([b"x"]), ("an extension", "another"))
    assert read_checkpoint(sign_checkpoint(extended, KEY), VERIFIER) == extended


def test_every_single_bit_flipped_in_a_checkpoint_is_detected() -> None:
    for at in range(len(SIGNED)):
        for bit in range(8):
            flipped = SIGNED[:at] + bytes([SIGNED[at] ^ (1 << bit)]) + SIGNED[at + 1 :]
            assert refused(flipped), f"byte {at}, bit {bit}"


def test_every_byte_left_out_of_a_checkpoint_is_detected() -> None:
    for at in range(len(SIGNED)):
        assert refused(SIGNED[:at] + SIGNED[at + 1 :])
        assert refused(SIGNED[:at])


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"log\n1\n",
        b"\n1\n" + TEXT.split(b"\n")[2] + b"\n",
        TEXT.replace(b"\n1\n", b"\n01\n"),
        TEXT.replace(b"\n1\n", b"\n-1\n"),
        TEXT.replace(b"\n1\n", b"\n1 \n"),
        TEXT.replace(b"\n1\n", b"\n9223372036854775808\n"),
        TEXT.replace(b"=\n", b"\n"),
        TEXT.replace(b"B0=\n", b"B1=\n"),  # the same 32 bytes, spelled otherwise
        TEXT + b"\n",
        TEXT.replace(b"\n1\n", b"\n0\n"),
        TEXT[:-1],
    ],
)
def test_another_spelling_is_no_checkpoint(text: bytes) -> None:
    with pytest.raises(Refusal) as found:
        parse_checkpoint(text)
    assert found.value.code == "bad_checkpoint"


def test_the_empty_tree_has_one_root() -> None:
    empty = Checkpoint(LOG, 0, EMPTY_ROOT)
    assert parse_checkpoint(checkpoint_text(empty)) == empty


def test_a_logs_own_checkpoint_bears_its_signature_alone() -> None:
    other = note.sign(TEXT, "somebody", KEY).removeprefix(TEXT + b"\n")
    with pytest.raises(Refusal, match="one signature"):
        read_checkpoint(SIGNED + other, VERIFIER)
    found, others = checkpoints.read_cosigned(SIGNED + other, VERIFIER)
    assert found == NEWEST
    assert [each.name for each in others] == ["somebody"]


def test_a_checkpoint_of_another_log_is_refused_under_the_same_key() -> None:
    with pytest.raises(Refusal, match=r"of the log vilnius\.tallygrid/log"):
        read_checkpoint(SIGNED, note.Verifier("kaunas.tallygrid/log", PUBLIC_KEY))


def test_a_witness_cosigns_the_text_and_its_time() -> None:
    witness = parse_witness(witness_key("witness.example/w1", PUBLIC_KEY))
    cosigned = SIGNED + cosign(TEXT, witness.name, KEY, TIME_S)
    _, others = checkpoints.read_cosigned(cosigned, VERIFIER)
    [found] = cosignatures(TEXT, others, [witness])
    assert (found.witness, found.time_s) == (witness, TIME_S)
    assert cosignatures(TEXT, others, []) == []


def test_every_single_bit_flipped_in_a_cosignature_is_detected_or_makes_it_a_strangers() -> None:
    witness = parse_witness(witness_key("witness.example/w1", PUBLIC_KEY))
    line = cosign(TEXT, witness.name, KEY, TIME_S)
    for at in range(len(line)):
        for bit in range(8):
            flipped = line[:at] + bytes([line[at] ^ (1 << bit)]) + line[at + 1 :]
            with contextlib.suppress(Refusal):
                _, others = checkpoints.read_cosigned(SIGNED + flipped, VERIFIER)
                assert cosignatures(TEXT, others, [witness]) == []


def test_a_cosignature_is_no_signature_and_a_key_of_one_kind_none_of_the_other() -> None:
    with pytest.raises(Refusal):
        note.parse_verifier(witness_key("w", PUBLIC_KEY))
    with pytest.raises(Refusal):
        parse_witness(note.verifier_key("w", PUBLIC_KEY))
    with pytest.raises(Refusal):
        note.open_note(TEXT + b"\n" + cosign(TEXT, LOG, KEY, TIME_S), [VERIFIER])
