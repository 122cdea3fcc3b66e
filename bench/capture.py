"""The sidecar beside nothing, nginx and LiteLLM's proxy: the same load, in one run, to the same fast engine.

`tally sidecar` as it is: one process, keys checked, intent and outcome written before engine and client hear of them,
fsync every 50 ms, sealed into the spool. The roads (directly to the engine, through nginx, through LiteLLM, through the
sidecar) are measured in turns, so that a busy machine slows all of them; a figure is the median of the turns. Engine,
load and what is between them share the machine's cores: where nginx is not the narrowest place of its road, the rates
flatter what is slower than nginx, and the CPU that each used for one answer is the sharper comparison.

Latency is measured at half of what the sidecar reached on that kind of answer, on all roads but LiteLLM's (which cannot
go as fast), from connections that pause a random while before each request. Then comes what the sidecar holds in
memory: over 200,000 answers, and for each of many streams that are open at once.

At the end intake takes what was sealed: at least as many requests as there were answers, or the bench fails.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.command import Installation, installation, server
from bench.held_streams import held_streams_kib
from bench.litellm_proxy import litellm, need_litellm
from bench.load import Load, need_tools, wrk
from bench.nginx import nginx
from bench.processes import cpu_s, memory_kib
from bench.results import Measured, Skipped

# So many that on no road one process waits for another to wake up.
CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class Road:
    """A way to the engine's answers: whom to ask, with which key, and the process in between.

    LiteLLM takes `longer` (64 streams at once would be seconds each) and is asked by fewer; its rate is the same.
    """

    name: str
    pid: int
    port: int
    secret: str
    longer: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of answer, and how many times LiteLLM's rate the sidecar has to reach on it."""

    name: str
    stream: bool
    beyond_litellm: int


KINDS = (Kind("answers", False, 100), Kind("streams of 32 chunks", True, 60))


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured."""

    turns: int
    seconds: int
    answers_for_memory: int
    held_streams: int


def measure(quick: bool) -> Measured:
    need_tools()
    extent = Extent(1, 1, 5_000, 100) if quick else Extent(3, 4, 200_000, 2_000)
    found = Measured()
    found.add("connections", CONNECTIONS)
    with installation() as here:
        created = here.tally("key", "create", "--customer", "acme").document
        with _engine() as engine, _sidecar(here, engine, str(created["secret"])) as sidecar:
            answered = sum(_kind(found, kind, engine, sidecar, extent, quick) for kind in KINDS)
            answered += _memory(found, sidecar, extent)
        taken = here.tally("usage", "--by", "operator")
    requests = int(taken.document["total"]["requests"])
    assert requests >= answered, f"{answered} answers, but only {requests} events"
    found.add("answers through the sidecar", answered)
    found.add("events in the ledger", requests)
    found.add("intake of them", taken.seconds, "s")
    return found


def _kind(found: Measured, kind: Kind, engine: Road, sidecar: Road, extent: Extent, quick: bool) -> int:
    """Measures one kind of answer; how many the sidecar gave."""
    answered = 0

    def load(road: Road, seconds: int, pause_ms: int = 0) -> Load:
        nonlocal answered
        seen = wrk(
            road.port,
            stream=kind.stream,
            secret=road.secret,
            seconds=max(seconds, 5) if road.longer else seconds,
            connections=CONNECTIONS // 8 if road.longer else CONNECTIONS,
            pause_ms=pause_ms,
        )
        answered += seen.requests if road is sidecar else 0
        return seen

    with ExitStack() as stack:
        roads = [engine, stack.enter_context(_nginx(engine, kind))]
        try:
            python = need_litellm(make=not quick)
        except Skipped as why:
            note = f"LiteLLM is left out: {why}"
            found.notes += [note] if note not in found.notes else []
        else:
            roads.append(stack.enter_context(_litellm(engine, python)))
        roads.append(sidecar)
        for road in roads:  # code and connections warm
            load(road, 1)
        rates, cpu_us = _in_turns(roads, extent.turns, lambda road: load(road, extent.seconds))
        pause_ms = max(1, round(CONNECTIONS / (rates["sidecar"] / 2) * 1000))
        calm = {road.name: load(road, extent.seconds, pause_ms) for road in roads if road.name != "LiteLLM"}
    _add_rates(found, kind, rates, cpu_us)
    _add_latencies(found, kind.name, calm)
    return answered


def _memory(found: Measured, sidecar: Road, extent: Extent) -> int:
    """Measures the sidecar's memory over many answers and with many open streams; how many requests that were."""
    held: list[int] = []
    answered = 0
    while answered < extent.answers_for_memory:
        answered += wrk(
            sidecar.port, stream=False, secret=sidecar.secret, seconds=1, connections=CONNECTIONS
        ).requests
        held.append(memory_kib(sidecar.pid))
    tenth = max(1, len(held) // 10)
    second, last = max(held[: 2 * tenth]), max(held[-tenth:])
    found.add("memory over so many answers", answered)
    found.add("memory in the first two tenths", second / 1024, "MiB")
    found.add("memory in the last tenth", last / 1024, "MiB")
    found.add("memory: the last tenth ÷ the first two", last / second, "", "≤ 1.05")
    each = held_streams_kib(
        sidecar.port, sidecar.secret, extent.held_streams, lambda: memory_kib(sidecar.pid)
    )
    found.add("open streams at once", extent.held_streams)
    found.add("memory of an open stream", each, "KiB", "≤ 31.25")
    return answered + extent.held_streams


@contextmanager
def _engine() -> Iterator[Road]:
    with server([sys.executable, "-m", "bench.stub_engine"]) as (pid, said):
        yield Road("directly", pid, int(said), "nobody-asks-for-it")


@contextmanager
def _nginx(engine: Road, kind: Kind) -> Iterator[Road]:
    with nginx(engine.port, stream=kind.stream) as (pid, port):
        yield Road("nginx", pid, port, engine.secret)


@contextmanager
def _litellm(engine: Road, python: Path) -> Iterator[Road]:
    with litellm(python, engine.port) as (pid, port, secret):
        yield Road("LiteLLM", pid, port, secret, longer=True)


@contextmanager
def _sidecar(here: Installation, engine: Road, secret: str) -> Iterator[Road]:
    command = ("sidecar", "--engine", f"http://127.0.0.1:{engine.port}", "--listen", "127.0.0.1:0")
    with server([sys.executable, "-m", "adapters.cli", *command, "--data", str(here.data)]) as (pid, said):
        address: str = json.loads(said)["sidecar"]
        yield Road("sidecar", pid, int(address.rpartition(":")[2]), secret)


def _in_turns(
    roads: list[Road], turns: int, measured: Callable[[Road], Load]
) -> tuple[dict[str, float], dict[str, float]]:
    """Rate and CPU (µs an answer, of the process in between) of each road: medians of turns that take all roads."""
    rates: dict[str, list[float]] = {road.name: [] for road in roads}
    cpu_us: dict[str, list[float]] = {road.name: [] for road in roads}
    for _ in range(turns):
        for road in roads:
            before = cpu_s(road.pid)
            seen = measured(road)
            rates[road.name].append(seen.per_second)
            cpu_us[road.name].append((cpu_s(road.pid) - before) / seen.requests * 1e6)
    return _medians(rates), _medians(cpu_us)


def _medians(seen: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(figures) for name, figures in seen.items()}


def _add_rates(found: Measured, kind: Kind, rates: dict[str, float], cpu_us: dict[str, float]) -> None:
    for name, rate in rates.items():
        found.add(f"{kind.name}: {name}", round(rate) if rate > 1000 else rate, "/s")
    for name, used_us in cpu_us.items():
        what = "the engine's" if name == "directly" else f"{name}'s"
        found.add(f"{kind.name}: {what} CPU", used_us, "µs each")
    ratios = {"nginx": "≥ 0.5", "LiteLLM": f"≥ {kind.beyond_litellm}", "directly": ""}
    for name, demanded in ratios.items():
        if name in rates:
            found.add(f"{kind.name}: sidecar ÷ {name}", rates["sidecar"] / rates[name], "", demanded)


def _add_latencies(found: Measured, what: str, calm: dict[str, Load]) -> None:
    for name, seen in calm.items():
        found.add(f"{what}: latency at a rate of, {name}", round(seen.per_second), "/s")
        found.add(f"{what}: p50, {name}", seen.p50_ms, "ms")
        found.add(f"{what}: p99, {name}", seen.p99_ms, "ms")
    for name in ("nginx", "sidecar"):
        found.add(f"{what}: p50 added, {name}", calm[name].p50_ms - calm["directly"].p50_ms, "ms")
        limit = "≤ 1" if name == "sidecar" else ""
        found.add(f"{what}: p99 added, {name}", calm[name].p99_ms - calm["directly"].p99_ms, "ms", limit)
