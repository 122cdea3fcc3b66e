"""Named steps at which a test may kill this process: `TALLY_KILL_AT=step:count`.

A road that claims to survive a kill at any moment has to be killed at every moment that matters. `step("sealed")`
marks such a moment. With `TALLY_KILL_AT=sealed:3` in the environment the third `step("sealed")` of the process sends
SIGKILL to itself: nothing is flushed, no `finally` runs. Unset, a step is one comparison with None. It is a hook for
tests only; nobody sets it in production, and it can do nothing but end the process that reads it.

The steps, in the order of the road (each is reached when the thing that it names has just happened):

    intent          the intent is written to the write-ahead file
    told            what HTTP told of the request is written to the write-ahead file
    outcome         the usage event is written to the write-ahead file
    outcomes        the usage events of several requests are, by one write
    unmetered       a request served unmetered is counted
    fsync           the write-ahead file is on disk
    rotate          a new write-ahead segment has taken over, the old one still lies there
    mended          after a failed fsync all that is open or unsealed is on disk in a new segment
    interrupted     recovery: the new epoch's segment with its interrupted events is on disk
    listed          an import is listed as running, nothing of it is sealed yet
    making          body and seal are on disk, not named by the head yet
    head            the head names the new seal, which is not visible in the spool yet
    sealed          the batch is visible in the spool
    resealing       which batches are to be sealed again is on disk
    acknowledged    the spool has marked a batch as done, not deleted it yet
    in-transaction, committed, roll-up      intake
    joined          compaction: the joined file is in the archive, its batches still lie beside it
    bodies-left     … their bodies don't any more, their seals do
    seals-left      … nor do these
    decided         expiry: the decision is committed, the bodies still lie there
    expired         … a file of them is gone
    issue           close
    restored-table  restore: a table's rows are in, nothing is committed
    restoring       … all of them are
    restored        … and committed
    replayed        bringing forward: a leaf of the archived log is done again, nothing is committed
    brought-forward … all of them are, and compared
    restore-committed … and committed
    log-contents    what waiting leaves commit to is archived
    log-numbers     leaves have their places in the log, committed
    log-tiles       tiles and entry bundles are archived
    log-checkpoint  the signed checkpoint is archived
    log-head        the database knows it
"""

from __future__ import annotations

import os
import signal


def _from_environment(setting: str | None) -> list[str | int] | None:
    if not setting:
        return None
    name, _, count = setting.partition(":")
    return [name, int(count or 1)]


_kill_at = _from_environment(os.environ.get("TALLY_KILL_AT"))


def step(name: str) -> None:
    """Mark the step `name`; kills this process with SIGKILL if the environment asked for this one."""
    if _kill_at is None:
        return
    if _kill_at[0] == name:
        left = int(_kill_at[1]) - 1
        _kill_at[1] = left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
