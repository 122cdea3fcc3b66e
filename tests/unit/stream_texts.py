"""Streams as vLLM 0.32 writes them, plain and with usage asked for: the same tokens, byte by byte."""

from __future__ import annotations

import json

FINGERPRINT = ',"system_fingerprint":"vllm-0.32.0-35e01477"'
DONE = b"data: [DONE]\n\n"


def chunk(text: str, *, index: int = 0, finish: str | None = None, usage: str = "", tail: str = "") -> bytes:
    """One chunk of a completions stream; `usage` and `tail` are JSON members with their leading comma."""
    choice = (
        f'{{"index":{index},"text":{json.dumps(text)},"logprobs":null,"finish_reason":{json.dumps(finish)}}}'
    )
    return f'data: {{"id":"cmpl-0","created":1700000000,"model":"tiny","choices":[{choice}]{usage}{tail}}}\n\n'.encode()


def usage(prompt: int, completion: int, cached: int | None = None, reasoning: int | None = None) -> str:
    details = "" if cached is None else f',"prompt_tokens_details":{{"cached_tokens":{cached}}}'
    if reasoning is not None:
        details += f',"completion_tokens_details":{{"reasoning_tokens":{reasoning}}}'
    total = prompt + completion
    return f',"usage":{{"prompt_tokens":{prompt},"total_tokens":{total},"completion_tokens":{completion}{details}}}'


def last_chunk(
    prompt: int, completion: int, cached: int | None = None, reasoning: int | None = None
) -> bytes:
    spent = usage(prompt, completion, cached, reasoning)
    return f'data: {{"id":"cmpl-0","created":1700000000,"model":"tiny","choices":[]{spent}{FINGERPRINT}}}\n\n'.encode()


# What a client must not be able to disturb: keys of ours inside its own text.
WORDS = [
    "Hi",
    ' "usage":{"prompt_tokens":1}',
    "\n\ndata: [DONE]\n\n",
    "ž 数 \\",
    '"choices":[]',
    '"finish_reason":"x"',
]


def plain_stream() -> list[bytes]:
    """What the client shall see that asked for nothing."""
    *words, last = WORDS
    chunks = [chunk(word) for word in words]
    return [*chunks, chunk(last, finish="length", tail=FINGERPRINT), DONE]


def asked_stream(*, each: bool = True) -> list[bytes]:
    """The same tokens as the engine writes them when asked for usage at the end, and on each chunk."""
    count = len(WORDS)
    chunks = [
        chunk(word, finish="length" if n == count else None, usage=usage(7, n) if each else "")
        for n, word in enumerate(WORDS, 1)
    ]
    return [*chunks, last_chunk(7, count, cached=4, reasoning=2), DONE]


def plain_two_choices() -> list[bytes]:
    return [
        chunk("a", index=0),
        chunk("b", index=1),
        chunk("c", index=0, finish="stop", tail=FINGERPRINT),
        chunk("d", index=1),
        chunk("e", index=1, finish="length", tail=FINGERPRINT),
        DONE,
    ]


def asked_two_choices() -> list[bytes]:
    return [
        chunk("a", index=0, usage=usage(5, 1)),
        chunk("b", index=1, usage=usage(5, 1)),
        chunk("c", index=0, finish="stop", usage=usage(5, 2)),
        chunk("d", index=1, usage=usage(5, 2)),
        chunk("e", index=1, finish="length", usage=usage(5, 3)),
        last_chunk(5, 5),
        DONE,
    ]
