"""What the sidecar itself answers when it refuses: an HTTP status and an error body in the shape that clients read.

    {"error": {"message": "…", "type": "invalid_request_error", "param": null, "code": "invalid_api_key"}}
    {"type": "error", "error": {"type": "authentication_error", "message": "…"}}

The first is OpenAI's (https://platform.openai.com/docs/guides/error-codes), the second Anthropic's
(https://docs.anthropic.com/en/api/errors), for its own endpoint. Errors of the engine are not made here: they pass
through byte for byte.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

REASONS = {
    200: b"OK",
    400: b"Bad Request",
    401: b"Unauthorized",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    415: b"Unsupported Media Type",
    417: b"Expectation Failed",
    431: b"Request Header Fields Too Large",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}


_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    503: "overloaded_error",
    504: "timeout_error",
}


@dataclass(frozen=True, slots=True)
class Refused:
    """An answer of our own. `close`: the connection cannot be used after it. `headers`: further lines of the head.

    `engines_own` is the parameter that the engine would name: the body is then, to the byte, what vLLM answers.
    """

    status: int
    code: str
    message: str
    close: bool = False
    headers: tuple[tuple[bytes, bytes], ...] = ()
    engines_own: str | None = None


@dataclass(frozen=True, slots=True)
class OwnAnswer:
    """An answer of our own that refuses nothing: 200, with a JSON body."""

    body: bytes
    close: bool = False


def answer_bytes(
    answer: OwnAnswer | Refused, *, keep_alive: bool, anthropic: bool = False, head_only: bool = False
) -> bytes:
    """A whole HTTP/1.1 answer of our own; `keep_alive`: whether another request may follow. `anthropic`: an error is
    for a client of Anthropic's endpoint. `head_only`: the request was a HEAD, and a body would pass for the next answer.
    """
    status, body = 200, b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if isinstance(answer, OwnAnswer):
        body = answer.body
    else:
        status, body, headers = answer.status, _error_body(answer, anthropic), answer.headers
    head = [
        b"HTTP/1.1 %d %s" % (status, REASONS[status]),
        b"content-length: %d" % len(body),
        b"content-type: application/json",
        *(name + b": " + value for name, value in headers),
    ]
    if not keep_alive:
        head.append(b"connection: close")
    return b"\r\n".join([*head, b"", b"" if head_only else body])


def _error_body(refused: Refused, anthropic: bool) -> bytes:
    if anthropic:
        kind = _ANTHROPIC_TYPES.get(
            refused.status, "api_error" if refused.status >= 500 else "invalid_request_error"
        )
        return json.dumps({"type": "error", "error": {"type": kind, "message": refused.message}}).encode()
    kind = "server_error" if refused.status >= 500 else "invalid_request_error"
    error = {"message": refused.message, "type": kind, "param": refused.engines_own, "code": refused.code}
    if refused.engines_own is None:
        return json.dumps({"error": error}).encode()
    own = {"error": error | {"code": refused.status}}
    return json.dumps(own, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
