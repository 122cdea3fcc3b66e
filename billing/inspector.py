"""Inspection with what the ledger knows: the lanes' keys and the operators' customers, each asked for once."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from billing.acceptance import UNKNOWN_CUSTOMER
from billing.batch_paths import aside_path
from billing.inspection import Delivery, Enrolment, Inspected, LaneName, claimed_lane, inspect_all
from billing.intake_ports import Ledger, SetAside
from metering.refusal import Refusal


class Inspector:
    """Tells what is vouched for from what is nobody's. Keys and customers are never taken back, so knowing them once is
    enough; what is not known is asked again each time.
    """

    def __init__(self, ledger: Ledger, *, with_root: bool) -> None:
        self._ledger = ledger
        self._with_root = with_root
        self._enrolled: dict[LaneName, Enrolment] = {}
        self._customers: dict[str, set[bytes]] = defaultdict(set)

    async def inspect(self, deliveries: Sequence[Delivery]) -> tuple[list[Inspected], list[SetAside]]:
        """What its lane's key signed, and what is to be set aside."""
        asked = {name for name in map(claimed_lane, deliveries) if name is not None} - self._enrolled.keys()
        if asked:
            self._enrolled.update(await self._ledger.enrolled(asked))
        inspected, strays = await asyncio.to_thread(
            inspect_all, deliveries, self._enrolled, with_root=self._with_root
        )
        await self._ask_for_customers(inspected)
        return [self._checked(batch) for batch in inspected], [_aside(*stray) for stray in strays]

    async def _ask_for_customers(self, inspected: Sequence[Inspected]) -> None:
        customers: dict[str, set[bytes]] = defaultdict(set)
        for batch in inspected:
            customers[batch.seal.operator] |= batch.customers
        for operator, ids in customers.items():
            strange = ids - self._customers[operator]
            if strange:
                self._customers[operator].update(await self._ledger.known_customers(operator, strange))

    def _checked(self, batch: Inspected) -> Inspected:
        """Usage of a customer that the operator does not have could never be billed: a fault, by that name."""
        unknown = batch.customers - self._customers[batch.seal.operator]
        if not unknown:
            return batch
        fault = Refusal(
            UNKNOWN_CUSTOMER,
            f"{len(unknown)} customers of its events are unknown, among them {min(unknown).hex()}",
            where=f"{batch.name} {batch.place}",
            remedy="restore the subjects that the sidecar or import knew; the batch is then taken up",
        )
        return replace(batch, events=None, fault=fault, missing=frozenset(unknown))


def _aside(delivery: Delivery, refusal: Refusal) -> SetAside:
    return SetAside(delivery, claimed_lane(delivery), refusal, delivery.digest, aside_path(delivery))
