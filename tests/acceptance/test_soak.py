"""100,000 requests through one sidecar while the engine restarts, the ledger is away and the disk fills.

No answer is changed: each is the engine's, byte for byte but for ids and instants, or a refusal of the sidecar that
says why (soak_clients). Memory does not grow. Afterwards everything is on the books: `tally reconcile` finds the
engine's counters, its witness's lines and the events equal, to the token.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from command import EXAMPLE, ROOT, Tally, over
from kill_commands import Commands, Running, wait_until
from soak_clients import CODES, LEFT, WHOLE, Clients, learned
from soak_world import Disk, Door, Engine, door_to, memory_kib, small_disk

from adapters.postgres.database import DatabaseUrls

REQUESTS = int(os.environ.get("TALLY_SOAK_REQUESTS", 100_000))
NODE = "vilnius-1"
AWAY_S = 15.0
FULL_S = 4.0
REST_S = 5.0
SPOOL_BYTES = 200_000  # where the disk cannot be filled


@pytest.mark.proof
def test_nothing_is_changed_lost_or_kept_over_100_000_requests(
    fresh_urls: Callable[[], DatabaseUrls], tmp_path: Path
) -> None:
    asyncio.run(_soak(fresh_urls(), tmp_path))


async def _soak(urls: DatabaseUrls, folder: Path) -> None:
    engine = Engine(folder / "lines")
    await asyncio.to_thread(engine.start)
    kinds = await learned(("127.0.0.1", engine.port))
    async with door_to(urls) as (door, through):
        with ExitStack() as stack:
            disk = stack.enter_context(small_disk())
            tally = await asyncio.to_thread(over, through, disk.folder / "data", EXAMPLE)
            commands = Commands(tally)
            stack.callback(commands.end)
            stack.callback(engine.end, signal.SIGTERM)
            key = (await asyncio.to_thread(tally, "key", "create", "--customer", "acme"))["secret"]
            sidecar = await asyncio.to_thread(_start_sidecar, commands, engine, disk)
            clients = Clients(_address(sidecar), key, kinds, REQUESTS)
            async with asyncio.TaskGroup() as together:
                together.create_task(clients.run())
                happening = together.create_task(_happen(clients, commands, engine, door, disk))
                memory = together.create_task(_watch(clients, sidecar))
            intake, told = happening.result()
            await asyncio.to_thread(_drain, tally, sidecar, intake)
            books = await asyncio.to_thread(_audit, tally)
            _check(clients, memory.result(), disk, books, told)


def _start_sidecar(commands: Commands, engine: Engine, disk: Disk) -> Running:
    arguments = ["sidecar", "--engine", f"http://127.0.0.1:{engine.port}", "--node", NODE]
    arguments += ["--listen", "127.0.0.1:0", "--engine-lines", str(engine.lines)]
    if not disk.can_fill:
        arguments += ["--spool-limit", str(SPOOL_BYTES)]
    sidecar = commands.start(*arguments)
    assert sidecar.ready(), sidecar.trouble()
    return sidecar


def _address(sidecar: Running) -> tuple[str, int]:
    host, _, port = sidecar.said["sidecar"].removeprefix("http://").rpartition(":")
    return host, int(port)


async def _happen(
    clients: Clients, commands: Commands, engine: Engine, door: Door, disk: Disk
) -> tuple[Running, list[str]]:
    """All that happens around the sidecar; the intake that runs at the end, and what happened."""
    told: list[str] = []

    async def at(share: float, what: str) -> None:
        await clients.reached(share)
        told.append(f"{clients.done}: {what}")

    async def restart(number: signal.Signals) -> None:
        await asyncio.to_thread(engine.end, number)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(engine.start)

    async def fill() -> None:
        if disk.can_fill:
            await asyncio.to_thread(disk.fill)
            await asyncio.sleep(FULL_S)
            disk.free()

    intake = commands.start("intake")
    assert await asyncio.to_thread(intake.ready), intake.trouble()
    await at(0.20, "nothing is asked")
    await clients.rest(REST_S)
    await at(0.25, "the ledger goes away")
    await door.close()
    await at(0.30, "the engine is killed")
    await restart(signal.SIGKILL)
    await at(0.35, "the disk fills")
    await fill()
    with suppress(TimeoutError):
        await asyncio.wait_for(clients.reached(0.45), AWAY_S)
    told.append(f"{clients.done}: the ledger is back")
    await door.open()
    if not intake.running:
        intake = commands.start("intake")
    await at(0.50, "nothing is asked")
    await clients.rest(REST_S)
    await at(0.55, "the engine is told to stop")
    await restart(signal.SIGTERM)
    await at(0.65, "the disk fills")
    await fill()
    await at(0.75, "nothing is asked")
    await clients.rest(REST_S)
    await at(0.80, "the engine is killed")
    await restart(signal.SIGKILL)
    await at(0.85, "nothing is asked")
    await clients.rest(REST_S)
    return intake, told


async def _watch(clients: Clients, sidecar: Running) -> list[list[int]]:
    """The sidecar's memory (KiB), many times in each tenth of the requests."""
    tenths: list[list[int]] = [[] for _ in range(10)]
    while clients.done < clients.wanted:
        tenths[min(9, 10 * clients.done // REQUESTS)].append(memory_kib(sidecar.pid))
        await asyncio.sleep(0.1)
    return tenths


def _drain(tally: Tally, sidecar: Running, intake: Running) -> None:
    """Lets the sidecar look at the engine's counters once more, ends it, and waits until intake has taken everything."""
    time.sleep(3)
    assert sidecar.stop() == 0, sidecar.trouble()
    spool = tally.data / "spool"
    wait_until(lambda: not any(spool.rglob("*.parquet")) and not any(spool.rglob("*.seal")))
    assert intake.stop() == 0, intake.trouble()


def _audit(tally: Tally) -> dict[str, Any]:
    reconciled = tally.run("reconcile", "--json")
    return {
        "reconcile": reconciled.document,
        "exit_code": reconciled.exit_code,
        "usage": tally("usage", "--by", "outcome"),
        "streams": tally("streams"),
    }


def _check(
    clients: Clients, memory: list[list[int]], disk: Disk, books: dict[str, Any], told: list[str]
) -> None:
    fates, refusals = dict(clients.counts), dict(clients.refusals)
    tenths = [round(statistics.median(samples)) for samples in memory]
    result = {
        "requests": REQUESTS,
        "fates": fates,
        "refusals": refusals,
        "happened": told,
        "memory_kib": tenths,
    }
    if os.environ.get("TALLY_PROOF"):
        path = ROOT / "bench" / "results" / "soak.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
    figures = json.dumps({**result, **books}, indent=1)
    assert set(refusals) <= set(CODES)
    assert refusals.get("capture_unavailable" if disk.can_fill else "spool_full"), figures
    # A refusal may have its event too, and so has what broke off: the engine was away.
    counted = books["usage"]["total"]["requests"]
    assert fates[WHOLE] + fates[LEFT] <= counted <= sum(fates.values()), figures
    assert books["exit_code"] == 0, figures
    by_counters = sum(node["engine_generated"] for node in books["reconcile"]["nodes"])
    by_lines = sum(node["causes"]["lost_generated"] for node in books["reconcile"]["nodes"])
    assert by_counters > by_lines / 2, figures
    for lane in books["streams"]["lanes"]:
        assert [lane[name] for name in ("holes", "forks", "held")] == [0, 0, 0], figures
    assert tenths[9] <= 1.05 * tenths[1], figures
