"""The simulated engine where nothing is generated, or nothing is written: embeddings, scores, sound, tokens.

The recordings hold their bodies to the real server's, key by key; here is what they count and what their lines say.
"""

from __future__ import annotations

import io
import json
import wave
from pathlib import Path

import pytest
from engine_exchange import Request
from simulated_world import as_request, ask, events, hang_up, named, post, read_lines

from adapters.simulated_engine.options import EngineOptions, LineOptions
from metering.engine_lines import Freed, counted

ID = "8d7f9c2e51b04c6da2f3e4b5c6d7e8f9"


def freed(folder: Path) -> list[Freed]:
    return [each.said for each in read_lines(folder) if isinstance(each.said, Freed)]


@pytest.mark.parametrize(
    ("request_", "externals"),
    [
        (post("/v1/embeddings", input=["one", "two"]), ["embd", "embd"]),
        (post("/pooling", input="one"), ["pooling"]),
        (post("/score", text_1="one", text_2=["two", "three"]), ["score"] * 3),
        (post("/v1/score", queries=["one", "four"], documents=["two", "three"]), ["score"] * 4),
        (post("/v2/rerank", query="one", documents=["two", "three"], top_n=1), ["score"] * 3),
        (post("/classify", input=[[1, 2], [3]]), ["classify"] * 2),
    ],
)
def test_every_text_is_a_request_that_counts_its_prompt(
    tmp_path: Path, request_: Request, externals: list[str]
) -> None:
    options = EngineOptions(tasks=("embed", "classify"), lines=LineOptions(tmp_path))
    (answer,), running = ask(options, as_request(request_, ID))
    found = freed(tmp_path)
    assert [each.external for each in found] == [
        f"{name}-{ID}-{place}" for place, name in enumerate(externals)
    ]
    assert {(each.status, each.output_tokens, each.sampled) for each in found} == {("stopped", 0, True)}
    counters = running.counters["tiny"]
    prompt_tokens = json.loads(answer.body)["usage"]["prompt_tokens"]
    assert counted(read_lines(tmp_path)).prompt_tokens == counters.prompt_tokens == prompt_tokens
    assert (counters.generation_tokens, counters.finished["stop"]) == (0, len(externals))


def test_vectors_in_bytes_say_their_usage_in_a_header_or_nowhere() -> None:
    requests = [
        post("/v1/embeddings", input=["a", "b"], encoding_format=name) for name in ("bytes", "bytes_only")
    ]
    (with_header, without), running = ask(EngineOptions(tasks=("embed",)), *requests)
    about = json.loads(with_header.header("metadata") or "")
    assert about["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    assert without.header("metadata") is None
    assert running.counters["tiny"].prompt_tokens == 4


def test_a_client_that_leaves_an_embedding_leaves_it_uncounted(tmp_path: Path) -> None:
    options = EngineOptions(tasks=("embed",), first_token_ms=300, lines=LineOptions(tmp_path))
    _, running = ask(options, hang_up(post("/v1/embeddings", input=["one", "two"]), 0))
    assert [(each.status, each.sampled) for each in freed(tmp_path)] == [("aborted", False)] * 2
    assert running.counters["tiny"].prompt_tokens == 0


def test_a_server_has_only_what_its_model_does() -> None:
    paths = ["/v1/chat/completions", "/v1/embeddings", "/classify", "/v1/audio/transcriptions"]
    for task, served in (("generate", 0), ("embed", 1), ("classify", 2), ("transcription", 3)):
        answers, _ = ask(EngineOptions(tasks=(task,)), *[Request("POST", path) for path in paths])
        there = [answer.status != 404 for answer in answers]
        assert there[served], task
        assert sum(there) == (2 if task == "transcription" else 1), task
    answers, _ = ask(EngineOptions(tasks=("all",)), *[Request("POST", path) for path in paths])
    assert {answer.status for answer in answers} == {400}


def sound(seconds: float) -> str:
    """Silence that is text too: no byte is above 127."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(1)
        writer.setframerate(10)
        writer.writeframes(b"@" * int(10 * seconds))
    return file.getvalue().decode("ascii")


def spoken(path: str, seconds: float, **fields: str) -> Request:
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in {"model": "tiny", **fields}.items()
    ]
    file = '--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    body = "".join([*parts, file, sound(seconds), "\r\n--b--\r\n"])
    return Request("POST", path, (("Content-Type", "multipart/form-data; boundary=b"),), body)


def test_a_transcription_is_reported_in_seconds_and_counted_in_tokens(tmp_path: Path) -> None:
    options = EngineOptions(tasks=("transcription",), lines=LineOptions(tmp_path))
    counts = json.dumps(named(4, 11)["vllm_xargs"])
    request = as_request(spoken("/v1/audio/transcriptions", 1.2, vllm_xargs=counts), ID)
    (answer,), running = ask(options, request)
    assert json.loads(answer.body)["usage"] == {"type": "duration", "seconds": 2}
    assert [(each.external, each.output_tokens) for each in freed(tmp_path)] == [(f"transcribe-{ID}", 11)]
    assert running.counters["tiny"].generation_tokens == 11


def test_long_sound_is_cut_into_clips_each_a_request(tmp_path: Path) -> None:
    options = EngineOptions(tasks=("transcription",), lines=LineOptions(tmp_path))
    ask(options, as_request(spoken("/v1/audio/translations", 85), ID))
    assert [each.external for each in freed(tmp_path)] == [f"translate-{ID}-{clip}" for clip in range(3)]


def test_a_transcriptions_stream_says_tokens_where_it_was_asked_to() -> None:
    fields = {"stream": "true", "stream_include_usage": "true"}
    fields["vllm_xargs"] = json.dumps(named(4, 11)["vllm_xargs"])
    (answer,), _ = ask(
        EngineOptions(tasks=("transcription",)), spoken("/v1/audio/transcriptions", 1, **fields)
    )
    usage = {"prompt_tokens": 4, "total_tokens": 15, "completion_tokens": 11}
    assert events(answer)[-1]["usage"] == usage
    assert answer.pieces[-1] == "data: [DONE]\n\n"


def test_tokenizing_and_detokenizing_count_nothing() -> None:
    (there, back), running = ask(
        EngineOptions(), post("/tokenize", prompt="Count to ten."), post("/detokenize", tokens=[11, 12])
    )
    assert json.loads(there.body)["count"] == len(json.loads(there.body)["tokens"]) == 4
    assert json.loads(back.body) == {"prompt": " t11 t12"}
    assert running.counters["tiny"].prompt_tokens == 0
