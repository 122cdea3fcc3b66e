"""What the clients of a capture proof ask: every metered endpoint, seeded, each request known by its prompt tokens.

A request names its counts to the simulated engine in `vllm_xargs`. No two have the same number of prompt tokens, in all
of their prompts together, so an event is known by them whatever id it went by.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

MODEL = "qwen3-32b"
_FIRST_NUMBER = 1_000_000
_MESSAGES = [{"role": "user", "content": "Labas!"}]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `prompt_tokens` and `completion_tokens` are what its event must say when the answer came whole:
    the second is None where HTTP does not say it. `hang_up`: the client leaves in mid-stream."""

    endpoint: str
    path: str
    content_type: str
    body: bytes
    customer: str
    prompt_tokens: int
    completion_tokens: int | None
    is_stream: bool = False
    hang_up: bool = False
    is_background: bool = False


@dataclass(slots=True)
class _Making:
    """One request while it is made up."""

    chance: random.Random
    number: int
    customer: str

    def ask(
        self,
        endpoint: str,
        path: str,
        body: dict[str, Any],
        *,
        prompts: int = 1,
        choices: int = 1,
        completion: int | None = None,
        background: bool = False,
    ) -> Ask:
        completion = self.chance.randint(4, 40) if completion is None else completion
        counts = {"sim_prompt_tokens": self.number, "sim_completion_tokens": completion}
        stream = bool(body.get("stream"))
        return Ask(
            endpoint=endpoint,
            path=path,
            content_type="application/json",
            body=json.dumps({"model": MODEL, **body, "vllm_xargs": counts}).encode(),
            customer=self.customer,
            prompt_tokens=self.number * prompts,
            completion_tokens=completion * choices,
            is_stream=stream,
            hang_up=stream and not background and self.chance.random() < 0.25,
            is_background=background,
        )


def asks(chance: random.Random, customers: tuple[str, ...]) -> Iterator[Ask]:
    """Requests without end, of all kinds in a seeded mixture."""
    for number in itertools.count(_FIRST_NUMBER, 10):
        kind = chance.choices([each for each, _ in _KINDS], [weight for _, weight in _KINDS])[0]
        yield kind(_Making(chance, number, chance.choice(customers)))


def _chat(making: _Making) -> Ask:
    body: dict[str, Any] = {"messages": _MESSAGES, "stream": making.chance.random() < 0.6}
    if body["stream"] and making.chance.random() < 0.5:
        body["stream_options"] = {"include_usage": True}
    return making.ask("chat", "/v1/chat/completions", body)


def _chat_of_two(making: _Making) -> Ask:
    body = {"messages": _MESSAGES, "n": 2, "temperature": 1, "stream": making.chance.random() < 0.5}
    return making.ask("chat", "/v1/chat/completions", body, choices=2)


def _completions(making: _Making) -> Ask:
    body = {"prompt": ["one", "two"], "stream": making.chance.random() < 0.5}
    return making.ask("completions", "/v1/completions", body, prompts=2, choices=2)


def _beams(making: _Making) -> Ask:
    body = {"prompt": "one", "use_beam_search": True, "n": 2, "max_tokens": 6}
    return making.ask("completions", "/v1/completions", body, choices=2, completion=6)


def _response(making: _Making) -> Ask:
    return making.ask(
        "responses", "/v1/responses", {"input": "Labas!", "stream": making.chance.random() < 0.5}
    )


def _background(making: _Making) -> Ask:
    body = {"input": "Labas!", "background": True}
    return making.ask("responses", "/v1/responses", body, background=True)


def _message(making: _Making) -> Ask:
    body = {"messages": _MESSAGES, "max_tokens": 500, "stream": making.chance.random() < 0.5}
    return making.ask("messages", "/v1/messages", body)


def _embeddings(making: _Making) -> Ask:
    body = {"input": ["one", "two", "three"]}
    return making.ask("embeddings", "/v1/embeddings", body, prompts=3, completion=0)


def _rerank(making: _Making) -> Ask:
    body = {"query": "one", "documents": ["two", "three"]}
    return making.ask("rerank", "/rerank", body, prompts=3, completion=0)


def _transcription(making: _Making) -> Ask:
    counts = {
        "sim_prompt_tokens": making.number,
        "sim_completion_tokens": making.chance.randint(4, 40),
        "sim_audio_seconds": 9,
    }
    fields = {"model": MODEL, "vllm_xargs": json.dumps(counts)}
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    file = '--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + "@" * 600
    return Ask(
        endpoint="transcriptions",
        path="/v1/audio/transcriptions",
        content_type="multipart/form-data; boundary=b",
        body="".join([*parts, file, "\r\n--b--\r\n"]).encode(),
        customer=making.customer,
        prompt_tokens=making.number,
        completion_tokens=None,
    )


_KINDS: tuple[tuple[Callable[[_Making], Ask], int], ...] = (
    (_chat, 40),
    (_chat_of_two, 5),
    (_completions, 15),
    (_beams, 3),
    (_response, 12),
    (_background, 4),
    (_message, 12),
    (_embeddings, 4),
    (_rerank, 3),
    (_transcription, 2),
)
