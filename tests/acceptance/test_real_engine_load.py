"""A real vLLM, a real sidecar, a mixed load with aborts and errors: every request in one event, every token explained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from capture_world import base_folder
from engine_load import Asked, generating_load, pooling_load
from engine_recorder import vllm_folder
from engine_witness import ASYNC, SYNC, install_witness, witnessed
from kill_auditor import Event
from kill_commands import Commands
from real_engine_world import World, audit, check_sums, counters, engine_lines, real_world, row_of
from tampering import forgetful_sidecar, losing_lines, lying_counters

from adapters.postgres.database import DatabaseUrls

pytestmark = [pytest.mark.vllm, pytest.mark.proof, pytest.mark.timeout(900)]

STORE = "VLLM_ENABLE_RESPONSES_API_STORE=1"
DETAILS = "--enable-prompt-tokens-details"
POOLING = ("--runner", "pooling", "--convert", "embed")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The witness, built and installed as an operator would."""
    if not (vllm_folder() / "model" / "config.json").exists():
        pytest.skip("no real vLLM here: `make vllm` sets one up")
    return install_witness(tmp_path_factory.mktemp("witness"))


Urls = Callable[[], DatabaseUrls]


@contextmanager
def world_of(site: Path, folder: Path, urls: DatabaseUrls, options: tuple[str, ...]) -> Iterator[World]:
    """An engine started with these options, and a sidecar before it."""
    with (
        base_folder(urls) as base,
        witnessed(site, folder / "lines", options) as engine,
        real_world(base, engine, folder / "lines") as world,
    ):
        yield world


@pytest.mark.parametrize(
    ("options", "load"),
    [
        ((*SYNC, STORE), generating_load(1, 320, background=True)),
        ((*ASYNC, STORE, DETAILS), generating_load(2, 320, background=True)),
        ((*ASYNC, DETAILS, "--api-server-count", "2"), generating_load(3, 320)),
        ((*SYNC, *POOLING), pooling_load(4, 320)),
    ],
    ids=["plain", "prompt details", "two front ends", "a model that pools"],
)
def test_every_request_has_one_event_and_nothing_is_unaccounted(
    site: Path, tmp_path: Path, fresh_urls: Urls, options: tuple[str, ...], load: list[Asked]
) -> None:
    with world_of(site, tmp_path, fresh_urls(), options) as world:
        heard = world.send(load)
        shown = counters(world)
        world.stop()
        lines = engine_lines(world.lines)
        events = world.events()
        findings = audit(heard, lines, events)
        check_sums(events, lines, shown, findings)
        assert not findings, findings
        row = row_of(world.reconciled())
    hung_up = sum(each.answer is None for each in heard)
    print(f"{len(heard)} requests, {hung_up} hung up: {row}")
    assert hung_up >= len(heard) / 4
    assert (row["unaccounted_prompt"], row["unaccounted_generated"]) == (0, 0)
    assert (row["engine_prompt"], row["engine_generated"]) == shown
    alone = unwitnessed(events)
    assert row["unwitnessed_requests"] == len(alone)
    # Whose client left before the engine had it leaves no line. Of all others there are some.
    assert {(event["outcome"], event["completion_tokens"]) for event in alone} <= {("aborted", 0)}
    assert row["witness"] == "yes"


def unwitnessed(events: list[Event]) -> list[Event]:
    """Those of the served model of whose generated tokens nobody ever told."""
    known = {event["names"] for event in events if event["kind"] == "amendment"}
    alone = [event for event in events if event["generated_tokens"] is None and event["model"] == "tiny"]
    return [event for event in alone if event["request"] not in known]


def test_a_dropped_event_a_counter_that_says_more_and_a_lost_line_each_show(
    site: Path, tmp_path: Path, fresh_urls: Urls
) -> None:
    """The proof of the proof: three ways to be wrong by one thing, and exit code 3 for each."""
    lines, copy = tmp_path / "lines", tmp_path / "copy"
    with witnessed(site, lines, SYNC) as engine:
        with base_folder(fresh_urls()) as base, real_world(base, engine, lines) as world:
            assert unaccounted(world) == (0, 0)
        with base_folder(fresh_urls()) as base:
            world = World(base.tally, base.keys, Commands(base.tally), engine, lines)
            with forgetful_sidecar(base.tally, 20, *world.arguments()) as world.port:
                put_and_settle(world)
            missed = unexplained(world, exit_code=3)
            assert missed > (0, 0), missed
        with (
            base_folder(fresh_urls()) as base,
            lying_counters(engine, generated=7) as (liar, lie),
            real_world(base, liar, lines) as world,
        ):
            assert unaccounted(world, before=lie.set, exit_code=3) == (0, 7)
        with (
            base_folder(fresh_urls()) as base,
            losing_lines(lines, copy, number=requests_in(lines) + 20),
            real_world(base, engine, copy) as world,
        ):
            unaccounted(world, exit_code=3)
            assert row_of(world.reconciled(exit_code=3))["lines_missing"] == 1


def put_and_settle(world: World, before: Callable[[], None] = lambda: None) -> None:
    world.send(generating_load(11, 20))
    counters(world)  # a first span
    before()
    world.send(generating_load(12, 60))
    counters(world)


def unaccounted(
    world: World, *, before: Callable[[], None] = lambda: None, exit_code: int = 0
) -> tuple[int, int]:
    """The (prompt, generated) tokens of a small load that `tally reconcile` cannot explain."""
    put_and_settle(world, before)
    world.stop()
    return unexplained(world, exit_code)


def unexplained(world: World, exit_code: int) -> tuple[int, int]:
    row = row_of(world.reconciled(exit_code))
    return row["unaccounted_prompt"], row["unaccounted_generated"]


def requests_in(lines: Path) -> int:
    return sum(len(each) for each in engine_lines(lines).freed.values())
