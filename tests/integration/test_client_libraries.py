"""The libraries that clients use, before the sidecar as before the engine: the same bodies, the same exceptions, every
chunk when it comes. The engine is the simulated one, which is held to recordings of vLLM.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from langchain_openai import ChatOpenAI
from pydantic import SecretStr
from scripted_engine import DONE, SECRET, STREAM_HEAD, Asked, chunk, last, on_uvloop, token, world

from adapters.simulated_engine.options import EngineOptions
from adapters.simulated_engine.server import serve

HI: Any = [{"role": "user", "content": "Labas, kaip sekasi?"}]
COUNTS: Any = {"vllm_xargs": {"sim_prompt_tokens": 12, "sim_completion_tokens": 9}}
OPTIONS = EngineOptions(prompt_tokens_details=True, store_responses=True, tasks=("generate", "embed"))
# What is another at each call.
_OWN = re.compile(
    r"(?:chatcmpl|cmpl|embd|resp|msg|chatcmpl-tool|message)[-_][0-9a-zA-Z_-]{8,}|(?<=\"created\":)\d+|(?<=\"created_at\":)\d+"
)


@asynccontextmanager
async def both(folder: Path) -> AsyncIterator[tuple[str, str]]:
    """The address of an engine, and that of a sidecar before it."""

    async def nobody(_: Asked) -> None:
        raise AssertionError("the simulated engine is asked")

    running = await serve(OPTIONS, "127.0.0.1", 0)
    try:
        async with world(folder, nobody, engine_url=running.url) as it:
            yield running.url, f"http://127.0.0.1:{it.port}"
    finally:
        await running.close()


class Http:
    """What the libraries send with: OpenAI's by httpx, Anthropic's by httpx2. `came` is what really came over the wire:
    status, headers, body; `ports` the client's side of each connection that was used."""

    def __init__(self) -> None:
        self.came: list[tuple[int, list[tuple[str, str]], str]] = []
        self.ports: set[int] = set()
        self.openai: Any = httpx.AsyncClient(transport=self._tap(httpx))
        self.anthropic: Any = httpx2.AsyncClient(transport=self._tap(httpx2))

    async def __aenter__(self) -> Http:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.openai.aclose()
        await self.anthropic.aclose()

    def _tap(self, library: Any) -> Any:
        http, under = self, library.AsyncHTTPTransport()

        class Tap(library.AsyncBaseTransport):  # type: ignore[misc]  # of either library
            async def handle_async_request(self, request: Any) -> Any:
                answer = await under.handle_async_request(request)
                http.ports.add(answer.extensions["network_stream"].get_extra_info("client_addr")[1])
                body = b"".join([piece async for piece in answer.stream])
                await answer.aclose()
                headers = [
                    (name.lower(), value) for name, value in answer.headers.items() if name.lower() != "date"
                ]
                http.came.append((answer.status_code, headers, said(body)))
                return library.Response(
                    answer.status_code, headers=answer.headers, content=body, request=request
                )

            async def aclose(self) -> None:
                await under.aclose()

        return Tap()


def said(body: bytes) -> str:
    """A body without what is another at each call."""
    return _OWN.sub("…", body.decode())


def by_openai(url: str, http: Http) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=SECRET, http_client=http.openai, max_retries=0)


def by_anthropic(url: str, http: Http) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=url, api_key=SECRET, http_client=http.anthropic, max_retries=0)


def by_langchain(url: str, http: Http, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=f"{url}/v1",
        api_key=SecretStr(SECRET),
        model="tiny",
        http_async_client=http.openai,
        max_retries=0,
        extra_body=COUNTS,
        **more,
    )


async def chat(url: str, http: Http) -> object:
    answer = await by_openai(url, http).chat.completions.create(model="tiny", messages=HI, extra_body=COUNTS)
    return answer.usage


async def chat_stream(url: str, http: Http) -> object:
    stream = await by_openai(url, http).chat.completions.create(
        model="tiny", messages=HI, stream=True, extra_body=COUNTS
    )
    return [(each.choices[0].delta.content, each.usage) async for each in stream if each.choices]


async def chat_stream_with_usage(url: str, http: Http) -> object:
    stream = await by_openai(url, http).chat.completions.create(
        model="tiny", messages=HI, stream=True, stream_options={"include_usage": True}, extra_body=COUNTS
    )
    return [each.usage async for each in stream][-1]


async def completion(url: str, http: Http) -> object:
    return (
        await by_openai(url, http).completions.create(model="tiny", prompt=["a", "b"], n=2, extra_body=COUNTS)
    ).usage


async def response(url: str, http: Http) -> object:
    return (await by_openai(url, http).responses.create(model="tiny", input="Labas", extra_body=COUNTS)).usage


async def response_stream(url: str, http: Http) -> object:
    stream = await by_openai(url, http).responses.create(
        model="tiny", input="Labas", stream=True, extra_body=COUNTS
    )
    return [each.type async for each in stream]


async def embedding(url: str, http: Http) -> object:
    made = await by_openai(url, http).embeddings.create(model="tiny", input=["a", "b"])
    return made.usage


async def models(url: str, http: Http) -> object:
    return [each.id async for each in by_openai(url, http).models.list()]


async def message(url: str, http: Http) -> object:
    made = await by_anthropic(url, http).messages.create(
        model="tiny", max_tokens=50, messages=HI, extra_body=COUNTS
    )
    return made.usage


async def message_stream(url: str, http: Http) -> object:
    stream = await by_anthropic(url, http).messages.create(
        model="tiny", max_tokens=50, messages=HI, stream=True, extra_body=COUNTS
    )
    return [each.type async for each in stream]


async def langchain(url: str, http: Http) -> object:
    answer = await by_langchain(url, http).ainvoke("Labas")
    return answer.content, answer.usage_metadata


async def langchain_stream(url: str, http: Http) -> object:
    return [each.content async for each in by_langchain(url, http, stream_usage=True).astream("Labas")]


Ask = Callable[[str, Http], Awaitable[object]]


@pytest.mark.parametrize(
    "ask",
    [
        chat,
        chat_stream,
        chat_stream_with_usage,
        completion,
        response,
        response_stream,
        embedding,
        models,
        message,
        message_stream,
        langchain,
        langchain_stream,
    ],
    ids=lambda ask: ask.__name__,
)
@on_uvloop
async def test_a_library_gets_the_same_from_the_sidecar_as_from_the_engine(tmp_path: Path, ask: Ask) -> None:
    results: list[object] = []
    wires: list[Http] = []
    async with both(tmp_path) as urls:
        for url in urls:
            async with Http() as http:
                # A first stream shows the sidecar the engine's fingerprint.
                results.append((await ask(url, http), await ask(url, http))[1])
            wires.append(http)
    direct, through = (wire.came[-1] for wire in wires)
    assert through[0] == direct[0] == 200
    assert through[2] == direct[2]
    assert without_length(through[1]) == without_length(direct[1])
    assert _OWN.sub("…", repr(results[1])) == _OWN.sub("…", repr(results[0]))


def without_length(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Ids in the body have another length at the sidecar."""
    return [each for each in headers if each[0] != "content-length"]


async def unknown_model(url: str, http: Http) -> object:
    return await by_openai(url, http).chat.completions.create(model="nope", messages=HI)


async def no_messages(url: str, http: Http) -> object:
    return await by_openai(url, http).chat.completions.create(model="tiny", messages=[], max_tokens=-1)


async def unknown_model_of_a_stream(url: str, http: Http) -> object:
    return await by_openai(url, http).completions.create(model="nope", prompt="a", stream=True)


async def unknown_model_of_a_message(url: str, http: Http) -> object:
    return await by_anthropic(url, http).messages.create(model="nope", max_tokens=5, messages=HI)


async def unknown_response(url: str, http: Http) -> object:
    return await by_openai(url, http).responses.retrieve("resp_00000000000000000000000000000000")


async def langchain_unknown_model(url: str, http: Http) -> object:
    return await by_langchain(url, http).bind(model="nope").ainvoke("Labas")


@pytest.mark.parametrize(
    "ask",
    [
        unknown_model,
        no_messages,
        unknown_model_of_a_stream,
        unknown_model_of_a_message,
        unknown_response,
        langchain_unknown_model,
    ],
    ids=lambda ask: ask.__name__,
)
@on_uvloop
async def test_a_library_raises_the_same_from_the_sidecar_as_from_the_engine(
    tmp_path: Path, ask: Ask
) -> None:
    raised: list[tuple[type[BaseException], str]] = []
    async with both(tmp_path) as urls:
        for url in urls:
            async with Http() as http:
                with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as error:
                    await ask(url, http)
            raised.append((type(error.value), str(error.value)))
    assert raised[0] == raised[1]


@pytest.mark.parametrize("ask", [chat, message, langchain], ids=lambda ask: ask.__name__)
@on_uvloop
async def test_a_wrong_key_is_an_authentication_error_to_every_library(
    tmp_path: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "SECRET", "tg_wrong")
    async with both(tmp_path) as (_, sidecar), Http() as http:
        with pytest.raises((openai.AuthenticationError, anthropic.AuthenticationError)):
            await ask(sidecar, http)


@on_uvloop
async def test_an_engine_that_is_away_is_a_server_error_that_libraries_try_again(tmp_path: Path) -> None:
    async def signs_off(asked: Asked) -> None:
        asked.writer.close()

    async with world(tmp_path, signs_off) as it, Http() as http:
        client = by_openai(f"http://127.0.0.1:{it.port}", http).with_options(max_retries=1)
        with pytest.raises(openai.InternalServerError) as error:
            await client.chat.completions.create(model="tiny", messages=HI)
        assert error.value.status_code == 502
        assert len(it.engine.asked) == 2  # its own second try, a request of its own on the books
        assert len(await it.events()) == 2


@on_uvloop
async def test_a_library_reads_each_chunk_before_the_engine_makes_the_next(tmp_path: Path) -> None:
    """Nothing is kept back: an engine that waited for the client to have read its last chunk would go on."""
    read: asyncio.Queue[None] = asyncio.Queue()

    async def waits(asked: Asked) -> None:
        await asked.say(STREAM_HEAD)
        for number in range(1, 21):
            await asked.say(chunk(token(number)))
            await read.get()
        await asked.say(chunk(last(20)) + chunk(DONE) + b"0\r\n\r\n")

    async with world(tmp_path, waits) as it:
        client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{it.port}/v1", api_key=SECRET)
        stream = await client.completions.create(model="tiny", prompt="a", stream=True)
        seen = 0
        async for each in stream:
            assert each.usage is None
            seen += 1
            read.put_nowait(None)
        await client.close()
        assert seen == 20
        (event,) = await it.events()
        assert (event["outcome"], event["completion_tokens"]) == ("finished", 20)


@on_uvloop
async def test_a_librarys_connection_is_kept_alive(tmp_path: Path) -> None:
    async with both(tmp_path) as (_, sidecar):
        async with Http() as http:
            for ask in (chat, chat_stream, message, unknown_model, message, chat):
                try:
                    await ask(sidecar, http)
                except openai.NotFoundError:
                    assert ask is unknown_model
        assert len(http.ports) == 2  # one for each library


@on_uvloop
async def test_a_large_request_of_a_library_passes(tmp_path: Path) -> None:
    large: Any = [{"role": "user", "content": "ą" * 2_000_000}]
    async with both(tmp_path) as urls:
        answers: list[str] = []
        for url in urls:
            async with Http() as http:
                made = await by_openai(url, http).chat.completions.create(
                    model="tiny", messages=large, extra_body=COUNTS
                )
                answers.append(json.dumps(made.model_dump(exclude={"id", "created"})))
        assert answers[0] == answers[1]
