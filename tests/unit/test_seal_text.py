from __future__ import annotations

import re
from dataclasses import replace

import pytest
from event_examples import KEY, PLACE, PUBLIC_KEY, small_batch

from metering import note, seal
from metering.batch import make_batch, peek_seal, read_seal
from metering.event import Totals
from metering.refusal import Refusal
from metering.seal import Seal

EXAMPLE = Seal(
    operator="vilnius",
    node="vilnius-1",
    lane="sidecar-0",
    kind="sidecar",
    epoch="000102030405060708090a0b0c0d0e0f",
    number=4,
    first=11,
    last=12,
    complete_to_us=1_791_187_210_000_000,
    opened=9,
    closed=9,
    events=2,
    totals=Totals(2, 1_200, 200, 60, 0, 60, 0, 0, 1),
    body_sha256="ab" * 32,
    body_bytes=7_000,
    rows_bytes=7_400,
    root="cd" * 32,
    previous="ef" * 32,
    final=False,
    facts=("fact serves model=qwen3-8b name=support",),
)


def refusal_of(text: bytes) -> str:
    """The code with which a text, properly signed by the lane's key, is refused as a seal."""
    with pytest.raises(Refusal) as refused:
        read_seal(note.sign(text, EXAMPLE.signer, KEY), PUBLIC_KEY)
    return refused.value.code


def test_the_example_in_the_text_is_what_the_code_writes() -> None:
    documented = (seal.__doc__ or "").split("\n\n")[2]
    fields = [re.sub(r"\s{2,}.*", "", line.strip()) for line in documented.splitlines()]
    lines = [re.sub(r"^(complete_to \S+) .*", r"\1", field) for field in fields]
    written = seal.seal_text(EXAMPLE).decode()
    written = re.sub(r"[0-9a-f]{64}", "<64 hex digits>", written)
    assert lines == written.splitlines()


def test_a_seal_comes_back_as_it_was_signed() -> None:
    signed = seal.sign_seal(EXAMPLE, KEY)
    assert peek_seal(signed) == read_seal(signed, PUBLIC_KEY) == EXAMPLE


def test_signing_twice_gives_the_same_bytes() -> None:
    assert small_batch() == small_batch()


def test_a_heartbeat_has_no_body() -> None:
    batch = make_batch(**PLACE)
    assert batch.body == b""
    assert (batch.seal.first, batch.seal.last, batch.seal.events) == (1, 0, 0)
    assert b"\nbody_sha256 none\nbody_bytes 0\n" in batch.note
    assert read_seal(batch.note, PUBLIC_KEY) == batch.seal


def test_every_line_must_be_there_once_and_in_its_place() -> None:
    lines = seal.seal_text(EXAMPLE).split(b"\n")[:-1]
    for at in range(len(lines)):
        missing = [*lines[:at], *lines[at + 1 :]]
        doubled = [*lines[: at + 1], *lines[at:]]
        unknown = [*lines[:at], b"colour green", *lines[at:]]
        swapped = [*lines[:at], *lines[at : at + 2][::-1], *lines[at + 2 :]]
        for changed in (missing, doubled, unknown, *([swapped] if swapped != lines else [])):
            assert refusal_of(b"\n".join(changed) + b"\n") == "bad_seal"


@pytest.mark.parametrize(
    ("written", "other"),
    [
        ("number 4", "number 04"),
        ("number 4", "number +4"),
        ("number 4", "number -4"),
        ("number 4", "number 4 "),
        ("number 4", "number  4"),
        ("number 4", "number 0"),
        ("events 2", "events 3"),
        ("events 2", "events 10001"),
        ("closed 9", "closed 10"),
        ("kind sidecar", "kind engine"),
        ("node vilnius-1", "node ../x"),
        ("node vilnius-1", "node Vilnius"),
        ("final no", "final perhaps"),
        ("final no", "final NO"),
        ("complete_to 2026-10-05T08:00:10.000000Z", "complete_to 2026-10-05T08:00:10Z"),
        ("complete_to 2026-10-05T08:00:10.000000Z", "complete_to 2026-10-05T08:00:10.0Z"),
        ("complete_to 2026-10-05T08:00:10.000000Z", "complete_to 2026-02-30T08:00:10.000000Z"),
        ("complete_to 2026-10-05T08:00:10.000000Z", "complete_to 1999-10-05T08:00:10.000000Z"),
        ("complete_to 2026-10-05T08:00:10.000000Z", "complete_to 2100-01-01T00:00:00.000000Z"),
        ("complete_to 2026-10-05T08:00:10.000000Z", "complete_to 9999-12-31T23:59:59.999999Z"),
        ("body_bytes 7000", "body_bytes 900001"),
        ("body_bytes 7000", "body_bytes 0"),
        ("rows_bytes 7400", "rows_bytes 80000000"),
        ("prompt_tokens 1200", "prompt_tokens 2000000000001"),
        ("prompt_tokens 1200", "prompt_tokens ١٢"),
        ("epoch 0001", "epoch 00010"),
        ("tallygrid/seal/v1", "tallygrid/seal/v2"),
    ],
)
def test_a_value_has_one_spelling_and_makes_sense(written: str, other: str) -> None:
    text = seal.seal_text(EXAMPLE).decode()
    assert written in text
    assert refusal_of(text.replace(written, other, 1).encode()) == "bad_seal"


def test_a_seal_that_another_key_signed_is_refused() -> None:
    signed = seal.sign_seal(EXAMPLE, KEY)
    with pytest.raises(Refusal) as refused:
        read_seal(signed, b"\x01" * 32)
    assert refused.value.code == "bad_signature"


def test_a_lanes_key_signs_for_its_own_lane_only() -> None:
    text = seal.seal_text(replace(EXAMPLE, lane="sidecar-1"))
    assert refusal_of(text) == "bad_signature"


def test_a_seal_has_one_signature() -> None:
    signed = seal.sign_seal(EXAMPLE, KEY)
    line = signed.split(b"\n\n")[1]
    with pytest.raises(Refusal) as refused:
        read_seal(signed + line, PUBLIC_KEY)
    assert refused.value.code == "bad_seal"
