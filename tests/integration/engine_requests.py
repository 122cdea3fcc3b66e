"""The fixed requests that are recorded from a real vLLM and asked of the simulated engine, by name.

Each names the counts that it wants to see (`max_tokens`, prompts as token ids, `logit_bias` on the
end-of-turn token), and repeats them for the simulated engine in `vllm_xargs`, which the real one ignores.
So one and the same request has one and the same right answer from both, but for the words.

A set is one way of starting the server: `plain` takes the defaults; `details` adds prompt token details and
request id headers; `forced` makes the server add usage to streams that did not ask for it; `reasoning` parses
reasoning, which with this model is all that there is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine_exchange import Request

SERVER_OPTIONS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "details": ("--enable-prompt-tokens-details", "--enable-request-id-headers"),
    "forced": ("--enable-force-include-usage",),
    "reasoning": ("--reasoning-parser", "deepseek_r1"),
}

JSON_HEADERS = (("Content-Type", "application/json"),)
# <|im_end|>, the third special token of make_model.py's tokenizer.
END_OF_TURN = {"logit_bias": {"2": 100}}
# Greedy sampling refuses n > 1, so these are drawn.
TWO: dict[str, Any] = {"n": 2, "temperature": 1, "seed": 1}
USAGE: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
CONTINUOUS: dict[str, Any] = {
    "stream": True,
    "stream_options": {"include_usage": True, "continuous_usage_stats": True},
}
# Longer than two blocks of the CPU build's prefix cache (128 tokens each), so that its repeat is found there.
LONG_PROMPT = [10 + number % 1900 for number in range(300)]
LONG_CHAT = "A node meters every token that it makes, and every token has its price. " * 24


def chat(*, sim: Mapping[str, int] | None = None, **more: object) -> Request:
    """A chat; `sim` names its counts, the prompt being the 16 tokens that the tiny tokenizer makes of it."""
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Count to ten."}],
        "temperature": 0,
        **more,
        **_named(sim, prompt_tokens=16),
    }
    return Request("POST", "/v1/chat/completions", JSON_HEADERS, json.dumps(body))


def completion(*, sim: Mapping[str, int] | None = None, **more: object) -> Request:
    body = {"model": "tiny", "prompt": [11, 12, 13, 14, 15], "temperature": 0, **more, **_named(sim)}
    return Request("POST", "/v1/completions", JSON_HEADERS, json.dumps(body))


def _named(sim: Mapping[str, int] | None, **defaults: int) -> dict[str, object]:
    if sim is None:
        return {}
    return {"vllm_xargs": {f"sim_{name}": count for name, count in {**defaults, **sim}.items()}}


def wants(tokens: int, **sim: int) -> dict[str, Any]:
    """Exactly `tokens` output tokens, ended by the limit, whatever the model would like."""
    return {"max_tokens": tokens, "ignore_eos": True, "sim": {**sim, "completion_tokens": tokens + 1}}


# The model's own end, after its first token.
STOPS: dict[str, Any] = {"max_tokens": 8, **END_OF_TURN, "sim": {"completion_tokens": 1}}


def get(path: str) -> Request:
    return Request("GET", path)


def post(path: str, body: str, headers: tuple[tuple[str, str], ...] = JSON_HEADERS) -> Request:
    return Request("POST", path, headers, body)


def with_header(request: Request, name: str, value: str) -> Request:
    return replace(request, headers=(*request.headers, (name, value)))


def hang_up(request: Request, pieces: int) -> Request:
    return replace(request, hang_up_after=pieces)


GENERATING: dict[str, Request] = {
    "chat": chat(**wants(5)),
    "chat_without_max_tokens": chat(**{**STOPS, "max_tokens": None}),
    "chat_max_completion_tokens": chat(
        max_completion_tokens=4, ignore_eos=True, sim={"completion_tokens": 9}
    ),
    "chat_stop": chat(**STOPS),
    "chat_n2": chat(**TWO, **wants(3)),
    "chat_parts": chat(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Count to ten."}]},
        ],
        **wants(2, prompt_tokens=27),
    ),
    "chat_stream": chat(stream=True, **wants(4)),
    "chat_stream_stop": chat(stream=True, **STOPS),
    "chat_stream_usage": chat(**USAGE, **wants(4)),
    "chat_stream_usage_stop": chat(**USAGE, **STOPS),
    "chat_stream_usage_false": chat(stream=True, stream_options={"include_usage": False}, **wants(2)),
    "chat_stream_continuous": chat(**CONTINUOUS, **wants(3)),
    "chat_stream_continuous_only": chat(
        stream=True, stream_options={"include_usage": False, "continuous_usage_stats": True}, **wants(2)
    ),
    "chat_stream_usage_n2": chat(**TWO, **USAGE, **wants(3)),
    "chat_stream_continuous_n2": chat(**TWO, **CONTINUOUS, **wants(2)),
    "completion": completion(**wants(5)),
    "completion_default_max_tokens": completion(ignore_eos=True),
    "completion_stop": completion(**STOPS),
    "completion_text_prompt": completion(prompt="def main():", **wants(3, prompt_tokens=4)),
    "completion_n2": completion(**TWO, **wants(3)),
    "completion_batch": completion(prompt=[[21, 22, 23], [31, 32, 33, 34]], **wants(3)),
    "completion_batch_text": completion(prompt=["import os", "import sys"], **wants(2, prompt_tokens=2)),
    "completion_batch_n2": completion(prompt=[[21, 22, 23], [31, 32, 33, 34]], **TWO, **wants(2)),
    "completion_echo": completion(prompt="def main():", echo=True, **wants(2, prompt_tokens=4)),
    "completion_stream": completion(stream=True, **wants(4)),
    "completion_stream_usage": completion(**USAGE, **wants(4)),
    "completion_stream_usage_stop": completion(**USAGE, **STOPS),
    "completion_stream_continuous": completion(**CONTINUOUS, **wants(3)),
    "completion_stream_usage_n2": completion(**TWO, **USAGE, **wants(3)),
    "completion_stream_usage_batch": completion(prompt=[[21, 22, 23], [31, 32, 33, 34]], **USAGE, **wants(2)),
    "completion_stream_continuous_batch": completion(
        prompt=[[21, 22, 23], [31, 32, 33, 34]], **CONTINUOUS, **wants(2)
    ),
}

NAMED_BY_CLIENT: dict[str, Request] = {
    "chat_request_id": with_header(chat(**wants(2)), "X-Request-Id", "trace-7"),
    "chat_stream_request_id": with_header(chat(**USAGE, **wants(2)), "X-Request-Id", "trace-7"),
    "completion_request_id": with_header(completion(**wants(2)), "X-Request-Id", "trace-7"),
    "chat_request_id_in_body": chat(request_id="body-7", **wants(2)),
    "chat_request_id_in_both": with_header(chat(request_id="body-7", **wants(2)), "X-Request-Id", "trace-7"),
}

# A model that never ends its reasoning: all text is reasoning, yet vLLM reports 0 reasoning tokens, because its
# parser counts those between <think> and </think> and the first never came.
REASONING: dict[str, Request] = {
    "chat_reasoning": chat(**wants(4, reasoning_tokens=4)),
    "chat_stream_reasoning": chat(stream=True, **wants(4, reasoning_tokens=4)),
    "chat_stream_usage_reasoning": chat(**USAGE, **wants(4, reasoning_tokens=4)),
    "chat_stream_continuous_reasoning": chat(**CONTINUOUS, **wants(4, reasoning_tokens=4)),
    "completion_of_reasoning_model": completion(**wants(4)),
    "completion_stream_of_reasoning_model": completion(**USAGE, **wants(4)),
}

# The seed prompt fills the prefix cache; the one after it finds it there.
CACHED: dict[str, Request] = {
    "completion_long_first": completion(prompt=LONG_PROMPT, **wants(2)),
    "completion_long_cached": completion(
        prompt=LONG_PROMPT,
        max_tokens=2,
        ignore_eos=True,
        sim={"completion_tokens": 3, "cached_tokens": 256},
    ),
    "completion_long_stream_cached": completion(
        prompt=LONG_PROMPT,
        max_tokens=2,
        ignore_eos=True,
        sim={"completion_tokens": 3, "cached_tokens": 256},
        **CONTINUOUS,
    ),
    "chat_long_first": chat(messages=[{"role": "user", "content": LONG_CHAT}], **wants(2, prompt_tokens=538)),
    "chat_long_cached": chat(
        messages=[{"role": "user", "content": LONG_CHAT}],
        max_tokens=2,
        ignore_eos=True,
        sim={"completion_tokens": 3, "prompt_tokens": 538, "cached_tokens": 512},
    ),
    "chat_long_stream_cached": chat(
        messages=[{"role": "user", "content": LONG_CHAT}],
        max_tokens=2,
        ignore_eos=True,
        sim={"completion_tokens": 3, "prompt_tokens": 538, "cached_tokens": 512},
        **USAGE,
    ),
}

ABORTED: dict[str, Request] = {
    "chat_stream_hung_up_after_1": hang_up(chat(**USAGE, **wants(900)), 1),
    "chat_stream_hung_up_after_12": hang_up(chat(**USAGE, **wants(900)), 12),
    "chat_hung_up": hang_up(chat(**wants(900)), 0),
    "completion_stream_hung_up_after_3": hang_up(completion(stream=True, **wants(900)), 3),
    "completion_stream_n2_hung_up_after_6": hang_up(completion(stream=True, **TWO, **wants(900)), 6),
    "completion_hung_up": hang_up(completion(**wants(900)), 0),
}

REFUSED: dict[str, Request] = {
    "bad_json": post("/v1/chat/completions", '{"model": "tiny", "messages": ['),
    "bad_json_completion": post("/v1/completions", "{model: tiny}"),
    "empty_body": post("/v1/chat/completions", ""),
    "not_an_object": post("/v1/chat/completions", "[1, 2]"),
    "no_content_type": post("/v1/chat/completions", "{}", ()),
    "wrong_content_type": post("/v1/chat/completions", "{}", (("Content-Type", "text/plain"),)),
    "unknown_model": chat(**{**wants(2), "model": "gpt-none"}),
    "unknown_model_completion": completion(**{**wants(2), "model": "gpt-none"}),
    "unknown_model_stream": chat(**{**wants(2), **USAGE, "model": "gpt-none"}),
    "no_messages": post("/v1/chat/completions", '{"model": "tiny"}'),
    "no_model": post(
        "/v1/chat/completions",
        '{"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1,'
        ' "vllm_xargs": {"sim_prompt_tokens": 11, "sim_completion_tokens": 2}, "ignore_eos": true}',
    ),
    "no_prompt": post("/v1/completions", '{"model": "tiny"}'),
    "messages_of_wrong_type": post("/v1/chat/completions", '{"model": "tiny", "messages": "Hi"}'),
    "max_tokens_of_wrong_type": chat(max_tokens="many"),
    "max_tokens_negative": chat(max_tokens=-1),
    "max_tokens_too_large": chat(max_tokens=100_000),
    "prompt_too_long": completion(prompt=[11] * 1100, max_tokens=5),
    "n2_greedy": chat(n=2, **wants(3)),
    "n_zero": chat(n=0, max_tokens=2),
    "temperature_negative": chat(**{**wants(2), "temperature": -1}),
    "stream_options_without_stream": chat(**{**wants(2), "stream_options": {"include_usage": True}}),
    "stream_options_without_stream_completion": completion(
        **{**wants(2), "stream_options": {"include_usage": True}}
    ),
    "unknown_route": get("/v1/nothing"),
    "wrong_method": get("/v1/chat/completions"),
}

READ: dict[str, Request] = {
    "models": get("/v1/models"),
    "model": get("/v1/models/tiny"),
    "health": get("/health"),
    "version": get("/version"),
}

SETS: dict[str, Mapping[str, Request]] = {
    "plain": {**READ, **GENERATING, **NAMED_BY_CLIENT, **CACHED, **ABORTED, **REFUSED},
    "details": {
        **{
            name: GENERATING[name]
            for name in (
                "chat",
                "chat_stream",
                "chat_stream_usage",
                "chat_stream_continuous",
                "chat_n2",
                "completion",
                "completion_batch",
                "completion_stream_usage",
                "completion_stream_usage_batch",
            )
        },
        **NAMED_BY_CLIENT,
        **CACHED,
    },
    "reasoning": REASONING,
    "forced": {
        name: GENERATING[name]
        for name in (
            "chat",
            "chat_stream",
            "chat_stream_usage",
            "chat_stream_usage_false",
            "completion_stream",
            "completion_stream_usage_n2",
        )
    },
}
