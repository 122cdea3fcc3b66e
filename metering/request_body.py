"""The body of a metered request: read once, and changed only to make the engine tell its usage and keep our id.

vLLM says nothing about usage in a stream of chat or completions unless asked. The sidecar always asks, for usage at the
end and on every chunk (`stream_options`), because a client may leave at any chunk, and what it was told up to there is
what it used. So

    {"model": "m", "stream": true, …}    becomes
    {"stream_options":{"include_usage":true,"continuous_usage_stats":true},"model": "m", "stream": true, …}

and options that the client gave are widened in their place; every other byte stays. What the client did not ask for
is taken out of the answer again (`metering.sse`).

A response (`/v1/responses`) has its id from the body, not from a header, so `request_id` is put there, in the place of
the client's own if it names one: the id that the answer shows is then one that `metering.response_id` knows again.

The engine is not asked to do what the sidecar could not read: JSON in another encoding than UTF-8, or nested deeper
than Python reads it, is refused. Plainly broken JSON goes on as it is, for the engine's own error to come back: it
reads with the same parser.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import NamedTuple

from metering.http_refusal import Refused
from metering.request_json import Read, boolean, count, encoded, read_body

_OPTIONS = "stream_options"
_ASKING = b'"stream_options":{"include_usage":true,"continuous_usage_stats":true}'
_ID = "request_id"
# A name of a model as engines serve it. Anything else is the client's own text, and that is never written down.
_MODEL = re.compile(r"[A-Za-z0-9./][\w.:/@+-]{0,199}", re.ASCII)


# Made for each request: a named tuple is made four times as fast as a frozen dataclass.
class Ask(NamedTuple):
    """What a request asks for, and the body that goes to the engine.

    `model` is None where the client named none that could be one. `hide_final`, `hide_each`: the client did not ask
    for the usage chunk at the end, for the usage on each chunk. `choices_per_prompt` is the request's `n`. `lines`:
    how many requests the engine's scheduler makes of it, None where only the engine knows. `added`: members of the body
    that are not the client's.

    Of responses: the id's text goes into the body at `id_at`; `background`: the answer comes before the work is done;
    `previous` is the id of the response that it goes on from.

    Of embeddings: `bare`, the answer has no place for its usage.
    """

    body: bytes
    model: str | None = None
    stream: bool = False
    hide_final: bool = False
    hide_each: bool = False
    choices_per_prompt: int = 1
    lines: int | None = None
    id_at: int | None = None
    background: bool = False
    previous: str | None = None
    added: int = 0
    bare: bool = False


def read_chat(body: bytes) -> Ask | Refused:
    """The body of a chat request."""
    return _openai(body, lambda _: 1)


def read_completions(body: bytes) -> Ask | Refused:
    """The body of a completions request, which may hold several prompts."""
    return _openai(body, lambda value: _prompts(value.get("prompt")))


def read_responses(body: bytes) -> Ask | Refused:
    """The body of a responses request."""
    read = read_body(body, _ID)
    if read is None or isinstance(read, Refused):
        return read or Ask(body)
    text, value, spans = read
    if not value:
        return Ask(body)
    if spans:
        start, end = spans[-1]
        head, tail = encoded(text[:start]) + b'"', b'"' + encoded(text[end:])
    else:
        at = body.index(b"{") + 1
        head, tail = body[:at] + b'"request_id":"', b'",' + body[at:]
    previous = value.get("previous_response_id")
    return Ask(
        head + tail,
        model_name(value.get("model")),
        stream=boolean(value.get("stream")) is True,
        lines=None if value.get("tools") else 1,
        id_at=len(head),
        background=boolean(value.get("background")) is True,
        previous=previous if isinstance(previous, str) else None,
        added=0 if spans else 1,
    )


def read_messages(body: bytes) -> Ask | Refused:
    """The body of an Anthropic messages request: its streams tell their usage by themselves."""
    read = read_body(body)
    if read is None or isinstance(read, Refused):
        return read or Ask(body)
    value = read[1]
    stream = boolean(value.get("stream")) is True
    return Ask(body, model_name(value.get("model")), stream=stream, lines=1)


def read_pooled(body: bytes) -> Ask | Refused:
    """The body of a request without generated text."""
    read = read_body(body)
    if read is None or isinstance(read, Refused):
        return read or Ask(body)
    value = read[1]
    bare = value.get("encoding_format") == "bytes_only"
    return Ask(body, model_name(value.get("model")), lines=_prompts(value.get("input")), bare=bare)


def model_name(value: object) -> str | None:
    """What may be written down as a model's name."""
    return value if isinstance(value, str) and _MODEL.fullmatch(value) else None


def _openai(body: bytes, prompts: Callable[[dict[str, object]], int | None]) -> Ask | Refused:
    read = read_body(body, _OPTIONS)
    if read is None or isinstance(read, Refused):
        return read or Ask(body)
    value = read[1]
    model = model_name(value.get("model"))
    choices = count(value.get("n"))
    asked = prompts(value)
    beams = boolean(value.get("use_beam_search")) is True  # a line for each beam at each token
    lines = None if beams or asked is None else asked * choices
    if boolean(value.get("stream")) is not True:
        return Ask(body, model, lines=lines)
    sent, hide_final, hide_each = _asking(body, read)
    return Ask(sent, model, True, hide_final, hide_each, choices, lines, added=0 if read[2] else 1)


def _asking(body: bytes, read: Read) -> tuple[bytes, bool, bool]:
    """A stream's request with both options on; whether the client did not ask for the one, for the other."""
    text, value, spans = read
    options = value.get(_OPTIONS)
    if not spans:
        at = body.index(b"{") + 1
        return body[:at] + _ASKING + b"," + body[at:], True, True
    if options is None:
        options = {}
    final = each = None
    if isinstance(options, dict):
        final = boolean(options.get("include_usage", False), of_null=False)
        each = boolean(options.get("continuous_usage_stats", False), of_null=False)
    if not isinstance(options, dict) or final is None or each is None:
        return body, False, False  # the engine refuses these, in its own words
    if final and each:
        return body, False, False
    widened = json.dumps(
        options | {"include_usage": True, "continuous_usage_stats": True}, separators=(",", ":")
    )
    for start, end in reversed(spans):
        text = text[:start] + widened + text[end:]
    return encoded(text), not final, True


def _prompts(value: object) -> int | None:
    """How many prompts a `prompt` or `input` holds: a text, a list of tokens, or a list of either."""
    if isinstance(value, str):
        return 1
    if isinstance(value, list) and value:
        return 1 if isinstance(value[0], int) else len(value)
    return None
