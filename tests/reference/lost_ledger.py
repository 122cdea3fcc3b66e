"""A ledger whose database will be lost: everything that a ledger does, by hand, with its archive beside it.

    ledger = await new_ledger(database, tmp_path)
    await ledger.take(5)                    # a sealed batch of five events, through intake
    await ledger.close(issue=True)
    await ledger.sign()

`rows` of two databases are compared table by table: what is in no log (drafts, what is held) and what the log does not
say (ids that the database gives itself, when a heartbeat was accepted) is left out, and so is how far hours are rolled up.
"""

from __future__ import annotations

import hashlib
import json
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from intake_world import NODE, OPERATOR, Wire, Writer, us
from small_books import BASE, OCTOBER, SHARES, TARIFF
from sqlalchemy import text

from adapters.archive import BatchObjects
from adapters.archived_logs import archived_logs
from adapters.backup import Taken, held_files, take_backup
from adapters.bring_forward import bring_forward
from adapters.log_replay import Brought
from adapters.log_sequencer import sequence
from adapters.objects import FolderObjects
from adapters.postgres.books import PostgresBooks
from adapters.postgres.database import INSTALLATION, Database
from adapters.postgres.dump import tables_of
from adapters.postgres.intake import PostgresLedger
from adapters.postgres.keys import create_customer_key, create_role_key, revoke_key
from adapters.postgres.lane_keys import enroll_lane
from adapters.postgres.site import site_store
from adapters.site_files.apply import apply_site
from adapters.site_files.nodes import parse_documents
from adapters.site_files.reading import SiteFiles, read_document
from adapters.uncovered import Uncovered
from billing.close import close_period
from billing.correct import credit_invoice
from billing.document import INVOICE, ISSUED, Document, to_json
from billing.intake import Intake
from billing.period import Period
from billing.run_settlement import run_settlement
from metering.identity import LaneKey

BEGIN = datetime(2026, 11, 2, 9, tzinfo=UTC)
Rows = dict[str, list[str]]

_MODELS = ("m", "m", "m2")
_TARIFF = TARIFF.replace("models: [m]", 'models: ["*"]')
# What a restore does not bring back, because no log tells of it, or because it is another database's.
_NOT_TOLD = frozenset(
    {"held", "set_aside", "kafka_position", "leaf_waiting", "unfinished_restore", "hourly_usage"}
)
_COMPARED = {
    "batch": "SELECT (to_jsonb(t) - CASE WHEN events = 0 THEN 'accepted_at' ELSE '' END)::text FROM batch t",
    "lane": "SELECT (to_jsonb(t) - CASE WHEN b.events = 0 THEN 'last_accepted_at' ELSE '' END)::text"
    " FROM lane t LEFT JOIN batch b USING (operator, node, lane, epoch, number)",
    "document": "SELECT row_to_json(t)::text FROM document t WHERE state = 'issued'",
    "leaf": "SELECT json_build_array(e.index, l.operator, l.kind, l.data, l.nonce, l.content)::text FROM leaf l"
    " JOIN log_entry e ON (e.operator, e.leaf) = (l.operator, l.id)",
    "log_entry": "SELECT operator || ' ' || index FROM log_entry",
    "log_head": "SELECT json_build_array(operator, size, root, checkpoint)::text FROM log_head",
    "partial_sum": "SELECT json_build_array(operator, hour, customer, node, model, outcome, band, late, sum(requests),"
    " sum(prompt_tokens), sum(completion_tokens), sum(unwitnessed_requests))::text FROM usage_cell"
    " GROUP BY operator, hour, customer, node, model, outcome, band, late",
}


def files_of(site: str) -> SiteFiles:
    documents = [read_document(node, []) for node in parse_documents(site.encode(), "site.yaml", [])]
    return SiteFiles(tuple(each for each in documents if each is not None), (), ())


@dataclass
class LostLedger:
    """A database and what lies beside it in one data folder."""

    database: Database
    data: Path
    now: datetime = BEGIN
    writers: dict[str, Writer] = field(default_factory=dict)
    customers: dict[str, bytes] = field(default_factory=dict)
    keys: list[uuid.UUID] = field(default_factory=list)
    chance: random.Random = field(default_factory=lambda: random.Random(1))

    @property
    def archive(self) -> FolderObjects:
        return FolderObjects(self.data / "archive")

    @property
    def held(self) -> FolderObjects:
        return FolderObjects(self.data / "held")

    @property
    def books(self) -> PostgresBooks:
        return PostgresBooks(self.database, lambda: self.now, objects=self.archive)

    def later(self, by: timedelta = timedelta(minutes=1)) -> None:
        self.now += by

    async def apply(self, site: str) -> None:
        self.later()
        async with site_store(self.database) as store:
            await apply_site(store, files_of(site), self.now)
        async with self.database.app(OPERATOR) as connection:
            found = await connection.execute(text("SELECT slug, id FROM subject WHERE kind = 'customer'"))
            self.customers = {row.slug: row.id.bytes for row in found}

    async def enrol(self, lane: str) -> Writer:
        key = Ed25519PrivateKey.from_private_bytes(self.chance.randbytes(32))
        first = us(datetime(2026, 10, 5, tzinfo=UTC))
        writer = self.writers[lane] = Writer(lane=lane, kind="import", key=key, time_us=first)
        async with self.database.app(OPERATOR) as connection:
            public = LaneKey.public_bytes(writer.key)
            await enroll_lane(connection, OPERATOR, NODE, lane, "import", public, self.now)
        return writer

    async def take(self, count: int, lane: str = "import-1", customer: str = "acme") -> None:
        """A batch of `count` events is sealed and accepted."""
        self.later()
        writer = self.writers.get(lane) or await self.enrol(lane)
        wire = Wire()
        wire.send(writer.seal(count, customer=self.customers[customer], model=self.chance.choice(_MODELS)))
        assert (await self.intake(wire).take_pending()).accepted == 1

    def intake(self, wire: Wire) -> Intake:
        return Intake(
            wire,
            PostgresLedger(self.database),
            BatchObjects(self.archive),
            BatchObjects(self.held),
            clock=lambda: self.now,
        )

    async def close(self, period: Period = OCTOBER, *, issue: bool = True) -> dict[str, Any]:
        self.later()
        return await close_period(self.books, OPERATOR, period, self.now, issue=issue, accept_unfinished=True)

    async def documents(self) -> list[Document]:
        """What was issued, oldest number first."""
        async with self.books.read(OPERATOR) as book:
            found = [each for each in await book.documents() if each.state == ISSUED]
        return sorted(found, key=lambda each: (each.kind, each.number or ""))

    async def credit(self, net: int = 1) -> None:
        """A credit note over the first invoice, if there is one."""
        self.later()
        invoices = [each for each in await self.documents() if each.kind == INVOICE]
        if not invoices:
            return
        await credit_invoice(
            self.books,
            OPERATOR,
            invoices[0].id,
            self.now,
            net=net,
            reissue=False,
            reason="Goodwill",
            by="finance",
            issue=True,
        )

    async def settle(self, period: Period = OCTOBER) -> None:
        self.later()
        await run_settlement(self.books, OPERATOR, period, self.now)

    async def create_key(self, *, role: bool = False) -> None:
        self.later()
        key, owner = uuid.UUID(bytes=self.chance.randbytes(16), version=4), INSTALLATION if role else OPERATOR
        secret = hashlib.sha256(key.bytes).digest()
        async with self.database.app(owner) as connection:
            made: dict[str, Any] = {"key": key, "secret_sha256": secret, "now": self.now, "expires_at": None}
            if role:
                await create_role_key(connection, owner, role="auditor", **made)
            else:
                await create_customer_key(connection, owner, customer="acme", project="chat", **made)
                self.keys.append(key)

    async def revoke_key(self) -> None:
        self.later()
        if self.keys:
            async with self.database.app(OPERATOR) as connection:
                await revoke_key(connection, OPERATOR, self.keys.pop(), self.now)

    async def sign(self) -> None:
        """As after each command, and every second beside intake."""
        for operator in (INSTALLATION, OPERATOR):
            await sequence(self.database, self.archive, self.data / "keys", operator, self.now, make_key=True)

    async def back_up(self, name: str = "backup.tar") -> Taken:
        def files() -> Iterator[Any]:
            return held_files(self.held)

        return await take_backup(self.database, self.data / name, files=files, keys=False, made_at=self.now)

    def on(self, database: Database, data: Path | None = None) -> LostLedger:
        """What lies beside the database, or a copy of it, beside another database."""
        return LostLedger(
            database,
            data or self.data,
            self.now,
            {name: writer.clone() for name, writer in self.writers.items()},
            dict(self.customers),
            list(self.keys),
            self.chance,
        )

    async def bring_forward(
        self, uncovered: Uncovered = "refuse", archive: FolderObjects | None = None
    ) -> list[Brought]:
        objects = archive or self.archive
        logs = archived_logs(objects, self.data / "keys", (INSTALLATION, OPERATOR))
        return await bring_forward(
            self.database, objects, logs, now=self.now, held=BatchObjects(self.held), uncovered=uncovered
        )


async def new_ledger(database: Database, data: Path, seed: int = 1) -> LostLedger:
    """An operator with two customers, a tariff and partners."""
    ledger = LostLedger(database, data, chance=random.Random(seed))
    await ledger.apply(BASE + _TARIFF + SHARES)
    return ledger


async def rows(database: Database) -> Rows:
    """What two equal ledgers have in common, by table, sorted."""
    assert database.urls.owner is not None
    owner: asyncpg.Connection[Any] = await asyncpg.connect(database.urls.owner)
    try:
        tables = [each.table for each in await tables_of(owner) if each.table not in _NOT_TOLD]
        return {
            name: sorted(
                row[0]
                for row in await owner.fetch(
                    _COMPARED.get(name, f'SELECT row_to_json(t)::text FROM "{name}" t')
                )
            )
            for name in tables
        }
    finally:
        await owner.close()


def documents_json(documents: list[Document]) -> list[str]:
    return [json.dumps(to_json(each)) for each in documents]
