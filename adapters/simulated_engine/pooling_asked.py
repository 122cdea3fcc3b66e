"""What a model that generates nothing is asked: texts to embed, to classify, to score against one another.

Every text is an engine request of its own: a score of one against three is four, the query first. Usage adds up
their tokens. As everywhere, `vllm_xargs` may name the tokens of each (`sim_prompt_tokens`, `sim_cached_tokens`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from adapters.simulated_engine.asked import (
    Sequence,
    Served,
    chat_tokens,
    check_context,
    find_model,
    prompt_tokens,
    sequence,
    tokens_of,
)
from adapters.simulated_engine.errors import EngineError, Fault, bad_request, invalid, invalid_fields
from adapters.simulated_engine.fields import integer, named_counts, parse, text
from adapters.simulated_engine.options import EngineOptions

PoolingEndpoint = Literal["embeddings", "pooling", "score", "rerank", "classify"]

# The fields that each form of a request needs, in the order in which vLLM tries the forms.
_FORMS: dict[PoolingEndpoint, tuple[str, ...]] = {
    "embeddings": ("input", "messages", "messages", "messages", "input", "messages", "input"),
    "classify": ("input", "messages"),
    "pooling": ("input", "messages", "data"),
}
# How the two sides of a score are called.
_SIDES = (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2"))


@dataclass(frozen=True, slots=True)
class AskedPooling:
    """`documents` are the texts that a rerank repeats; `results` is how many things the answer lists."""

    endpoint: PoolingEndpoint
    served: Served
    request_id: str | None
    sequences: tuple[Sequence, ...]
    documents: tuple[str, ...]
    results: int
    encoding: str

    @property
    def is_binary(self) -> bool:
        return self.endpoint in ("embeddings", "pooling") and self.encoding in ("bytes", "bytes_only")


def read_pooling(endpoint: PoolingEndpoint, body: bytes, options: EngineOptions) -> AskedPooling:
    """Read a request's body. Raises `EngineError` where vLLM refuses it."""
    given = parse(body)
    named = named_counts(given)
    counts, documents = _texts(endpoint, given)
    try:
        served = find_model(text(given, "model"), options)
    except EngineError:
        # Models that pool are refused in other words than models that generate.
        raise EngineError(404, f"The model `{given['model']}` does not exist.", "NotFoundError") from None
    if not counts:
        raise bad_request("You must pass at least one prompt")
    if "sim_prompt_tokens" not in named:
        check_context(counts, None, options)
    results = len(counts)
    if endpoint in ("score", "rerank"):
        results = len(documents)
    top = integer(given, "top_n") or results
    return AskedPooling(
        endpoint=endpoint,
        served=served,
        request_id=text(given, "request_id"),
        sequences=tuple(sequence(count, {**named, "sim_completion_tokens": 0}, 0, None) for count in counts),
        documents=documents,
        results=min(top, results),
        encoding=text(given, "encoding_format") or "float",
    )


def _texts(endpoint: PoolingEndpoint, given: Mapping[str, Any]) -> tuple[list[int], tuple[str, ...]]:
    """The tokens of each text, and the texts that others are scored against."""
    if endpoint == "rerank":
        return _pairs(given, ("query", "documents"))
    if endpoint == "score":
        for sides in _SIDES:
            if all(side in given for side in sides):
                return _pairs(given, sides)
        raise _missing(given, tuple(side for sides in _SIDES for side in sides))
    if "input" not in given and "messages" in given:
        return [chat_tokens(given)], ()
    if "input" not in given:
        raise _missing(given, _FORMS[endpoint])
    if given["input"] == []:
        return [], ()
    return prompt_tokens(given["input"], "input")[0], ()


def _pairs(given: Mapping[str, Any], sides: tuple[str, str]) -> tuple[list[int], tuple[str, ...]]:
    if any(side not in given for side in sides):
        raise _missing(given, sides)
    left, right = (_as_texts(given[side], side) for side in sides)
    if len(left) not in (1, len(right)):
        raise bad_request("Input lengths must be either 1:1, 1:N or N:N")
    if not left:
        raise bad_request("At least one text element must be given")
    if not right:
        raise bad_request("At least one text_pair element must be given")
    return [max(1, tokens_of(each)) for each in (*left, *right)], tuple(right)


def _missing(given: Mapping[str, Any], needed: tuple[str, ...]) -> EngineError:
    faults = [
        Fault("missing", f"body.{name}", "Field required", given) for name in needed if name not in given
    ]
    return invalid_fields(faults)


def _as_texts(value: object, side: str) -> list[str]:
    texts: list[str] = []
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, str):
            raise invalid("string_type", f"body.{side}", "Input should be a valid string", one)
        texts.append(one)
    return texts
