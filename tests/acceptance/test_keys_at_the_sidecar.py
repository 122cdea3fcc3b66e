"""Who may ask the engine: keys at a real sidecar before the simulated engine, and what a stranger leaves behind: nothing."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from command import EXAMPLE, Json, over, simulated_engine

from adapters.postgres.database import DatabaseUrls


def ask(sidecar: str, secret: str | None) -> tuple[int, Json]:
    """One chat request; the answer's status and JSON."""
    connection = http.client.HTTPConnection(urlsplit(sidecar).netloc, timeout=30)
    headers = {"Content-Type": "application/json"}
    if secret is not None:
        headers["Authorization"] = f"Bearer {secret}"
    body = {"model": "qwen3-32b", "messages": [{"role": "user", "content": "Labas!"}], "max_tokens": 5}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    answer = connection.getresponse()
    document: Json = json.loads(answer.read())
    connection.close()
    return answer.status, document


def engine_counters(engine: str) -> str:
    connection = http.client.HTTPConnection(urlsplit(engine).netloc, timeout=30)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return "\n".join(line for line in text.splitlines() if line.startswith("vllm:prompt_tokens_total"))


def test_an_unknown_key_is_turned_away_before_the_engine_hears_of_it(
    fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path
) -> None:
    tally = over(fresh_urls(), tmp_path / "data", EXAMPLE)
    known = tally("key", "create", "--customer", "acme")
    revoked = tally("key", "create", "--customer", "acme")
    role = tally("key", "create", "--role", "finance")
    tally("key", "revoke", revoked["id"])
    with (
        simulated_engine() as engine,
        tally.serving("sidecar", "--engine", engine["engine"], "--listen", "127.0.0.1:0") as told,
    ):
        before = engine_counters(engine["engine"])
        for secret in (None, "tg_unknown", "", revoked["secret"], role["secret"]):
            status, document = ask(told["sidecar"], secret)
            assert status == 401, document
            assert document["error"]["message"], document
        assert engine_counters(engine["engine"]) == before

        status, document = ask(told["sidecar"], known["secret"])
        assert status == 200, document
        tokens = document["usage"]

    total = tally("usage")["total"]
    assert total["requests"] == 1
    assert (total["prompt_tokens"], total["completion_tokens"]) == (
        tokens["prompt_tokens"],
        tokens["completion_tokens"],
    )
