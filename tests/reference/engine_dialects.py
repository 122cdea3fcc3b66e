"""The fixed requests of the endpoints beside chat and completions: more dialects of usage.

`dialects` goes to a server with vLLM's defaults, `stored` to one that keeps responses and shows cached tokens,
`embed` and `classify` to servers that pool, `speech` to vLLM's own audio routes without a model (tests/engine/speech.py).
Requests of a set are sent in this order, and some need what went before them: BEFORE says which.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from engine_bodies import (
    JSON_HEADERS,
    LONG_PROMPT,
    STOP_AT_ONCE,
    chat,
    completion,
    get,
    hang_up,
    messages,
    pooled,
    post,
    responses,
    spoken,
    wants,
)
from engine_exchange import Request

# As the sidecar mints them: the request's id, then whose it is.
STORED = "resp_" + "5eed" * 8 + "_0" + "ab" * 8
BACKGROUND = "resp_" + "5eed" * 8 + "_0" + "bc" * 8
BACKGROUND_STREAM = "resp_" + "5eed" * 8 + "_0" + "cd" * 8
# Not the text of the long chats, whose first two blocks would be in the cache already.
LONG_INPUT = "Every token has its price, and a node meters every token that it makes. " * 24
LONG_TOKENS = 538

BEAMS: dict[str, Any] = {"use_beam_search": True, "n": 2}

DIALECTS: dict[str, Request] = {
    "messages": messages(),
    "messages_system": messages(
        3,
        prompt_tokens=27,
        system="Be brief.",
        messages=[{"role": "user", "content": [{"type": "text", "text": "Count to ten."}]}],
    ),
    "messages_stream": messages(stream=True),
    "messages_hung_up": hang_up(messages(900), 0),
    "messages_stream_hung_up_after_1": hang_up(messages(900, stream=True), 1),
    "messages_stream_hung_up_after_9": hang_up(messages(900, stream=True), 9),
    "messages_bad_json": post("/v1/messages", '{"model": "tiny", '),
    "messages_no_max_tokens": post("/v1/messages", '{"model": "tiny", "messages": []}'),
    "messages_unknown_model": messages(model="none"),
    "messages_unknown_model_stream": messages(model="none", stream=True),
    "responses": responses(),
    "responses_instructions": responses(3, prompt_tokens=27, instructions="Be brief."),
    "responses_messages": responses(3, input=[{"role": "user", "content": "Count to ten."}]),
    "responses_stop": responses(
        8,
        logit_bias=STOP_AT_ONCE,
        ignore_eos=False,
        vllm_xargs={"sim_prompt_tokens": 16, "sim_completion_tokens": 1},
    ),
    "responses_request_id": responses(2, request_id=STORED),
    "responses_stream": responses(stream=True),
    "responses_stream_stop": responses(
        8,
        logit_bias=STOP_AT_ONCE,
        stream=True,
        ignore_eos=False,
        vllm_xargs={"sim_prompt_tokens": 16, "sim_completion_tokens": 1},
    ),
    "responses_hung_up": hang_up(responses(900), 0),
    "responses_stream_hung_up_after_9": hang_up(responses(900, stream=True), 9),
    "responses_background_not_stored": responses(background=True),
    "responses_unknown_previous": responses(previous_response_id="resp_none"),
    "responses_bad_json": post("/v1/responses", "[1"),
    "responses_no_input": post("/v1/responses", '{"model": "tiny"}'),
    "responses_unknown_model": responses(model="none"),
    "responses_max_output_tokens_negative": responses(max_output_tokens=-1),
    "response_unknown": get("/v1/responses/resp_none"),
    "response_cancel_unknown": post("/v1/responses/resp_none/cancel", ""),
    "chat_beam": chat(**BEAMS, **wants(3)),
    "completion_beam": completion(**BEAMS, **wants(3)),
    "completion_beam_one": completion(use_beam_search=True, **wants(3)),
    "completion_beam_batch": completion(prompt=[[21, 22, 23], [31, 32, 33, 34]], **BEAMS, **wants(2)),
    "completion_beam_stream": completion(stream=True, **BEAMS, **wants(3)),
    "count_tokens": pooled(
        "/v1/messages/count_tokens", 16, messages=[{"role": "user", "content": "Count to ten."}]
    ),
    "tokenize": pooled("/tokenize", 7, prompt="Count to ten."),
    "detokenize": pooled("/detokenize", tokens=[11, 12, 13]),
    "embeddings_of_a_model_that_generates": pooled("/v1/embeddings", 7, input="Count to ten."),
    "transcription_of_a_model_that_generates": spoken("/v1/audio/transcriptions"),
}

STORING: dict[str, Request] = {
    "messages": messages(),
    "responses_stored": responses(request_id=STORED),
    "response_stored": get(f"/v1/responses/{STORED}"),
    "responses_previous": responses(3, prompt_tokens=37, previous_response_id=STORED),
    "response_cancel_finished": post(f"/v1/responses/{STORED}/cancel", ""),
    "responses_background": responses(request_id=BACKGROUND, background=True),
    "response_background": get(f"/v1/responses/{BACKGROUND}"),
    "responses_background_stream": responses(request_id=BACKGROUND_STREAM, background=True, stream=True),
    "response_background_stream": get(f"/v1/responses/{BACKGROUND_STREAM}?stream=true&starting_after=3"),
    "responses_background_store_false": responses(background=True, store=False),
    "responses_long_first": responses(2, prompt_tokens=LONG_TOKENS, input=LONG_INPUT),
    "responses_long_cached": responses(2, prompt_tokens=LONG_TOKENS, cached_tokens=512, input=LONG_INPUT),
    "responses_long_stream_cached": responses(
        2, prompt_tokens=LONG_TOKENS, cached_tokens=512, input=LONG_INPUT, stream=True
    ),
    "messages_long_cached": messages(
        2, prompt_tokens=LONG_TOKENS, cached_tokens=512, messages=[{"role": "user", "content": LONG_INPUT}]
    ),
    "messages_long_stream_cached": messages(
        2,
        prompt_tokens=LONG_TOKENS,
        cached_tokens=512,
        messages=[{"role": "user", "content": LONG_INPUT}],
        stream=True,
    ),
}

# Texts of 7 tokens each, so that one count says it for all.
QUERY = "Count to ten."
DOCUMENTS = ["The bill of a node.", "The price of it."]

EMBED: dict[str, Request] = {
    "embeddings": pooled("/v1/embeddings", 7, input=QUERY),
    "embeddings_batch": pooled("/v1/embeddings", 7, input=DOCUMENTS),
    "embeddings_tokens": pooled("/v1/embeddings", input=[[11, 12, 13], [14, 15]]),
    "embeddings_base64": pooled("/v1/embeddings", 7, input=QUERY, encoding_format="base64"),
    "embeddings_request_id": post(
        "/v1/embeddings",
        json.dumps({"model": "tiny", "input": [11, 12]}),
        (*JSON_HEADERS, ("X-Request-Id", "trace-7")),
    ),
    "embeddings_long_first": pooled("/v1/embeddings", input=LONG_PROMPT),
    "embeddings_long_cached": pooled("/v1/embeddings", 300, 256, input=LONG_PROMPT),
    "embeddings_empty": pooled("/v1/embeddings", input=[]),
    "embeddings_no_input": pooled("/v1/embeddings"),
    "embeddings_bad_json": post("/v1/embeddings", '{"model"'),
    "embeddings_too_long": pooled("/v1/embeddings", input=[11] * 1100),
    "embeddings_unknown_model": post("/v1/embeddings", '{"model": "none", "input": "Count to ten."}'),
    "pooling": pooled("/pooling", 7, input=QUERY),
    "pooling_batch": pooled("/pooling", 7, input=DOCUMENTS),
    "score": pooled("/score", 7, text_1=QUERY, text_2=DOCUMENTS[0]),
    "score_one_to_many": pooled("/v1/score", 7, text_1=QUERY, text_2=DOCUMENTS),
    "score_many_to_many": pooled("/v1/score", 7, text_1=[QUERY, QUERY], text_2=DOCUMENTS),
    "score_of_unlike_lengths": pooled("/score", 7, text_1=[QUERY, QUERY], text_2=[QUERY, *DOCUMENTS]),
    "rerank": pooled("/rerank", 7, query=QUERY, documents=DOCUMENTS),
    "rerank_top_1": pooled("/v1/rerank", 7, query=QUERY, documents=DOCUMENTS, top_n=1),
    "rerank_v2": pooled("/v2/rerank", 7, query=QUERY, documents=DOCUMENTS),
    "rerank_no_documents": pooled("/rerank", 7, query=QUERY),
    "tokenize": pooled("/tokenize", 7, prompt=QUERY),
    "chat_of_a_model_that_pools": chat(**wants(2)),
}

CLASSIFY: dict[str, Request] = {
    "classify": pooled("/classify", 7, input=QUERY),
    "classify_batch": pooled("/classify", 7, input=DOCUMENTS),
    "classify_no_input": pooled("/classify"),
    "classify_unknown_model": post("/classify", '{"model": "none", "input": "Count to ten."}'),
    "pooling": pooled("/pooling", 7, input=QUERY),
    "score_of_a_model_that_classifies": pooled("/score", 7, text_1=QUERY, text_2=DOCUMENTS[0]),
}

SPEECH: dict[str, Request] = {
    "transcription": spoken("/v1/audio/transcriptions"),
    "transcription_text": spoken("/v1/audio/transcriptions", response_format="text"),
    "transcription_verbose": spoken("/v1/audio/transcriptions", response_format="verbose_json"),
    "transcription_stream": spoken("/v1/audio/transcriptions", stream="true"),
    "transcription_stream_usage": spoken(
        "/v1/audio/transcriptions", stream="true", stream_include_usage="true"
    ),
    "transcription_stream_continuous": spoken(
        "/v1/audio/transcriptions",
        stream="true",
        stream_include_usage="true",
        stream_continuous_usage_stats="true",
    ),
    "translation": spoken("/v1/audio/translations"),
    "translation_verbose": spoken("/v1/audio/translations", response_format="verbose_json"),
    "translation_stream_usage": spoken("/v1/audio/translations", stream="true", stream_include_usage="true"),
    "transcription_srt": spoken("/v1/audio/transcriptions", response_format="srt"),
    "transcription_unknown_model": spoken("/v1/audio/transcriptions", model="none"),
    "transcription_no_file": post("/v1/audio/transcriptions", "{}"),
    "transcription_verbose_stream": spoken(
        "/v1/audio/transcriptions", stream="true", response_format="verbose_json"
    ),
}

#: Requests of `stored` that mean nothing without those that went before.
BEFORE: Mapping[str, tuple[str, ...]] = {
    "response_stored": ("responses_stored",),
    "responses_previous": ("responses_stored",),
    "response_cancel_finished": ("responses_stored",),
    "response_background": ("responses_background",),
    "response_background_stream": ("responses_background_stream",),
}
