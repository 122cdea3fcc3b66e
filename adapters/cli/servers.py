"""`tally sidecar`: capture alone. `tally up` (up.py) runs it beside intake and the API."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import typer
import uvloop

from adapters.cli.capture_options import CaptureOptions, Sync, takes_capture_options
from adapters.cli.framework import Context, Result, command
from adapters.cli.kafka import settings_if_any
from adapters.cli.node_side import enrolments
from adapters.cli.serving import (
    SIDECAR_LISTEN,
    Address,
    LaneOption,
    ListenOption,
    NodeOption,
    hangup,
    log_to_stderr,
    port_taken,
    ready,
    settle,
    stop_signal,
)
from adapters.cli.shipping import keep_shipping, shipper_child
from adapters.data_folder import DataFolder, now
from adapters.importing.ledger import operator_of_node
from adapters.postgres import keys
from adapters.postgres.database import Database
from adapters.postgres.lane_keys import enroll_lane
from adapters.postgres.open import APP_URL
from adapters.sidecar_metrics import serve_metrics
from metering.durable import file_signature
from metering.identity import LaneKey, node_secret
from metering.keybook import Keys, SnapshotKeyBook
from metering.lane import Lane
from metering.lane_folder import check_lane_name
from metering.refusal import Refusal, Unavailable
from metering.siblings import FIRST_LANE
from metering.sidecar import Sidecar
from metering.sidecar_figures import figures_of
from metering.spool import Spool

_log = logging.getLogger(__name__)


def register(app: typer.Typer) -> None:
    @command(
        app,
        "sidecar",
        path="sidecar",
        example="tally sidecar --engine http://127.0.0.1:8000 --listen 127.0.0.1:8080",
        loop_factory=uvloop.new_event_loop,  # some 5 % less CPU a request than asyncio's own
    )
    @takes_capture_options
    async def sidecar(
        context: Context,
        capture: CaptureOptions,
        listen: ListenOption = SIDECAR_LISTEN,
        node: NodeOption = None,
        lane: LaneOption = FIRST_LANE,
    ) -> Result:
        """Stand between clients and a vLLM engine: check keys, count every request, seal the counts.

        Prints one line of JSON when ready. SIGTERM and Ctrl-C let running requests end. Where TALLY_KAFKA is set it
        brings a shipper of its spool, as a process of its own.
        """
        log_to_stderr()
        address = Address.parse(listen, "--listen")
        watched = (
            None
            if capture.metrics_listen is None
            else Address.parse(capture.metrics_listen, "--metrics-listen")
        )
        check_lane_name(lane)
        capture.check()
        certificate = capture.certificate()
        settings = settings_if_any()
        folder = DataFolder(context.data)
        folder.make()
        with stop_signal() as stop:
            async with AsyncExitStack() as stack:
                _check_free(address, "--listen")
                if watched is not None:
                    _check_free(watched, "--metrics-listen")
                ledger = _Ledger(context, stack)
                afar = _enrolled_afar(folder, node)
                operator, node = afar or await _enrolled(folder, ledger, node, lane)
                book = SnapshotKeyBook.load(folder.key_snapshot(operator))

                async def current() -> Keys:
                    if afar is not None:  # a newer answer brings newer keys (`tally node accept`)
                        return SnapshotKeyBook.load(folder.key_snapshot(operator)).keys()
                    database = await ledger.open()
                    async with database.app(operator) as connection:
                        return await keys.key_book(connection, operator, now())

                if ledger.is_open:
                    with suppress(Unavailable):  # then the renewing says so
                        book.replace(await current())
                opened = await _open_lane(folder, operator, node, lane, capture.sync)
                secret = node_secret(folder.node_secret)
                server = Sidecar(capture.sidecar_options(node, operator, secret), opened, book)
                try:
                    port = await server.start(
                        address.host, address.port, None if certificate is None else certificate.context
                    )
                except OSError as problem:
                    opened.close()
                    raise port_taken(address, problem) from None
                renewing = [
                    asyncio.create_task(book.refresh(current)),
                    asyncio.create_task(follow_key(opened, folder.lane_key(node, lane))),
                ]
                if certificate is not None:
                    renewing.append(asyncio.create_task(certificate.watch(stack.enter_context(hangup()))))
                addresses = {"sidecar": address.url(port, tls=certificate is not None)}
                if watched is not None:
                    addresses["metrics"] = f"{_show_metrics(server, watched, stack)}/metrics"
                settle()
                ready(addresses)
                shipper = None if settings is None else shipper_child(context)
                if shipper is not None:
                    renewing.append(asyncio.create_task(keep_shipping(context, stop, shipper)))
                await _first_of(stop, server.failed)
                await server.drain()
                for task in renewing:
                    task.cancel()
                await asyncio.gather(*renewing, return_exceptions=True)
                if shipper is not None:  # the last: what the sidecar sealed while draining, it still sends
                    await shipper.stop()
                if server.failed.is_set():
                    raise Unavailable(
                        "capture_failed",
                        "the sidecar could not go on writing down what it served, and stopped",
                        remedy="its log says why; start it again",
                    )
        return Result(None)


def _check_free(address: Address, option: str) -> None:
    """Refused before anything is enrolled: a start that cannot listen leaves nothing behind."""
    try:
        socket.create_server((address.host, address.port)).close()
    except OSError as problem:
        raise port_taken(address, problem, option) from None


def _show_metrics(server: Sidecar, address: Address, stack: AsyncExitStack) -> str:
    """Until the stack is closed; where."""
    try:
        port, stop = serve_metrics(lambda: figures_of(server), address.host, address.port)
    except OSError as problem:
        raise port_taken(address, problem, "--metrics-listen") from None
    stack.callback(stop)
    return address.url(port)


async def _first_of(*events: asyncio.Event) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


class _Ledger:
    """The database of a sidecar: opened as soon as it answers, closed with the stack."""

    def __init__(self, context: Context, stack: AsyncExitStack) -> None:
        self._context = context
        self._stack = stack
        self._database: Database | None = None

    @property
    def is_open(self) -> bool:
        return self._database is not None

    async def open(self) -> Database:
        """Raises `Unavailable` while it does not answer."""
        if self._database is None:
            self._database = await self._stack.enter_async_context(self._context.database())
        return self._database


def _enrolled_afar(folder: DataFolder, node: str | None) -> tuple[str, str] | None:
    """(operator, node) of a machine that took in the answer to its request, and is given no database: none is opened."""
    if os.environ.get(APP_URL):
        return None
    known = [(each.operator, each.node) for each in enrolments(folder) if node in (None, each.node)]
    if len(known) > 1:
        nodes = ", ".join(sorted(each for _, each in known))
        raise Refusal("which_node", f"several nodes are here: {nodes}", where="--node", remedy="name one")
    return known[0] if known else None


async def _enrolled(folder: DataFolder, ledger: _Ledger, node: str | None, lane: str) -> tuple[str, str]:
    """(operator, node) of the lane, enrolled, its key made at the first start.

    The engine stays reachable while the ledger is away: a lane that was enrolled before is known by its folder.
    """
    try:
        database = await ledger.open()
        operator, found = await operator_of_node(database, node)
        key = LaneKey.load_or_create(folder.lane_key(found, lane))
        async with database.app(operator) as connection:
            await enroll_lane(connection, operator, found, lane, "sidecar", LaneKey.public_bytes(key), now())
    except Unavailable as away:
        known = [ref for ref in Spool(folder.spool).lanes() if ref.lane == lane and node in (None, ref.node)]
        if len(known) != 1 or not folder.key_snapshot(known[0].operator).is_file():
            raise
        _log.warning("%s; the sidecar starts with the API keys that it knew", away.what)
        return known[0].operator, known[0].node
    return operator, found


async def follow_key(lane: Lane, path: Path, every_s: float = 1.0) -> None:
    """Lets a running lane sign with the key that its file holds, until cancelled: `tally node rotate` puts another there."""
    known = file_signature(path)
    while True:
        await asyncio.sleep(every_s)
        found = file_signature(path)
        if found is None or found == known:
            continue
        try:
            await asyncio.to_thread(lambda: lane.take_key(LaneKey.load_or_create(path)))
        except Refusal as refused:  # the lane goes on with the key that it has
            _log.warning("the lane's new key is not taken up: %s", refused.what)
        else:
            _log.info("the lane signs with a new key from its next seal on")
        known = found


async def _open_lane(folder: DataFolder, operator: str, node: str, lane: str, sync: Sync) -> Lane:
    key = LaneKey.load_or_create(folder.lane_key(node, lane))
    return await asyncio.to_thread(
        Lane.open,
        folder.spool,
        operator=operator,
        node=node,
        lane=lane,
        key=key,
        sync=sync.value,
        keep_open=True,
        wait_for_disk=True,
    )
