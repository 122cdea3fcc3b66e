"""How intake and ledger stand, in Prometheus' words: what somebody is woken for.

Read from the database every 15 s, the same for every worker of an installation: which lanes lag or miss something, what
is held or set aside, whose roots are to be checked yet, how old each log's newest checkpoint is. Where the database does
not answer, `tallygrid_ledger_up` is 0 and the rest is left out, so that an alert never rests on an old figure.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from adapters.answers import EVER
from adapters.postgres.database import INSTALLATION, Database
from adapters.postgres.log import Standing, standing
from adapters.postgres.roots import open_roots
from adapters.postgres.streams import read_streams
from billing.ports import OpenRoots
from metering.refusal import Refusal, Unavailable

READ_EVERY = timedelta(seconds=15)
_LANE = ("operator", "node", "lane")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LedgerFigures:
    """What was read at `at`: rows of `tally streams`, and each operator's open roots and log."""

    at: datetime
    lanes: list[dict[str, Any]]
    set_aside: int
    missing_siblings: list[dict[str, Any]]
    roots: dict[str, OpenRoots]
    logs: dict[str, Standing]


async def read_figures(database: Database, at: datetime) -> LedgerFigures:
    """All of it, as tally_app, operator by operator. Raises `Unavailable`."""
    document: dict[str, Any] = await read_streams(database, at)
    roots: dict[str, OpenRoots] = {}
    logs: dict[str, Standing] = {}
    for operator in [*await database.operators(), INSTALLATION]:
        async with database.app(operator, snapshot=True) as conn:
            logs[operator] = await standing(conn, operator)
            if operator != INSTALLATION:
                roots[operator] = await open_roots(conn, operator, EVER, at + timedelta(days=1))
    return LedgerFigures(
        at, document["lanes"], document["set_aside"], document["missing_siblings"], roots, logs
    )


class LedgerCollector(Collector):
    """Shows the figures that were read last; None: the database did not answer."""

    def __init__(self) -> None:
        self.figures: LedgerFigures | None = None

    def collect(self) -> Iterator[Metric]:
        figures = self.figures
        yield GaugeMetricFamily(
            "tallygrid_ledger_up", "1 while the ledger's database answers", value=int(figures is not None)
        )
        if figures is not None:
            yield from _lanes(figures)
            yield from _batches(figures)
            yield from _logs(figures)


@asynccontextmanager
async def ledger_metrics(database: Database, host: str, port: int) -> AsyncIterator[int]:
    """Shows them at `http://host:port/metrics` (port 0: a free one) for the block; gives the port. OSError if the address
    is taken.
    """
    collector, registry = LedgerCollector(), CollectorRegistry()
    registry.register(collector)
    server, thread = start_http_server(port, addr=host, registry=registry)
    reading = asyncio.create_task(_keep_reading(database, collector))
    try:
        yield server.server_port
    finally:
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()


async def _keep_reading(database: Database, collector: LedgerCollector) -> None:
    while True:
        try:
            collector.figures = await read_figures(database, datetime.now(UTC))
        except (Unavailable, Refusal) as away:
            if collector.figures is not None:
                logger.warning("%s; metrics of the ledger are left out until it answers", away.what)
            collector.figures = None
        except Exception:  # whatever it is, an old figure shown for ever would be worse
            logger.exception("the ledger's metrics can't be read; they are left out, and read again")
            collector.figures = None
        await asyncio.sleep(READ_EVERY.total_seconds())


def _lanes(figures: LedgerFigures) -> Iterator[Metric]:
    due = _family("lane_lag_seconds", "Since when a due lane is complete", _LANE)
    held = _family("held_batches", "Batches of a lane that wait for another batch, a time or a person", _LANE)
    holes = _family("lane_holes", "Batches of a lane that have not come, as far as later ones show", _LANE)
    forks = _family("lane_forks", "Batches of a lane whose number another one has", _LANE)
    for lane in figures.lanes:
        name = [lane[part] for part in _LANE]
        if lane["due"] and lane["lag_s"] is not None:
            due.add_metric(name, lane["lag_s"])
        for family, figure in ((held, "held"), (holes, "holes"), (forks, "forks")):
            family.add_metric(name, lane[figure])
    yield from (due, held, holes, forks)


def _batches(figures: LedgerFigures) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "tallygrid_set_aside_batches", "Batches that no enrolled key vouches for", value=figures.set_aside
    )
    yield GaugeMetricFamily(
        "tallygrid_missing_siblings",
        "Lanes whose newest seal a sibling told of and that has not come",
        value=len(figures.missing_siblings),
    )
    unchecked = _family("roots_unchecked", "Accepted batches whose Merkle root is to be recomputed yet")
    faults = _family("root_faults", "Accepted batches whose Merkle root does not hold")
    for operator, roots in figures.roots.items():
        unchecked.add_metric([operator], roots.unchecked)
        faults.add_metric([operator], roots.faults)
    yield from (unchecked, faults)


def _logs(figures: LedgerFigures) -> Iterator[Metric]:
    size = _family("log_size", "Leaves that a log's newest checkpoint covers")
    age = _family("log_checkpoint_age_seconds", "Age of a log's newest checkpoint")
    unsigned = _family("log_unsigned", "1 while a log has leaves that no checkpoint covers")
    for operator, log in figures.logs.items():
        unsigned.add_metric([operator], int(not log.is_signed))
        if log.head is not None:
            size.add_metric([operator], log.head.size)
            age.add_metric([operator], (figures.at - log.head.signed_at).total_seconds())
    yield from (size, age, unsigned)


def _family(name: str, what: str, labels: tuple[str, ...] = ("operator",)) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"tallygrid_{name}", what, labels=list(labels))
