"""The points at which something is killed: what, where, and by which seed.

A scene plays until its victim is dead; the world is finished and audited afterwards. Inside a named step the victim
kills itself (metering/steps.py). From outside it is killed after a moment that the seed decides.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kill_commands import Running, kill
from kill_world import NODE, World

Scene = Callable[[World], None]

OUTSIDE = "outside"
SHARE = 48
ROUND = 12
ROWS = 25_000
FEW_ROWS = 3_000
DOWN = 4


@dataclass(frozen=True, slots=True)
class Point:
    """A kill. `embedded`: the world has a PostgreSQL of its own, for that is a victim."""

    name: str
    seed: int
    scene: Scene
    embedded: bool = False


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
    _wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids.values()))


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
        part: pid for pid, line in _children(up.pid) for part in ("sidecar", "intake", "api") if part in line
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
            _wait_until(lambda: not _waiting(world) or not _runs(world.intake))
        assert world.intake.wait() == -signal.SIGKILL, f"{step} was not reached"

    return play


def intake_dies_rolling_up(step: str) -> Scene:
    """Hours that are long over wait to be rolled up."""

    def play(world: World) -> None:
        world.tally(*_import(world, FEW_ROWS))
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
        world.tally(*_import(world, FEW_ROWS))
        _killed_and_repeated(world, kill, ("period", "close", _month_before(), "--issue"))

    return play


def issue_dies(kill: str) -> Scene:
    """`tally invoice issue --period`."""

    def play(world: World) -> None:
        world.tally(*_import(world, FEW_ROWS))
        world.tally("period", "close", _month_before())
        _killed_and_repeated(world, kill, ("invoice", "issue", "--period", _month_before()))

    return play


def credit_dies(kill: str) -> Scene:
    """`tally invoice credit --issue`: given again only where the first try has left nothing, as a person would."""

    def play(world: World) -> None:
        world.tally(*_import(world, FEW_ROWS))
        world.tally("period", "close", _month_before(), "--issue")
        credit = (
            "invoice",
            "credit",
            f"acme.{_month_before()}.1",
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
        arguments = _import(world, ROWS)
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


def _import(world: World, rows: int) -> tuple[str, ...]:
    return ("import", str(world.write_file(rows).path), "--node", NODE)


def _month_before() -> str:
    now = datetime.now(UTC)
    return f"{now.year - (now.month == 1)}-{(now.month - 2) % 12 + 1:02d}"


# -- PostgreSQL ----------------------------------------------------------------------------------------------------------


def postmaster(world: World) -> list[int]:
    return [_postmaster(world)]


def server_child(world: World) -> list[int]:
    """One of the server's processes: a backend, the checkpointer, the writer of its log …"""
    children = [pid for pid, _ in _children(_postmaster(world))]
    return [world.chance.choice(children)]


def everything(world: World) -> list[int]:
    """Sidecar, intake and PostgreSQL whole, as when the machine ends them all."""
    top = _postmaster(world)
    for part in (world.sidecar, world.intake):
        if part is not None:
            part.kill()
    return [top, *(pid for pid, _ in _children(top))]


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
        arguments = _import(world, ROWS if what == "import" else FEW_ROWS)
        if what == "close":
            world.tally(*arguments)
            arguments = ("period", "close", _month_before(), "--issue")
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


def _children(parent: int) -> Iterator[tuple[int, str]]:
    """(pid, command line) of each child of a process."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                yield int(folder.name), (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue


def _runs(command: Running | None) -> bool:
    return command is not None and command.running


def _waiting(world: World) -> bool:
    return any((world.data / "spool").rglob("sealed/*"))


def _wait_until(holds: Callable[[], bool], limit_s: float = 45) -> None:
    give_up = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < give_up, "did not come about in time"
        time.sleep(0.01)


# -- all of them ---------------------------------------------------------------------------------------------------------


def _all_points() -> Iterator[Point]:
    for step, counts in {"intent": (1, 17, 40), "outcome": (1, 15, 35), "fsync": (1, 3, 6)}.items():
        for count in counts:
            yield Point(f"sidecar-{step}-{count}", count, sidecar_dies(f"{step}:{count}"))
    for step in ("making", "head", "sealed"):
        yield Point(f"sidecar-{step}-draining", 1, sidecar_dies(f"{step}:1"))
        yield Point(f"sidecar-{step}-recovering", 2, sidecar_dies(OUTSIDE, f"{step}:1"))
        yield Point(f"sidecar-{step}-again", 3, sidecar_dies(OUTSIDE, f"{step}:2", f"{step}:1"))
    yield Point("sidecar-interrupted-first", 1, sidecar_dies("interrupted:1"))
    yield Point("sidecar-interrupted-recovering", 2, sidecar_dies(OUTSIDE, "interrupted:1", "intent:30"))
    for step in ("in-transaction", "committed", "acknowledged"):
        for count in (1, 2, 3):
            yield Point(f"intake-{step}-{count}", count, intake_dies(f"{step}:{count}"))
    for count in (1, 2, 4):
        yield Point(f"intake-roll-up-{count}", count, intake_dies_rolling_up(f"roll-up:{count}"))
    for name, scene in {"close": close_dies, "issue": issue_dies, "credit": credit_dies}.items():
        for count in (1, 2):
            yield Point(f"{name}-issue-{count}", count, scene(f"issue:{count}"))
    for step in ("making:1", "making:3", "head:2", "sealed:1", "sealed:2", "sealed:3"):
        yield Point(f"import-{step.replace(':', '-')}", 1, import_dies(step))
    for step in ("in-transaction", "committed", "acknowledged"):
        yield Point(f"import-{step}-1", 1, import_dies(f"{step}:1"))
    for seed in range(4):
        yield Point(f"sidecar-outside-{seed}", seed, sidecar_dies(OUTSIDE, OUTSIDE))
        yield Point(f"intake-outside-{seed}", seed, intake_dies_outside)
        yield Point(f"close-outside-{seed}", seed, close_dies(OUTSIDE))
        yield Point(f"import-outside-{seed}", seed, import_dies(OUTSIDE))
    for name, victims in {"postmaster": postmaster, "backend": server_child}.items():
        for seed in range(2):
            yield Point(f"{name}-serving-{seed}", seed, server_dies_serving(victims), embedded=True)
            yield Point(f"{name}-taking-{seed}", seed, server_dies_taking(victims), embedded=True)
            for what in ("close", "import"):
                yield Point(f"{name}-{what}-{seed}", seed, server_dies_under(victims, what), embedded=True)
    for seed in range(2):
        yield Point(f"everything-serving-{seed}", seed, server_dies_serving(everything), embedded=True)
        yield Point(f"everything-taking-{seed}", seed, server_dies_taking(everything), embedded=True)
    yield Point("up-sidecar", 1, sidecar_of_up_dies)
    yield Point("up-itself", 2, up_dies, embedded=True)


POINTS = {point.name: point for point in _all_points()}

#: What `make test` kills: the sidecar, intake, PostgreSQL, a close and an import.
FIVE = ("sidecar-outcome-15", "intake-committed-1", "postmaster-taking-0", "close-issue-1", "import-sealed-2")
