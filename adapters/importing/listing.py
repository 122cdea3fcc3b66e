"""The list of imports (import_file): what was imported, what is being imported, what was taken back.

    running ─▶ accepted          listed before the first seal is made, so that no accepted batch is of an unknown import
       └──────────┴─▶ voiding ─▶ voided      listed before the first event is taken back; a voided lane never goes on

`running` and `voiding` are what a killed command leaves: the same command, given again, ends them, and until then no
period that they touch closes. Imports and voids of an operator wait for each other (`listing_lock`), so that what was
decided by the list still holds when the list is written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from adapters.postgres.database import Database
from metering.event import Totals
from metering.refusal import Refusal

RUNNING, ACCEPTED, VOIDING, VOIDED = "running", "accepted", "voiding", "voided"

_LIST = text("""
    INSERT INTO import_file (operator, id, epoch, node, lane, file_sha256, options_sha256, events, first, last, totals,
                             state, imported_at)
    VALUES (:o, :id, :epoch, :node, :id, :file, :options, :events, :first, :last, CAST(:totals AS jsonb),
            'running', :now)
""")
_ACCEPT = text(
    "UPDATE import_file SET state = 'accepted' WHERE operator = :o AND id = :id AND state = 'running'"
)
_BEGIN_VOID = text("""
    UPDATE import_file SET state = 'voiding', voided_at = :now, void_reason = :reason
    WHERE operator = :o AND id = :id AND state IN ('running', 'accepted')
""")
_END_VOID = text(
    "UPDATE import_file SET state = 'voided' WHERE operator = :o AND id = :id AND state = 'voiding'"
)
_EARLIER = text("""
    SELECT id, node, epoch, file_sha256, options_sha256, state FROM import_file
    WHERE operator = :o AND (epoch = :epoch OR file_sha256 = :file) ORDER BY imported_at, id
""")
_OF_ID = text("SELECT node, state FROM import_file WHERE operator = :o AND id = :id")


@dataclass(frozen=True, slots=True)
class EarlierImport:
    """A file that is listed already, on whichever node of the operator."""

    id: str
    node: str
    epoch: str
    file_sha256: str
    options_sha256: str
    state: str


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What is remembered of a file: digests and sums, never its name."""

    id: str
    node: str
    epoch: str
    file_sha256: str
    options_sha256: str
    events: int
    first: datetime
    last: datetime
    totals: Totals


def listing_lock(database: Database, operator: str) -> AbstractAsyncContextManager[None]:
    """Held by whoever imports for the operator or takes back: one at a time, on whichever machine."""
    return database.exclusively(f"import/{operator}")


async def earlier_imports(
    database: Database, operator: str, epoch: str, file_sha256: str
) -> list[EarlierImport]:
    """Imports of the same content or of the same raw file, oldest first."""
    async with database.app(operator) as connection:
        rows = await connection.execute(_EARLIER, {"o": operator, "epoch": epoch, "file": file_sha256})
        return [EarlierImport(**row._mapping) for row in rows]


async def import_of(database: Database, id: str) -> tuple[str, str, str]:
    """(operator, node, state) of an import. Refusals: unknown_import."""
    for operator in await database.operators():
        async with database.app(operator) as connection:
            for row in await connection.execute(_OF_ID, {"o": operator, "id": id}):
                return operator, row.node, row.state
    raise Refusal(
        "unknown_import",
        f"no such import: {id}",
        where="ID",
        remedy="`tally import` printed its id when it was made",
    )


async def list_running(database: Database, operator: str, facts: FileFacts, now: datetime) -> None:
    """Lists the import before anything of it is sealed."""
    totals = {name: getattr(facts.totals, name) for name in Totals.__dataclass_fields__}
    async with database.app(operator) as connection:
        await connection.execute(
            _LIST,
            {
                "o": operator,
                "id": facts.id,
                "epoch": facts.epoch,
                "node": facts.node,
                "file": facts.file_sha256,
                "options": facts.options_sha256,
                "events": facts.events,
                "first": facts.first,
                "last": facts.last,
                "totals": json.dumps(totals),
                "now": now,
            },
        )


async def mark_accepted(database: Database, operator: str, id: str) -> None:
    """The import's last batch was accepted."""
    async with database.app(operator) as connection:
        await connection.execute(_ACCEPT, {"o": operator, "id": id})


async def mark_voiding(database: Database, operator: str, id: str, reason: str, now: datetime) -> None:
    """From here on the import is taken back, and why; its lane goes on no more. Twice is once."""
    async with database.app(operator) as connection:
        await connection.execute(_BEGIN_VOID, {"o": operator, "id": id, "reason": reason, "now": now})


async def mark_voided(database: Database, operator: str, id: str) -> None:
    """All that was accepted of the import is taken back."""
    async with database.app(operator) as connection:
        await connection.execute(_END_VOID, {"o": operator, "id": id})


def standing_import(earlier: Sequence[EarlierImport], epoch: str, node: str) -> EarlierImport | None:
    """The import of the same content into the same node that was not taken back, if there is one: to repeat (accepted)
    or to go on with (running). Refusals: import_unfinished, where it is being taken back.
    """
    standing = next((e for e in earlier if e.epoch == epoch and e.node == node and e.state != VOIDED), None)
    if standing is not None and standing.state == VOIDING:
        raise Refusal(
            "import_unfinished",
            f"this content was imported before, as {standing.id}, and is not wholly taken back",
            where=standing.id,
            remedy=f"give `tally import void {standing.id} --reason …` again to finish that",
        )
    return standing


def refuse_known_file(
    earlier: Sequence[EarlierImport], *, file_sha256: str, options_sha256: str, where: str
) -> None:
    """The same raw file read in another way is most often a mistake, and would bill its rows twice.

    Refusals: known_file, also where the other import is not finished.
    """
    other = next(
        (
            e
            for e in earlier
            if e.file_sha256 == file_sha256 and e.options_sha256 != options_sha256 and e.state != VOIDED
        ),
        None,
    )
    if other is None:
        return
    if other.state == ACCEPTED:
        what = f"this file was imported before under other options, as {other.id} into node {other.node}"
        remedy = (
            f"take that back with `tally import void {other.id} --reason …`, or import it as well with --also"
        )
    else:
        doing = "import" if other.state == RUNNING else "taking back"
        what = (
            f"this file's {doing} under other options, as {other.id} into node {other.node}, is not finished"
        )
        remedy = (
            f"give that command again to finish it, or take back what was accepted with"
            f" `tally import void {other.id} --reason …`"
        )
    raise Refusal("known_file", what, where=where, remedy=remedy)


def next_id(epoch: str, earlier: Sequence[EarlierImport]) -> str:
    """A new import's id: by its content, and counted where the same content comes again after a void or for another node."""
    before = sum(1 for e in earlier if e.epoch == epoch)
    return f"import-{epoch[:16]}" + (f".{before + 1}" if before else "")
