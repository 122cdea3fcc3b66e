"""The fixed requests that are recorded from a real vLLM and asked of the simulated engine, by name and by set.

A set goes to one way of starting the server: `plain` takes the defaults; `details` adds prompt token details and
request id headers; `forced` makes the server add usage to streams that did not ask for it; `reasoning` parses
reasoning, which with this model is all that there is. engine_dialects.py has the sets of the other endpoints.
"""

from __future__ import annotations

from collections.abc import Mapping

from engine_bodies import (
    CONTINUOUS,
    LONG_CHAT,
    LONG_PROMPT,
    STOPS,
    TWO,
    USAGE,
    chat,
    completion,
    get,
    hang_up,
    post,
    wants,
    with_header,
)
from engine_dialects import CLASSIFY, DIALECTS, EMBED, SPEECH, STORING
from engine_exchange import Request

#: What a set's server is started with, as in a shell: NAME=VALUE sets its environment, SPEECH_SERVER is another server.
SPEECH_SERVER = "speech.py"
_DETAILS = (
    "VLLM_ENABLE_RESPONSES_API_STORE=1",
    "--enable-prompt-tokens-details",
    "--enable-request-id-headers",
)
SERVER_OPTIONS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "dialects": (),
    "details": _DETAILS,
    "stored": _DETAILS,
    "reasoning": ("--reasoning-parser", "deepseek_r1"),
    "forced": ("--enable-force-include-usage",),
    "embed": ("--runner", "pooling", "--convert", "embed"),
    "classify": ("--runner", "pooling", "--convert", "classify"),
    "speech": (SPEECH_SERVER,),
}

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
    "dialects": DIALECTS,
    "stored": STORING,
    "embed": EMBED,
    "classify": CLASSIFY,
    "speech": SPEECH,
}
