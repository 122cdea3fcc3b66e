"""How the fixed requests are spelled: their bodies, and the counts which they name.

Each request names the counts that it wants to see (`max_tokens`, prompts as token ids, `logit_bias` on the
end-of-turn token), and repeats them for the simulated engine in `vllm_xargs`, which the real one ignores.
So one and the same request has one and the same right answer from both, but for the words.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine_exchange import Request

JSON_HEADERS = (("Content-Type", "application/json"),)
# <|im_end|>, the third special token of make_model.py's tokenizer.
STOP_AT_ONCE = {"2": 100}
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
STOPS: dict[str, Any] = {"max_tokens": 8, "logit_bias": STOP_AT_ONCE, "sim": {"completion_tokens": 1}}


def get(path: str) -> Request:
    return Request("GET", path)


def post(path: str, body: str, headers: tuple[tuple[str, str], ...] = JSON_HEADERS) -> Request:
    return Request("POST", path, headers, body)


def with_header(request: Request, name: str, value: str) -> Request:
    return replace(request, headers=(*request.headers, (name, value)))


def hang_up(request: Request, pieces: int) -> Request:
    return replace(request, hang_up_after=pieces)


def responses(tokens: int = 4, *, prompt_tokens: int = 16, cached_tokens: int = 0, **more: object) -> Request:
    """One of OpenAI's responses: `tokens` output tokens, ended by the limit."""
    counts = {"completion_tokens": tokens + 1, "cached_tokens": cached_tokens}
    body = {
        "model": "tiny",
        "input": "Count to ten.",
        "temperature": 0,
        "max_output_tokens": tokens,
        "ignore_eos": True,
        **_named(counts, prompt_tokens=prompt_tokens),
        **more,
    }
    return Request("POST", "/v1/responses", JSON_HEADERS, json.dumps(body))


def messages(tokens: int = 4, *, prompt_tokens: int = 16, cached_tokens: int = 0, **more: object) -> Request:
    """One of Anthropic's messages; greedy, because `ignore_eos` is not known there."""
    counts = {"completion_tokens": tokens + 1, "cached_tokens": cached_tokens}
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Count to ten."}],
        "max_tokens": tokens,
        "temperature": 0,
        **_named(counts, prompt_tokens=prompt_tokens),
        **more,
    }
    return Request("POST", "/v1/messages", JSON_HEADERS, json.dumps(body))


def pooled(path: str, prompt_tokens: int | None = None, cached_tokens: int = 0, **more: object) -> Request:
    """A request of a model that generates nothing; `prompt_tokens` are those of each of its texts."""
    named = (
        {} if prompt_tokens is None else _named({"cached_tokens": cached_tokens}, prompt_tokens=prompt_tokens)
    )
    return post(path, json.dumps({"model": "tiny", **more, **named}))


def spoken(path: str, **fields: object) -> Request:
    """A form with 1.2 s of sound: 8 bits, 60 a second, all of them the letter @, and no byte above 127: it is text too."""
    rate, samples = 60, "@" * 72
    wav = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(samples), b"WAVE", b"fmt ", 16, 1, 1, rate, rate, 1, 8,
                      b"data", len(samples)).decode("ascii") + samples  # fmt: skip
    counts = {"sim_prompt_tokens": 7, "sim_completion_tokens": 4, "sim_audio_seconds": 2}
    parts = [
        f'--sound\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in {"model": "tiny", "vllm_xargs": json.dumps(counts), **fields}.items()
    ]
    file = 'name="file"; filename="sound.wav"\r\nContent-Type: audio/wav'
    body = "".join(parts) + f"--sound\r\nContent-Disposition: form-data; {file}\r\n\r\n{wav}\r\n--sound--\r\n"
    return post(path, body, (("Content-Type", "multipart/form-data; boundary=sound"),))
