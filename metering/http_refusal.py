"""What the sidecar itself answers when it refuses: an HTTP status and an error body in OpenAI's shape.

    {"error": {"message": "…", "type": "invalid_request_error", "param": null, "code": "invalid_api_key"}}

Clients' libraries read exactly this shape (https://platform.openai.com/docs/guides/error-codes). Errors of the engine
are not made here: they pass through byte for byte.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

REASONS = {
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
}


@dataclass(frozen=True, slots=True)
class Refused:
    """An answer of our own. `close`: the connection cannot be used after it. `headers`: further lines of the head."""

    status: int
    code: str
    message: str
    close: bool = False
    headers: tuple[tuple[bytes, bytes], ...] = ()


def answer_bytes(refused: Refused, *, keep_alive: bool) -> bytes:
    """The refusal as a whole HTTP/1.1 answer; `keep_alive`: whether another request may follow."""
    kind = "server_error" if refused.status >= 500 else "invalid_request_error"
    error = {"message": refused.message, "type": kind, "param": None, "code": refused.code}
    body = json.dumps({"error": error}).encode()
    head = [
        b"HTTP/1.1 %d %s" % (refused.status, REASONS[refused.status]),
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        *(name + b": " + value for name, value in refused.headers),
    ]
    if not keep_alive:
        head.append(b"connection: close")
    return b"\r\n".join([*head, b"", body])
