"""Engines that answer too early, too much or not as HTTP has it: no client gets what was meant for another.

The next client's request may go over the connection on which it happened, and must get its own answer.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path

import pytest
from attacked_world import asking, post, signed
from scripted_engine import (
    DONE,
    STREAM_HEAD,
    Asked,
    Client,
    Script,
    World,
    chunk,
    on_uvloop,
    sized,
    token,
    until,
    world,
)

STRAY = b'{"mark":"mark-stray"}'


def first(said: bytes, *, late: bytes = b"", ends: bool = False) -> Script:
    """An engine that says `said` to the first request (and `late` a little later), and its mark to all others."""
    asked_before: list[Asked] = []

    async def script(asked: Asked) -> None:
        asked_before.append(asked)
        if len(asked_before) > 1:
            await asked.say(signed(asked.body))
            return
        await asked.say(said)
        if late:
            await asyncio.sleep(0.02)
            with suppress(ConnectionError):
                await asked.say(late)
        if ends:
            asked.writer.close()

    return script


async def own(it: World, mark: str) -> None:
    """Another client asks, and gets the answer to that."""
    status, _, body = await it.ask(post(asking(mark)))
    assert (status, json.loads(body)["mark"]) == (200, mark)


async def others(it: World) -> None:
    """Three more ask, at once and after a moment."""
    await asyncio.gather(*(own(it, f"mark-{number}") for number in range(3)))
    await asyncio.sleep(0.05)
    await own(it, "mark-last")


ONE = signed(asking("mark-one"))


@pytest.mark.parametrize(
    ("said", "late"),
    [
        (ONE + sized(STRAY), b""),
        (ONE, sized(STRAY)),
        (ONE + b"\r\n", STRAY),
        (ONE.replace(b'"}', b'"}' + STRAY), b""),  # longer than it says
        (ONE + b"HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n", STRAY),
    ],
)
@on_uvloop
async def test_what_nobody_asked_for_reaches_nobody(tmp_path: Path, said: bytes, late: bytes) -> None:
    async with world(tmp_path, first(said, late=late)) as it:
        client = await it.client()
        await client.send(post(asking("mark-one")))
        with suppress(asyncio.IncompleteReadError):
            status, _, body = await client.answer()
            assert status in (200, 502)
            assert b"mark-stray" not in body
        await asyncio.sleep(0.04)
        await others(it)
        assert len(await it.events()) == 5


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + sized(STRAY),
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 21\r\n\r\n" + STRAY,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n" + STRAY,
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 21\r\n\r\n" + STRAY,
        b"HTTP/1.1 200 OK\nContent-Length: 21\n\n" + STRAY,
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n" + STRAY,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n" + STRAY,
        b"POST / HTTP/1.1\r\n\r\n",
        b"mark-stray\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x0a",
    ],
)
@on_uvloop
async def test_an_answer_that_is_no_clean_http_is_a_bad_gateway(tmp_path: Path, said: bytes) -> None:
    async with world(tmp_path, first(said)) as it:
        client = await it.client()
        await client.send(post(asking("mark-one")))
        status, _, body = await client.answer()
        assert status == 502, body
        assert b"mark-stray" not in body
        await client.send(post(asking("mark-after")))  # the client's own connection goes on
        assert b"mark-after" in (await client.answer())[2]
        await others(it)
        events = await it.events()
        assert [event["outcome"] for event in events].count("failed") == 1


@on_uvloop
async def test_an_answer_before_the_request_is_sent_ends_that_connection(tmp_path: Path) -> None:
    """The engine refuses a large request by its head, and does not read the rest."""
    answered = asyncio.Event()

    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                if size > 10_000:
                    writer.write(sized(b'{"mark":"mark-early"}', "413 Payload Too Large"))
                    await answered.wait()
                    break
                writer.write(signed(await reader.readexactly(size)))
        writer.close()

    server = await asyncio.start_server(refuses, "127.0.0.1", 0, limit=4096)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def nobody(_: Asked) -> None:
        raise AssertionError

    async with world(tmp_path, nobody, engine_url=url) as it:
        client = await it.client()
        await client.send(post(asking("mark-one", padding="x" * 5_000_000)))
        status, _, body = await client.answer()
        assert (status, body) == (413, b'{"mark":"mark-early"}')
        await others(it)
        answered.set()
        assert [event["outcome"] for event in await it.events()].count("failed") == 1
    server.close()


@on_uvloop
async def test_the_connection_of_an_answer_that_was_cut_off_is_not_used_again(tmp_path: Path) -> None:
    async def goes_on(asked: Asked) -> None:
        if b"mark-slow" not in asked.body:
            await asked.say(signed(asked.body))
            return
        await asked.say(STREAM_HEAD + chunk(token(1)))
        with suppress(ConnectionError):
            for number in range(2, 50):
                await asyncio.sleep(0.002)
                await asked.say(chunk(token(number)))
            await asked.say(chunk(DONE) + b"0\r\n\r\n")

    async with world(tmp_path, goes_on) as it:
        for number in range(10):
            client: Client = await it.client()
            await client.send(post(asking(f"mark-slow-{number}", stream=True)))
            await client.reader.readuntil(b"\r\n\r\n")
            client.leave()
            await own(it, f"mark-{number}")
        await it.settle()
        events = await it.events()
        outcomes = [event["outcome"] for event in events]
        assert (outcomes.count("aborted"), outcomes.count("finished")) == (10, 10)


@on_uvloop
async def test_a_client_that_sends_its_body_by_the_byte_holds_up_nobody(tmp_path: Path) -> None:
    async def signs(asked: Asked) -> None:
        await asked.say(signed(asked.body))

    async with world(tmp_path, signs) as it:
        slow = [await it.client() for _ in range(20)]
        request = post(asking("mark-slow"))
        for at in range(len(request) - 1):
            for client in slow:
                client.writer.write(request[at : at + 1])
            if at % 20 == 0:
                await own(it, f"mark-{at}")
        asked_before = len(it.engine.asked)
        for client in slow:
            await client.send(request[-1:])
            assert b"mark-slow" in (await client.answer())[2]
        await until(lambda: len(it.engine.asked) == asked_before + 20)
