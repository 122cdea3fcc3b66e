"""What the tests of lanes share: a clock that is set by hand, requests, and an auditor of a spool."""

from __future__ import annotations

import gc
import os
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from metering import steps
from metering.batch import GENESIS, SealedBatch, check_root, read_body, read_seal
from metering.columns import integers
from metering.event import Event
from metering.identity import new_id
from metering.lane import Intent, Lane
from metering.spool import Spool

START_US = 1_791_187_200_000_000
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NAMES: dict[str, Any] = {"operator": "vilnius", "node": "vilnius-1", "lane": "sidecar-0"}
CUSTOMER = b"\x22" * 16


@dataclass
class HandClock:
    """A clock that moves when told to."""

    wall: int = START_US
    monotonic: int = 0

    def wall_us(self) -> int:
        return self.wall

    def monotonic_us(self) -> int:
        return self.monotonic

    def pass_s(self, seconds: float) -> None:
        self.wall += int(seconds * 1e6)
        self.monotonic += int(seconds * 1e6)


def open_lane(spool: Path, clock: HandClock | None = None, **options: Any) -> Lane:
    return Lane.open(spool, **NAMES, key=KEY, clock=clock or HandClock(), **options)


def intent(request: bytes | None = None) -> Intent:
    return Intent(request or new_id(), START_US, CUSTOMER, None, None, "chat", "m")


def outcome(request: bytes, time_us: int = START_US, tokens: int = 7, outcome: str = "finished") -> Event:
    return Event(
        kind="usage",
        time_us=time_us,
        request=request,
        names=None,
        customer=CUSTOMER,
        project=None,
        key=None,
        endpoint="chat",
        model="m",
        outcome=outcome,
        prompt_tokens=tokens,
        cached_tokens=0,
        completion_tokens=1,
        reasoning_tokens=0,
        generated_tokens=None,
        audio_seconds=0,
        request_digest=None,
    )


def serve(lane: Lane, count: int = 1) -> list[bytes]:
    """Requests that run to their end."""
    requests = []
    for _ in range(count):
        started = intent()
        lane.intent(started)
        lane.outcome(outcome(started.request))
        requests.append(started.request)
    return requests


def run_to_its_end_or_death(work: Callable[[], None], kill_at: tuple[str, int] | None) -> bool:
    """Do the work in a child that kills itself at the step; True if it came to its end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of threads; the child starts none
        gc.freeze()  # or the child would copy every page of ours that it looks for garbage in
        child = os.fork()
    if child == 0:
        code = 1
        try:
            steps._kill_at = [*kill_at] if kill_at else None
            work()
            code = 0
        finally:
            os._exit(code)
    gc.unfreeze()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.waitstatus_to_exitcode(status) == 0, "the work failed"
    return True


@dataclass(frozen=True)
class Audit:
    """What a spool holds, after everything that a stranger can check has been checked."""

    batches: list[SealedBatch]
    outcomes: dict[bytes, str]

    @property
    def epochs(self) -> list[str]:
        return list(dict.fromkeys(batch.seal.epoch for batch in self.batches))


def audit(spool: Path, taken: Sequence[SealedBatch] = ()) -> Audit:
    """Check the chain, the numbers, the times and every batch of the spool's one lane, as an intake would.

    `taken` are batches that have left the spool already.
    """
    batches = [*taken, *(spooled.batch() for spooled in Spool(spool).pending())]
    seen: Counter[bytes] = Counter()
    outcomes: dict[bytes, str] = {}
    previous, epoch, number, last, complete_to_us, opened = GENESIS, "", -1, 0, 0, 0
    for batch in batches:
        seal = read_seal(batch.note, KEY.public_key().public_bytes_raw())
        table = read_body(seal, batch.body)
        check_root(seal, table)
        assert seal.previous == previous
        if seal.epoch != epoch:
            number, last = -1, 0
        assert (seal.number, seal.first) == (number + 1, last + 1)
        assert all(time > complete_to_us for time in integers(table, "time").tolist())
        assert seal.complete_to_us >= complete_to_us
        assert seal.opened >= opened
        seen.update(table.column("request").to_pylist())
        outcomes.update(
            zip(table.column("request").to_pylist(), table.column("outcome").to_pylist(), strict=True)
        )
        assert seal.closed == seen.total() if seal.kind == "sidecar" else True
        previous, epoch, number, last = batch.hash, seal.epoch, seal.number, seal.last
        complete_to_us, opened = seal.complete_to_us, seal.opened
    assert not seen or max(seen.values()) == 1, "an event was sealed twice"
    return Audit(batches, outcomes)
