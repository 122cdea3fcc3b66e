"""Which requests the sidecar lets through to the engine: by list, and by key.

vLLM answers more routes than it documents, and its own `--api-key` does not guard all of them. So what is not listed
here does not reach the engine. `GET /health` is the engine's own, without a key: a load balancer asks it whether the
engine behind this sidecar can serve, and the sidecar answers 503 by itself when the engine is away.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from metering.http_refusal import Refused
from metering.identity import hash_secret
from metering.keybook import KeyBook, KeyEntry


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One route of the engine. `name` is what usage events call it; `metered`: a request leaves an event."""

    name: str
    method: bytes
    path: bytes
    metered: bool
    needs_key: bool = True


CHAT = Endpoint("chat", b"POST", b"/v1/chat/completions", metered=True)
COMPLETIONS = Endpoint("completions", b"POST", b"/v1/completions", metered=True)
MODELS = Endpoint("models", b"GET", b"/v1/models", metered=False)
MODEL = Endpoint("model", b"GET", b"/v1/models/{id}", metered=False)
HEALTH = Endpoint("health", b"GET", b"/health", metered=False, needs_key=False)
ENDPOINTS = (CHAT, COMPLETIONS, MODELS, MODEL, HEALTH)

_BY_PATH = {endpoint.path: endpoint for endpoint in ENDPOINTS if b"{" not in endpoint.path}
# An id may hold slashes (`org/model`), but no segment that a path normaliser behind us would resolve.
_MODEL_PATH = re.compile(rb"/v1/models/(?!\.{1,2}(?:/|$))[\w.:@+~-]+(?:/(?!\.{1,2}(?:/|$))[\w.:@+~-]+)*")
_ALLOWED = ", ".join(f"{e.method.decode()} {e.path.decode()}" for e in ENDPOINTS)


def find_endpoint(method: bytes, target: bytes) -> Endpoint | Refused:
    """The endpoint that a request line names. `target` is as it stands there, query included."""
    path = target.partition(b"?")[0]
    endpoint = _BY_PATH.get(path)
    if endpoint is None and _MODEL_PATH.fullmatch(path):
        endpoint = MODEL
    if endpoint is None:
        return Refused(404, "unknown_endpoint", f"No such endpoint here. Allowed: {_ALLOWED}.")
    if endpoint.method != method:
        return Refused(
            405,
            "method_not_allowed",
            f"{path.decode('latin-1')} takes {endpoint.method.decode()} only.",
            headers=((b"allow", endpoint.method),),
        )
    return endpoint


def find_key(authorization: list[bytes], keys: KeyBook, now_us: int) -> KeyEntry | Refused:
    """Who asks. `authorization` are the values of all `Authorization` headers; there must be one, a bearer's."""
    if not authorization:
        return _unauthorized("No API key. Send it as `Authorization: Bearer KEY`.")
    scheme, _, secret = authorization[0].partition(b" ")
    if len(authorization) > 1 or scheme.lower() != b"bearer" or not secret:
        return _unauthorized("The Authorization header must be `Bearer KEY`, once.")
    entry = keys.find(hash_secret(secret.strip().decode("latin-1")))
    if entry is None:
        return _unauthorized("Unknown API key.")
    if entry.expires_us is not None and entry.expires_us <= now_us:
        return _unauthorized("This API key has expired.")
    return entry


def _unauthorized(message: str) -> Refused:
    return Refused(401, "invalid_api_key", message, headers=((b"www-authenticate", b"Bearer"),))
