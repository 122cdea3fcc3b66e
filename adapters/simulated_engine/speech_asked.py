"""What a request to `/v1/audio/transcriptions` or `/v1/audio/translations` asks for: a form with a file of sound.

The sound's length is read from a WAV header, else a second for every 16,000 bytes; `vllm_xargs`, a field of JSON in
a form, may name it (`sim_audio_seconds`) beside the other counts. Sound longer than a clip is cut into clips, each of
them an engine request.
"""

from __future__ import annotations

import io
import json
import math
import wave
from collections.abc import Mapping
from dataclasses import dataclass
from email.parser import BytesParser
from typing import Literal

from adapters.simulated_engine.asked import Asked, find_model, most_tokens, natural_tokens, sequence
from adapters.simulated_engine.errors import EngineError, bad_request, invalid
from adapters.simulated_engine.fields import integer, named_counts
from adapters.simulated_engine.http import HttpRequest
from adapters.simulated_engine.options import EngineOptions

SpeechEndpoint = Literal["transcriptions", "translations"]

CLIP_S = 30
PROMPT_TOKENS = 4  # of a clip: what the model is told to do
_BYTES_A_SECOND = 16_000
# Fields that have a value where a form leaves them out; a refusal counts them.
_DEFAULTED = (
    *("prompt", "response_format", "stream", "stream_include_usage", "stream_continuous_usage_stats"),
    *("use_beam_search", "n", "length_penalty", "include_stop_str_in_output"),
    *("temperature", "frequency_penalty", "presence_penalty"),
)
_FORMATS = ("json", "text", "verbose_json", "diarized_json")


@dataclass(frozen=True, slots=True)
class AskedSpeech:
    """`asked` has a sequence for each clip. `duration_s` is the sound's length."""

    asked: Asked
    duration_s: float
    answer_format: str
    language: str


def read_speech(endpoint: SpeechEndpoint, request: HttpRequest, options: EngineOptions) -> AskedSpeech:
    """Read a form. Raises `EngineError` where vLLM refuses it."""
    fields, sound = _form(request)
    if sound is None:
        names = _DEFAULTED if endpoint == "translations" else (*_DEFAULTED, "timestamp_granularities[]")
        raise invalid("missing", "body.file", "Field required", {**dict.fromkeys(names), **fields})
    given = {**fields, "vllm_xargs": _arguments(fields)}
    named = named_counts(given)
    stream = _flag(fields, "stream")
    include_usage = _flag(fields, "stream_include_usage")
    continuous = _flag(fields, "stream_continuous_usage_stats")
    if (include_usage or continuous) and not stream:
        field = "stream_include_usage" if include_usage else "stream_continuous_usage_stats"
        raise bad_request("Stream options can only be defined when `stream=True`.", field)
    if stream and _flag(fields, "use_beam_search"):
        raise bad_request("Streaming is not currently supported with beam search")
    served = find_model(fields.get("model"), options)
    answer_format = fields.get("response_format", "json")
    language = fields.get("language")
    _check_format(answer_format, served.shown, stream)
    if answer_format == "verbose_json" and language is None:
        raise _no_language(endpoint)

    duration_s = named.get("sim_audio_seconds") or _duration_s(sound)
    max_tokens = integer(fields, "max_completion_tokens")
    clips = max(1, math.ceil(duration_s / CLIP_S))
    one = sequence(PROMPT_TOKENS, named, natural_tokens(sound), max_tokens)
    sequences = (one,) * clips
    asked = Asked(
        endpoint=endpoint,
        served=served,
        request_id=None,
        n=1,
        sequences=sequences,
        echoes=None,
        max_tokens=most_tokens(max_tokens, sequences, options),
        stream=stream,
        include_usage=include_usage or (stream and options.force_include_usage),
        continuous_usage=continuous and include_usage,
        reasons=False,
    )
    return AskedSpeech(asked, duration_s, answer_format, language or "")


def _check_format(answer_format: str, model: str, stream: bool) -> None:
    if answer_format not in _FORMATS:
        raise bad_request(
            "Currently only support response_format: `text`, `json`, `verbose_json` or `diarized_json`"
        )
    if answer_format == "diarized_json":
        raise bad_request(f"Currently do not support diarized_json for {model}")
    if answer_format == "verbose_json" and stream:
        raise bad_request("verbose_json format doesn't support streaming case")


def _no_language(endpoint: SpeechEndpoint) -> EngineError:
    """What vLLM says, by accident, of a verbose answer from a model that does not find out the language itself."""
    answer = "TranscriptionResponseVerbose" if endpoint == "transcriptions" else "TranslationResponseVerbose"
    return bad_request(
        f"1 validation error for {answer}\nlanguage\n  Input should be a valid string [type=string_type,"
        " input_value=None, input_type=NoneType]\n    For further information visit"
        " https://errors.pydantic.dev/2.14/v/string_type"
    )


def _form(request: HttpRequest) -> tuple[dict[str, str], bytes | None]:
    """The text fields of a form, and the bytes of its `file`."""
    kind = request.headers.get("content-type", "")
    fields: dict[str, str] = {}
    sound = None
    if not kind.startswith("multipart/form-data"):
        return fields, sound
    head = f"Content-Type: {kind}\r\n\r\n".encode("latin-1", "replace")
    message = BytesParser().parsebytes(head + request.body)
    for part in message.walk():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if not name or not isinstance(content, bytes):
            continue
        if name == "file" and part.get_filename() is not None:
            sound = content
        else:
            fields[str(name)] = content.decode("utf-8", "replace")
    return fields, sound


def _arguments(fields: Mapping[str, str]) -> object:
    try:
        return json.loads(fields.get("vllm_xargs") or "{}")
    except ValueError as error:
        message = f"Failed to parse vllm_xargs. Must be valid JSON: {error}"
        raise bad_request(message, "vllm_xargs") from None


def _flag(fields: Mapping[str, str], name: str) -> bool:
    return fields.get(name, "").lower() in ("true", "1", "on", "yes")


def _duration_s(sound: bytes) -> float:
    if not sound:
        raise EngineError(400, "Invalid or unsupported audio file.", "BadRequestError")
    try:
        with wave.open(io.BytesIO(sound)) as audio:
            return float(audio.getnframes() / audio.getframerate())
    except (wave.Error, EOFError, ZeroDivisionError):
        return len(sound) / _BYTES_A_SECOND
