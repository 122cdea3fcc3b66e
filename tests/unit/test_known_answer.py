"""An answer whose head was read before is known again: the client gets the same bytes either way."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metering.http_answer import AnswerHead, AnswerReader, head_bytes

HEADS = (
    b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: %d\r\ncontent-type: application/json\r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\nContent-Length:%d\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\n",
)


def answer(body: bytes, head: bytes = HEADS[0]) -> bytes:
    return head % len(body) + body


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
SPECIAL = (
    CHUNKED,
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"x"),
    b"nonsense",
)
answers = st.builds(answer, st.binary(max_size=20), st.sampled_from(HEADS)) | st.sampled_from(SPECIAL)


class Client:
    """Takes answers as a client would see them."""

    def __init__(self) -> None:
        self.seen = b""
        self.pieces: list[bytes] = []
        self.over = False

    def answer_head(self, head: AnswerHead) -> None:
        sized = head.length is not None
        self.seen += (
            head_bytes(head, sized=sized, chunked=not sized, close=False) + repr(head.headers).encode()
        )

    def answer_piece(self, piece: bytes) -> None:
        self.seen += piece
        self.pieces.append(piece)

    def answer_end(self) -> None:
        self.over = True


def seen(exchanges: list[bytes], cut: int, *, knowing: bool) -> list[object]:
    """What clients see of answers that come in two pieces each, cut at `cut`, and how the connection is left."""
    reader = AnswerReader()
    out: list[object] = []
    for data in exchanges:
        if reader.bad or not reader.reusable:
            break
        if not knowing:
            reader._known = None
        client = Client()
        reader.expect(client)
        for piece in (data[:cut], data[cut:]):
            if piece:
                reader.feed(piece)
        out.append((client.seen, client.over, bool(reader.bad), reader.reusable))
        reader.taker = None
    return out


@given(st.lists(answers, max_size=5), st.integers(1, 120) | st.just(10_000))
@example([answer(b"a"), answer(b"bcd"), answer(b"")], 10_000)
@example([answer(b"a"), answer(b"b") + b"more"], 10_000)
@example([answer(b"a"), answer(b"bcd"), answer(b"ef")], 90)
def test_what_clients_see_does_not_depend_on_what_is_known(exchanges: list[bytes], cut: int) -> None:
    assert seen(exchanges, cut, knowing=True) == seen(exchanges, cut, knowing=False)


def test_the_same_head_with_another_length_is_known() -> None:
    reader = AnswerReader()
    first, second = Client(), Client()
    reader.expect(first)
    reader.feed(answer(b"first"))
    del reader._parser  # whoever parses fails
    reader.expect(second)
    reader.feed(answer(b"the second"))
    assert (second.over, reader.reusable, reader.taker) == (True, True, None)
    assert second.seen.endswith(b"the second")
    assert b"(b'content-length', b'10')" in second.seen


@pytest.mark.parametrize("later", [b"x", answer(b"x")])
def test_bytes_behind_a_known_answer_make_the_connection_bad(later: bytes) -> None:
    reader = AnswerReader()
    for data in (answer(b"first"), answer(b"second") + later):
        reader.expect(Client())
        reader.feed(data)
    assert reader.bad
    assert not reader.reusable


def test_several_chunks_in_one_piece_stay_several() -> None:
    reader, client = AnswerReader(), Client()
    reader.expect(client)
    reader.feed(CHUNKED.replace(b"0\r\n\r\n", b"2\r\nde\r\n"))
    reader.feed(b"1\r\nf\r\n0\r\n\r\n")
    assert client.pieces == [b"abc", b"de", b"f"]
    assert client.over
