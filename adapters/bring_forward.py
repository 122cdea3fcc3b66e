"""Bringing a database forward: what the archived log holds beyond the database's is done again, in its order.

    archived log ─▶ does the database's log begin it? ─▶ for each further leaf, in one transaction:
        a batch    from the archive through intake, at the instant of its acceptance: same marks, same sums, same `late`;
                   before it the heartbeats that lead to it and have no leaf (heartbeats_again.py)
        a change   its row, as its content tells it
                   … and the leaf itself, with the nonce that it had, at the place that it had
    ─▶ the same root as signed?
    ─▶ what the archive holds behind the lanes' marks, covered by no checkpoint: through intake (behind_marks.py)
    ─▶ the same sums as sealed? books in balance? ─▶ commit

So the ledger that comes out is the one that was lost, up to the newest checkpoint, and the next checkpoint extends that.
If anything is missing or does not fit, nothing is done at all, and what it is is named: the database stays read-only.

The contents of money are archived before their transaction commits, the checkpoint that covers them comes a moment
later: what a disk that dies in between leaves is decided in uncovered.py.

Drafts are in no log: those of a period that was closed since are dropped, and a close makes them again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from datetime import datetime

from sqlalchemy import select

from adapters.archived_logs import ArchivedLog
from adapters.log_archive import remove_unsigned
from adapters.log_replay import Brought, Forward, Progress
from adapters.nowhere import Nowhere
from adapters.postgres.connecting import connected, engine
from adapters.postgres.database import Database, driver
from adapters.postgres.dump import Connection, unbalanced
from adapters.postgres.replay import OneTransaction, hold_operator
from adapters.uncovered import Uncovered
from billing.intake_ports import BatchStore
from billing.objects import Objects
from metering.refusal import Refusal
from metering.steps import step


async def bring_forward(
    database: Database,
    objects: Objects,
    logs: Sequence[ArchivedLog],
    *,
    now: datetime,
    held: BatchStore,
    uncovered: Uncovered = "refuse",
    progress: Progress = lambda _what, _done, _total: None,
) -> list[Brought]:
    """Brings the database's operators forward to their archived logs, all of them in one transaction, or none.

    Refusals, with nothing changed: no_owner_login, log_differs, damaged_log, bad_leaf, bad_content, content_missing,
    archive_incomplete, replay_differs, uncovered_contents, totals_differ, books_out_of_balance, log_missing.
    """
    if database.urls.owner is None:
        raise Refusal(
            "no_owner_login",
            "no login of tally_owner is configured, and only that one may write a ledger again",
            remedy="set TALLY_DATABASE_OWNER_URL",
        )
    pool = engine(database.urls.owner)
    try:
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(connected(pool))
            await stack.enter_async_context(connection.begin())
            await connection.execute(select(1))  # BEGIN goes out with the first statement
            raw = await driver(connection)
            for log in logs:
                await hold_operator(connection, raw, log.operator)
            one = OneTransaction(database.urls, connection)
            stack.push_async_callback(one.close)
            brought, nowhere = [], Nowhere()
            for log in logs:
                forward = Forward(one, raw, objects, log, now, nowhere, progress)
                brought.append(await forward.run(uncovered))
            await _finish(raw, {log.operator for log in logs})
            for log in logs:
                await asyncio.to_thread(remove_unsigned, objects, log.operator)
            wrong = await unbalanced(raw)
            if wrong is not None:
                raise Refusal(
                    "books_out_of_balance",
                    f"an entry of the journal does not balance ({wrong})",
                    remedy="restore an older backup",
                )
            step("brought-forward")
        step("restore-committed")
        await asyncio.to_thread(held.remove, nowhere.settled)
        return brought
    finally:
        await pool.dispose()


async def _finish(raw: Connection, with_log: Collection[str]) -> None:
    """No restore is unfinished any more. Refusal `log_missing` where the database knows a log that the archive lacks."""
    signed = await raw.fetch("SELECT operator FROM log_head ORDER BY operator")
    lacking = [row["operator"] for row in signed if row["operator"] not in with_log]
    if lacking:
        raise Refusal(
            "log_missing",
            f"the archive holds no log of {', '.join(lacking)}, and the database knows a signed one",
            remedy="name the archive that belongs to this database (TALLY_ARCHIVE), or restore it from its backup",
        )
    await raw.execute("DELETE FROM unfinished_restore")
