"""The head of a message that was read before on its connection, known again by its bytes.

A client that keeps its connection sends nearly the same head with each of its requests: only the digits of
`Content-Length` differ. So does an engine with its answers, for a second, until the time changes that it states. What a
head says is a function of its bytes (and of limits that stay for the connection), so what was read once holds for the
same bytes again. A head becomes known when it came in one piece, at the start of that piece, was read by the parser and
found to be in order, and leaves the connection alive. From then on, between two messages, a piece that begins with the
same bytes but for those digits is such a head, and so many bytes behind it are its body. The parser sees neither, and
stands where it stood, between two messages. Everything else goes to the parser.

    POST /v1/chat/completions HTTP/1.1␍␊Host: h␍␊Content-Length: 27␍␊Authorization: Bearer tg_…␍␊␍␊{"model": …}
    └───────────────────── before ────────────────────────────┘  └─────────── after ───────────┘└── body ──┘
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: A larger head is read each time: this is what a connection keeps of one at most.
_MOST_BYTES = 4096
_MOST_DIGITS = 8
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,8})\r\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class KnownRequest:
    """The bytes `before` and `after` the length's digits, and what they said: see `http_request.Request`."""

    before: bytes
    after: bytes
    method: bytes
    target: bytes
    lines: list[bytes]
    authorization: list[bytes]
    vouched: tuple[bytes, ...]
    secret_sha256: bytes | None


def split_head(data: bytes) -> tuple[bytes, bytes] | None:
    """`before` and `after` of the head that `data` begins with; None if it has not that form, or is not there whole."""
    end = data.find(b"\r\n\r\n", 0, _MOST_BYTES) + 4
    found = _LENGTH.search(data, 0, max(end - 2, 0))
    return (data[: found.start(1)], data[found.end(1) : end]) if found else None


def head_again(before: bytes, after: bytes, data: bytes) -> tuple[int, int] | None:
    """The length of the body, and where it begins in `data`, if `data` begins with that head; else None."""
    if not data.startswith(before):
        return None
    start = len(before)
    digits_end = data.find(b"\r", start, start + _MOST_DIGITS + 1)
    digits = data[start:digits_end]
    if digits_end < 0 or not digits.isdigit() or not data.startswith(after, digits_end):
        return None
    return int(digits), digits_end + len(after)
