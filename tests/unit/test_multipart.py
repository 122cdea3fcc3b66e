"""Forms with a recording: read in place, and asked for their stream's usage behind the client's own fields."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.http_refusal import Refused
from metering.multipart import read_audio
from metering.request_body import Ask

TYPE = b"multipart/form-data; boundary=sound"
SOUND = (
    b'Content-Disposition: form-data; name="file"; filename="a\\"b.wav"\r\nContent-Type: audio/wav\r\n\r\n'
)
ASKING = (
    b'\r\n--sound\r\nContent-Disposition: form-data; name="stream_include_usage"\r\n\r\ntrue'
    b'\r\n--sound\r\nContent-Disposition: form-data; name="stream_continuous_usage_stats"\r\n\r\ntrue'
)
FILE = SOUND + b"RIFF\r\n--soun\r\n--\r\n\r\n"


def field(name: str, value: str) -> bytes:
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode()


def form(*parts: bytes, end: bytes = b"\r\n") -> bytes:
    return b"--sound\r\n" + b"\r\n--sound\r\n".join(parts) + b"\r\n--sound--" + end


def ask(body: bytes, content_type: bytes = TYPE) -> Ask:
    read = read_audio(body, content_type)
    assert isinstance(read, Ask)
    return read


def test_a_form_without_a_stream_is_not_touched() -> None:
    body = form(field("model", "org/whisper"), FILE, field("stream", "false"))
    assert ask(body) == Ask(body, "org/whisper")


@pytest.mark.parametrize("value", ["true", "1", "YES"])
def test_a_stream_is_asked_for_its_usage_behind_the_clients_fields(value: str) -> None:
    body = form(field("stream", value), field("stream_include_usage", "false"), FILE)
    close = b"\r\n--sound--\r\n"
    asked = ask(body)
    assert asked == Ask(body[: -len(close)] + ASKING + close, None, True, True, True)


def test_what_the_client_asked_for_itself_stays_visible() -> None:
    final = field("stream_include_usage", "true")
    each = field("stream_continuous_usage_stats", "on")
    stream = field("stream", "true")
    assert (ask(form(stream, final, FILE)).hide_final, ask(form(stream, final, FILE)).hide_each) == (
        False,
        True,
    )
    assert (ask(form(stream, each, FILE)).hide_final, ask(form(stream, each, FILE)).hide_each) == (True, True)
    body = form(stream, final, each, FILE)
    assert ask(body) == Ask(body, None, True)


def test_the_last_of_two_fields_counts_as_it_does_for_the_engine() -> None:
    body = form(
        field("stream", "true"), FILE, field("stream", "false"), field("model", "a"), field("model", "b")
    )
    assert ask(body) == Ask(body, "b")


def test_a_name_that_is_the_clients_own_text_is_not_written_down() -> None:
    assert ask(form(field("model", "Jonas Jonaitis"), FILE)).model is None
    assert ask(form(field("model", "x" * 5_000), FILE)).model is None


@pytest.mark.parametrize(
    "content_type",
    [b"application/json", b"application/x-www-form-urlencoded", b"", b"multipart/mixed; boundary=sound"],
)
def test_other_content_goes_on_for_the_engines_own_error(content_type: bytes) -> None:
    body = form(field("stream", "true"))
    assert ask(body, content_type) == Ask(body)


@pytest.mark.parametrize(
    "content_type", [TYPE + b" ", b'Multipart/Form-Data; boundary="sound"', TYPE + b"; charset=utf-8"]
)
def test_a_boundary_is_found_however_it_is_written(content_type: bytes) -> None:
    assert ask(form(field("stream", "true"), FILE), content_type).stream


GOOD = form(field("model", "m"), FILE, field("stream", "true"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\r\n" + GOOD,
        b"preamble\r\n" + GOOD,
        GOOD.replace(b"--sound\r\n", b"--sound \r\n"),
        GOOD.replace(b"\r\n", b"\n"),
        GOOD.removesuffix(b"--\r\n"),
        GOOD + GOOD,
        GOOD + b"x",
        b"--sound--\r\n",
        form(field("model", "m").replace(b"form-data", b"attachment")),
        form(field("model", "m").replace(b'name="model"', b'name="mo\\del"')),
        form(field("model", "m").replace(b'name="model"', b'name="a"; name="model"')),
        form(field("model", "m").replace(b'name="model"', b"name*=utf-8''stream; name=\"a\"")),
        form(field("model", "m").replace(b'name="model"', b'filename="a"')),
        form(b"Content-Type: text/plain\r\n\r\nx"),
        form(field("stream", "true").replace(b"\r\n\r\n", b"\n\r\n\r\n")),
        form(b'Content-Disposition: form-data;\r\n name="stream"\r\n\r\ntrue'),
        form(
            field("a", "b").replace(b"\r\n\r\n", b'\r\nContent-Disposition: form-data; name="stream"\r\n\r\n')
        ),
        form(b"X: " + b"x" * 5_000 + b"\r\n" + field("stream", "true")),
        form(field("stream", "true").replace(b"true", b"\xff")),
        form(*[field("a", "b")] * 1_001),
    ],
)
def test_what_the_engine_might_read_otherwise_is_refused(body: bytes) -> None:
    refused = read_audio(body, TYPE)
    assert isinstance(refused, Refused)
    assert (refused.status, refused.code) == (400, "bad_multipart")


@pytest.mark.parametrize(
    "content_type",
    [
        b"multipart/form-data",
        b'multipart/form-data; boundary="a"; boundary=b',
        b"multipart/form-data; boundary=a\xff",
    ],
)
def test_without_one_good_boundary_nothing_can_be_read(content_type: bytes) -> None:
    assert isinstance(read_audio(GOOD, content_type), Refused)


@given(st.integers(0, 2**32), st.integers(0, 8))
def test_no_bytes_make_it_fail(seed: int, changes: int) -> None:
    chance = random.Random(seed)
    body = bytearray(GOOD)
    for _ in range(changes):
        body[chance.randrange(len(body))] = chance.randrange(256)
    read_audio(bytes(body), TYPE)
    read_audio(GOOD, bytes(body[:60]))
