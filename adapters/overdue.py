"""Requests that were compared with nothing for more than a day: `tally doctor` names them, `tally reconcile` ends with 3."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.postgres.witnesses import read_witnesses
from metering.reconcile import Unchecked, reconcile_node

#: What is still unchecked after so long is a difference: an engine is quiet at least once a day, or has to be made so.
OVERDUE = timedelta(hours=24)
#: So far back are they looked for; `tally reconcile` looks at all there is.
LOOKED_BACK = timedelta(days=7)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_overdue(unchecked: Unchecked, now: datetime) -> bool:
    """Whether one of these requests has had a token, and that more than OVERDUE ago."""
    waits_from_us = unchecked.waits_from_us
    return waits_from_us is not None and _EPOCH + timedelta(microseconds=waits_from_us) < now - OVERDUE


async def overdue(conn: AsyncConnection, operator: str, now: datetime) -> Mapping[str, tuple[Unchecked, ...]]:
    """By node: what of the LOOKED_BACK before now − OVERDUE is unchecked; nodes of which all is checked are left out."""
    end = now - OVERDUE
    start = end - LOOKED_BACK
    within_us = ((start - _EPOCH) // timedelta(microseconds=1), (end - _EPOCH) // timedelta(microseconds=1))
    found = {}
    for node, seen in (await read_witnesses(conn, operator, start, end)).items():
        compared = await asyncio.to_thread(
            reconcile_node, seen.spans, seen.sums, seen.serves, within_us=within_us
        )
        if late := tuple(each for each in compared.unchecked if is_overdue(each, now)):
            found[node] = late
    return found
