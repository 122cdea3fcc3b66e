"""Turns: several intake workers beside each other, one step at a time, in an order that a seed decides.

Each worker is a task that parks itself at every named turn (`await turn("locked")`) until it is told to go on. Only one
goes on at a time, and the next is chosen when all of them stand still again: parked, at their end, or waiting inside
PostgreSQL for a lock that another one holds. What waits there is known by asking the server, not by waiting for some
time, so the same seed gives the same interleaving on a slow machine and on a fast one.

A worker that is killed gets `Killed` at the turn where it stands: no handler of ours knows that exception, its
transaction is rolled back, and its memory is thrown away with the object. No threads: while turns are taken
`asyncio.to_thread` runs what it is given where it stands, with a turn before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_me: ContextVar[Actor | None] = ContextVar("actor", default=None)


class Killed(BaseException):
    """The process is gone."""


@dataclass(eq=False)
class Actor:
    """One worker: its task, and where it stands while it is parked."""

    name: str
    task: asyncio.Task[None] | None = None
    parked: list[tuple[str, asyncio.Future[None]]] = field(default_factory=list)

    @property
    def runs(self) -> bool:
        """Whether it has something to do and stands nowhere."""
        return self.task is not None and not self.task.done() and not self.parked

    @property
    def waits(self) -> bool:
        """Whether it stands at a turn."""
        return bool(self.parked)

    @property
    def at(self) -> str:
        return self.parked[0][0] if self.parked else ""


class Turns:
    """Whose turn it is. `blocked` says how many sessions of the workers wait for a lock in PostgreSQL."""

    def __init__(self, blocked: Callable[[], Awaitable[int]]) -> None:
        self._blocked = blocked
        self._moved = asyncio.Event()
        self.actors: list[Actor] = []

    async def turn(self, name: str) -> None:
        """Where a worker stands until it is its turn again; nothing outside of one."""
        actor = _me.get()
        if actor is None:
            return
        future = asyncio.get_running_loop().create_future()
        actor.parked.append((name, future))
        self._moved.set()
        await future

    async def to_thread(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """In the place of `asyncio.to_thread`: a turn, and then the work, here."""
        if _me.get() is not None:
            await self.turn(f"before {getattr(work, '__name__', 'work')}")
        return work(*args, **kwargs)

    def start(self, actor: Actor, work: Coroutine[Any, Any, None]) -> None:
        """Begin a worker's task. It runs to its first turn with the next `settle`."""
        assert actor.task is None or actor.task.done(), f"{actor.name} is still at {actor.at or 'work'}"
        token = _me.set(actor)
        try:
            actor.task = asyncio.get_running_loop().create_task(work)
        finally:
            _me.reset(token)
        actor.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        assert isinstance(task.exception(), Killed | None), task
        self._moved.set()

    async def go_on(self, actor: Actor) -> None:
        """One worker takes its turn; returns when everybody stands still again."""
        _, future = actor.parked.pop(0)
        future.set_result(None)
        await self.settle()

    async def kill(self, actor: Actor) -> None:
        """A worker that stands at a turn is gone."""
        parked, actor.parked = actor.parked, []
        for _, future in parked:
            future.set_exception(Killed())
        await self.settle()

    async def settle(self) -> None:
        """Returns when every worker stands at a turn, has ended, or waits for a lock of PostgreSQL's."""
        while running := sum(actor.runs for actor in self.actors):
            self._moved.clear()
            try:
                await asyncio.wait_for(self._moved.wait(), 0.02)
            except TimeoutError:
                if await self._blocked() == running == sum(actor.runs for actor in self.actors):
                    return
