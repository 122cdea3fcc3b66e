"""Inspection with what the ledger knows: the lanes' keys and the operators' customers, each asked for once."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from billing.acceptance import UNKNOWN_CUSTOMER
from billing.batch_paths import aside_path
from billing.inspection import (
    Delivery,
    Enrolment,
    Inspected,
    LaneName,
    claimed_lane,
    inspect_all,
)
from billing.intake_ports import Ledger, SetAside
from billing.root_pass import ROOTS_AT_ONCE
from metering.batch import signer_hash
from metering.note import key_hash
from metering.refusal import Refusal


class Inspector:
    """Tells what is vouched for from what is nobody's. What is known of keys and customers stays so, and knowing it once
    is enough; what is not known is asked again each time. Whether a known key still may sign is no question here: the
    lane's lock decides it (acceptance.py).
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._enrolled: dict[LaneName, Enrolment] = {}
        self._customers: dict[str, set[bytes]] = defaultdict(set)

    async def inspect(self, deliveries: Sequence[Delivery]) -> tuple[list[Inspected], list[SetAside]]:
        """What its lane's key signed, and what is to be set aside. Roots are checked where few have come."""
        claims = [(claimed_lane(delivery), delivery) for delivery in deliveries]
        asked = {
            name for name, delivery in claims if name is not None and not self._knows_key(name, delivery)
        }
        if asked:
            self._enrolled.update(await self._ledger.enrolled(asked))
        inspected, strays = await asyncio.to_thread(
            inspect_all, deliveries, self._enrolled, with_root=len(deliveries) <= ROOTS_AT_ONCE
        )
        unknown = await self._unknown_customers(inspected)
        checked = [_checked(batch, unknown.get(batch.seal.operator)) for batch in inspected]
        return checked, [_aside(*stray) for stray in strays]

    def _knows_key(self, name: LaneName, delivery: Delivery) -> bool:
        """Whether the key that the batch says to be signed by is known as the lane's."""
        enrolment = self._enrolled.get(name)
        if enrolment is None:
            return False
        named = signer_hash(delivery.note)
        return any(key_hash(str(name), key) == named for key in enrolment.keys)

    async def _unknown_customers(self, inspected: Sequence[Inspected]) -> dict[str, set[bytes]]:
        """By operator, the customers of these batches that it does not have; none where all are known."""
        unknown: dict[str, set[bytes]] = {}
        cells: dict[str, list[pa.Table]] = defaultdict(list)
        for batch in inspected:
            if batch.usage is not None:
                cells[batch.seal.operator].append(batch.usage.cells.select(["customer"]))
        for operator, tables in cells.items():
            ids = pa.concat_tables(tables)["customer"].unique().to_pylist()
            strange = set(ids) - self._customers[operator]
            if strange:
                known = set(await self._ledger.known_customers(operator, strange))
                self._customers[operator] |= known
                unknown[operator] = strange - known
        return unknown


def _checked(batch: Inspected, nobody: set[bytes] | None) -> Inspected:
    """Usage of a customer that the operator does not have could never be billed: a fault, by that name."""
    unknown = batch.customers & nobody if nobody else set()
    if not unknown:
        return batch
    fault = Refusal(
        UNKNOWN_CUSTOMER,
        f"{len(unknown)} customers of its events are unknown, among them {min(unknown).hex()}",
        where=f"{batch.name} {batch.place}",
        remedy="restore the subjects that the sidecar or import knew; the batch is then taken up",
    )
    return replace(batch, usage=None, fault=fault, missing=frozenset(unknown))


def _aside(delivery: Delivery, refusal: Refusal) -> SetAside:
    return SetAside(delivery, claimed_lane(delivery), refusal, delivery.digest, aside_path(delivery))
