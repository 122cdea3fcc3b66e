"""A progress bar on stderr for what takes longer than a second; nothing where nobody watches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

_QUIET_S = 1.0


class Told(Protocol):
    """What is being done, how much of it is done, and of how much."""

    def __call__(self, what: str, done: int, total: int, /) -> None: ...


@contextmanager
def progress_bar(console: Console) -> Iterator[Told]:
    """Yields what takes the progress; the bar appears after a second and goes away at the end."""
    began = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    tasks: dict[str, TaskID] = {}

    def told(what: str, done: int, total: int) -> None:
        if time.monotonic() - began < _QUIET_S:
            return
        if not tasks:
            bar.start()
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total)
        bar.update(tasks[what], completed=done, total=total)

    try:
        yield told
    finally:
        if tasks:
            bar.stop()
