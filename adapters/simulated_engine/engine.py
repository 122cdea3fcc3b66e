"""The engine's routes: what is asked over HTTP, and who answers it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Literal

from adapters.simulated_engine.answers import OpenAi
from adapters.simulated_engine.asked import read_request
from adapters.simulated_engine.core import Core
from adapters.simulated_engine.counters import Counters
from adapters.simulated_engine.dialect import Answering, Body, encode
from adapters.simulated_engine.errors import EngineError
from adapters.simulated_engine.exposition import CONTENT_TYPE, exposition
from adapters.simulated_engine.http import Exchange, Headers, HttpRequest, json_body
from adapters.simulated_engine.lines import VLLM_VERSION
from adapters.simulated_engine.messages import Anthropic, count_tokens, read_messages
from adapters.simulated_engine.models import model_list
from adapters.simulated_engine.options import EngineOptions
from adapters.simulated_engine.pooling_routes import pooling_routes
from adapters.simulated_engine.responses_store import Responses
from adapters.simulated_engine.speech import Speech
from adapters.simulated_engine.speech_asked import SpeechEndpoint, read_speech
from adapters.simulated_engine.tokenizing import detokenize, tokenize

# The one route that vLLM has not.
REQUESTS_PATH = "/simulated/requests"

RESPONSES_PATH = "/v1/responses"

SPEECH_PATHS: dict[SpeechEndpoint, str] = {
    "transcriptions": "/v1/audio/transcriptions",
    "translations": "/v1/audio/translations",
}

Handler = Callable[[HttpRequest, Exchange], None]


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    answer: Handler


class Engine:
    """Answers requests."""

    def __init__(self, options: EngineOptions) -> None:
        """OSError where the lines cannot be written."""
        self.options = options
        self._core = Core(options)
        self._responses = Responses(self._core)
        self._routes: dict[str, Route] = dict(self._make_routes())

    @property
    def counters(self) -> Counters:
        return self._core.counters

    def handle(self, request: HttpRequest, exchange: Exchange) -> None:
        """Answer one request, at once or by a task of its own."""
        route = self._routes.get(request.path) or self._below_responses(request.path)
        if route is None:
            send(exchange, 404, {"detail": "Not Found"})
        elif request.method != route.method:
            send(exchange, 405, {"detail": "Method Not Allowed"}, before=(("allow", route.method),))
        else:
            try:
                route.answer(request, exchange)
            except EngineError as error:
                send(exchange, error.status, error.body)

    def extra_headers(self, request: HttpRequest) -> Headers:
        """`--enable-request-id-headers`: the client's request id, or a fresh one, on every answer."""
        if not self.options.request_id_headers:
            return ()
        return (("x-request-id", request.headers.get("x-request-id") or secrets.token_hex(16)),)

    async def close(self) -> None:
        """Stop everything that is under way."""
        await self._core.close()

    def _make_routes(self) -> Mapping[str, Route]:
        """The routes that a server has whose model does these tasks."""
        routes = {
            "/v1/models": Route("GET", self._models),
            "/health": Route("GET", _nothing_to_say),
            "/ping": Route("GET", _nothing_to_say),
            "/version": Route("GET", _version),
            "/metrics": Route("GET", self._metrics),
            "/tokenize": Route("POST", self._tokenize),
            "/detokenize": Route("POST", self._detokenize),
            REQUESTS_PATH: Route("GET", self._requests),
        }
        if self.options.does("generate", "transcription"):
            routes["/v1/chat/completions"] = Route("POST", self._chat)
            routes["/v1/completions"] = Route("POST", self._completions)
            routes["/v1/messages"] = Route("POST", self._messages)
            routes["/v1/messages/count_tokens"] = Route("POST", self._count_tokens)
            routes[RESPONSES_PATH] = Route("POST", self._create_response)
        if self.options.does("transcription"):
            for endpoint, path in SPEECH_PATHS.items():
                routes[path] = Route("POST", partial(self._hear, endpoint))
        routes |= {path: Route("POST", answer) for path, answer in pooling_routes(self._core).items()}
        return routes

    def _chat(self, request: HttpRequest, exchange: Exchange) -> None:
        self._openai("chat", "chatcmpl-", request, exchange)

    def _completions(self, request: HttpRequest, exchange: Exchange) -> None:
        self._openai("completions", "cmpl-", request, exchange)

    def _openai(
        self,
        endpoint: Literal["chat", "completions"],
        prefix: str,
        request: HttpRequest,
        exchange: Exchange,
    ) -> None:
        asked = read_request(endpoint, json_body(request), self.options)
        name = request_name(request, asked.request_id)
        answering = Answering(asked, prefix + name, int(time.time()), self.options)
        externals = [answering.id] * (len(asked.sequences) // asked.n)
        if endpoint == "completions" and not asked.beam:
            externals = [f"{external}-{place}" for place, external in enumerate(externals)]
        running = self._core.begin(asked, name, externals)
        self._core.answer(answering, OpenAi(answering), running, exchange)

    def _messages(self, request: HttpRequest, exchange: Exchange) -> None:
        asked = read_messages(json_body(request), self.options)
        name = request_name(request, None)
        answering = Answering(asked, f"chatcmpl-{name}", int(time.time()), self.options)
        running = self._core.begin(asked, name, [answering.id])
        self._core.answer(answering, Anthropic(answering), running, exchange)

    def _count_tokens(self, request: HttpRequest, exchange: Exchange) -> None:
        send(exchange, 200, count_tokens(json_body(request), self.options))

    def _create_response(self, request: HttpRequest, exchange: Exchange) -> None:
        self._responses.create(json_body(request), exchange)

    def _below_responses(self, path: str) -> Route | None:
        """`/v1/responses/{id}` and `/v1/responses/{id}/cancel`."""
        if RESPONSES_PATH not in self._routes or not path.startswith(RESPONSES_PATH + "/"):
            return None
        response_id, _, rest = path.removeprefix(RESPONSES_PATH + "/").partition("/")
        if rest == "cancel":
            return Route("POST", lambda _, exchange: self._responses.cancel(response_id, exchange))
        if rest or not response_id:
            return None
        return Route(
            "GET", lambda request, exchange: self._responses.retrieve(response_id, request.query, exchange)
        )

    def _hear(self, endpoint: SpeechEndpoint, request: HttpRequest, exchange: Exchange) -> None:
        speech = read_speech(endpoint, request, self.options)
        name = request_name(request, None)
        prefix = "transcribe-" if endpoint == "transcriptions" else "translate-"
        answering = Answering(speech.asked, prefix + name, int(time.time()), self.options)
        externals = [answering.id]
        if len(speech.asked.sequences) > 1:
            externals = [f"{answering.id}-{clip}" for clip in range(len(speech.asked.sequences))]
        running = self._core.begin(speech.asked, name, externals)
        self._core.answer(answering, Speech(answering, speech), running, exchange)

    def _tokenize(self, request: HttpRequest, exchange: Exchange) -> None:
        send(exchange, 200, tokenize(json_body(request), self.options))

    def _detokenize(self, request: HttpRequest, exchange: Exchange) -> None:
        send(exchange, 200, detokenize(json_body(request), self.options))

    def _models(self, _request: HttpRequest, exchange: Exchange) -> None:
        send(exchange, 200, model_list(self.options, int(self._core.started)))

    def _requests(self, _request: HttpRequest, exchange: Exchange) -> None:
        """Not vLLM's: what each request came to, by its request id, so that a demonstration can name every token."""
        send(exchange, 200, {name: asdict(tokens) for name, tokens in self.counters.by_request.items()})

    def _metrics(self, _request: HttpRequest, exchange: Exchange) -> None:
        body = exposition(self.counters, self._core.started)
        exchange.whole(200, body, (("content-type", CONTENT_TYPE),))


def send(exchange: Exchange, status: int, body: Body, *, before: Headers = ()) -> None:
    exchange.whole(status, encode(body), before=before)


def request_name(request: HttpRequest, in_body: str | None) -> str:
    """The id that a request goes by: its header's, else its body's, else a fresh one."""
    return request.headers.get("x-request-id") or in_body or secrets.token_hex(8)


def _nothing_to_say(_request: HttpRequest, exchange: Exchange) -> None:
    exchange.whole(200, b"", ())


def _version(_request: HttpRequest, exchange: Exchange) -> None:
    send(exchange, 200, {"version": VLLM_VERSION})
