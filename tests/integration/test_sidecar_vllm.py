"""The recordings' contract, held by a real vLLM through the sidecar: what clients see there is what they see without it,
and what events say is what the engine's own counters say."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("engine_contract")

from engine_contract import hold  # noqa: E402  (after its assertions are rewritten)
from engine_dialects import BACKGROUND, BACKGROUND_STREAM, STORED  # noqa: E402
from engine_exchange import Answer, Request, exchange  # noqa: E402
from engine_recorder import HOST, engine, scrape, settled, vllm_folder  # noqa: E402
from engine_recordings import differences, read_set, usage_counters  # noqa: E402
from engine_requests import SERVER_OPTIONS, SETS  # noqa: E402
from scripted_engine import SECRET, Asked, until, world  # noqa: E402

from metering import background  # noqa: E402
from metering.endpoints import Endpoint, find_endpoint  # noqa: E402

KEY_HEADER = ("Authorization", f"Bearer {SECRET}")
OWNED = (STORED, BACKGROUND, BACKGROUND_STREAM)
NO_COUNTERS = SERVER_OPTIONS["speech"]


async def nobody(_: Asked) -> None:
    raise AssertionError("the scripted engine is not asked here")


def as_recorded(answer: Answer, ids: dict[str, str]) -> Answer:
    """The answer with ids as long as vLLM's own, and an event a piece."""
    body = answer.body
    for own, given in ids.items():
        body = body.replace(given, own)
    body = re.sub(r"resp_[0-9a-f]{32}_[0-9a-f]{18}", "resp_" + "0" * 16, body)
    body = re.sub(r'("id":"[a-z]+-)[0-9a-f]{32}', r"\g<1>" + "0" * 16, body)
    events = "event-stream" in (answer.header("content-type") or "")
    pieces = tuple(re.findall(r".*?\n\n", body, re.DOTALL)) if events else (body,) if body else ()
    headers = tuple(
        (name, str(len(body.encode())) if name == "content-length" else value)
        for name, value in answer.headers
    )
    return Answer(answer.status, answer.reason, headers, pieces, answer.whole)


def asked(request: Request, ids: dict[str, str]) -> Request:
    path, body = request.path, request.body or ""
    for own, given in ids.items():
        path, body = path.replace(own, given), body.replace(own, given)
    headers = (*request.headers, KEY_HEADER)
    return replace(request, path=path, body=None if request.body is None else body, headers=headers)


def counts_alike(request: Request, event: dict[str, Any], counters: dict[str, int]) -> bool:
    """Several choices count their prompt each in the engine, beams are requests of their own; of what was aborted the
    engine made more than was passed on; a finished one whose usage nobody could read says nothing."""
    prompt, completion = event["prompt_tokens"], event["completion_tokens"]
    generated = counters.get("vllm:generation_tokens_total", 0)
    if event["outcome"] == "aborted":
        return completion <= generated or generated == 0
    if event["reason"] == "usage_unread" or "use_beam_search" in (request.body or ""):
        return True
    choices = 2 if '"n": 2' in (request.body or "") else 1
    counted = counters.get("vllm:prompt_tokens_total", 0)
    return bool(prompt * choices == counted and completion == generated)


@pytest.mark.vllm
@pytest.mark.timeout(600)
@pytest.mark.parametrize("options", dict.fromkeys(SERVER_OPTIONS.values()), ids=" ".join)
def test_the_recordings_hold_through_the_sidecar(
    options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (vllm_folder() / "model" / "config.json").exists():
        pytest.skip("no real vLLM here: `make vllm` sets one up")
    monkeypatch.setattr(background, "FIRST_PAUSE_S", 0.05)
    broken: list[str] = []

    async def through(port: int) -> None:
        ids: dict[str, str] = {}
        counted: list[tuple[str, Request, dict[str, int]]] = []
        async with world(tmp_path, nobody, engine_url=f"http://{HOST}:{port}") as it:
            for set_name, name in [(s, n) for s in SETS if SERVER_OPTIONS[s] == options for n in SETS[s]]:
                recording = read_set(set_name)[name]
                request = SETS[set_name][name]
                before = {} if options == NO_COUNTERS else usage_counters(await scrape(port))
                answer = await exchange("127.0.0.1", it.port, asked(request, ids))
                await until(lambda: it.lane.opened == it.lane.closed)
                counters = {} if options == NO_COUNTERS else differences(before, await settled(port, 0.15))
                for own in OWNED:
                    if own in (request.body or "") and own not in ids:
                        ids[own] = re.findall(r"resp_\w+", answer.body)[0]
                endpoint = find_endpoint(request.method.encode(), request.path.encode())
                if not isinstance(endpoint, Endpoint) or "resp_none" in f"{request.path}{request.body}":
                    continue
                if endpoint.metered:
                    counted.append((f"{set_name}/{name}", request, counters))
                # Not the same here: a client's own request id; usage that the operator shows to all; and, once in some
                # dozens, vLLM does not notice that a client hung up.
                own_id = "trace-7" in str(request) or "_request_id_in_" in name
                unnoticed = request.hang_up_after is not None and any("success" in each for each in counters)
                if own_id or unnoticed or set_name == "forced":
                    continue
                try:
                    hold(recording, as_recorded(answer, ids), counters)
                except AssertionError as error:
                    broken.append(f"{set_name}/{name}: {error}")
            events = await it.events()
        assert len(events) == len(counted)
        for (name, request, counters), event in zip(counted, events, strict=True):
            if options != NO_COUNTERS and not counts_alike(request, event, counters):
                broken.append(f"{name}: {json.dumps(event, default=str)} {counters}")

    with engine(options) as port:
        asyncio.run(through(port))
    assert not broken, "\n".join(broken)
