"""The witness's lines as bytes: what its own module specifies is what ours reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tallygrid_vllm.lines as written
from hypothesis import given
from hypothesis import strategies as st

from metering.engine_lines import (
    AfterEnd,
    Counted,
    Ended,
    EngineLine,
    Freed,
    Late,
    Opened,
    counted,
    parse_line,
    part_name,
    request_id,
)
from metering.refusal import Refusal

EXAMPLES = [
    line.strip().encode() for line in (written.__doc__ or "").splitlines() if line.startswith('    {"v"')
]
MINTED = "8d7f9c2e51b04c6da2f3e4b5c6d7e8f9"
CHAT = {"id": f"chatcmpl-{MINTED}-1a2b3c4d", "external": f"chatcmpl-{MINTED}"}


def freed(**changed: Any) -> Freed:
    shape: dict[str, Any] = {
        "engine": 0,
        "model": "tiny",
        "lora": None,
        **CHAT,
        "status": "aborted",
        "prompt_tokens": 31,
        "cached_tokens": 16,
        "output_tokens": 12,
        "sampled": True,
    }
    return Freed(**{**shape, **changed})


def test_the_specifications_example_is_read_as_it_says() -> None:
    assert [parse_line(each) for each in EXAMPLES] == [
        EngineLine(0, 1760000000000000, Opened("scheduler", 0, 4711, 0, "tiny", "0.1.0", "0.32.0")),
        EngineLine(1, 1760000004200000, freed()),
        EngineLine(2, 1760000004201000, AfterEnd(0, output_tokens=1, **CHAT)),
        EngineLine(3, 1760000009000000, Ended(None)),
        EngineLine(1, 1760000004199000, Late("tiny", prompt_tokens=0, output_tokens=1, **CHAT)),
    ]


def test_the_specifications_example_is_written_byte_for_byte() -> None:
    for each in EXAMPLES:
        said = json.loads(each)
        head = (said.pop("n"), said.pop("at_us"), said.pop("kind"))
        assert said.pop("v") == written.FORMAT_VERSION
        assert written.line(*head, said) == each + b"\n"


def test_counters_are_what_was_freed_less_what_came_late() -> None:
    lines = [parse_line(each) for each in EXAMPLES]
    assert counted(lines) == Counted(prompt_tokens=31, generation_tokens=11)


def test_a_request_that_gave_nothing_has_its_prompt_in_no_counter() -> None:
    lines = [
        EngineLine(0, 1, freed(sampled=False, output_tokens=0)),
        EngineLine(1, 1, Late("tiny", "x", "x", 31, 1)),
    ]
    assert counted(lines) == Counted(-31, -1)


def test_ids_of_choices_and_of_batched_prompts_lead_to_the_request() -> None:
    for engine_id in (
        f"chatcmpl-{MINTED}-1a2b3c4d",
        f"0_chatcmpl-{MINTED}-1a2b3c4d",
        f"cmpl-{MINTED}-3-1a2b3c4d",
        f"12_cmpl-{MINTED}-3-1a2b3c4d",
        f"resp_{MINTED}",
    ):
        assert request_id(str(written.ids(engine_id)["external"])) == bytes.fromhex(MINTED)
    assert request_id("cmpl-bb3eab9b4282c50b-0") is None
    assert request_id(MINTED + "0") is None


def test_an_endless_id_is_cut() -> None:
    assert written.ids("x" * 1000) == {"id": "x" * 256, "external": "x" * 256}


def test_a_files_name_says_stream_and_part() -> None:
    name = written.file_name(1760000000000000, 4711, "scheduler", 2)
    assert name == "1760000000000000-4711-scheduler-000002.jsonl"
    assert part_name(name) == ("1760000000000000-4711-scheduler", 2)
    assert part_name(name + ".gz") is None
    assert part_name("place.json") is None


def test_an_unknown_format_version_is_refused_by_name() -> None:
    with pytest.raises(Refusal) as caught:
        parse_line(b'{"v":2,"n":0,"at_us":1,"kind":"something"}')
    assert caught.value.code == "unknown_engine_line_format"


def test_keys_that_are_not_known_are_passed_over() -> None:
    assert parse_line(b'{"v":1,"n":7,"at_us":1,"kind":"ended","next":null,"why":"x"}') == EngineLine(
        7, 1, Ended(None)
    )


@pytest.mark.parametrize(
    "change",
    [
        {"output_tokens": -1},
        {"output_tokens": 1.0},
        {"output_tokens": True},
        {"output_tokens": 10**12 + 1},
        {"output_tokens": None},
        {"sampled": 1},
        {"id": None},
        {"n": "1"},
        {"kind": "else"},
        {"kind": []},
        {"v": "1"},
        {"v": True},
    ],
)
def test_a_line_with_a_wrong_value_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(Refusal, match="cannot be read"):
        parse_line(json.dumps({**json.loads(EXAMPLES[1]), **change}).encode())


@given(st.sampled_from(EXAMPLES), st.data())
def test_a_line_that_is_cut_anywhere_is_refused(line: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(line) - 1))
    with pytest.raises(Refusal) as caught:
        parse_line(line[:cut])
    assert caught.value.code == "bad_engine_line"


@given(st.one_of(st.binary(max_size=200), st.just(b"[" * 100_000), st.just(b"\x00" * 500)))
def test_bytes_that_are_no_line_are_refused_and_nothing_else_happens(content: bytes) -> None:
    with pytest.raises(Refusal):
        parse_line(content)
