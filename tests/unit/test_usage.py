"""From an engine's usage object to quantities."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.event import MAX_QUANTITY
from metering.usage import (
    NOTHING,
    Usage,
    audio_usage,
    messages_usage,
    openai_usage,
    pooled_usage,
    responses_usage,
    sum_of_choices,
)


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        ('{"prompt_tokens":16,"total_tokens":21,"completion_tokens":5}', Usage(16, 0, 5)),
        (
            '{"prompt_tokens":538,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":512,"x":null},'
            '"completion_tokens_details":{"reasoning_tokens":1}}',
            Usage(538, 512, 2, 1),
        ),
        (
            '{"prompt_tokens":1,"completion_tokens":2,"prompt_tokens_details":null,"completion_tokens_details":null}',
            Usage(1, 0, 2),
        ),
        ('{"prompt_tokens":7,"total_tokens":7}', Usage(7)),
        (
            '{"prompt_tokens":3,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":9}}',
            Usage(3, 3, 1),
        ),
    ],
)
def test_what_engines_say_is_read(raw: str, usage: Usage) -> None:
    assert openai_usage(raw.encode()) == usage


@pytest.mark.parametrize(
    "raw",
    [
        b"null",
        b"{}",
        b"[]",
        b"{",
        b'{"prompt_tokens":-1,"completion_tokens":1}',
        b'{"prompt_tokens":1.5,"completion_tokens":1}',
        b'{"prompt_tokens":"1","completion_tokens":1}',
        b'{"prompt_tokens":true,"completion_tokens":1}',
        b'{"prompt_tokens":1,"completion_tokens":1e3}',
        b'{"prompt_tokens":1,"completion_tokens":null}',
        b'{"prompt_tokens":1000000000001,"completion_tokens":1}',
        b'{"prompt_tokens":' + b"9" * 5000 + b"}",
        None,
    ],
)
def test_what_is_no_usage_counts_nothing(raw: bytes | None) -> None:
    assert openai_usage(raw) is None


@given(
    st.dictionaries(
        st.sampled_from(["prompt_tokens", "completion_tokens", "prompt_tokens_details"]),
        st.integers() | st.text(),
    )
)
def test_figures_are_always_possible_ones(value: dict[str, object]) -> None:
    usage = openai_usage(json.dumps(value).encode())
    if usage is not None:
        assert 0 <= usage.cached_tokens <= usage.prompt_tokens <= MAX_QUANTITY
        assert 0 <= usage.reasoning_tokens <= usage.completion_tokens <= MAX_QUANTITY


def test_running_usage_beyond_all_measure_counts_nothing() -> None:
    raw = b'{"prompt_tokens":1000000000000,"completion_tokens":1}'
    assert sum_of_choices({0: raw, 1: raw}, 1) == NOTHING


def test_a_response_says_input_and_output() -> None:
    raw = (
        b'{"input_tokens":538,"input_tokens_details":{"cached_tokens":512,"cache_write_tokens":0,'
        b'"input_tokens_per_turn":[538],"cached_tokens_per_turn":[512]},"output_tokens":20,'
        b'"output_tokens_details":{"reasoning_tokens":7,"tool_output_tokens":0},"total_tokens":558}'
    )
    assert responses_usage(raw) == Usage(538, 512, 20, 7)
    assert responses_usage(b'{"input_tokens":5,"output_tokens":1}') == Usage(5, 0, 1)


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        (b'{"input_tokens":538,"output_tokens":2}', Usage(538, 0, 2)),  # details off: the whole prompt
        (b'{"input_tokens":26,"output_tokens":2,"cache_read_input_tokens":512}', Usage(538, 512, 2)),
        (
            b'{"input_tokens":10,"output_tokens":2,"cache_creation_input_tokens":16,"cache_read_input_tokens":512}',
            Usage(538, 512, 2),
        ),
        (b'{"input_tokens":7,"output_tokens":0,"cache_read_input_tokens":null}', Usage(7)),
    ],
)
def test_a_messages_prompt_is_what_was_read_from_the_cache_and_what_was_not(raw: bytes, usage: Usage) -> None:
    assert messages_usage(raw) == usage


def test_what_is_pooled_has_a_prompt_only() -> None:
    assert pooled_usage(b'{"prompt_tokens":12,"total_tokens":12}') == Usage(12)
    raw = b'{"prompt_tokens":12,"total_tokens":12,"completion_tokens":0,"prompt_tokens_details":null}'
    assert pooled_usage(raw) == Usage(12)


@pytest.mark.parametrize(
    ("usage", "duration", "seconds"),
    [
        (b'{"type":"duration","seconds":11}', None, 11),
        (b'{"type":"duration","seconds":11}', b"99.5", 11),
        (None, b"10.416", 11),
        (None, b"10.0", 10),
        (None, b"0", 0),
        (None, b"1e1", 10),
    ],
)
def test_each_started_second_of_audio_counts_whole(
    usage: bytes | None, duration: bytes | None, seconds: int
) -> None:
    assert audio_usage(usage, duration) == Usage(audio_seconds=seconds)


@pytest.mark.parametrize(
    "duration", [b"-1", b"NaN", b"Infinity", b"1e999", b'"3"', b"\xff", b"9" * 65, b"", None]
)
def test_no_nonsense_is_a_duration(duration: bytes | None) -> None:
    assert audio_usage(None, duration) is None
    assert audio_usage(b'{"type":"tokens","seconds":3}', duration) is None


@pytest.mark.parametrize("read", [openai_usage, responses_usage, messages_usage, pooled_usage])
@pytest.mark.parametrize(
    "figure", ["-1", "1.5", '"1"', "true", "null", "1e3", "1000000000001", "9" * 5000, "[" * 100_000]
)
def test_nonsense_in_a_figure_is_no_usage(read: Callable[[bytes], Usage | None], figure: str) -> None:
    for name in ("prompt_tokens", "input_tokens"):
        raw = f'{{"{name}":{figure},"output_tokens":1,"completion_tokens":1}}'
        assert read(raw.encode()) is None
