"""Several engines behind one sidecar: who gets what, and what happens when one of them goes away."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from certificates import make_certificate, serving
from scripted_engine import (
    Asked,
    Script,
    ScriptedEngine,
    World,
    on_uvloop,
    request,
    scripted,
    sized,
    until,
    usage,
    world,
)

from adapters.simulated_engine.options import EngineOptions
from adapters.simulated_engine.server import serve

ASK = {"model": "a", "messages": []}
JSON = "Content-Type: application/json\r\n"


def labelled(label: str, models: str, answer: Script | None = None) -> Script:
    """An engine that is well, lists its models, and puts its label into each answer."""

    async def script(asked: Asked) -> None:
        path = asked.head.split()[1]
        if path == "/health":
            await asked.say(sized(b""))
        elif path == "/v1/models":
            cards = [{"id": name, "object": "model", "root": label} for name in models.split()]
            await asked.say(sized(json.dumps({"object": "list", "data": cards}).encode()))
        elif answer is not None:
            await answer(asked)
        else:
            await asked.say(sized(b'{"engine":"%b"' % label.encode() + usage(1, 1) + b"}"))

    return script


def real(engine: ScriptedEngine) -> list[Asked]:
    """What an engine was asked, without the sidecar's own questions."""
    return [asked for asked in engine.asked if asked.head.startswith("POST")]


@asynccontextmanager
async def engines(folder: Path, *scripts: Script) -> AsyncIterator[tuple[World, list[ScriptedEngine]]]:
    """A sidecar before engines that do as their scripts say; it knows already what they serve."""
    async with AsyncExitStack() as stack:
        running = [await stack.enter_async_context(scripted(script)) for script in scripts]
        urls = [url for _, url in running]
        it = await stack.enter_async_context(
            world(folder, scripts[0], engine_url=urls[0], more=tuple(urls[1:]))
        )
        yield it, [engine for engine, _ in running]


async def ask(it: World, model: str = "a") -> str:
    """Which engine answered."""
    status, _, body = await it.ask(request({**ASK, "model": model}))
    return (
        str(json.loads(body)["engine"]) if status == 200 else f"{status} {json.loads(body)['error']['code']}"
    )


@on_uvloop
async def test_requests_go_where_the_fewest_are_in_the_air(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def waits(asked: Asked) -> None:
        await go.wait()
        await asked.say(sized(b"{}"))

    both = labelled("0", "a", waits), labelled("1", "a", waits)
    async with engines(tmp_path, *both) as (it, (first, second)):
        clients = [await it.client() for _ in range(20)]
        for client in clients:
            await client.send(request(ASK))
        await until(lambda: len(real(first)) + len(real(second)) == 20)
        assert len(real(first)) == len(real(second)) == 10
        assert [pool.in_air for pool in it.sidecar.engine.pools] == [10, 10]
        go.set()
        for client in clients:
            assert (await client.answer())[0] == 200
        await it.settle()
        assert [pool.in_air for pool in it.sidecar.engine.pools] == [0, 0]
        assert len(await it.events()) == 20


@on_uvloop
async def test_a_request_finds_the_engine_of_its_model_and_models_are_listed_as_one(tmp_path: Path) -> None:
    async with engines(tmp_path, labelled("0", "a b"), labelled("1", "b c")) as (it, _):
        assert [await ask(it, model) for model in "aacc"] == ["0", "0", "1", "1"]
        assert {await ask(it, "b") for _ in range(4)} == {"0", "1"}
        status, headers, body = await it.ask(request(path="/v1/models"))
        assert (status, headers["content-type"]) == (200, "application/json")
        cards = json.loads(body)["data"]
        assert [(card["id"], card["root"]) for card in cards] == [("a", "0"), ("b", "0"), ("c", "1")]
        assert (await it.ask(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 401
        assert len(await it.events()) == 8


@on_uvloop
async def test_engines_alike_list_their_models_themselves(tmp_path: Path) -> None:
    async with engines(tmp_path, labelled("0", "a"), labelled("1", "a")) as (it, _):
        body = (await it.ask(request(path="/v1/models")))[2]
        assert b", " in body  # as the scripted engine writes it


@on_uvloop
async def test_what_was_not_sent_yet_goes_to_the_next_engine(tmp_path: Path) -> None:
    async with scripted(labelled("0", "a")) as (_, away):
        pass
    async with (
        scripted(labelled("1", "a")) as (_, url),
        world(tmp_path, labelled("x", ""), engine_url=away, more=(url,)) as it,
    ):
        first = it.sidecar.engine.pools[0]
        assert not first.up
        first.up = True  # as if it had gone away just now
        assert {await ask(it) for _ in range(4)} == {"1"}
        assert not first.up
        events = await it.events()
        assert [event["outcome"] for event in events] == ["finished"] * 4


@on_uvloop
async def test_what_was_sent_is_never_sent_to_another(tmp_path: Path) -> None:
    async def hangs_up(asked: Asked) -> None:
        asked.writer.close()

    both = labelled("0", "a", hangs_up), labelled("1", "a", hangs_up)
    async with engines(tmp_path, *both) as (it, (first, second)):
        assert await ask(it) == "502 engine_closed"
        assert len(real(first)) + len(real(second)) == 1
        (event,) = await it.events()
        assert event["outcome"] == "failed"


@on_uvloop
async def test_an_engine_that_is_not_well_gets_nothing_until_it_is(tmp_path: Path) -> None:
    well = True

    async def sick(asked: Asked) -> None:
        if not well and "/health" in asked.head:
            await asked.say(sized(b"", "503 Service Unavailable"))
        else:
            await labelled("0", "a")(asked)

    async with engines(tmp_path, sick, labelled("1", "a")) as (it, _):
        assert Counter([await ask(it) for _ in range(4)]) == {"0": 2, "1": 2}
        well = False
        await it.sidecar.engine.look()
        assert {await ask(it) for _ in range(4)} == {"1"}
        well = True
        await it.sidecar.engine.look()
        assert Counter([await ask(it) for _ in range(4)]) == {"0": 2, "1": 2}


@on_uvloop
async def test_a_model_whose_only_engine_is_away_is_unreachable_not_unknown(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        leaving = await stack.enter_async_context(AsyncExitStack())
        _, away = await leaving.enter_async_context(scripted(labelled("0", "a")))
        _, url = await stack.enter_async_context(scripted(labelled("1", "b")))
        it = await stack.enter_async_context(world(tmp_path, labelled("x", ""), engine_url=away, more=(url,)))
        assert await ask(it, "a") == "0"
        await leaving.aclose()
        await it.sidecar.engine.look()
        assert await ask(it, "a") == "503 engine_unreachable"
        assert await ask(it, "b") == "1"
        assert [card["id"] for card in json.loads((await it.ask(request(path="/v1/models")))[2])["data"]] == [
            "b"
        ]
        back = await stack.enter_async_context(
            scripted(labelled("0", "a"), port=int(away.rpartition(":")[2]))
        )
        assert await ask(it, "a") == "0"  # tried all the same, long before anybody looked
        assert back


@on_uvloop
async def test_a_response_in_the_background_is_found_at_the_engine_that_keeps_it(tmp_path: Path) -> None:
    options = EngineOptions(store_responses=True, tokens_per_second=200)
    one, two = await serve(options, "127.0.0.1", 0), await serve(options, "127.0.0.1", 0)
    async with world(tmp_path, labelled("x", ""), engine_url=one.url, more=(two.url,)) as it:
        ask = {"model": "tiny", "input": "Labas", "background": True, "max_output_tokens": 5}
        ids = [
            json.loads((await it.ask(request(ask, path="/v1/responses", head=JSON)))[2])["id"]
            for _ in range(4)
        ]
        for id in ids:
            status, _, body = await it.ask(request(path=f"/v1/responses/{id}"))
            assert (status, json.loads(body)["id"]) == (200, id)
        await it.settle()
        events = await it.events()
        assert [event["outcome"] for event in events] == ["finished"] * 4
        counted = [engine.counters["tiny"].generation_tokens for engine in (one, two)]
        assert sum(counted) == sum(event["completion_tokens"] for event in events)
        assert min(counted) > 0
    await one.close()
    await two.close()


@on_uvloop
async def test_an_engine_alone_is_up_again_as_soon_as_it_can_be_reached(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        async with scripted(labelled("0", "a")) as (_, away):
            pass
        it = await stack.enter_async_context(world(tmp_path, labelled("x", ""), engine_url=away))
        (pool,) = it.sidecar.engine.pools
        assert await ask(it) == "503 engine_unreachable"
        assert not pool.up
        await stack.enter_async_context(scripted(labelled("0", "a"), port=int(away.rpartition(":")[2])))
        assert await ask(it) == "0"
        assert pool.up


@on_uvloop
async def test_an_engine_may_ask_for_a_key_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "engine-key"
    path.write_text("engine-secret\n")
    async with world(tmp_path / "lane", labelled("0", "a"), engine_key_file=path) as it:
        assert await ask(it) == "0"
        path.write_text("another-secret\n")
        await it.sidecar.engine.look()
        assert await ask(it) == "0"
        path.write_text("")
        await it.sidecar.engine.look()  # a file that is empty for a moment changes nothing
        assert await ask(it) == "0"
        said = [asked.header("authorization") for asked in real(it.engine)]
        assert said == ["Bearer engine-secret"] + ["Bearer another-secret"] * 2


@on_uvloop
async def test_an_engine_may_speak_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain, key = make_certificate(tmp_path, "engine")
    async with scripted(labelled("0", "a"), tls=serving(chain, key)) as (_, url):
        async with world(tmp_path / "one", labelled("x", ""), engine_url=url) as it:
            assert await ask(it) == "503 engine_unreachable"  # nobody vouches for it
        monkeypatch.setenv("SSL_CERT_FILE", str(chain))
        async with world(tmp_path / "two", labelled("x", ""), engine_url=url) as it:
            assert [await ask(it) for _ in range(3)] == ["0"] * 3
            assert [event["outcome"] for event in await it.events()] == ["finished"] * 3
