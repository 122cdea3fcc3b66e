"""The engine's routes: what is asked over HTTP, generated, answered and counted."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict

from adapters.simulated_engine import answers
from adapters.simulated_engine.answers import Answering, Body, encode
from adapters.simulated_engine.asked import Asked, Endpoint, read_request
from adapters.simulated_engine.counters import Counters, RequestTokens
from adapters.simulated_engine.errors import EngineError, unsupported_media_type
from adapters.simulated_engine.exposition import CONTENT_TYPE, exposition
from adapters.simulated_engine.generation import Generation, Step
from adapters.simulated_engine.http import EVENT_STREAM_TYPE, Exchange, Headers, HttpRequest
from adapters.simulated_engine.options import MISCOUNTED_TOKENS, EngineOptions

_ENDPOINTS: dict[str, Endpoint] = {"/v1/chat/completions": "chat", "/v1/completions": "completions"}
_ID_PREFIX: dict[Endpoint, str] = {"chat": "chatcmpl-", "completions": "cmpl-"}


# The one route that vLLM has not.
REQUESTS_PATH = "/simulated/requests"


class Engine:
    """Answers requests, and holds the counters and the generations that are under way."""

    def __init__(self, options: EngineOptions) -> None:
        self.options = options
        self.counters = Counters(options.models, options.context_tokens)
        self.started = time.time()
        self._under_way: set[asyncio.Task[None]] = set()
        self._timed = bool(options.tokens_per_second or options.first_token_ms)
        self._reads: dict[str, Callable[[Exchange], None]] = {
            "/v1/models": self._models,
            "/health": lambda exchange: exchange.whole(200, b"", ()),
            "/ping": lambda exchange: exchange.whole(200, b"", ()),
            "/version": lambda exchange: _send(exchange, 200, {"version": answers.VERSION}),
            "/metrics": self._metrics,
            REQUESTS_PATH: self._requests,
        }

    def handle(self, request: HttpRequest, exchange: Exchange) -> None:
        """Answer one request, at once or by a task of its own."""
        endpoint = _ENDPOINTS.get(request.path)
        read = self._reads.get(request.path)
        allowed = "POST" if endpoint else "GET"
        if endpoint is None and read is None:
            _send(exchange, 404, {"detail": "Not Found"})
        elif request.method != allowed:
            _send(exchange, 405, {"detail": "Method Not Allowed"}, before=(("allow", allowed),))
        elif read is not None:
            read(exchange)
        elif endpoint is not None:
            self._generate(endpoint, request, exchange)

    def extra_headers(self, request: HttpRequest) -> Headers:
        """`--enable-request-id-headers`: the client's request id, or a fresh one, on every answer."""
        if not self.options.request_id_headers:
            return ()
        return (("x-request-id", request.headers.get("x-request-id") or secrets.token_hex(16)),)

    async def close(self) -> None:
        """Stop every generation that is under way."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _generate(self, endpoint: Endpoint, request: HttpRequest, exchange: Exchange) -> None:
        try:
            if not request.headers.get("content-type", "").startswith("application/json"):
                raise unsupported_media_type()
            asked = read_request(endpoint, request.body, self.options)
        except EngineError as error:
            _send(exchange, error.status, error.body)
            return
        name = request.headers.get("x-request-id") or asked.request_id or secrets.token_hex(8)
        answering = Answering(asked, _ID_PREFIX[endpoint] + name, int(time.time()), self.options)
        tokens = self.counters.by_request.setdefault(name, RequestTokens())
        generation = Generation(asked, self.counters.of(asked.model), self.options, tokens)
        if not asked.stream and not self._timed:
            generation.at_once()
            self._send_whole(answering, exchange)
            return
        exchange.on_left = generation.client_left
        answer = self._stream if asked.stream else self._whole
        task = asyncio.get_running_loop().create_task(answer(answering, generation, exchange))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _whole(self, answering: Answering, generation: Generation, exchange: Exchange) -> None:
        if await generation.run(_nothing, _nothing_for):
            self._send_whole(answering, exchange)

    def _send_whole(self, answering: Answering, exchange: Exchange) -> None:
        body = encode(answers.whole_answer(answering, self._reported_tokens(answering.asked)))
        if self.options.fault == "cut":
            exchange.break_off_whole(200, body)
        else:
            exchange.whole(200, body)

    async def _stream(self, answering: Answering, generation: Generation, exchange: Exchange) -> None:
        asked = answering.asked
        cut_after = sum(each.completion_tokens for each in asked.sequences) // 2
        delivered = 0

        async def started() -> None:
            exchange.begin(200, EVENT_STREAM_TYPE)
            if asked.endpoint == "chat":
                for index in range(len(asked.sequences)):
                    await exchange.chunk(_event(answers.role_chunk(answering, index)))

        async def deliver(step: Step) -> None:
            nonlocal delivered
            delivered += step.tokens
            chunk = answers.token_chunk(answering, step.index, step.before, step.tokens, last=step.last)
            await exchange.chunk(_event(chunk))
            if self.options.fault == "cut" and delivered > cut_after:
                exchange.break_off()

        if await generation.run(started, deliver):
            if asked.include_usage and self.options.fault != "drop-usage":
                await exchange.chunk(_event(answers.usage_chunk(answering, self._reported_tokens(asked))))
            await exchange.chunk(b"data: [DONE]\n\n")
            exchange.end()

    def _reported_tokens(self, asked: Asked) -> int:
        tokens = sum(each.completion_tokens for each in asked.sequences)
        return tokens + MISCOUNTED_TOKENS if self.options.fault == "miscount" else tokens

    def _models(self, exchange: Exchange) -> None:
        _send(exchange, 200, answers.model_list(self.options, int(self.started)))

    def _requests(self, exchange: Exchange) -> None:
        """Not vLLM's: what each request came to, by its request id, so that a demonstration can name every token."""
        _send(exchange, 200, {name: asdict(tokens) for name, tokens in self.counters.by_request.items()})

    def _metrics(self, exchange: Exchange) -> None:
        exchange.whole(200, exposition(self.counters, self.started), (("content-type", CONTENT_TYPE),))


def _send(exchange: Exchange, status: int, body: Body, *, before: Headers = ()) -> None:
    exchange.whole(status, encode(body), before=before)


def _event(body: Body) -> bytes:
    return b"data: %b\n\n" % encode(body)


async def _nothing() -> None:
    """Nobody watches the start of an answer that is not streamed."""


async def _nothing_for(_step: Step) -> None:
    """Nobody watches its tokens either."""
