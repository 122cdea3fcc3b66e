"""How the bodies of an endpoint's requests and answers are read: one entry a dialect, looked up once a request.

Each answer of 2xx to a metered request is read by a `Reader` as its bytes pass: by `answer` if it comes in one body, by
`stream` if it comes as events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from metering.http_answer import AnswerHead
from metering.http_refusal import Refused
from metering.http_request import Request
from metering.json_answers import HeaderAnswer, PlacesAnswer, UsageAnswer
from metering.json_picks import Places
from metering.messages_stream import MessagesStream
from metering.multipart import read_audio
from metering.request_body import (
    Ask,
    read_chat,
    read_completions,
    read_messages,
    read_pooled,
    read_responses,
)
from metering.responses_stream import ResponsesStream
from metering.sse import StreamReader
from metering.usage import Usage, audio_usage, messages_usage, openai_usage, pooled_usage, responses_usage


class Reader(Protocol):
    """An answer, read in passing."""

    @property
    def verdict(self) -> str | None:
        """The outcome, once the answer itself has said it."""
        ...

    @property
    def fault(self) -> str | None:
        """The reason to write down if the answer's bytes end here, in good order."""
        ...

    @property
    def pending(self) -> bool:
        """What was read so far is not the end of the engine's work, if that may outlive the answer."""
        ...

    @property
    def model(self) -> str | None:
        """The model that answers, where the answer says it at a place that is this reader's to know."""
        ...

    def feed(self, piece: bytes) -> bytes:
        """The bytes for the client."""
        ...

    def flush(self, *, torn: bool = False) -> bytes:
        """What was kept back; no more comes, because the answer is whole or `torn`."""
        ...

    def usage(self) -> Usage | None:
        """What of it the client was told; None if that cannot be known."""
        ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """`request` reads a whole request. `named_first`: answers name their model before anything of the client's."""

    request: Callable[[Request], Ask | Refused]
    answer: Callable[[AnswerHead], Reader]
    stream: Callable[[Ask, bytes | None], Reader]
    named_first: bool = True


_USAGE: Places = {b"usage": None}
_RESPONSES: Places = {b"usage": None, b"status": None, b"model": None}
_AUDIO: Places = {b"usage": None, b"duration": None}


def _openai(read: Callable[[bytes], Ask | Refused]) -> Dialect:
    return Dialect(lambda request: read(request.body), lambda _: UsageAnswer(openai_usage), _chunks)


def _chunks(ask: Ask, fingerprint: bytes | None) -> Reader:
    return StreamReader(
        hide_final=ask.hide_final,
        hide_each=ask.hide_each,
        fingerprint=fingerprint,
        choices_per_prompt=ask.choices_per_prompt,
    )


def _audio_chunks(ask: Ask, fingerprint: bytes | None) -> Reader:
    return StreamReader(
        hide_final=ask.hide_final, hide_each=ask.hide_each, fingerprint=fingerprint, fingerprinted=False
    )


def _pooled_answer(head: AnswerHead) -> Reader:
    for name, value in head.headers:
        if name.lower() == b"content-type" and value.lower().startswith(b"application/octet-stream"):
            return HeaderAnswer(pooled_usage, head)
    return UsageAnswer(pooled_usage)


def _read_audio(request: Request) -> Ask | Refused:
    for line in request.lines:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-type":
            return read_audio(request.body, value)
    return Ask(request.body)


def _responses_values(values: Mapping[bytes, bytes]) -> Usage | None:
    return responses_usage(values.get(b"usage"))


def _messages_values(values: Mapping[bytes, bytes]) -> Usage | None:
    return messages_usage(values.get(b"usage"))


def _pooled_values(values: Mapping[bytes, bytes]) -> Usage | None:
    return pooled_usage(values.get(b"usage"))


def _audio_values(values: Mapping[bytes, bytes]) -> Usage | None:
    return audio_usage(values.get(b"usage"), values.get(b"duration"))


DIALECTS: Mapping[str, Dialect] = {
    "chat": _openai(read_chat),
    "completions": _openai(read_completions),
    "responses": Dialect(
        lambda request: read_responses(request.body),
        lambda _: PlacesAnswer(_RESPONSES, _responses_values),
        lambda _, __: ResponsesStream(),
        named_first=False,
    ),
    "messages": Dialect(
        lambda request: read_messages(request.body),
        lambda _: PlacesAnswer(_USAGE, _messages_values),
        lambda _, __: MessagesStream(),
    ),
    "pooled": Dialect(lambda request: read_pooled(request.body), _pooled_answer, _chunks),
    # Documents, of any content, are told again behind the usage.
    "rerank": Dialect(
        lambda request: read_pooled(request.body), lambda _: PlacesAnswer(_USAGE, _pooled_values), _chunks
    ),
    "audio": Dialect(_read_audio, lambda _: PlacesAnswer(_AUDIO, _audio_values), _audio_chunks),
}
