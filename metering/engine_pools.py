"""The engines behind one sidecar: which of them gets a request, and which of them are well.

A request goes to an engine that serves its model, rather to one that is up, there to the one with the fewest requests
of ours in the air, and among equals to the one that was used longest ago. An engine is looked at every 2 s
(`GET /health`) and asked every 10 s what it serves (`GET /v1/models`); one that cannot be connected to is down until it
answers that it is well. Being down is a matter of preference: where no other engine serves the model, a down one is
tried all the same, so that nothing is refused that could be served.

What has not been sent goes to the next engine when its engine cannot be reached. What has been sent is never sent
again (`engine_connection`). A request for something that one engine keeps (a response in the background) names that
engine's ordinal, its place among the sidecar's `--engine` options, and goes nowhere else.

One engine alone is not looked at: there is nothing to choose, and requests show how it is.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Collection, Sequence
from itertools import count
from pathlib import Path

from metering.engine_address import EngineAddress, EngineKey
from metering.engine_connection import EngineConnection
from metering.engine_fetch import fetch
from metering.engine_pool import EnginePool
from metering.refusal import Refusal
from metering.response_id import MAX_ORDINAL

LOOK_S = 2.0
_LOOKS_PER_LIST = 5
_HEALTH_S = 5.0
_LIST_BYTES = 4 * 1024 * 1024
_log = logging.getLogger(__name__)


class EnginePools:
    """The pools of all engines; `pools[n]` is the one of ordinal n. `key`: the key that all of them ask for.

    `looks_at_one`: an engine that is alone is asked for its health too, though requests go to it whatever it says.
    """

    def __init__(
        self, pools: Sequence[EnginePool], key: EngineKey | None = None, *, looks_at_one: bool = False
    ) -> None:
        assert [pool.ordinal for pool in pools] == list(range(len(pools)))
        assert pools
        self.pools = tuple(pools)
        self._key = key
        self._looks_at_one = looks_at_one
        self._turns = count(1)
        self._looks = count()
        self._used = [0] * len(pools)

    def pick(
        self, model: str | None, ordinal: int | None, but: Collection[EnginePool] = ()
    ) -> EnginePool | None:
        """The engine for a request for `model`, or the one of that ordinal; None if only those of `but` are left."""
        pools = self.pools
        if len(pools) == 1:
            return None if but or ordinal else pools[0]
        if ordinal is not None:
            named = pools[ordinal] if ordinal < len(pools) else None
            return None if named in but else named
        serving = [pool for pool in pools if pool.serves(model)] or pools
        used = self._used
        return min(
            (pool for pool in serving if pool not in but),
            key=lambda pool: (not pool.up, pool.in_air, used[pool.ordinal]),
            default=None,
        )

    def take(self, model: str | None, ordinal: int | None) -> EngineConnection | None:
        """An idle connection to the engine that is picked; None if a new one is needed."""
        pool = self.pick(model, ordinal)
        connection = None if pool is None else pool.take()
        if connection is not None:
            self.use(connection.pool)
        return connection

    async def connect(self, model: str | None, ordinal: int | None) -> EngineConnection:
        """A new connection, to the next engine where one cannot be reached. OSError if none can."""
        tried: list[EnginePool] = []
        while (pool := self.pick(model, ordinal, tried)) is not None:
            self.use(pool)
            try:
                connection = await pool.connect()
            except OSError as problem:
                self._found(pool, up=False, why=type(problem).__name__)
                tried.append(pool)
                continue
            if len(self.pools) == 1:  # nobody else looks whether it is back
                self._found(pool, up=True)
            return connection
        raise ConnectionRefusedError

    def use(self, pool: EnginePool) -> None:
        """It is that engine's turn now; among equals the others come before it."""
        self._used[pool.ordinal] = next(self._turns)

    def sweep(self) -> None:
        """Close what has been idle for too long."""
        for pool in self.pools:
            pool.sweep()

    def close(self) -> None:
        for pool in self.pools:
            pool.close()

    # -- what they serve --------------------------------------------------------------------------------------------

    def model_list(self) -> bytes | None:
        """The body of `GET /v1/models` over engines that serve different models: the cards of those that are up, each
        id once, in the order of the engines. None where any engine's own answer will do."""
        if len(self.pools) == 1:
            return None
        lists = [pool.models for pool in self.pools if pool.up and pool.models is not None]
        if all(each.keys() == lists[0].keys() for each in lists):
            return None
        cards = {id: card for each in reversed(lists) for id, card in each.items()}
        order = list(dict.fromkeys(id for each in lists for id in each))
        body = {"object": "list", "data": [cards[id] for id in order]}
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")

    # -- how they are -----------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """Look after the engines and their key file; called every `LOOK_S`."""
        self._renew_key()
        if len(self.pools) == 1 and not self._looks_at_one:
            return
        lists = next(self._looks) % _LOOKS_PER_LIST == 0
        await asyncio.gather(*(self._look(pool, lists=lists) for pool in self.pools))

    async def _look(self, pool: EnginePool, *, lists: bool) -> None:
        try:
            health = await fetch(pool, b"/health", timeout_s=_HEALTH_S, limit_bytes=_LIST_BYTES)
        except OSError as problem:
            self._found(pool, up=False, why=type(problem).__name__)
            return
        came_back = not pool.up
        self._found(pool, up=health.status == 200, why=f"/health says {health.status}")
        if len(self.pools) > 1 and pool.up and (lists or came_back or pool.models is None):
            await self._ask_models(pool)

    async def _ask_models(self, pool: EnginePool) -> None:
        """What it served before stays where it does not say."""
        try:
            told = await fetch(pool, b"/v1/models", timeout_s=_HEALTH_S, limit_bytes=_LIST_BYTES)
            cards = json.loads(told.body)["data"] if told.status == 200 else []
            models = {card["id"]: card for card in cards if isinstance(card["id"], str)}
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return
        if models:
            pool.models = models

    def _found(self, pool: EnginePool, *, up: bool, why: str = "") -> None:
        if pool.up != up:
            _log.log(
                logging.INFO if up else logging.WARNING,
                "engine %d is %s%s",
                pool.ordinal,
                "up" if up else "down: ",
                "" if up else why,
            )
        pool.up = up

    def _renew_key(self) -> None:
        if self._key is None:
            return
        try:
            if self._key.renew():
                for pool in self.pools:
                    pool.take_key(self._key)
                _log.info("the engine's key was renewed")
        except Refusal as bad:
            _log.warning("%s; the key before it is used on", bad.what)


def open_pools(
    urls: Sequence[str],
    clock: Callable[[], float],
    *,
    idle_s: float,
    connect_s: float,
    key_file: Path | None,
    looks_at_one: bool = False,
) -> EnginePools:
    """Pools for the engines at these addresses, without a connection yet. Refusals: `bad_engine_url`, `bad_engine_key`."""
    addresses = [EngineAddress.parse(url) for url in urls]
    if not addresses or len({(each.host, each.port) for each in addresses}) < len(addresses):
        what = "the same engine is named twice" if addresses else "no engine is named"
        raise Refusal("bad_engine_url", what, where="--engine", remedy="name each engine once")
    if len(addresses) > MAX_ORDINAL + 1:
        what = f"{len(addresses)} engines are more than the {MAX_ORDINAL + 1} that one sidecar tells apart"
        raise Refusal("bad_engine_url", what, where="--engine", remedy="give the rest to another sidecar")
    key = None if key_file is None else EngineKey(key_file)
    pools = [
        EnginePool(address, clock, idle_s=idle_s, connect_s=connect_s, ordinal=ordinal, key=key)
        for ordinal, address in enumerate(addresses)
    ]
    return EnginePools(pools, key, looks_at_one=looks_at_one)
