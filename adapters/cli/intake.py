"""`tally intake`: takes sealed batches into the ledger, from Kafka or, without it, from the spool.

One worker is this process. More are children of it, each an intake of its own: the database decides between them
whatever they read. One that is killed is started again; when this process is killed, its children notice and stop. The
logs are signed by this process alone.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from adapters.cli.children import Child, start_all, watch
from adapters.cli.framework import Context, Result, command
from adapters.cli.repair import register_repair
from adapters.cli.serving import Address, log_to_stderr, port_taken, ready, stop_signal
from adapters.cli.signing import signing
from adapters.cli.wiring import archive_objects, make_intake
from adapters.data_folder import DataFolder
from adapters.kafka.settings import KafkaSettings, kafka_settings
from adapters.memory import collect_seldom, keep_freed_memory
from adapters.postgres.database import Database
from billing.intake import Intake

if TYPE_CHECKING:
    from adapters.kafka.source import KafkaSource

METRICS_LISTEN = "TALLY_INTAKE_METRICS_LISTEN"
# Set for the workers of one `tally intake`: it signs the logs, and they only take in.
_WORKER = "TALLY_WORKER_OF_INTAKE"
_MOST_WORKERS = 256


def register(app: typer.Typer) -> None:
    group = typer.Typer()
    app.add_typer(group, name="intake")
    register_repair(group)

    @command(group, None, path="intake", example="tally intake --workers 2")
    async def intake(
        context: Context,
        workers: Annotated[
            int,
            typer.Option(min=1, max=_MOST_WORKERS, metavar="N", help="Processes that share the work."),
        ] = 1,
        leave_roots: Annotated[
            bool,
            typer.Option(
                "--leave-roots",
                help="Leave the Merkle roots to an intake without this option; a close waits for them.",
            ),
        ] = False,
        metrics_listen: Annotated[
            str | None,
            typer.Option(
                metavar="HOST:PORT",
                envvar=METRICS_LISTEN,
                show_envvar=False,
                help="Show how lanes, holds and logs stand to Prometheus at /metrics.",
            ),
        ] = None,
    ) -> Result:
        """Take sealed batches into the ledger, exactly once, until it is stopped.

        They come from Kafka where TALLY_KAFKA names brokers, from the spool otherwise. Prints one line of JSON when
        ready.
        """
        log_to_stderr()
        keep_freed_memory()
        settings = kafka_settings(os.environ)
        watched = None if metrics_listen is None else Address.parse(metrics_listen, "--metrics-listen")
        folder = DataFolder(context.data)
        folder.make()
        with stop_signal() as stop:
            # Held open all the while: the embedded database then outlives a worker that is started again.
            async with context.database() as database, _metrics(database, watched) as shown:
                if workers == 1:
                    await _work(folder, database, settings, stop, shown, leave_roots=leave_roots)
                else:
                    async with signing(folder.root, database, archive_objects(folder)):
                        await _share(context, workers, settings, stop, shown, leave_roots=leave_roots)
        return Result(None)


@asynccontextmanager
async def _metrics(database: Database, address: Address | None) -> AsyncIterator[Mapping[str, str]]:
    """Where the metrics are, for the line that says ready; empty if nobody asked for them."""
    if address is None:
        yield {}
        return
    # Only here: nobody without Prometheus shall wait for its library.
    from adapters.ledger_metrics import ledger_metrics

    async with AsyncExitStack() as stack:
        try:
            port = await stack.enter_async_context(ledger_metrics(database, address.host, address.port))
        except OSError as problem:
            raise port_taken(address, problem, "--metrics-listen") from None
        yield {"ledger_metrics": f"{address.url(port)}/metrics"}


async def _work(
    folder: DataFolder,
    database: Database,
    settings: KafkaSettings | None,
    stop: asyncio.Event,
    shown: Mapping[str, str],
    *,
    leave_roots: bool,
) -> None:
    guarded = signing(
        folder.root, database, archive_objects(folder), by_another=os.environ.get(_WORKER) == "1"
    )
    if settings is None:
        async with guarded:
            collect_seldom()
            ready({"intake": "spool", **shown})
            await make_intake(folder, database, leave_roots=leave_roots).run(stop)
        return
    async with guarded, kafka_intake(folder, database, settings, stop, leave_roots=leave_roots) as taking:
        collect_seldom()
        ready({"intake": "kafka", **shown})
        await taking.run(stop)


async def _share(
    context: Context,
    workers: int,
    settings: KafkaSettings | None,
    stop: asyncio.Event,
    shown: Mapping[str, str],
    *,
    leave_roots: bool,
) -> None:
    # One of all these processes shows the metrics and signs the logs: this one.
    os.environ.pop(METRICS_LISTEN, None)
    os.environ[_WORKER] = "1"
    asked = ["intake", "--data", str(context.data), *(["--leave-roots"] if leave_roots else [])]
    children = [Child("intake", asked) for _ in range(workers)]
    try:
        await start_all(children)
        ready({"intake": "spool" if settings is None else "kafka", "workers": str(workers), **shown})
        await watch(context, children, stop)
    finally:
        await asyncio.gather(*(child.stop() for child in children))


@asynccontextmanager
async def kafka_intake(
    folder: DataFolder,
    database: Database,
    settings: KafkaSettings,
    stop: asyncio.Event,
    *,
    leave_roots: bool = False,
) -> AsyncIterator[Intake]:
    """A worker of the group, which reads no more as soon as `stop` is set; the lanes are acknowledged at its start.

    Refusals: bad_kafka_settings.
    """
    # Only here: nobody without Kafka shall wait for its library.
    from adapters.kafka.acknowledging import Acknowledging
    from adapters.kafka.membership import member_name
    from adapters.kafka.source import KafkaSource
    from adapters.postgres.intake import PostgresLedger
    from adapters.postgres.marks import marks_of_lanes
    from metering.identity import LaneKey

    settings.client("tally-intake")  # a certificate or password that can't be read is refused now
    loop, ledger = asyncio.get_running_loop(), PostgresLedger(database)
    acknowledging = Acknowledging(
        settings, lambda operator: LaneKey.load_or_create(folder.intake_key(operator))
    )
    await asyncio.to_thread(acknowledging.owe, await marks_of_lanes(database, datetime.now(UTC)))
    with member_name(folder.root / "intake") as name:
        source = KafkaSource(
            settings,
            lambda at: asyncio.run_coroutine_threadsafe(ledger.positions(at), loop).result(),
            acknowledging.owe,
            name,
        )
        leaving = asyncio.create_task(_leave(stop, source))
        try:
            yield make_intake(folder, database, source, leave_roots=leave_roots)
        finally:
            leaving.cancel()
            await asyncio.to_thread(source.close)
            await asyncio.to_thread(acknowledging.close)


async def _leave(stop: asyncio.Event, source: KafkaSource) -> None:
    await stop.wait()
    source.leave()
