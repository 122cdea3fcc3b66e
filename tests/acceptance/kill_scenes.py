"""Scenes: who is killed while what happens. Each plays until its victim is dead; what follows is the world's own end.

Inside a named step the victim kills itself (metering/steps.py). From outside it is killed after a moment that the
world's seed decides.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

from kill_commands import Running, children, kill, wait_until
from kill_world import NODE, World, month_before

Scene = Callable[[World], None]

OUTSIDE = "outside"
SHARE = 48
ROUND = 12
ROWS = 25_000
FEW_ROWS = 3_000


# -- the sidecar ---------------------------------------------------------------------------------------------------------


def sidecar_dies(*lives: str) -> Scene:
    """One life of the sidecar after the other, each ended at a step or from outside, while clients send."""

    def play(world: World) -> None:
        world.start_intake()
        for life in lives:
            if world.start_sidecar(None if life == OUTSIDE else life):
                _live(world, life)
            assert world.sidecar is not None
            assert world.sidecar.wait() == -signal.SIGKILL, f"{life} was not reached"
        world.only_life = lives[0] if len(lives) == 1 else None

    return play


def _live(world: World, life: str) -> None:
    assert world.sidecar is not None
    load = world.send(SHARE)
    if life == OUTSIDE:
        time.sleep(world.chance.uniform(0, 0.4))
        world.sidecar.kill()
        return
    while world.sidecar.running and load.running:
        time.sleep(0.01)
    # A step on the way to the spool: it is reached when the sidecar drains.
    world.sidecar.stop()


def sidecar_of_up_dies(world: World) -> None:
    """`tally up` starts a part that was killed again, where its clients look for it."""
    pids = _start_up(world)
    load = world.send(SHARE)
    time.sleep(world.chance.uniform(0, 0.4))
    kill(pids["sidecar"])
    load.join()
    assert world.sidecar is not None
    assert world.sidecar.stop() == 0


def up_dies(world: World) -> None:
    """`tally up` itself is killed: its parts notice and end by themselves."""
    pids = _start_up(world)
    world.send(SHARE)
    time.sleep(world.chance.uniform(0, 0.4))
    assert world.sidecar is not None
    world.sidecar.kill()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids.values()))


def _start_up(world: World) -> dict[str, int]:
    """Starts `tally up` in the sidecar's place; the pids of its parts."""
    arguments = (
        "--engine",
        world.engine,
        "--node",
        NODE,
        "--listen",
        "127.0.0.1:0",
        "--api-listen",
        "127.0.0.1:0",
    )
    up = world.sidecar = world.commands.start("up", *arguments)
    assert up.ready(), up.trouble()
    world.sender.address = ("127.0.0.1", int(up.said["sidecar"].rpartition(":")[2]))
    parts = {
        part: pid for pid, line in children(up.pid) for part in ("sidecar", "intake", "api") if part in line
    }
    assert len(parts) == 3
    return parts


# -- intake --------------------------------------------------------------------------------------------------------------


def intake_dies(step: str) -> Scene:
    """Round after round of sealed batches until intake has reached the step."""

    def play(world: World) -> None:
        world.start_intake(step)
        assert world.intake is not None
        for _ in range(int(step.partition(":")[2])):
            world.serve(ROUND)
            wait_until(lambda: not _waiting(world) or not _runs(world.intake))
        assert world.intake.wait() == -signal.SIGKILL, f"{step} was not reached"

    return play


def intake_dies_rolling_up(step: str) -> Scene:
    """Hours that are long over wait to be rolled up."""

    def play(world: World) -> None:
        world.tally(*world.import_command(FEW_ROWS))
        world.start_intake(step)
        assert world.intake is not None
        assert world.intake.wait() == -signal.SIGKILL, f"{step} was not reached"

    return play


def intake_dies_outside(world: World) -> None:
    """Somewhere between the sealing of a batch and its acknowledgement."""
    world.start_intake()
    assert world.start_sidecar()
    world.send(SHARE).join()
    assert world.sidecar is not None
    assert world.intake is not None
    world.sidecar.signal(signal.SIGTERM)
    time.sleep(world.chance.uniform(0, 0.5))
    assert world.intake.kill() == -signal.SIGKILL
    assert world.sidecar.wait() == 0, world.sidecar.trouble()


# -- commands ------------------------------------------------------------------------------------------------------------


def close_dies(kill: str) -> Scene:
    """`tally period close --issue`."""

    def play(world: World) -> None:
        world.tally(*world.import_command(FEW_ROWS))
        _killed_and_repeated(world, kill, ("period", "close", month_before(), "--issue"))

    return play


def issue_dies(kill: str) -> Scene:
    """`tally invoice issue --period`."""

    def play(world: World) -> None:
        world.tally(*world.import_command(FEW_ROWS))
        world.tally("period", "close", month_before())
        _killed_and_repeated(world, kill, ("invoice", "issue", "--period", month_before()))

    return play


def credit_dies(kill: str) -> Scene:
    """`tally invoice credit --issue`: given again only where the first try has left nothing, as a person would."""

    def play(world: World) -> None:
        world.tally(*world.import_command(FEW_ROWS))
        world.tally("period", "close", month_before(), "--issue")
        credit = (
            "invoice",
            "credit",
            f"acme.{month_before()}.1",
            "--net",
            "1.00",
            "--reason",
            "goodwill",
            "--issue",
        )
        assert world.commands.start(*credit, kill_at=kill).wait() == -signal.SIGKILL
        documents = world.tally("invoice", "list")["invoices"]
        if not any(document["kind"] == "credit_note" for document in documents):
            world.tally(*credit)

    return play


def import_dies(kill: str) -> Scene:
    """`tally import`; a third time it says that it knows every row."""

    def play(world: World) -> None:
        arguments = world.import_command(ROWS)
        _killed_and_repeated(world, kill, arguments)
        again = world.tally(*arguments)
        assert (again["events"], again["already_known"]) == (0, ROWS)

    return play


def _killed_and_repeated(world: World, kill: str, arguments: tuple[str, ...]) -> None:
    command = world.commands.start(*arguments, kill_at=None if kill == OUTSIDE else kill)
    if kill == OUTSIDE:
        time.sleep(world.chance.uniform(0.05, 0.7))
        command.kill()
    else:
        assert command.wait() == -signal.SIGKILL, f"{kill} was not reached: {command.trouble()}"
    world.tally(*arguments)


def _runs(command: Running | None) -> bool:
    return command is not None and command.running


def _waiting(world: World) -> bool:
    return any((world.data / "spool").rglob("sealed/*"))
