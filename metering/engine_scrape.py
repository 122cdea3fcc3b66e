"""Asking the engines for their counters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from metering.engine_counters import Scrape, read_counters
from metering.engine_fetch import fetch
from metering.engine_pool import EnginePool
from metering.refusal import Refusal

_LIMIT_BYTES = 16 * 1024 * 1024


async def scrape(
    pools: Sequence[EnginePool], *, timeout_s: float, say: Callable[[str], None]
) -> dict[str, Scrape | None]:
    """What each engine's `/metrics` shows, by its address; None where it does not answer or shows none.

    `say` hears why what is shown cannot be read.
    """

    async def one(pool: EnginePool) -> Scrape | None:
        try:
            got = await fetch(pool, b"/metrics", timeout_s=timeout_s, limit_bytes=_LIMIT_BYTES)
            if got.status != 200:
                return None
            return await asyncio.to_thread(read_counters, got.body.decode("utf-8", "replace"))
        except OSError:
            return None
        except Refusal as refusal:
            say(refusal.what)
            return None

    scrapes = await asyncio.gather(*map(one, pools))
    return {pool.address.name.decode(): found for pool, found in zip(pools, scrapes, strict=True)}
