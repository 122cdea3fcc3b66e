"""A small world for tests of intake: an operator, lanes whose batches are sealed by hand, and a source in memory."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text

from adapters.archive import BatchObjects
from adapters.objects import FolderObjects
from adapters.postgres.database import Database
from adapters.postgres.intake import PostgresLedger
from adapters.postgres.lane_keys import enroll_lane
from billing.acceptance import Mark
from billing.inspection import Delivery, LaneName
from billing.intake import Intake
from billing.intake_ports import Position
from metering.batch import GENESIS, SealedBatch, make_batch
from metering.event import Event, events_table
from metering.fact import Fact, fact_line
from metering.identity import LaneKey, new_id

OPERATOR, NODE = "telecentras", "vilnius-1"
ZONE = "Europe/Vilnius"
NOW = datetime(2026, 10, 20, 12, 0, tzinfo=UTC)
START = datetime(2026, 10, 5, 8, 0, tzinfo=UTC)
ACME = uuid.UUID(int=1).bytes
HOUR_US = 3_600_000_000


def us(instant: datetime) -> int:
    return int(instant.timestamp()) * 1_000_000 + instant.microsecond


def usage_event(time_us: int, *, prompt: int = 100, completion: int = 10, customer: bytes = ACME) -> Event:
    return Event(
        kind="usage",
        time_us=time_us,
        request=new_id(),
        names=None,
        customer=customer,
        project=None,
        key=None,
        endpoint="chat",
        model="qwen3-32b",
        outcome="finished",
        prompt_tokens=prompt,
        cached_tokens=0,
        completion_tokens=completion,
        reasoning_tokens=0,
        generated_tokens=None,
        audio_seconds=0,
        request_digest=None,
    )


@dataclass
class Writer:
    """Seals batches of one lane by hand, second by second from START."""

    lane: str = "sidecar-0"
    kind: str = "sidecar"
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    epoch: str = "a" * 32
    number: int = 0
    sequence: int = 0
    total: int = 0
    previous: str = GENESIS
    time_us: int = us(START)
    node: str = NODE
    operator: str = OPERATOR

    def seal(
        self,
        count: int = 3,
        *,
        customer: bytes = ACME,
        final: bool = False,
        facts: Sequence[Fact] = (),
        **changes: Any,
    ) -> SealedBatch:
        """The next batch, of `count` events a second apart; `changes` are of each event."""
        self.total += count
        times = [self.time_us + 1_000_000 * (n + 1) for n in range(count)]
        events = [usage_event(time_us, customer=customer)._replace(**changes) for time_us in times]
        self.time_us = times[-1] if times else self.time_us + 1_000_000
        sealed = make_batch(
            operator=self.operator,
            node=self.node,
            lane=self.lane,
            kind=self.kind,
            epoch=self.epoch,
            number=self.number,
            first=self.sequence + 1,
            complete_to_us=self.time_us,
            opened=self.total,
            closed=self.total,
            previous=self.previous,
            key=self.key,
            table=events_table(events, self.sequence + 1) if events else None,
            final=final,
            facts=[fact_line(fact) for fact in facts],
        )
        self.number += 1
        self.sequence += count
        self.previous = sealed.hash
        return sealed

    def new_epoch(self, epoch: str) -> None:
        self.epoch, self.number, self.sequence = epoch, 0, 0

    def clone(self) -> Writer:
        """The same lane on a cloned machine: same key, same place."""
        return replace(self)


class Wire:
    """A source in memory: what was sent and is not acknowledged."""

    def __init__(self) -> None:
        self.sent: dict[int, Delivery] = {}
        self.marks: dict[LaneName, Mark] = {}
        self._next = 0

    def send(self, *batches: SealedBatch) -> None:
        for batch in batches:
            self.send_bytes(batch.note, batch.body)

    def send_bytes(self, note: bytes, body: bytes) -> None:
        self.sent[self._next] = Delivery(note, body, self._next)
        self._next += 1

    def deliveries(self) -> Iterator[Delivery]:
        return iter(list(self.sent.values()))

    def positions(self, tokens: Sequence[object]) -> Sequence[Position]:
        """Message `n` of this wire lies at offset `n` of partition 0."""
        return (
            [Position("wire", 0, min(self.sent.keys() - set(tokens), default=self._next))] if tokens else []
        )

    def acknowledge(self, tokens: Sequence[object], marks: Mapping[LaneName, Mark]) -> None:
        self.marks |= marks
        for token in tokens:
            assert isinstance(token, int)
            self.sent.pop(token, None)


@dataclass
class World:
    """Intake on a database of its own, a wire into it, and what the ledger says afterwards."""

    database: Database
    data: Path
    wire: Wire = field(default_factory=Wire)
    now: datetime = NOW

    def intake(self) -> Intake:
        return Intake(
            self.wire,
            PostgresLedger(self.database),
            BatchObjects(FolderObjects(self.data / "archive")),
            BatchObjects(FolderObjects(self.data / "held")),
            clock=lambda: self.now,
        )

    async def enrol(self, *writers: Writer) -> None:
        for writer in writers:
            async with self.database.app(writer.operator) as conn:
                public = LaneKey.public_bytes(writer.key)
                await enroll_lane(
                    conn,
                    writer.operator,
                    writer.node,
                    writer.lane,
                    writer.kind,
                    public,
                    START - timedelta(days=1),
                )

    async def usage(self) -> Mapping[str, int]:
        """Requests and prompt tokens of all usage, rolled up or not."""
        async with self.database.intake() as conn:
            query = "SELECT coalesce(sum(requests), 0)::bigint, coalesce(sum(prompt_tokens), 0)::bigint FROM usage_cell"
            requests, prompt = (await conn.execute(text(query))).one()
            return {"requests": requests, "prompt_tokens": prompt}

    async def rows(self, query: str) -> list[tuple[object, ...]]:
        async with self.database.intake() as conn:
            return [tuple(row) for row in await conn.execute(text(query))]

    async def held(self) -> list[tuple[object, ...]]:
        return await self.rows("SELECT epoch, number, code FROM held ORDER BY epoch, number, code")


async def make_world(database: Database, data: Path) -> World:
    """The operator telecentras in Vilnius with its customer Acme."""
    async with database.app(OPERATOR) as conn:
        await conn.execute(text("INSERT INTO operator VALUES (:operator)"), {"operator": OPERATOR})
        await conn.execute(
            text(
                "INSERT INTO site_document VALUES (:operator, 'operator', :operator, '-infinity', NULL,"
                " jsonb_build_object('id', CAST(:operator AS text), 'timezone', CAST(:zone AS text)), now())"
            ),
            {"operator": OPERATOR, "zone": ZONE},
        )
        await conn.execute(
            text("INSERT INTO subject VALUES (:operator, :id, 'customer', 'acme', NULL)"),
            {"operator": OPERATOR, "id": uuid.UUID(bytes=ACME)},
        )
    return World(database, data)
