"""A head that was read before is known again by its bytes: nobody can tell, but by the clock."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from exchange_wire import judge
from hypothesis import example, given
from hypothesis import strategies as st

from metering.http_refusal import Refused
from metering.http_request import Budget, Limits, Request, RequestReader

LIMITS = Limits(target_bytes=100, head_bytes=500, headers=8, body_bytes=1000)
HEADS = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nAuthorization: Bearer good\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-Trace: 1\r\ncontent-length:%d\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n",
    b"\r\nPOST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 0%d\r\n\r\n",
)


def post(body: bytes, head: bytes = HEADS[0]) -> bytes:
    return head % len(body) + body


def seen(pieces: Iterable[bytes], *, knowing: bool = True) -> list[object]:
    """What a reader makes of the pieces: each request, and how it ends."""
    reader = RequestReader(judge, LIMITS, Budget(2000))
    out: list[object] = []
    for piece in pieces:
        if not knowing:
            reader._known = None
        reader.feed(piece)
        out += map(said, reader.ready)
        for request in reader.ready:
            request.let_go(reader.budget)
        reader.ready.clear()
        current = reader.current
        out.append((reader.in_head, reader.fault, current and said(current), reader.budget.used))
    return out


def said(request: Request) -> tuple[object, ...]:
    return (
        request.method,
        request.target,
        request.lines,
        request.keep_alive,
        request.authorization,
        request.length,
        request.endpoint,
        request.key,
        request.refused,
        request.body,
        request.held,
    )


requests = st.builds(
    post, st.binary(max_size=30) | st.just(b"x" * 1001), st.sampled_from(HEADS)
) | st.sampled_from([b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n", b"nonsense\r\n\r\n"])


@given(st.lists(st.lists(requests, max_size=3).map(b"".join), max_size=6), st.lists(st.integers(0, 900)))
@example([post(b"a"), post(b"bb"), post(b"ccc")], [])
@example([post(b"a"), post(b"bb"), post(b"ccc")], [101])
@example([post(b"a"), post(b"bb", HEADS[2]), post(b"ccc")], [])
@example([post(b"a", HEADS[3]), post(b"bb", HEADS[3])], [])
def test_what_is_read_does_not_depend_on_what_is_known(pieces: list[bytes], cuts: list[int]) -> None:
    for cut in sorted(set(cuts), reverse=True):
        at = cut % max(len(pieces), 1)
        if pieces:
            place = cut % (len(pieces[at]) + 1)
            pieces[at : at + 1] = [pieces[at][:place], pieces[at][place:]]
    assert seen(pieces) == seen(pieces, knowing=False)


@pytest.mark.parametrize("body", [b"", b"x", b"y" * 999])
def test_the_same_head_with_another_length_is_known(body: bytes) -> None:
    reader = RequestReader(judge, LIMITS)
    reader.feed(post(b"first"))
    parsed: list[bytes] = []
    reader._parser = Refuser(parsed)
    reader.feed(post(body))
    assert [request.body for request in reader.ready] == [b"first", body]
    assert not parsed


@pytest.mark.parametrize(
    "digits", [b"+3", b"-3", b" 3", b"3 ", b"0x3", b"", b"3,3", b"\xd9\xa3", b"100000000000"]
)
def test_anything_but_digits_goes_to_the_parser(digits: bytes) -> None:
    reader = RequestReader(judge, LIMITS)
    reader.feed(post(b"first"))
    parsed: list[bytes] = []
    reader._parser = Refuser(parsed)
    changed = post(b"abc").replace(b"Length: 3", b"Length: " + digits)
    reader.feed(changed)
    assert parsed == [changed]


def test_a_key_is_asked_for_again_with_each_request() -> None:
    revoked = Refused(401, "invalid_api_key", "Unknown API key.")
    known = True
    reader = RequestReader(lambda asked: judge(asked) if known else revoked, LIMITS)
    reader.feed(post(b"first"))
    known = False
    reader.feed(post(b"second"))
    assert [(request.refused, request.body) for request in reader.ready] == [(None, b"first"), (revoked, b"")]


class Refuser:
    """A parser that only notes what it is given."""

    def __init__(self, parsed: list[bytes]) -> None:
        self._parsed = parsed

    def feed_data(self, data: bytes) -> None:
        self._parsed.append(data)

    def get_method(self) -> bytes:
        raise AssertionError

    def get_http_version(self) -> str:
        raise AssertionError

    def should_keep_alive(self) -> bool:
        raise AssertionError
