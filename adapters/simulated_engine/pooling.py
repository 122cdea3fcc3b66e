"""The answers of models that generate nothing, key by key in vLLM's order; their figures mean nothing."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator

from adapters.simulated_engine.dialect import Body
from adapters.simulated_engine.http import Headers
from adapters.simulated_engine.pooling_asked import AskedPooling, PoolingEndpoint

# Numbers whose bytes are text too, for clients that can read nothing else.
_NUMBERS = (0.5, 2.0, 0.125, 8.0)
DIMENSIONS = 8
_LABELS = ("LABEL_0", "LABEL_1")
ID_PREFIX: dict[PoolingEndpoint, str] = {
    "embeddings": "embd-",
    "pooling": "pooling-",
    "score": "score-",
    "rerank": "score-",
    "classify": "classify-",
}


def pooling_answer(asked: AskedPooling, answer_id: str, created: int) -> Body:
    """An answer's body, where it is JSON."""
    tokens = sum(each.prompt_tokens for each in asked.sequences)
    if asked.endpoint == "rerank":
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {
            "id": answer_id,
            "model": asked.served.shown,
            "usage": usage,
            "results": list(_ranked(asked)),
        }
    return {
        "id": answer_id,
        "object": "list",
        "created": created,
        "model": asked.served.shown,
        "data": [_datum(asked, index) for index in range(asked.results)],
        "usage": {
            "prompt_tokens": tokens,
            "total_tokens": tokens,
            "completion_tokens": 0,
            "prompt_tokens_details": None,
            "completion_tokens_details": None,
        },
    }


def _datum(asked: AskedPooling, index: int) -> Body:
    if asked.endpoint == "score":
        return {"index": index, "object": "score", "score": 0.5}
    if asked.endpoint == "classify":
        return {
            "index": index,
            "label": _LABELS[0],
            "probs": [0.75, 0.25],
            "num_classes": len(_LABELS),
        }
    vector = _vector(index)
    shown: object = vector
    if asked.encoding == "base64":
        shown = base64.b64encode(_packed(vector)).decode()
    if asked.endpoint == "pooling":
        return {"index": index, "object": "pooling", "data": shown}
    return {"index": index, "object": "embedding", "embedding": shown}


def _ranked(asked: AskedPooling) -> Iterator[Body]:
    for index in range(asked.results):
        document = {"text": asked.documents[index], "multi_modal": None}
        yield {"index": index, "document": document, "relevance_score": 1 / (index + 2)}


def binary_answer(asked: AskedPooling, answer_id: str, created: int) -> tuple[list[bytes], Headers]:
    """The vectors themselves, a chunk each, for the encodings `bytes` and `bytes_only`; and the answer's headers.

    With `bytes`, what JSON would have said is in a header, else it is nowhere.
    """
    size = DIMENSIONS * 4
    vectors = [_packed(_vector(index)) for index in range(asked.results)]
    kind = (("content-type", "application/octet-stream"),)
    if asked.encoding == "bytes_only":
        return vectors, kind
    tokens = sum(each.prompt_tokens for each in asked.sequences)
    about = {
        "id": answer_id,
        "created": created,
        "model": asked.served.shown,
        "data": [
            {
                "index": index,
                "embed_dtype": "float32",
                "endianness": "native",
                "start": index * size,
                "end": (index + 1) * size,
                "shape": [DIMENSIONS],
            }
            for index in range(asked.results)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return vectors, (("metadata", json.dumps(about)), *kind)


def _vector(index: int) -> list[float]:
    return [_NUMBERS[(index + place) % len(_NUMBERS)] for place in range(DIMENSIONS)]


def _packed(vector: list[float]) -> bytes:
    return struct.pack(f"<{len(vector)}f", *vector)
