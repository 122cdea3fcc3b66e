"""Bodies with a `Content-Encoding`: vLLM undoes none, so neither does the sidecar, and the client gets vLLM's answer."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from scripted_engine import SECRET, Asked, on_uvloop, sized, world

ASK = {"model": "tiny", "messages": []}
BEARER = f"Authorization: Bearer {SECRET}\r\n"


def deflate(data: bytes) -> bytes:
    return zlib.compress(data)


@pytest.mark.parametrize(("name", "encode"), [("gzip", gzip.compress), ("deflate", deflate)])
@on_uvloop
async def test_an_encoded_body_goes_on_as_it_is_for_the_engine_to_refuse(
    tmp_path: Path, name: str, encode: Callable[[bytes], bytes]
) -> None:
    said = b'{"error":{"message":"There was an error parsing the body","code":400}}'

    async def refuses(asked: Asked) -> None:
        await asked.say(sized(said, "400 Bad Request"))

    body = encode(json.dumps(ASK).encode())
    async with world(tmp_path, refuses) as it:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: s\r\n{BEARER}Content-Encoding: {name}\r\n"
        answer = await it.ask(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert (answer[0], answer[2]) == (400, said)
        (asked,) = it.engine.asked
        assert asked.body == body
        assert asked.header("content-encoding") is None  # nothing behind us inflates what nobody has read
        (event,) = await it.events()
        assert (event["outcome"], event["prompt_tokens"], event["completion_tokens"]) == ("failed", 0, 0)
