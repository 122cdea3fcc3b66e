"""Requests for transcriptions and translations: multipart/form-data (RFC 7578), read in place.

    --BOUNDARY\\r\\n
    Content-Disposition: form-data; name="model"\\r\\n
    \\r\\n
    whisper-1\\r\\n
    --BOUNDARY--\\r\\n

A recording may be 25 MB: its bytes are found and skipped by a search for the boundary, never copied. Only the short
fields are looked at. A stream tells its usage when asked by two more fields, which go behind the others, because the
engine takes the last field of a name:

    stream_include_usage=true, stream_continuous_usage_stats=true

What is not written exactly like this (a preamble, folded header lines, a name with escapes) is refused: the engine's
parser might find other fields in it. Other types of content go on as they are; the engine wants a file and refuses them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from metering.http_refusal import Refused
from metering.request_body import Ask, model_name
from metering.request_json import boolean

_TYPE = b"multipart/form-data"
_MAX_PARTS = 1000
_MAX_PART_HEAD_BYTES = 4096
_MAX_FIELD_BYTES = 1024
_PARAMETER = re.compile(rb';[ \t]*([\w*-]+)=(?:"((?:[^"\\\r\n]|\\.)*)"|([^\s;"]+))[ \t]*')
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_FIELDS = (b"model", b"stream", b"stream_include_usage", b"stream_continuous_usage_stats")
_BAD = Refused(400, "bad_multipart", "The multipart body is not written as RFC 7578 says.")


def read_audio(body: bytes, content_type: bytes) -> Ask | Refused:
    """What a request for a transcription or a translation asks for. `content_type` is the header's value."""
    if content_type.partition(b";")[0].strip().lower() != _TYPE:
        return Ask(body)
    boundary = _boundary(content_type)
    if boundary is None:
        return _BAD
    found: dict[bytes, str] = {}
    end = -1
    try:
        for name, start, stop in _parts(body, b"\r\n--" + boundary):
            end = stop
            if name in _FIELDS:
                found[name] = body[start : min(stop, start + _MAX_FIELD_BYTES)].decode("utf-8")
    except ValueError:
        return _BAD
    model = model_name(found.get(b"model"))
    if boolean(found.get(b"stream")) is not True:
        return Ask(body, model)
    final = boolean(found.get(b"stream_include_usage")) is True
    each = final and boolean(found.get(b"stream_continuous_usage_stats")) is True
    if each:
        return Ask(body, model, True)
    asking = b"".join(
        b'\r\n--%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\ntrue' % (boundary, name)
        for name in _FIELDS[2:]
    )
    return Ask(b"".join((body[:end], asking, body[end:])), model, True, not final, True)


def _parts(body: bytes, delimiter: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Each part's name and where its content begins and ends. ValueError if the body is not written as it should."""
    if not body.startswith(delimiter[2:]):
        raise ValueError("a preamble")
    at = len(delimiter) - 2
    for _ in range(_MAX_PARTS):
        if body[at : at + 2] != b"\r\n":
            raise ValueError("no line end after a boundary")
        start = body.find(b"\r\n\r\n", at, at + _MAX_PART_HEAD_BYTES)
        if start < 0:
            raise ValueError("a part without a head")
        name = _name(body[at:start])
        stop = body.find(delimiter, start + 2)
        if stop < start + 4:
            raise ValueError("a part without an end")
        yield name, start + 4, stop
        at = stop + len(delimiter)
        if body.startswith(b"--", at):
            if body[at + 2 :] not in (b"", b"\r\n"):
                raise ValueError("something after the end")
            return
    raise ValueError("too many parts")


def _name(head: bytes) -> bytes:
    """The field's name in the header lines of a part."""
    names: list[bytes] = []
    for line in head.split(b"\r\n"):
        field, _, value = line.partition(b":")
        if line and (not field or field != field.strip() or _CONTROL.search(line)):
            raise ValueError("a folded header line, or no text")
        if field.lower() == b"content-disposition":
            kind, parameters = _parameters(value.strip())
            if kind != b"form-data" or b"name" not in parameters or b"name*" in parameters:
                raise ValueError("no name")
            names.append(parameters[b"name"])
    if len(names) != 1:
        raise ValueError("no name, or two")
    return names[0]


def _boundary(content_type: bytes) -> bytes | None:
    try:
        boundary = _parameters(content_type.strip())[1].get(b"boundary", b"")
    except ValueError:
        return None
    return boundary if _BOUNDARY.fullmatch(boundary) else None


def _parameters(value: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """A header's value, and its parameters by their names in lower case; those with escapes cannot be `name`."""
    kind = value.partition(b";")[0]
    at = len(kind)
    parameters: dict[bytes, bytes] = {}
    while at < len(value):
        found = _PARAMETER.match(value, at)
        if found is None:
            raise ValueError("not a parameter")
        key, text = found[1].lower(), found[3] if found[2] is None else found[2]
        if key in parameters or (key != b"filename" and b"\\" in text):
            raise ValueError("a parameter twice, or with escapes")
        parameters[key] = text
        at = found.end()
    return kind.strip().lower(), parameters
