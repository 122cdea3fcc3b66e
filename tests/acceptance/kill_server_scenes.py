"""Scenes in which PostgreSQL is killed, whole or in part, under everybody who uses it."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

from kill_commands import children, kill
from kill_scenes import FEW_ROWS, ROWS, SHARE, Scene
from kill_world import World, month_before

DOWN = 4


def postmaster(world: World) -> list[int]:
    return [_postmaster(world)]


def server_child(world: World) -> list[int]:
    """One of the server's processes: a backend, the checkpointer, the writer of its log …"""
    return [world.chance.choice([pid for pid, _ in children(_postmaster(world))])]


def everything(world: World) -> list[int]:
    """Sidecar, intake and PostgreSQL whole, as when the machine ends them all."""
    top = _postmaster(world)
    for part in (world.sidecar, world.intake):
        if part is not None:
            part.kill()
    return [top, *(pid for pid, _ in children(top))]


def server_dies_serving(victims: Callable[[World], list[int]]) -> Scene:
    """While clients send and intake waits for batches."""

    def play(world: World) -> None:
        world.start_intake()
        assert world.start_sidecar()
        world.send(SHARE)
        time.sleep(world.chance.uniform(0, 0.4))
        _kill_all(victims(world))

    return play


def server_dies_taking(victims: Callable[[World], list[int]]) -> Scene:
    """About when intake takes a batch."""

    def play(world: World) -> None:
        world.start_intake()
        assert world.start_sidecar()
        world.send(SHARE).join()
        assert world.sidecar is not None
        world.sidecar.signal(signal.SIGTERM)
        time.sleep(world.chance.uniform(0, 0.4))
        _kill_all(victims(world))
        assert world.sidecar.wait() in (0, -signal.SIGKILL), world.sidecar.trouble()

    return play


def server_dies_under(victims: Callable[[World], list[int]], what: str) -> Scene:
    """Under a command: it says that the database is down, or it comes through; given again it does its work."""

    def play(world: World) -> None:
        world.start_intake()
        arguments = world.import_command(ROWS if what == "import" else FEW_ROWS)
        if what == "close":
            world.tally(*arguments)
            arguments = ("period", "close", month_before(), "--issue")
        command = world.commands.start(*arguments, "--json")
        time.sleep(world.chance.uniform(0.1, 0.8))
        _kill_all(victims(world))
        assert command.wait() in (0, DOWN), command.trouble()
        world.tally(*arguments)

    return play


def _postmaster(world: World) -> int:
    home = world.data / "postgres"
    folder = json.loads((home / "place.json").read_text())["folder"] or home
    return int((Path(folder) / "cluster" / "postmaster.pid").read_text().splitlines()[0])


def _kill_all(pids: list[int]) -> None:
    for pid in pids:
        kill(pid)
