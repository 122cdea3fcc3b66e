"""A machine at a site: a real lane on a spool folder of its own, its clock, and the shipper beside it.

The lane is `metering.lane.Lane` on real files, so what a kill, a full disk, a power cut, a copied folder or a stepped
clock leaves is what it would leave. fsync costs nothing here (conftest.py); what a power cut may take is told by the
recorded disk, which knows what was fsynced.

`Served` is what the sender knows of its requests, the beginning of the auditor's book: what it tried, what the lane took,
what of that had its outcome, and what of it a sync or a seal had put on disk.
"""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from recorded_disk import PowerCut, RecordedDisk
from refusing_disk import RefusingDisk
from turns import Killed

from metering import steps
from metering.event import Event
from metering.lane import Lane
from metering.refusal import Unavailable
from metering.write_ahead import Intent

#: Where a lane's process may die.
LANE_STEPS = ("intent", "outcome", "fsync", "making", "head", "sealed", "interrupted")


@dataclass
class Served:
    """Request ids of one lane's life, and of each the event that its outcome was. `gone`: nobody knows any more."""

    tried: set[bytes] = field(default_factory=set)
    sent: set[bytes] = field(default_factory=set)
    ended: dict[bytes, Event] = field(default_factory=dict)
    synced: set[bytes] = field(default_factory=set)
    ended_synced: set[bytes] = field(default_factory=set)

    def sync(self) -> None:
        self.synced |= self.sent
        self.ended_synced |= self.ended.keys()

    def cut(self) -> None:
        """The power went: only what was synced is certain."""
        self.sent &= self.synced
        self.ended = {request: event for request, event in self.ended.items() if request in self.ended_synced}


class MachineClock:
    """The world's time, with what somebody did to this machine's wall clock."""

    def __init__(self, world_us: Callable[[], int]) -> None:
        self._world_us = world_us
        self._booted_us = world_us()
        self.skew_us = 0

    def wall_us(self) -> int:
        return self._world_us() + self.skew_us

    def monotonic_us(self) -> int:
        return self._world_us() - self._booted_us


def dies_at(step: str | None, count: int = 1) -> None:
    """The next process that reaches this step for the `count`-th time dies there; None: nobody."""
    steps._kill_at = None if step is None else [step, count]


class Machine:
    """One lane of a node. `alive` while its process runs; `lane` is None before its first start and after its death."""

    def __init__(
        self,
        node: str,
        lane: str,
        key: Ed25519PrivateKey,
        folder: Path,
        world_us: Callable[[], int],
        chance: random.Random,
        *,
        operator: str,
        make: Callable[[int], Event],
    ) -> None:
        self.node, self.lane_name, self.operator = node, lane, operator
        self.key = key
        self.folder = folder
        self.clock = MachineClock(world_us)
        self.served = Served()
        self.lane: Lane | None = None
        self._chance = chance
        self._make = make
        self._open: list[tuple[bytes, Event]] = []
        self._disk: RefusingDisk | None = None
        self._recorded: RecordedDisk | None = None

    def __str__(self) -> str:
        return f"{self.operator}/{self.node}/{self.lane_name} in {self.folder.name}"

    @property
    def sealed(self) -> Path:
        """Where its batches wait."""
        return self.folder / self.operator / self.node / self.lane_name / "sealed"

    def start(self) -> None:
        """A new process; dead still where the disk does not let it begin."""
        if self.lane is None:
            self._do(self._start)

    def serve(self, count: int, *, leave_open: bool = False) -> None:
        """Requests, each to its outcome unless the lane refuses; with `leave_open` the last stays in the air."""
        self._do(lambda: self._serve(count, leave_open=leave_open))

    def finish(self) -> None:
        """The outcomes of what is in the air."""
        self._do(lambda: self._serve(0, leave_open=False))

    def seal(self) -> None:
        self._do(self._seal)

    def stop(self) -> None:
        self._do(self._stop)

    def kill(self) -> None:
        """SIGKILL. What the kernel has, it keeps."""
        lane, self.lane = self.lane, None
        self._open = []
        if lane is not None:
            lane._write_ahead.close()
            lane._reserve.close()
            lane._folder.close()

    def copy(self, folder: Path) -> Machine:
        """What a backup, or an image of the machine, has of it now; not started."""
        shutil.copytree(self.folder, folder)
        other = Machine(
            self.node,
            self.lane_name,
            self.key,
            folder,
            self.clock._world_us,
            self._chance,
            operator=self.operator,
            make=self._make,
        )
        other.clock.skew_us = self.clock.skew_us
        other.served = deepcopy(self.served)
        return other

    # -- its disk ------------------------------------------------------------------------------------------------------

    def fills_up(self, monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
        """Its disk takes so many calls more, and then nothing."""
        if self._disk is None:
            self._disk = RefusingDisk(self.folder, 0, 0)
            self._disk.plug_in(monkeypatch)
        self._disk._refused = range(self._disk.calls + calls, 1 << 60)

    def has_room(self) -> None:
        if self._disk is not None:
            self._disk._refused = range(0)

    def record(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From here on it is known what a power cut would take. The disk must see every file opened: a new process."""
        if self._recorded is None:
            self.kill()
            self._recorded = RecordedDisk(self.folder, 1 << 60)
            self._recorded.plug_in(monkeypatch)

    @property
    def is_recorded(self) -> bool:
        return self._recorded is not None

    def lose_power(self, calls: int, work: Callable[[], None], after: Path) -> None:
        """The power goes `calls` calls from now, during `work` or after it; the disk is found again in `after`."""
        disk, self._recorded = self._recorded, None
        assert disk is not None
        disk.left = calls
        with contextlib.suppress(PowerCut):
            work()
        disk.is_cut = False
        disk.left = 1 << 60
        self.kill()
        after.mkdir()
        disk.after(self._chance, after)
        self.folder, self._disk = after, None
        self.served.cut()

    # -- within ----------------------------------------------------------------------------------------------------

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Unavailable:
            pass  # a full disk; the caller of a lane goes on, and tries again
        except Killed:
            self.kill()
        finally:
            dies_at(None)

    def _start(self) -> None:
        self.lane = Lane.open(
            self.folder,
            operator=self.operator,
            node=self.node,
            lane=self.lane_name,
            key=self.key,
            clock=self.clock,
            segment_bytes=20_000,
            warn=lambda *_: None,
        )

    def _serve(self, count: int, *, leave_open: bool) -> None:
        if self.lane is None:
            return
        for _ in range(count):
            event = self._make(self.clock.wall_us())
            self.served.tried.add(event.request)
            self.lane.intent(
                Intent(
                    event.request,
                    event.time_us,
                    event.customer,
                    event.project,
                    event.key,
                    event.endpoint,
                    event.model,
                )
            )
            self.served.sent.add(event.request)
            self._open.append((event.request, event))
        waiting, self._open = self._open, []
        if leave_open and waiting:
            self._open = [waiting.pop()]
        while waiting:
            request, event = waiting[0]
            try:
                self.lane.outcome(event._replace(time_us=self.clock.wall_us()))
            except Unavailable:
                self._open = waiting + self._open  # the sidecar keeps it, and tries again
                raise
            self.served.ended[request] = event
            waiting.pop(0)

    def _seal(self) -> None:
        if self.lane is not None:
            self.lane.sync()
            self.served.sync()
            self.lane.seal()

    def _stop(self) -> None:
        if self.lane is not None:
            lane, self.lane = self.lane, None
            self._open = []
            lane.close()
            self.served.sync()
