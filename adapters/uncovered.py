"""Contents that no checkpoint covers: what a transaction archived before a commit of which nobody knows.

Money's contents are archived before their transaction commits, so that an issued document is in the archive before
anybody sees it; the checkpoint that covers them comes a moment later. A disk that dies in between leaves contents
without a leaf: perhaps an invoice that its customer has got. And a command that was killed just before its commit
leaves such contents too, for good, of something that never came to be.

Where the restored ledger shows the latter they are passed over: the row that they insert is there, of a later
transaction; the number that they take was taken by one. So they are where the log went on for a day, which is longer
than any transaction. Where neither holds, a person decides:

    take     it committed: the change is made again, and gets leaves of its own
    leave    it did not, or nobody has heard of it
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Literal

from adapters.archived_contents import ArchivedContents
from adapters.postgres.dump import Connection
from adapters.postgres.replay import Replay
from adapters.postgres.replayed import known_commitments, newest_leaf_at
from billing.log import Content
from billing.objects import Objects
from metering.refusal import Fault, Refusal

Uncovered = Literal["refuse", "take", "leave"]

_LONGEST_TRANSACTION = timedelta(days=1)
_EVER = datetime(2020, 1, 1, tzinfo=UTC)
_NAMED = 100
#: Rows that others refer to come first, wherever they lie among the objects of one transaction.
_ORDER = ("subject", "number_series", "document", "settlement", "journal_entry")


async def decide(
    raw: Connection, replay: Replay, objects: Objects, operator: str, how: Uncovered
) -> tuple[int, int]:
    """Takes or leaves them, as `how` says; returns how many contents were taken, and left.

    Refusals: uncovered_contents, naming them, with `refuse`; as `Replay.apply`.
    """
    newest = await newest_leaf_at(raw, operator)
    since = _EVER if newest is None else newest - _LONGEST_TRANSACTION
    known = await known_commitments(raw, operator, since)

    def read() -> list[Content]:
        contents = ArchivedContents(objects, operator, since.date())
        return [content for _, found in contents.besides(known) for content in found if _at(content) >= since]

    left = sorted(await asyncio.to_thread(read), key=_at)
    transactions = [list(found) for _, found in groupby(left, key=_at)]
    open_ = [each for each in transactions if not await _is_overtaken(replay, each)]
    count = sum(map(len, open_))
    if how == "leave" or not open_:
        return 0, count
    if how == "refuse":
        raise Refusal(
            "uncovered_contents",
            f"the archive holds {count} changes of {operator} that no checkpoint covers: their transaction was about to"
            " commit, and whether it did is not known",
            where=operator,
            remedy="find out whether it did (has the customer got the document?); then --uncovered take brings them"
            " forward, --uncovered leave does without them",
            faults=[Fault(_said(each), where=_at(each).isoformat()) for of in open_ for each in of][:_NAMED],
        )
    for transaction in open_:
        for content in sorted(transaction, key=_rank):
            await replay.apply(operator, _told(content)["table"], content, _said(content))
        await replay.check(_at(transaction[0]).isoformat())
    return count, 0


async def _is_overtaken(replay: Replay, transaction: Sequence[Content]) -> bool:
    """Whether what this transaction inserted, or a number that it took, came to be by another one."""
    for content in transaction:
        if await replay.is_taken(content):
            return True
    return False


def _told(content: Content) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(content.content)
    return told


def _at(content: Content) -> datetime:
    return datetime.fromisoformat(_told(content)["at"])


def _rank(content: Content) -> int:
    table = _told(content)["table"]
    return _ORDER.index(table) if table in _ORDER else len(_ORDER)


def _said(content: Content) -> str:
    told = _told(content)
    row = told["row"]
    name = next((row[key] for key in ("number", "id", "period", "kind") if row.get(key) is not None), "")
    return f"{told['op']} {told['table']} {name}".rstrip()
