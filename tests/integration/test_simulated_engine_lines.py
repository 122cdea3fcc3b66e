"""The simulated engine's witness: the lines of the real one, about everything that the engine frees, and their loss."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from engine_exchange import exchange
from simulated_world import as_request, ask, chat, hang_up, named, post, read_lines, with_engine
from tallygrid_vllm.lines import file_name, ids, line

from adapters.simulated_engine.options import EngineOptions, LineOptions
from adapters.simulated_engine.server import RunningEngine
from metering.engine_lines import AfterEnd, Ended, EngineLine, Freed, Late, Opened, SteppedAside, counted
from metering.engine_tail import EngineLines

ID = "8d7f9c2e51b04c6da2f3e4b5c6d7e8f9"


Tokens = AfterEnd | Late


def tokens_of(lines: list[EngineLine], kind: type[Tokens]) -> list[int]:
    return [each.said.output_tokens for each in lines if isinstance(each.said, kind)]


def freed(lines: list[EngineLine]) -> list[Freed]:
    return [each.said for each in lines if isinstance(each.said, Freed)]


def test_the_twin_writes_the_witnesss_own_bytes_into_files_of_its_own_names(tmp_path: Path) -> None:
    options = EngineOptions(lines=LineOptions(tmp_path))
    ask(options, as_request(chat(**named(31, 12, sim_cached_tokens=16)), ID))
    (path,) = tmp_path.iterdir()
    start_us, pid, role, _part = path.name.split("-")
    assert path.name == file_name(int(start_us), int(pid), role, 0)
    for content, found in zip(path.read_bytes().splitlines(True), read_lines(tmp_path), strict=True):
        spelled = {name: getattr(found.said, name) for name in found.said.__dataclass_fields__}
        kind = {Opened: "opened", Freed: "request", Ended: "ended"}[type(found.said)]
        assert content == line(found.n, found.at_us, kind, spelled)


def test_a_finished_request_is_freed_with_what_it_came_to(tmp_path: Path) -> None:
    options = EngineOptions(lines=LineOptions(tmp_path))
    ask(options, as_request(chat(max_tokens=12, **named(31, 40, sim_cached_tokens=16)), ID))
    opened, request, ended = (each.said for each in read_lines(tmp_path))
    assert isinstance(opened, Opened)
    assert (opened.role, opened.model, opened.engine) == ("scheduler", "tiny", 0)
    assert isinstance(request, Freed)
    assert ids(request.id) == {"id": request.id, "external": f"chatcmpl-{ID}"}
    assert (request.external, request.status, request.sampled) == (f"chatcmpl-{ID}", "length_capped", True)
    assert (request.prompt_tokens, request.cached_tokens, request.output_tokens) == (31, 16, 12)
    assert ended == Ended(None)


def test_the_line_is_there_before_the_answer_has_ended(tmp_path: Path) -> None:
    async def use(running: RunningEngine) -> list[Freed]:
        await exchange(running.host, running.port, chat(stream=True, **named(5, 20)))
        return freed(read_lines(tmp_path))

    options = EngineOptions(tokens_per_second=500, lines=LineOptions(tmp_path))
    assert [each.output_tokens for each in with_engine(options, use)] == [20]


def test_each_choice_of_each_prompt_is_a_request_of_its_own(tmp_path: Path) -> None:
    request = post("/v1/completions", prompt=["one", "two"], n=2, temperature=1, **named(3, 4))
    ask(EngineOptions(lines=LineOptions(tmp_path)), as_request(request, ID))
    found = freed(read_lines(tmp_path))
    assert [each.external for each in found] == [f"cmpl-{ID}-{prompt}" for prompt in (0, 0, 1, 1)]
    assert [each.id[:2] for each in found] == ["0_", "1_", "0_", "1_"]
    assert [ids(each.id)["external"] for each in found] == [each.external for each in found]


def test_a_beam_search_is_a_request_for_every_token_of_every_beam(tmp_path: Path) -> None:
    """As recorded of the real one: 5 requests for 2 beams of 3 tokens, over 5, 6, 6, 7 and 7 tokens."""
    request = post("/v1/completions", prompt="x", n=2, use_beam_search=True, max_tokens=3, **named(5, 9))
    (answer,), running = ask(EngineOptions(lines=LineOptions(tmp_path)), as_request(request, ID))
    assert '"prompt_tokens":5,"total_tokens":11,"completion_tokens":6,' in answer.body
    found = freed(read_lines(tmp_path))
    assert [each.prompt_tokens for each in found] == [5, 6, 6, 7, 7]
    assert {(each.output_tokens, each.status) for each in found} == {(1, "length_capped")}
    assert all(each.external.startswith(f"cmpl-{ID}-") for each in found)
    counters = running.counters["tiny"]
    assert (counters.prompt_tokens, counters.generation_tokens, counters.finished["length"]) == (31, 5, 5)


def test_lines_less_what_came_late_are_the_counters_whoever_hung_up(tmp_path: Path) -> None:
    options = EngineOptions(
        tokens_per_second=300,
        first_token_ms=20,
        late_tokens=2,
        after_end_tokens=1,
        lines=LineOptions(tmp_path),
    )
    requests = [hang_up(chat(stream=True, **named(7, 900)), pieces) for pieces in (0, 1, 5)]
    requests += [chat(**named(11, 4)), hang_up(chat(n=2, temperature=1, **named(13, 900)), 0)]
    _, running = ask(options, *requests)
    lines = read_lines(tmp_path)
    counters = running.counters["tiny"]
    sums = counted(lines)
    assert (sums.prompt_tokens, sums.generation_tokens) == (
        counters.prompt_tokens,
        counters.generation_tokens,
    )
    assert set(tokens_of(lines, AfterEnd)) == {1}
    assert set(tokens_of(lines, Late)) == {2}
    assert sorted(each.status for each in freed(lines)) == ["aborted"] * 5 + ["stopped"]


def test_a_request_left_before_its_first_token_is_freed_unsampled(tmp_path: Path) -> None:
    options = EngineOptions(first_token_ms=500, lines=LineOptions(tmp_path))
    ask(options, hang_up(chat(**named(7, 9)), 0))
    (request,) = freed(read_lines(tmp_path))
    assert (request.status, request.sampled, request.output_tokens) == ("aborted", False, 0)


def test_an_adapter_is_named_beside_the_model_that_counts_it(tmp_path: Path) -> None:
    options = EngineOptions(adapters=("poems",), aliases=("small",), lines=LineOptions(tmp_path))
    answers, running = ask(
        options, chat(**{**named(5, 6), "model": "poems"}), chat(**{**named(5, 6), "model": "small"})
    )
    assert [(each.model, each.lora) for each in freed(read_lines(tmp_path))] == [
        ("tiny", "poems"),
        ("tiny", None),
    ]
    assert ['"model":"poems"' in answers[0].body, '"model":"tiny"' in answers[1].body] == [True, True]
    assert running.counters["tiny"].generation_tokens == 12


def test_a_full_part_is_followed_by_the_next(tmp_path: Path) -> None:
    options = EngineOptions(lines=LineOptions(tmp_path, part_bytes=1000))
    ask(options, *[chat(**named(5, 6)) for _ in range(12)])
    assert len(list(tmp_path.iterdir())) > 2
    lines = read_lines(tmp_path)
    assert len(freed(lines)) == 12
    assert [each.n for each in lines] == list(range(len(lines)))


def test_a_line_that_is_lost_leaves_its_number_missing(tmp_path: Path) -> None:
    ask(EngineOptions(lines=LineOptions(tmp_path, lose_every=3)), *[chat(**named(5, 6)) for _ in range(6)])
    tail = EngineLines(tmp_path)
    found = list(tail.read())
    assert [each.line.n for each in found] == [0, 1, 2, 4, 5, 7]
    assert len(tail.take_faults()) == 2


def test_lines_that_are_delayed_come_after_the_answer_in_their_order(tmp_path: Path) -> None:
    async def use(running: RunningEngine) -> list[int]:
        seen = []
        for tokens in (3, 4):
            await exchange(running.host, running.port, chat(**named(5, tokens)))
        seen.append(len(freed(read_lines(tmp_path))))
        await asyncio.sleep(0.3)
        seen += [each.output_tokens for each in freed(read_lines(tmp_path))]
        return seen

    assert with_engine(EngineOptions(lines=LineOptions(tmp_path, delay_ms=200)), use) == [0, 3, 4]


def test_a_witness_that_steps_aside_says_so_and_nothing_else(tmp_path: Path) -> None:
    options = EngineOptions(late_tokens=1, lines=LineOptions(tmp_path, aside=True))
    (answer,), _ = ask(options, chat(**named(5, 6)))
    assert answer.status == 200
    assert [type(each.said) for each in read_lines(tmp_path)] == [Opened, SteppedAside, Ended]


@pytest.mark.parametrize(
    ("number", "lines"), [(signal.SIGTERM, ["stopped", "aborted"]), (signal.SIGKILL, ["stopped"])]
)
def test_sigterm_writes_what_is_under_way_and_sigkill_loses_it(
    tmp_path: Path, number: signal.Signals, lines: list[str]
) -> None:
    command = [sys.executable, "-m", "adapters.simulated_engine", "--listen", "127.0.0.1:0"]
    command += ["--tokens-per-second", "20"]
    environment = {**os.environ, "TALLY_ENGINE_LINES": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline().rsplit(":", 1)[1].strip('"}\n '))

        async def ask_twice() -> None:
            await exchange("127.0.0.1", port, chat(**named(5, 1)))
            long = asyncio.ensure_future(exchange("127.0.0.1", port, chat(stream=True, **named(5, 9000))))
            await asyncio.to_thread(_wait_until_one_runs, port)
            server.send_signal(number)
            with pytest.raises((EOFError, ConnectionError)):
                await long

        asyncio.run(ask_twice())
        server.wait(10)
    assert [each.status for each in freed(read_lines(tmp_path))] == lines


def _wait_until_one_runs(port: int) -> None:
    running = b'vllm:num_requests_running{engine="0",model_name="tiny"} 1'
    for _ in range(500):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            if running in answer.read():
                return
    raise AssertionError("nothing runs in the engine")
