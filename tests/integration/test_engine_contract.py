"""The simulated engine, and where there is one the real vLLM, held to the recordings of the real vLLM."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import pytest

pytest.register_assert_rewrite("engine_contract")

from engine_contract import hold  # noqa: E402  (after its assertions are rewritten)
from engine_dialects import BEFORE  # noqa: E402
from engine_exchange import Answer  # noqa: E402
from engine_recorder import HOST, ask, engine, scrape, vllm_folder  # noqa: E402
from engine_recordings import (  # noqa: E402
    FOLDER,
    families,
    read_set,
    usage_counters,
)
from engine_requests import SERVER_OPTIONS, SETS  # noqa: E402

RECORDED = {name: read_set(name) for name in SETS}
# What the recorded server was started with, in the simulated engine's words.
SIMULATED_OPTIONS = {
    "plain": (),
    "dialects": (),
    "details": ("--prompt-tokens-details", "--request-id-headers", "--store-responses"),
    "stored": ("--prompt-tokens-details", "--request-id-headers", "--store-responses"),
    "forced": ("--force-include-usage",),
    "reasoning": (),
    "embed": ("--task", "embed"),
    "classify": ("--task", "classify"),
    "speech": ("--task", "transcription"),
}
# Slow enough that a busy machine hangs up in time; the real one's context length.
PACE = ("--tokens-per-second", "400", "--first-token-ms", "3", "--context-tokens", "1024")


@contextmanager
def simulated_engine(set_name: str) -> Iterator[int]:
    """The port of a simulated engine, started for one set as a process of its own."""
    command = [sys.executable, "-m", "adapters.simulated_engine", "--listen", f"{HOST}:0"]
    options = [*PACE, *SIMULATED_OPTIONS[set_name]]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            ready = json.loads(server.stdout.readline())
            assert ready["ready"] is True
            yield urlsplit(ready["engine"]).port or 0
        finally:
            server.terminate()
    assert server.returncode == 0


@pytest.fixture(scope="module")
def simulated() -> Iterator[Callable[[str], int]]:
    """Gives the port of the simulated engine of a set, which is started when first asked for."""
    with ExitStack() as engines:
        yield functools.cache(lambda set_name: engines.enter_context(simulated_engine(set_name)))


@pytest.mark.parametrize(
    ("set_name", "name"),
    [pytest.param(each, name, id=f"{each}-{name}") for each in SETS for name in SETS[each]],
)
def test_the_simulated_engine_answers_and_counts_as_recorded(
    simulated: Callable[[str], int], set_name: str, name: str
) -> None:
    recording = RECORDED[set_name][name]
    for earlier in BEFORE.get(name, ()):
        asyncio.run(ask(simulated(set_name), SETS[set_name][earlier], pause_s=0.01))
    hold(recording, *asyncio.run(ask(simulated(set_name), recording.request, pause_s=0.01)))


def test_the_simulated_engine_shows_its_counters_under_vllms_names_labels_and_help(
    simulated: Callable[[str], int],
) -> None:
    recorded = json.loads((FOLDER / "metrics.json").read_text())
    exposition = asyncio.run(scrape(simulated("plain")))
    shown = families(exposition)
    assert shown == {name: recorded[name] for name in shown}
    counted = {name for each in RECORDED["plain"].values() for name in each.counters or ()}
    assert counted <= set(usage_counters(exposition))


@pytest.mark.parametrize("set_name", SETS)
def test_the_recordings_are_of_the_requests_that_stand_here(set_name: str) -> None:
    recorded = {name: each.request for name, each in RECORDED[set_name].items()}
    assert recorded == dict(SETS[set_name])
    assert {each.server for each in RECORDED[set_name].values()} == {SERVER_OPTIONS[set_name]}


def test_the_contract_notices_a_miscount_and_missing_usage() -> None:
    """The check itself is checked: an answer changed by one token, or by one key, breaks it."""
    recording = RECORDED["plain"]["chat_stream_usage"]
    assert recording.counters is not None
    hold(recording, recording.answer, recording.counters)
    *others, usage, done = recording.answer.pieces
    for changed in (
        (*others, usage.replace('"completion_tokens":4', '"completion_tokens":5'), done),
        (*others, done),
        (*others, usage, done.replace("\n\n", "\n")),
        (*(piece.replace('"logprobs":null,', "") for piece in others), usage, done),
    ):
        answer = Answer(200, "OK", recording.answer.headers, changed, True)
        with pytest.raises(AssertionError):
            hold(recording, answer, recording.counters)
    counters = {**recording.counters, "vllm:generation_tokens_total": 5}
    with pytest.raises(AssertionError):
        hold(recording, recording.answer, counters)


@contextmanager
def real_engine(options: tuple[str, ...]) -> Iterator[int]:
    """The port of a real vLLM: VLLM_URL's where the defaults are asked for, else one started by `tests/engine/`."""
    if (url := os.environ.get("VLLM_URL")) and not options:
        yield urlsplit(url).port or 80
        return
    if not (vllm_folder() / "model" / "config.json").exists():
        pytest.skip("no real vLLM here: `make vllm` sets one up")
    with engine(options) as port:
        yield port


@pytest.mark.vllm
@pytest.mark.timeout(600)
@pytest.mark.parametrize("options", dict.fromkeys(SERVER_OPTIONS.values()), ids=" ".join)
def test_the_real_engine_still_answers_and_counts_as_recorded(options: tuple[str, ...]) -> None:
    """All requests of a server's sets in their order, since later ones find earlier prompts in the cache."""

    async def broken(port: int) -> list[str]:
        found = []
        for set_name in SETS:
            if SERVER_OPTIONS[set_name] != options:
                continue
            for name, request in SETS[set_name].items():
                answer, counters = await ask(port, request, pause_s=0.15)
                try:
                    hold(RECORDED[set_name][name], answer, counters)
                except AssertionError as error:
                    found.append(f"{set_name}/{name}: {error}")
        return found

    with real_engine(options) as port:
        assert asyncio.run(broken(port)) == []
