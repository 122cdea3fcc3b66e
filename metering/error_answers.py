"""What an engine says of a bad request, without the member that the sidecar put there.

vLLM's errors say how many members the body has in which one is missing (`serve/exception_handling`), and the sidecar
may have added one (`request_body`):

    {"error":{"message":"1 validation error:\\n  {'type': 'missing', 'loc': 'body.input', 'msg': 'Field required',
     'input': '<dict of 3 items>'}","type":"Bad Request","param":"body.input","code":400}}

The client is to read the number that it would read without a sidecar. Only errors about the body itself count its
members: those of a value within it (`body.messages.0.role`) or of a wrong value (`'type': 'string_type'`) stay.
"""

from __future__ import annotations

import re

from metering.http_answer import AnswerHead

#: vLLM bounds what it says of a bad request; a longer answer is passed on as it comes.
MAX_ERROR_BYTES = 64 * 1024
_COUNTED = re.compile(
    rb"(\{'type': '(?:missing', 'loc': 'body\.\w+|\w+', 'loc': 'body)', 'msg': "
    rb"[^\n\\]*?'input': '<dict of )(\d{1,6})( items>')"
)


def may_count(head: AnswerHead) -> bool:
    """Whether an answer may be such an error, and short enough to be kept until it is whole."""
    return head.status == 400 and head.length is not None and head.length <= MAX_ERROR_BYTES


def without_added(body: bytes, added: int) -> bytes:
    """The error's body with `added` members fewer where it counts those of the request."""
    return _COUNTED.sub(lambda found: b"%b%d%b" % (found[1], max(0, int(found[2]) - added), found[3]), body)


def of_length(head: AnswerHead, length: int) -> AnswerHead:
    """The same head for a body of that length."""
    headers = [
        (name, b"%d" % length if name.lower() == b"content-length" else value) for name, value in head.headers
    ]
    return head._replace(headers=headers, length=length, plain=None)
