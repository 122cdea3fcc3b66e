"""The sidecar on real sockets, before an engine that does as it is told, with a real lane behind it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from scripted_engine import (
    DONE,
    KEY,
    PLAIN_TOKEN,
    SECRET,
    STREAM_HEAD,
    Asked,
    chunk,
    last,
    on_uvloop,
    request,
    sealed_events,
    sized,
    token,
    until,
    usage,
    world,
)

from metering.sidecar_options import Patience

ASK = {"model": "tiny", "messages": []}
STREAM = ASK | {"stream": True}
BODY = b'{"id":"chatcmpl-0","choices":[]' + usage(16, 5) + b"}"


async def answers(asked: Asked) -> None:
    await asked.say(sized(BODY))


async def streams(asked: Asked) -> None:
    events = (token(1), token(2), last(2), DONE)
    await asked.say(STREAM_HEAD + b"".join(map(chunk, events)) + b"0\r\n\r\n")


async def hangs(asked: Asked) -> None:
    await asked.left()


@on_uvloop
async def test_a_request_passes_and_its_event_is_sealed(tmp_path: Path) -> None:
    async with world(tmp_path, answers) as it:
        status, _, body = await it.ask(request(ASK, head="X-Request-Id: mine\r\n"))
        assert (status, body) == (200, BODY)
        (asked,) = it.engine.asked
        (event,) = await it.events()
    assert asked.header("authorization") is None
    assert asked.header("x-request-id") == event["request"].hex()
    assert (event["customer"], event["project"], event["key"]) == (KEY.customer, KEY.project, KEY.id)
    assert (event["endpoint"], event["model"], event["outcome"]) == ("chat", "tiny", "finished")
    assert (event["prompt_tokens"], event["completion_tokens"]) == (16, 5)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request(ASK).replace(SECRET.encode(), b"tg_wrong"), 401),
        (request(ASK).replace(b"Authorization", b"X-Nothing"), 401),
        (request(ASK, path="/invocations"), 404),
        (request(path="/v1/chat/completions"), 405),
    ],
)
@on_uvloop
async def test_what_is_refused_reaches_no_engine_and_leaves_no_event(
    tmp_path: Path, data: bytes, status: int
) -> None:
    async with world(tmp_path, answers) as it:
        client = await it.client()
        await client.send(data)
        assert (await client.answer())[0] == status
        await client.send(request(ASK))  # and the connection is as good as before
        assert (await client.answer())[0] == 200
        assert len(it.engine.asked) == 1
        assert len(await it.events()) == 1


@on_uvloop
async def test_the_engines_health_needs_no_key_and_models_do(tmp_path: Path) -> None:
    async with world(tmp_path, answers) as it:
        assert (await it.ask(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 200
        assert (await it.ask(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 401
        assert (await it.ask(request(path="/v1/models/org/tiny")))[0] == 200
        assert await it.events() == []


@on_uvloop
async def test_a_stream_passes_chunk_by_chunk_and_shows_only_what_was_asked_for(tmp_path: Path) -> None:
    seen = asyncio.Event()

    async def waits(asked: Asked) -> None:
        await asked.say(STREAM_HEAD + chunk(token(1)))
        await seen.wait()
        await asked.say(b"".join(map(chunk, (token(2), last(2), DONE))) + b"0\r\n\r\n")

    async with world(tmp_path, waits) as it:
        client = await it.client()
        await client.send(request(STREAM))
        await client.reader.readuntil(b"\r\n\r\n")
        assert await client.chunk() == PLAIN_TOKEN
        seen.set()
        rest = b""
        while piece := await client.chunk():
            rest += piece
        assert rest == PLAIN_TOKEN + DONE
        (event,) = await it.events()
        assert (event["outcome"], event["prompt_tokens"], event["completion_tokens"]) == ("finished", 7, 2)


@on_uvloop
async def test_a_client_that_leaves_stops_the_engine_at_once(tmp_path: Path) -> None:
    async def goes_on(asked: Asked) -> None:
        await asked.say(STREAM_HEAD + chunk(token(1)) + chunk(token(2)))
        await asked.left()

    async with world(tmp_path, goes_on) as it:
        client = await it.client()
        await client.send(request(STREAM))
        await client.reader.readuntil(b"\r\n\r\n")
        await client.chunk()
        await client.chunk()
        client.leave()
        await asyncio.wait_for(it.engine.asked[0].gone.wait(), 2)
        (event,) = await it.events()
        assert (event["outcome"], event["prompt_tokens"], event["completion_tokens"]) == ("aborted", 7, 2)


@on_uvloop
async def test_a_client_that_closes_its_half_is_gone(tmp_path: Path) -> None:
    async with world(tmp_path, hangs) as it:
        client = await it.client()
        await client.send(request(ASK))
        await until(lambda: it.engine.asked)
        client.writer.write_eof()
        await it.engine.asked[0].gone.wait()
        assert [event["outcome"] for event in await it.events()] == ["aborted"]


@on_uvloop
async def test_an_answer_cut_off_by_the_engine_is_cut_off_for_the_client(tmp_path: Path) -> None:
    async def cuts(asked: Asked) -> None:
        await asked.say(STREAM_HEAD + chunk(token(1)) + b"5\r\nda")
        asked.writer.close()

    async with world(tmp_path, cuts) as it:
        client = await it.client()
        await client.send(request(STREAM))
        got = await client.ended()
        assert got.endswith(chunk(PLAIN_TOKEN))
        (event,) = await it.events()
        assert (event["outcome"], event["prompt_tokens"], event["completion_tokens"]) == ("failed", 7, 1)


@on_uvloop
async def test_an_engine_that_is_down_is_named_and_the_intent_is_closed(tmp_path: Path) -> None:
    async with world(tmp_path, answers, engine_url="http://127.0.0.1:9") as it:
        status, headers, body = await it.ask(request(ASK))
        assert status == 503
        assert headers["retry-after"] == "1"
        assert b"engine_unreachable" in body
        (event,) = await it.events()
        assert (event["outcome"], event["prompt_tokens"], event["completion_tokens"]) == ("failed", 0, 0)


@on_uvloop
async def test_connections_to_the_engine_are_used_again(tmp_path: Path) -> None:
    async with world(tmp_path, answers) as it:
        client = await it.client()
        for _ in range(5):
            await client.send(request(ASK))
            assert (await client.answer())[0] == 200
        assert it.engine.connections == 1


@on_uvloop
async def test_a_request_is_never_sent_twice(tmp_path: Path) -> None:
    async def once(asked: Asked) -> None:
        if len(it.engine.asked) == 1:
            await asked.say(sized(BODY))
        else:
            asked.writer.close()

    async with world(tmp_path, once) as it:
        client = await it.client()
        await client.send(request(ASK))
        assert (await client.answer())[0] == 200
        await client.send(request(ASK))
        status, _, body = await client.answer()
        assert status == 502
        assert b"engine_closed" in body
        assert len(it.engine.asked) == 2
        assert [event["outcome"] for event in await it.events()] == ["finished", "failed"]


@on_uvloop
async def test_a_dead_idle_connection_is_replaced_before_anything_is_sent(tmp_path: Path) -> None:
    async def closes_later(asked: Asked) -> None:
        await asked.say(sized(BODY))
        asked.writer.close()

    async with world(tmp_path, closes_later) as it:
        for _ in range(3):
            assert (await it.ask(request(ASK)))[0] == 200
            await asyncio.sleep(0.05)
        assert it.engine.connections == 3


@on_uvloop
async def test_pipelined_requests_are_answered_in_order_one_at_a_time(tmp_path: Path) -> None:
    async def echoes(asked: Asked) -> None:
        await asyncio.sleep(0.002)
        await asked.say(sized(b'{"n":%d' % len(it.engine.asked) + usage(1, 1) + b"}"))

    async with world(tmp_path, echoes) as it:
        client = await it.client()
        await client.send(
            request(ASK) * 3 + request(ASK, path="/nope") + request(ASK, head="Connection: close\r\n")
        )
        got = [await client.answer() for _ in range(5)]
        assert [status for status, _, _ in got] == [200, 200, 200, 404, 200]
        assert [body[:6] for status, _, body in got if status == 200] == [
            b'{"n":1',
            b'{"n":2',
            b'{"n":3',
            b'{"n":4',
        ]
        assert await client.ended() == b""
        assert it.engine.connections == 1


@on_uvloop
async def test_an_awaited_body_is_called_for_only_if_it_is_welcome(tmp_path: Path) -> None:
    async with world(tmp_path, answers) as it:
        head, _, body = request(ASK, head="Expect: 100-continue\r\n").partition(b"\r\n\r\n")
        client = await it.client()
        await client.send(head + b"\r\n\r\n")
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(body)
        assert (await client.answer())[0] == 200
        client = await it.client()
        await client.send(head.replace(SECRET.encode(), b"tg_wrong") + b"\r\n\r\n")
        assert (await client.answer())[0] == 401
        assert await client.ended() == b""


@on_uvloop
async def test_a_body_beyond_the_limit_is_refused_and_the_client_hears_it(tmp_path: Path) -> None:
    async with world(tmp_path, answers) as it:
        client = await it.client()
        await client.send(request(ASK, head="").replace(b"Content-Length: ", b"Content-Length: 99999999"))
        client.writer.write(b"x" * 3_000_000)
        assert (await client.answer())[0] == 413
        assert it.engine.asked == []


@pytest.mark.parametrize("begun", [b"POST /v1/chat", request(ASK)[:-3]])
@on_uvloop
async def test_a_request_that_does_not_come_is_given_up(tmp_path: Path, begun: bytes) -> None:
    async with world(tmp_path, answers, patience=Patience(head_s=0.2, body_gap_s=0.2, linger_s=0.1)) as it:
        client = await it.client()
        await client.send(begun)
        assert (await client.answer())[0] == 408
        assert await client.ended() == b""


@on_uvloop
async def test_an_engine_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    async with world(tmp_path, hangs, patience=Patience(engine_s=0.2)) as it:
        assert (await it.ask(request(ASK)))[0] == 504
        await it.engine.asked[0].gone.wait()
        assert [event["outcome"] for event in await it.events()] == ["failed"]


@on_uvloop
async def test_a_client_that_does_not_read_slows_the_engine_down(tmp_path: Path) -> None:
    piece = chunk(b"data: " + b"x" * 60_000 + b"\n\n")
    said = 0

    async def floods(asked: Asked) -> None:
        nonlocal said
        await asked.say(STREAM_HEAD)
        for _ in range(500):
            await asked.say(piece)
            said += len(piece)
        await asked.say(chunk(last(9)) + chunk(DONE) + b"0\r\n\r\n")

    async with world(tmp_path, floods) as it:
        client = await it.client()
        await client.send(request(STREAM))
        await asyncio.sleep(0.5)
        stalled = said
        assert stalled < 20_000_000  # kernel buffers on the way, not 30 MB in the sidecar
        await asyncio.sleep(0.2)
        assert said == stalled
        assert len((await client.answer())[2]) == 500 * 60_008 + len(DONE)
        assert [event["outcome"] for event in await it.events()] == ["finished"]


@on_uvloop
async def test_draining_finishes_what_runs_and_takes_nothing_new(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def waits(asked: Asked) -> None:
        await go.wait()
        await answers(asked)

    async with world(tmp_path, waits) as it:
        idle, busy = await it.client(), await it.client()
        await busy.send(request(ASK))
        await until(lambda: it.engine.asked)
        draining = asyncio.create_task(it.sidecar.drain())
        assert await idle.ended() == b""
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await it.client()
        go.set()
        status, headers, _ = await busy.answer()
        assert (status, headers["connection"]) == (200, "close")
        await draining
    assert [event["outcome"] for event in sealed_events(tmp_path)] == ["finished"]


@on_uvloop
async def test_what_does_not_end_in_time_is_interrupted(tmp_path: Path) -> None:
    async def begins(asked: Asked) -> None:
        await asked.say(STREAM_HEAD + chunk(token(1)))
        await asked.left()

    async with world(tmp_path, begins, patience=Patience(drain_s=0.1)) as it:
        client = await it.client()
        await client.send(request(STREAM))
        await client.reader.readuntil(b"\r\n\r\n")
        await client.chunk()
        (event,) = await it.events()
        assert (event["outcome"], event["completion_tokens"]) == ("interrupted", 1)
        assert await client.ended() == b""


@on_uvloop
async def test_clients_come_and_go_at_random_and_every_request_has_one_event(tmp_path: Path) -> None:
    async def comes_and_goes(number: int) -> None:
        client = await it.client()
        await client.send(request(STREAM if number % 2 else ASK))
        if number % 3:
            await client.answer()
        else:
            await client.reader.read(number * 7)
        client.leave()

    async def either(asked: Asked) -> None:
        await asyncio.sleep(0.001)
        await (streams if b'"stream": true' in asked.body else answers)(asked)

    async with world(tmp_path, either) as it:
        await asyncio.gather(*(comes_and_goes(number) for number in range(200)))
        await it.settle()
        asked = {one.header("x-request-id") for one in it.engine.asked}
        assert len(asked) == len(it.engine.asked)
        events = {event["request"].hex(): event["outcome"] for event in await it.events()}
        assert asked <= set(events)
        # What is not among the asked was on its way to the engine when its client left.
        assert {outcome for request_id, outcome in events.items() if request_id not in asked} <= {"aborted"}
        assert it.sidecar.counters.requests == len(events) == it.lane.opened == it.lane.closed
