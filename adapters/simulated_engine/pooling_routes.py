"""The routes of models that generate nothing."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from functools import partial

from adapters.simulated_engine.core import Core
from adapters.simulated_engine.dialect import encode
from adapters.simulated_engine.generation import Generation
from adapters.simulated_engine.http import Exchange, HttpRequest, json_body
from adapters.simulated_engine.options import EngineOptions
from adapters.simulated_engine.pooling import ID_PREFIX, binary_answer, pooling_answer
from adapters.simulated_engine.pooling_asked import AskedPooling, PoolingEndpoint, read_pooling

_EMBED: dict[str, PoolingEndpoint] = {
    "/v1/embeddings": "embeddings",
    "/pooling": "pooling",
    "/score": "score",
    "/v1/score": "score",
    "/rerank": "rerank",
    "/v1/rerank": "rerank",
    "/v2/rerank": "rerank",
}
_CLASSIFY: dict[str, PoolingEndpoint] = {"/classify": "classify", "/pooling": "pooling"}


def pooling_routes(core: Core) -> dict[str, Callable[[HttpRequest, Exchange], None]]:
    """What a server answers by POST whose model does some of these tasks, by path."""
    options: EngineOptions = core.options
    served = {
        **(_EMBED if options.does("embed") else {}),
        **(_CLASSIFY if options.does("classify") else {}),
    }
    return {path: partial(_pool, core, endpoint) for path, endpoint in served.items()}


def _pool(core: Core, endpoint: PoolingEndpoint, request: HttpRequest, exchange: Exchange) -> None:
    asked = read_pooling(endpoint, json_body(request), core.options)
    name = request.headers.get("x-request-id") or asked.request_id or secrets.token_hex(8)
    answer_id = ID_PREFIX[endpoint] + name
    externals = [f"{answer_id}-{place}" for place in range(len(asked.sequences))]
    account = core.account(asked.served, name, None)
    running = Generation(asked.sequences, 1, account, externals, core.options)
    core.answer_whole(running, exchange, partial(_send, core, asked, answer_id, exchange))


def _send(core: Core, asked: AskedPooling, answer_id: str, exchange: Exchange) -> None:
    created = int(time.time())
    if asked.is_binary:
        core.spawn(_send_vectors(*binary_answer(asked, answer_id, created), exchange))
        return
    body = pooling_answer(asked, answer_id, created)
    if core.options.fault == "drop-usage":
        body["usage"] = None
    exchange.whole(200, encode(body))


async def _send_vectors(
    vectors: list[bytes], headers: tuple[tuple[str, str], ...], exchange: Exchange
) -> None:
    exchange.begin(200, headers)
    for vector in vectors:
        await exchange.chunk(vector)
    exchange.end()
