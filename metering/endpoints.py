"""Which requests the sidecar lets through to the engine: by list.

vLLM answers more routes than it documents, and its own `--api-key` does not guard all of them. So what is not listed
here does not reach the engine. `GET /health` is the engine's own, without a key: a load balancer asks it whether the
engine behind this sidecar can serve, and the sidecar answers 503 by itself when the engine is away.

`OPTIONS` of a listed route is a browser's preflight; vLLM answers it, without a key, and asks nothing of its model.

An endpoint that is `metered` makes the engine work: each of its requests leaves one event. `dialect` says how its bodies
are read (`metering.dialects`). Which endpoints tell the engine's scheduler the `X-Request-Id` that the sidecar sends
(vLLM 0.32, read in its source): all metered ones but responses, which takes a `request_id` in the body instead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from metering.http_refusal import Refused


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One route of the engine. `name` is what usage events call it; `metered`: a request leaves an event."""

    name: str
    method: bytes
    path: bytes
    metered: bool
    needs_key: bool = True
    dialect: str = "plain"

    @property
    def anthropic(self) -> bool:
        """Its clients read errors in Anthropic's shape."""
        return self.path.startswith(b"/v1/messages")


def _metered(name: str, path: bytes, dialect: str) -> Endpoint:
    return Endpoint(name, b"POST", path, metered=True, dialect=dialect)


def _free(name: str, method: bytes, path: bytes, dialect: str = "plain") -> Endpoint:
    return Endpoint(name, method, path, metered=False, dialect=dialect)


CHAT = _metered("chat", b"/v1/chat/completions", "chat")
COMPLETIONS = _metered("completions", b"/v1/completions", "completions")
RESPONSES = _metered("responses", b"/v1/responses", "responses")
MESSAGES = _metered("messages", b"/v1/messages", "messages")
MODELS = _free("models", b"GET", b"/v1/models")
MODEL = _free("model", b"GET", b"/v1/models/{id}")
RESPONSE = _free("response", b"GET", b"/v1/responses/{id}", "response")
CANCEL = _free("cancel", b"POST", b"/v1/responses/{id}/cancel", "response")
HEALTH = Endpoint("health", b"GET", b"/health", metered=False, needs_key=False)
#: A browser's question (CORS) before it sends a request to another origin; it never carries a key.
PREFLIGHT = Endpoint("preflight", b"OPTIONS", b"", metered=False, needs_key=False)
ENDPOINTS = (
    CHAT,
    COMPLETIONS,
    RESPONSES,
    RESPONSE,
    CANCEL,
    MESSAGES,
    _free("count_tokens", b"POST", b"/v1/messages/count_tokens", "counted"),
    _metered("embeddings", b"/v1/embeddings", "pooled"),
    _metered("pooling", b"/pooling", "pooled"),
    _metered("score", b"/score", "pooled"),
    _metered("score", b"/v1/score", "pooled"),
    _metered("rerank", b"/rerank", "rerank"),
    _metered("rerank", b"/v1/rerank", "rerank"),
    _metered("rerank", b"/v2/rerank", "rerank"),
    _metered("classify", b"/classify", "pooled"),
    _metered("transcriptions", b"/v1/audio/transcriptions", "audio"),
    _metered("translations", b"/v1/audio/translations", "audio"),
    _free("tokenize", b"POST", b"/tokenize", "counted"),
    _free("detokenize", b"POST", b"/detokenize", "counted"),
    MODELS,
    MODEL,
    HEALTH,
)

_BY_PATH = {endpoint.path: endpoint for endpoint in ENDPOINTS if b"{" not in endpoint.path}
# An id may hold slashes (`org/model`), but no segment that a path normaliser behind us would resolve.
_MODEL_PATH = re.compile(rb"/v1/models/(?!\.{1,2}(?:/|$))[\w.:@+~-]+(?:/(?!\.{1,2}(?:/|$))[\w.:@+~-]+)*")
_RESPONSE_PATH = re.compile(rb"/v1/responses/([\w-]+)(/cancel)?")
_ALLOWED = ", ".join(f"{e.method.decode()} {e.path.decode()}" for e in ENDPOINTS)


def find_endpoint(method: bytes, target: bytes) -> Endpoint | Refused:
    """The endpoint that a request line names. `target` is as it stands there, query included."""
    path = target.partition(b"?")[0]
    endpoint = _BY_PATH.get(path) or _by_pattern(path)
    if endpoint is None:
        return Refused(404, "unknown_endpoint", f"No such endpoint here. Allowed: {_ALLOWED}.")
    if endpoint.method != method:
        if method == b"OPTIONS":
            return PREFLIGHT
        return Refused(
            405,
            "method_not_allowed",
            f"{path.decode('latin-1')} takes {endpoint.method.decode()} only.",
            headers=((b"allow", endpoint.method),),
        )
    return endpoint


def response_id(target: bytes) -> str:
    """The id in the target of a `RESPONSE` or `CANCEL` request."""
    found = _RESPONSE_PATH.match(target)
    assert found is not None
    return found[1].decode("ascii")


def _by_pattern(path: bytes) -> Endpoint | None:
    if _MODEL_PATH.fullmatch(path):
        return MODEL
    found = _RESPONSE_PATH.fullmatch(path)
    if found is None:
        return None
    return RESPONSE if found[2] is None else CANCEL
