"""A spool that reaches its limit while Kafka is away: the operator's policy, exactly, and back by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from scripted_engine import on_uvloop, until
from shipped_lanes import INTAKE, ListOutgoing, acknowledge
from test_sidecar_witness import chat
from witnessed_world import Witnessed, witnessed

from metering.batch import SealedBatch, peek_seal
from metering.fact import Unmetered
from metering.shipper import Shipper, run
from metering.spool import Spool

LIMIT = 25_000


@asynccontextmanager
async def shipped(tmp_path: Path, when_full: str) -> AsyncIterator[tuple[Witnessed, ListOutgoing]]:
    """A sidecar whose spool holds LIMIT bytes, and its shipper, over a Kafka that is away."""
    sidecar = {"spool_limit_bytes": LIMIT, "when_full": when_full}
    async with witnessed(tmp_path, sidecar=sidecar) as it:
        kafka, stop = ListOutgoing(is_away=True), asyncio.Event()
        public = INTAKE.public_key().public_bytes_raw()
        spool = Spool(it.lane.path.parents[2])
        shipper = Shipper(spool, kafka, lambda _operator: public)
        shipping = asyncio.create_task(run(shipper, stop, poll_every=timedelta(milliseconds=10)))
        try:
            yield it, kafka
        finally:
            kafka.is_away = True
            stop.set()
            await shipping


async def fill(it: Witnessed) -> int:
    """Requests, sealed one by one, until the spool is at its limit; how many. None of them is refused."""
    count = 0
    while not it.sidecar.refusing:
        assert (await it.ask(chat()))[0] == 200
        await it.quiet()
        await asyncio.to_thread(it.lane.seal)
        count += 1
        await asyncio.sleep(0.05)
    return count


def accept_all(kafka: ListOutgoing) -> None:
    """Intake comes, and takes everything that there is."""
    newest = kafka.there[-1][1]
    kafka.said.append(acknowledge(SealedBatch(peek_seal(newest), newest, b"")))


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metering.capture._SPOOL_LOOK_S", 0.02)
    monkeypatch.setattr("metering.shipper.LONGEST_WAIT", timedelta(milliseconds=50))


@on_uvloop
async def test_refuse_means_refused_from_the_limit_on_until_intake_has_taken_something(
    tmp_path: Path,
) -> None:
    async with shipped(tmp_path, "refuse") as (it, kafka):
        served = await fill(it)
        for _ in range(5):
            status, body = await it.ask(chat())
            assert (status, b"spool_full" in body) == (503, True)
        kafka.is_away = False
        await until(lambda: len(kafka.there) >= served)
        assert (await it.ask(chat()))[
            0
        ] == 503  # that Kafka has them makes no room: they are not accepted yet
        accept_all(kafka)
        await until(lambda: not it.sidecar.refusing)
        assert (await it.ask(chat()))[0] == 200


@on_uvloop
async def test_serve_unmetered_means_served_counted_and_told(tmp_path: Path) -> None:
    async with shipped(tmp_path, "serve-unmetered") as (it, kafka):
        served = await fill(it)
        for _ in range(5):
            assert (await it.ask(chat()))[0] == 200
        assert it.sidecar.capture.unmetered == 5
        kafka.is_away = False
        await until(lambda: len(kafka.there) >= served)
        accept_all(kafka)
        await until(lambda: not it.sidecar.refusing)
        assert (await it.ask(chat()))[0] == 200
        await it.quiet()
        await it.sidecar.drain()
        told = [fact for _, _, fact in it.facts() if isinstance(fact, Unmetered)]
        assert sum(fact.requests for fact in told) == 5
