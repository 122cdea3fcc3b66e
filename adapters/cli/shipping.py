"""`tally shipper`: the spool's batches to Kafka, and out of the spool once intake has them.

`tally sidecar` starts one as its child where TALLY_KAFKA is set, so a machine's sidecars bring their own; the first
holds the spool, the others wait for it. Alone it serves spools that have no sidecar beside them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import typer

from adapters.cli.children import Child, watch
from adapters.cli.framework import Context, Result, command
from adapters.cli.kafka import wanted_settings
from adapters.cli.serving import log_to_stderr, ready, stop_signal
from adapters.data_folder import DataFolder
from adapters.kafka.settings import KafkaSettings
from metering import note
from metering.acknowledgement import intake_name
from metering.durable import file_signature
from metering.identity import LaneKey
from metering.one_shipper import spool_held
from metering.refusal import Refusal, Unavailable
from metering.shipper import Shipper, run
from metering.spool import Spool


def register(app: typer.Typer) -> None:
    @command(app, "shipper", path="shipper", example="tally shipper")
    async def shipper(context: Context) -> Result:
        """Send what the spool holds to Kafka, and delete what intake has accepted, until it is stopped.

        Prints one line of JSON when ready. It waits for a Kafka that is away, and for another shipper of this spool.
        """
        log_to_stderr()
        settings = wanted_settings()
        folder = DataFolder(context.data)
        folder.make()
        with stop_signal() as stop:
            ready({"shipper": settings.batches})
            await ship(folder, settings, stop)
        return Result(None)


async def ship(folder: DataFolder, settings: KafkaSettings, stop: asyncio.Event) -> None:
    """Empties the folder's spool over Kafka until told to stop; waits for its turn where another shipper does."""
    from adapters.kafka.outgoing import KafkaOutgoing

    async with spool_held(folder.spool, stop) as held:
        if held:
            shipper = Shipper(
                Spool(folder.spool), KafkaOutgoing(settings), known_intake_key(folder.intake_keys)
            )
            try:
                await run(shipper, stop)
            finally:
                await asyncio.to_thread(shipper.close)


async def keep_shipping(context: Context, stop: asyncio.Event, child: Child) -> None:
    """A shipper as a child, started again whenever it ends; until `stop`. Whoever calls stops the child."""
    with suppress(Unavailable):  # its message stands on stderr, and it is tried again
        await child.start()
    await watch(context, [child], stop)


def shipper_child(context: Context) -> Child:
    return Child("shipper", ["shipper", "--data", str(context.data)])


def known_intake_key(folder: Path) -> Callable[[str], bytes | None]:
    """How a shipper knows an operator's intake: by FOLDER/<operator>.pub, a verifier key that came with the node's
    enrolment; on the ledger's own machine by the private key beside it. Read again when it changes.
    """
    known: dict[str, tuple[object, bytes | None]] = {}

    def key_of(operator: str) -> bytes | None:
        public, private = folder / f"{operator}.pub", folder / f"{operator}.key"
        signature = file_signature(public), file_signature(private)
        if operator not in known or known[operator][0] != signature:
            known[operator] = signature, _read_key(public, private, operator)
        return known[operator][1]

    return key_of


def _read_key(public: Path, private: Path, operator: str) -> bytes | None:
    if public.is_file():
        verifier = note.parse_verifier(public.read_text(encoding="ascii", errors="replace").strip())
        if verifier.name != intake_name(operator):
            raise Refusal(
                "bad_key",
                f"the key is that of {verifier.name}, not of {intake_name(operator)}",
                where=str(public),
            )
        return verifier.public_key
    return LaneKey.public_bytes(LaneKey.load_or_create(private)) if private.is_file() else None
