"""The sidecar beside nothing and beside nginx: the same load, in one run, to the same fast engine.

`tally sidecar` as it is: one process, keys checked, intent and outcome written before engine and client hear of them,
fsync every 50 ms, sealed into the spool. Three roads (directly to the engine, through nginx, through the sidecar) are
measured in turns, so that a busy machine slows all of them; a figure is the median of the turns. Latency is measured
at half of what the sidecar reached on that kind of answer, on all three roads, from 64 connections that pause a random
while before each request.

At the end intake takes what was sealed: at least as many requests as wrk had answers, or the bench fails.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.command import Installation, installation, server
from bench.load import Load, need_tools, nginx, wrk
from bench.results import Measured

BUSY_CONNECTIONS = 16
PAUSING_CONNECTIONS = 64
ROADS = ("directly", "nginx", "sidecar")
KINDS = {"json": "answers", "chunks": "streams of 32 chunks"}


def measure(quick: bool) -> Measured:
    need_tools()
    found = Measured()
    found.add("connections", BUSY_CONNECTIONS)
    with installation() as here:
        created = here.tally("key", "create", "--customer", "acme").document
        secret = str(created["secret"])
        answered = sum(_kind(found, here, kind, secret, quick) for kind in KINDS)
        taken = here.tally("usage", "--by", "operator")
    requests = int(taken.document["total"]["requests"])
    assert requests >= answered, f"{answered} answers, but only {requests} events"
    found.add("answers through the sidecar", answered)
    found.add("events in the ledger", requests)
    found.add("intake of them", taken.seconds, "s")
    return found


def _kind(found: Measured, here: Installation, kind: str, secret: str, quick: bool) -> int:
    """Measures one kind of answer; how many the sidecar gave."""
    turns, seconds = (1, 1) if quick else (3, 4)
    stream = kind == "chunks"
    answered = 0
    with _roads(here, kind) as (ports, pid):

        def load(road: str, seconds: int, connections: int, pause_ms: int = 0) -> Load:
            nonlocal answered
            seen = wrk(
                ports[road],
                stream=stream,
                secret=secret,
                seconds=seconds,
                connections=connections,
                pause_ms=pause_ms,
            )
            answered += seen.requests if road == "sidecar" else 0
            return seen

        for road in ROADS:  # code and connections warm
            load(road, 1, BUSY_CONNECTIONS)
        cpu, before = _cpu_s(pid), answered
        rates = _in_turns(turns, lambda road: load(road, seconds, BUSY_CONNECTIONS).per_second)
        cpu_us = (_cpu_s(pid) - cpu) / (answered - before) * 1e6
        pause_ms = max(1, round(PAUSING_CONNECTIONS / (rates["sidecar"] / 2) * 1000))
        calm = {road: load(road, seconds, PAUSING_CONNECTIONS, pause_ms) for road in ROADS}
        memory = _memory_mib(pid)
    _add_rates(found, KINDS[kind], rates)
    found.add(f"{KINDS[kind]}: sidecar's CPU", cpu_us, "µs each")
    _add_latencies(found, KINDS[kind], calm)
    found.add(f"{KINDS[kind]}: sidecar's memory after", memory, "MiB")
    return answered


@contextmanager
def _roads(here: Installation, kind: str) -> Iterator[tuple[dict[str, int], int]]:
    """Engine, nginx and sidecar for as long as the block: their ports by road, and the sidecar's process id."""
    with ExitStack() as stack:
        _, said = stack.enter_context(server([sys.executable, "-m", "bench.stub_engine", kind]))
        engine = int(said)
        passing = stack.enter_context(nginx(engine, stream=kind == "chunks"))
        command = ("sidecar", "--engine", f"http://127.0.0.1:{engine}", "--listen", "127.0.0.1:0")
        program = [sys.executable, "-m", "adapters.cli", *command, "--data", str(here.data)]
        pid, said = stack.enter_context(server(program))
        address: str = json.loads(said)["sidecar"]
        yield {"directly": engine, "nginx": passing, "sidecar": int(address.rpartition(":")[2])}, pid


def _in_turns(turns: int, measured: Callable[[str], float]) -> dict[str, float]:
    """The median of each road, each turn taking all of them."""
    seen: dict[str, list[float]] = {road: [] for road in ROADS}
    for _ in range(turns):
        for road in ROADS:
            seen[road].append(measured(road))
    return {road: statistics.median(figures) for road, figures in seen.items()}


def _add_rates(found: Measured, what: str, rates: dict[str, float]) -> None:
    for road in ROADS:
        found.add(f"{what}: {road}", round(rates[road]), "/s")
    found.add(f"{what}: sidecar ÷ nginx", rates["sidecar"] / rates["nginx"], "", "≥ 0.5")
    found.add(f"{what}: sidecar ÷ directly", rates["sidecar"] / rates["directly"])


def _add_latencies(found: Measured, what: str, calm: dict[str, Load]) -> None:
    for road in ROADS:
        found.add(f"{what}: latency at a rate of, {road}", round(calm[road].per_second), "/s")
        found.add(f"{what}: p50, {road}", calm[road].p50_ms, "ms")
        found.add(f"{what}: p99, {road}", calm[road].p99_ms, "ms")
    for road in ("nginx", "sidecar"):
        found.add(f"{what}: p50 added, {road}", calm[road].p50_ms - calm["directly"].p50_ms, "ms")
        limit = "≤ 1" if road == "sidecar" else ""
        found.add(f"{what}: p99 added, {road}", calm[road].p99_ms - calm["directly"].p99_ms, "ms", limit)


def _cpu_s(pid: int) -> float:
    """User and system time of a process so far (proc(5): fields 14 and 15, counted after its name)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_mib(pid: int) -> int:
    """What a process holds in memory now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kib = next(line for line in lines if line.startswith("VmRSS:")).split()[1]
    return int(kib) // 1024
