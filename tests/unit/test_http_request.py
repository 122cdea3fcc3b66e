"""Strictness about what clients send."""

from __future__ import annotations

from itertools import pairwise

import pytest
from exchange_wire import judge
from hypothesis import given
from hypothesis import strategies as st

from metering.http_request import Budget, Limits, Request, RequestReader

POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
SMALL = Limits(target_bytes=100, head_bytes=500, headers=8, body_bytes=1000)


def read(data: bytes, *, limits: Limits = SMALL) -> RequestReader:
    reader = RequestReader(judge, limits)
    reader.feed(data)
    return reader


def refusal(data: bytes) -> tuple[int, str]:
    """Why `data` goes no further: by its bytes, or by what it asks."""
    reader = read(data)
    if reader.fault is not None:
        assert reader.fault.close
        return reader.fault.status, reader.fault.code
    request = reader.current or reader.ready[0]
    assert request.refused is not None
    return request.refused.status, request.refused.code


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        b"Content-Length: 3\r\nContent-Length: 4\r\n",
        b"Content-Length: 3\r\nContent-Length: 3\r\n",
        b"Content-Length: 3, 3\r\n",
        b"Content-Length: +3\r\n",
        b"Content-Length: -3\r\n",
        b"Content-Length: \r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"X: a\r\n b\r\n",
        b"X : a\r\n",
        b": a\r\n",
        b"X: a\x00b\r\n",
        b"X: a\x01b\r\n",
        b"X: a\nY: b\r\n",
        b"X: a\rY: b\r\n",
        b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
    ],
)
def test_ambiguous_heads_are_refused_and_the_connection_with_them(head: bytes) -> None:
    assert refusal(POST + head + b"\r\nabc")[0] == 400


@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\n",
        b"0x3\r\nabc\r\n",
        b"fffffffffffffffff\r\n",
        b"3 \r\nabc\r\n",
        b"3\nabc\n",
        b"3\r\nabcd\r\n",
        b"-1\r\n",
    ],
)
def test_bad_chunk_sizes_are_refused(chunks: bytes) -> None:
    assert refusal(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)[0] == 400


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"GET http://x/v1/models HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad_target"),
        (b"GET /v1/models#a HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad_target"),
        (b"GET /v1/models HTTP/1.1\r\n\r\n", 400, "bad_host"),
        (b"GET /v1/models HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400, "bad_host"),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501, "unknown_transfer_encoding"),
        (b"POST /v1/completions HTTP/2.0\r\nHost: x\r\n\r\n", 505, "http_version"),
        (b"POST /v1/completions HTTP/0.9\r\nHost: x\r\n\r\n", 400, "bad_request"),
        (b"POST /v1/completions HTTP/1.2\r\nHost: x\r\n\r\n", 400, "bad_request"),
        (b"GET /v1/models\r\n\r\n", 400, "bad_request"),
        (POST + b"Expect: 200-ok\r\n\r\n", 417, "unknown_expectation"),
        (POST + b"Content-Length: 1001\r\n\r\n", 413, "body_too_large"),
        (b"GET /" + b"a" * 100 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431, "target_too_long"),
        (POST + b"X: " + b"a" * 500 + b"\r\n\r\n", 431, "head_too_large"),
        (POST + b"X: " + b"a" * 500, 431, "head_too_large"),
        (POST + b"X: a\r\n" * 8 + b"\r\n", 431, "head_too_large"),
        (b"HEAD /v1/models HTTP/1.1\r\nHost: x\r\n\r\n", 405, "method_not_allowed"),
        (b"OPTIONS /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 404, "unknown_endpoint"),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "upgrade_refused"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "http_version"),
        (b"\x16\x03\x01\x02\x00\x01", 400, "bad_request"),
    ],
)
def test_each_refusal_has_its_name(data: bytes, status: int, code: str) -> None:
    assert refusal(data) == (status, code)


def test_a_chunked_body_may_not_grow_beyond_the_limit() -> None:
    reader = read(POST + b"Transfer-Encoding: chunked\r\n\r\n" + (b"64\r\n" + b"x" * 100 + b"\r\n") * 11)
    assert reader.current is not None
    assert reader.current.refused is not None
    assert reader.current.refused.code == "body_too_large"
    assert reader.budget.used == 0


def test_the_bodies_of_all_connections_together_are_bounded() -> None:
    budget = Budget(limit=1500)
    readers = [RequestReader(judge, SMALL, budget) for _ in range(2)]
    for reader in readers:
        reader.feed(POST + b"Content-Length: 900\r\n\r\n" + b"x" * 899)
    assert readers[0].current is not None
    assert readers[0].current.refused is None
    refused = readers[1].current
    assert refused is not None
    assert refused.refused is not None
    assert refused.refused.code == "too_many_bodies"
    readers[0].drop()
    assert budget.used == 0


def test_the_body_of_a_refused_request_is_read_and_dropped() -> None:
    reader = read(b"POST /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
    (request,) = reader.ready
    assert request.refused is not None
    assert request.refused.status == 404
    assert request.keep_alive
    assert request.body == b""


BOTH = (
    POST + b"Content-Length: 5\r\nX-A: 1\r\n\r\nhello" + POST + b"Transfer-Encoding: chunked\r\n\r\n"
    b"3;x=y\r\nfoo\r\n3\r\nbar\r\n0\r\nX-Trailer: t\r\n\r\n"
    + b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
)


@given(st.lists(st.integers(0, len(BOTH)), max_size=20))
def test_pipelined_requests_come_out_in_order_however_they_are_cut(cuts: list[int]) -> None:
    reader = RequestReader(judge, SMALL)
    for start, end in pairwise([0, *sorted(cuts), len(BOTH)]):
        if start < end:
            reader.feed(BOTH[start:end])
    seen = [(request.body, request.lines, request.keep_alive) for request in reader.ready]
    assert seen == [(b"hello", [b"X-A: 1"], True), (b"foobar", [], True), (b"", [], False)]
    assert reader.fault is None


@given(st.binary(max_size=300))
def test_no_bytes_whatever_make_the_reader_fail(noise: bytes) -> None:
    reader = RequestReader(judge, SMALL)
    reader.feed(noise)
    reader.feed(POST + noise)


def test_headers_that_connection_names_go_no_further() -> None:
    (request,) = read(
        POST + b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nX-B: 2\r\nTE: trailers\r\n\r\n"
    ).ready
    assert request.lines == [b"X-B: 2"]


def test_an_awaited_body_is_known_as_soon_as_the_head_is_whole() -> None:
    reader = read(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    request: Request | None = reader.current
    assert request is not None
    assert request.expects_continue
    assert not reader.ready


def test_trailers_are_bounded_as_a_head_is() -> None:
    reader = read(POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nTrailer: ")
    for _ in range(10):
        reader.feed(b"y" * 100)
    assert reader.fault is not None
    assert (reader.fault.status, reader.fault.code) == (431, "head_too_large")


def test_a_body_in_chunks_of_one_byte_is_no_trailer() -> None:
    reader = read(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(900):
        reader.feed(b"1\r\nx\r\n")
    reader.feed(b"0\r\n\r\n")
    assert reader.fault is None
    assert reader.ready[0].body == b"x" * 900
