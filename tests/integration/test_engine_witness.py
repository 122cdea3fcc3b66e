"""The engine's witness on a real vLLM: its lines and the engine's own counters agree to the token."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from engine_bodies import post
from engine_exchange import Request, exchange
from engine_load import HOST, Asked, Heard, generating_load, pooling_load, put, with_id
from engine_recorder import scrape, settled, vllm_folder
from engine_recordings import idle
from engine_witness import (
    ASYNC,
    SYNC,
    all_lines,
    core_pid,
    delivered,
    install_witness,
    is_over,
    parent_pid,
    processor_s,
    witnessed,
)

from metering.engine_lines import (
    AfterEnd,
    Counted,
    Ended,
    EngineLine,
    Faults,
    Freed,
    Late,
    SteppedAside,
    counted,
)

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The witness, built and installed as an operator would."""
    if not (vllm_folder() / "model" / "config.json").exists():
        pytest.skip("no real vLLM here: `make vllm` sets one up")
    return install_witness(tmp_path_factory.mktemp("witness"))


@contextmanager
def busy_core(is_busy: bool) -> Iterator[None]:
    """Another process that takes whatever the machine gives."""
    if not is_busy:
        yield
        return
    spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        spinner.kill()
        spinner.wait()


def counters(port: int) -> Counted:
    """What the engine's own counters show once it is idle."""
    shown = asyncio.run(settled(port))
    return Counted(shown["vllm:prompt_tokens_total"], shown["vllm:generation_tokens_total"])


def identified(seed: int, load: list[Asked]) -> dict[str, Asked]:
    """The load as the sidecar would send it, each request under an id that it minted."""
    chance = random.Random(seed)
    minted = [f"{chance.getrandbits(128):032x}" for _ in load]
    return {each: with_id(asked, each) for each, asked in zip(minted, load, strict=True)}


def hold(lines: list[EngineLine], sent: dict[str, Asked], heard: list[Heard]) -> None:
    """Whoever heard a whole answer finds it in the lines: as many engine requests as it makes, and its tokens."""
    seen = delivered(lines)
    for minted, each in zip(sent, heard, strict=True):
        expected = each.asked.engine_requests
        if expected == 0:
            assert minted not in seen  # refused: it never reached the engine
        elif each.answer is not None and expected is not None:
            assert seen[minted] == (expected, each.tokens), each.asked
        elif each.answer is not None:
            assert (
                seen[minted][1] > 0
            )  # beams are dropped on the way, and those that stay are counted as the client's
        elif minted in seen:
            assert each.tokens <= seen[minted][1]


@pytest.mark.parametrize(
    "options",
    [SYNC, ASYNC, (*ASYNC, "--api-server-count", "2", "--enable-prompt-tokens-details")],
    ids=["plain", "async", "two front ends"],
)
def test_lines_and_counters_agree_to_the_token_in_every_trial(
    site: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    with witnessed(site, tmp_path, options) as port:
        agree_in_trials(tmp_path, port, [generating_load(seed=trial, requests=240) for trial in range(5)])


def test_lines_and_counters_of_a_model_that_pools_agree_too(site: Path, tmp_path: Path) -> None:
    with witnessed(site, tmp_path, (*SYNC, "--runner", "pooling", "--convert", "embed")) as port:
        agree_in_trials(tmp_path, port, [pooling_load(seed=trial, requests=120) for trial in range(4)])


def agree_in_trials(folder: Path, port: int, loads: list[list[Asked]]) -> None:
    for trial, load in enumerate(loads):
        sent = identified(trial, load)
        with busy_core(trial % 2 == 1):
            heard = asyncio.run(put(port, sent.values()))
        shown = counters(port)
        lines = all_lines(folder)
        assert counted(lines) == shown
        hold(lines, sent, heard)
        said = [line.said for line in lines]
        assert not any(isinstance(each, Faults) for each in said)
        assert all(each.model == "tiny" for each in said if isinstance(each, Late))
        late = sum(each.prompt_tokens + each.output_tokens for each in said if isinstance(each, Late))
        after_end = sum(each.output_tokens for each in said if isinstance(each, AfterEnd))
        hung_up = sum(each.answer is None for each in heard)
        print(
            f"trial {trial}: {hung_up} of {len(load)} hung up; {shown}; late {late}, after the end {after_end}"
        )
        assert hung_up >= len(load) / 6


def long_streams(requests: int) -> dict[str, Asked]:
    """Streams that are still running when something is done to the engine, by their ids: all dialects of them."""
    text = {"model": "tiny", "max_tokens": 900, "ignore_eos": True, "stream": True}
    said = {"model": "tiny", "max_output_tokens": 900, "ignore_eos": True, "stream": True}
    kinds = [
        Asked("completions", post("/v1/completions", json.dumps({**text, "prompt": "the bill"})), 1),
        Asked(
            "chat",
            post(
                "/v1/chat/completions", json.dumps({**text, "messages": [{"role": "user", "content": "Hi"}]})
            ),
            1,
        ),
        Asked("responses", post("/v1/responses", json.dumps({**said, "input": "the bill"})), 1),
    ]
    return {
        (minted := f"{number:032x}"): with_id(kinds[number % len(kinds)], minted)
        for number in range(1, requests + 1)
    }


async def running_streams(port: int, requests: int) -> asyncio.Future[list[object]]:
    """Begins long streams and returns while all of them run."""
    streams = [exchange(HOST, port, each.request) for each in long_streams(requests).values()]
    under_way = asyncio.gather(*streams, return_exceptions=True)
    while idle(await scrape(port)):  # noqa: ASYNC110 - the engine sets no event of ours
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    assert not under_way.done()
    return under_way  # type: ignore[return-value]  # exceptions are among the results


def test_sigterm_loses_nothing(site: Path, tmp_path: Path) -> None:
    """What runs when the server is told to end is let end, leaves its line, and the streams say that they are over.

    With `--shutdown-timeout`, that is: by vLLM's default of 0 its server follows SIGTERM with SIGKILL at once.
    """

    async def scene(port: int) -> None:
        await put(port, generating_load(seed=7, requests=40))
        under_way = await running_streams(port, 12)
        server = parent_pid(core_pid(all_lines(tmp_path)))
        os.kill(server, signal.SIGTERM)
        await under_way
        while not is_over(server):  # noqa: ASYNC110 - another process sets no event of ours
            await asyncio.sleep(0.1)

    with witnessed(site, tmp_path, (*ASYNC, "--shutdown-timeout", "60")) as port:
        asyncio.run(scene(port))
    lines = all_lines(tmp_path)
    seen = delivered(lines)
    assert [seen.get(each) for each in long_streams(12)] == [(1, 900)] * 12
    assert [line.said for line in lines].count(Ended(None)) == 2  # the core's stream and the front end's


def test_sigkill_of_the_core_loses_the_lines_of_what_it_had_not_freed_and_no_other(
    site: Path, tmp_path: Path
) -> None:
    """What had ended before has its lines, whole; what was running has none. Nothing else is missing."""

    sent = identified(8, generating_load(seed=8, requests=40))
    heard: list[Heard] = []

    async def scene(port: int) -> None:
        heard.extend(await put(port, sent.values()))
        under_way = await running_streams(port, 12)
        os.kill(core_pid(all_lines(tmp_path)), signal.SIGKILL)
        await under_way

    with witnessed(site, tmp_path, SYNC) as port:
        asyncio.run(scene(port))
    lines = all_lines(tmp_path)
    seen = delivered(lines)
    assert not any(each in seen for each in long_streams(12))
    hold(lines, sent, heard)
    scheduler = [line.n for line in lines if isinstance(line.said, Freed)]
    assert scheduler == sorted(scheduler)


def test_on_an_engine_that_it_does_not_know_it_says_so_and_the_engine_serves(
    site: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed"
    changed.mkdir()
    # Read by every Python that starts: the witness is made to know no version that is there.
    (changed / "sitecustomize.py").write_text(
        "import tallygrid_vllm.versions as v\nv.OLDEST = v.NEWEST = (0, 1)\n"
    )
    folder = tmp_path / "lines"
    with witnessed(Path(f"{changed}:{site}"), folder, ASYNC) as port:
        heard = asyncio.run(put(port, generating_load(seed=9, requests=24)))
        assert all(each.answer.status == 200 for each in heard if each.answer and each.asked.engine_requests)
        assert counters(port).generation_tokens > 0
    said = [line.said for line in all_lines(folder)]
    aside = [each for each in said if isinstance(each, SteppedAside)]
    assert [each.vllm for each in aside] == ["0.32.0"] * 2  # the scheduler and the front end
    assert all("0.1 to 0.1" in each.why for each in aside)
    assert not any(isinstance(each, Freed | Late | AfterEnd) for each in said)


def test_the_witness_costs_less_than_a_server_varies(site: Path, tmp_path: Path) -> None:
    """Two servers by turns, with it and without: the least processor time that a request took in any turn.

    Two servers without it differ by a sixth on two cores that others use too, so this is a bound against something
    gross; what the witness itself takes is measured in test_witness_layer.py.
    """
    body = '{"model":"tiny","prompt":"the bill of a node","max_tokens":4,"ignore_eos":true}'
    asked = Request("POST", "/v1/completions", (("Content-Type", "application/json"),), body)
    load = [Asked("completions", asked, 1)] * 150

    def turn(port: int) -> tuple[float, float]:
        """Milliseconds of processor time a request, and requests a second."""
        begun, used = time.monotonic(), processor_s(port)
        asyncio.run(put(port, load, at_once=16))
        return 1000 * (processor_s(port) - used) / len(load), len(load) / (time.monotonic() - begun)

    without: list[tuple[float, float]] = []
    watched: list[tuple[float, float]] = []
    with (
        witnessed(None, None, ("--no-async-scheduling",)) as plain_port,
        witnessed(site, tmp_path, SYNC) as watched_port,
    ):
        turn(plain_port), turn(watched_port)
        for _ in range(12):
            without.append(turn(plain_port))
            watched.append(turn(watched_port))
    least = [min(each[0] for each in turns) for turns in (without, watched)]
    rates = [statistics.median(each[1] for each in turns) for turns in (without, watched)]
    print(
        f"without/with the witness: processor time of a request {least[0]:.2f}/{least[1]:.2f} ms,"
        f" requests/s {rates[0]:.0f}/{rates[1]:.0f}"
    )
    assert least[1] < least[0] * 1.25
