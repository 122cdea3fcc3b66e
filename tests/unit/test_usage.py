"""From an engine's usage object to quantities."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.event import MAX_QUANTITY
from metering.usage import NOTHING, Usage, openai_usage, sum_of_choices


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
