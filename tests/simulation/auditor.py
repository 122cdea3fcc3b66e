"""The auditor of the simulated world: a book of its own, by arithmetic of its own.

It is told of every batch that a lane made visible, byte for byte and at that moment, and of every request that was sent.
At the end it reads what the database, the archive and the spools hold, and says what does not agree. It shares no code
with intake: seals are read as lines of text, bodies by pyarrow, cells are added up one event at a time.

What must hold, in its words:

    taken in     a lane's accepted batches are one chain from `genesis` on, each once, numbers dense; each of them was
                 seen at the lane, and lies in the archive byte for byte
    none lost    whatever was seen and is not accepted is held by name, because another batch took its place (a fork) or
                 because it hangs behind one that only a lost disk had; behind a fork it may wait in its spool; nothing
                 else waits
    usage        every cell of the database is the sum of the events of the accepted batches, and there is no other cell
    requests     every request that a lane took is in the lane's own chain, once, with the figures that it was given
    forks        only where a disk was restored or a machine cloned, and there by that name
    spools       empty but for lanes with a fork
    words        whatever was acknowledged was in database and archive when that was said
"""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pyarrow.parquet as pq
from machine import Machine, Served

GENESIS = "genesis"
HOUR_US = 3_600_000_000
BANDS = (0, 32_000, 128_000, 200_000, 256_000, 512_000, 1_000_000)
FIGURES = (
    "requests",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "generated_tokens",
    "generated_reasoning_tokens",
    "audio_seconds",
    "unwitnessed_requests",
)
CELL = ("operator", "hour", "customer", "project", "key", "node", "model", "outcome", "band", "late")

Lane = tuple[str, str, str]


class Seen(NamedTuple):
    """A batch as it lay in a spool: what its seal says, and its bytes."""

    lane: Lane
    hash: str
    previous: str
    epoch: str
    number: int
    first: int
    last: int
    note: bytes
    body: bytes


def read_seal(note: bytes, body: bytes) -> Seen:
    """The lines of a seal that the book needs."""
    said = dict(line.split(" ", 1) for line in note.decode().split("\n\n")[0].split("\n")[1:] if " " in line)
    lane = (said["operator"], said["node"], said["lane"])
    return Seen(
        lane,
        sha256(note).hexdigest(),
        said["previous"],
        said["epoch"],
        int(said["number"]),
        int(said["first"]),
        int(said["last"]),
        note,
        body,
    )


def events_of(body: bytes) -> list[dict[str, Any]]:
    return pq.read_table(io.BytesIO(body)).to_pylist() if body else []


def figures_of(event: Mapping[str, Any]) -> list[int]:
    """FIGURES of one event, by the rules of docs/streams.md."""
    sign = {"usage": 1, "void": -1, "amendment": 0}[event["kind"]]
    generated = event["generated_tokens"]
    unwitnessed = generated is None
    generated = event["completion_tokens"] if unwitnessed else generated
    return [
        sign,
        event["prompt_tokens"],
        event["cached_tokens"],
        event["completion_tokens"],
        event["reasoning_tokens"],
        generated,
        min(event["reasoning_tokens"], generated),
        event["audio_seconds"],
        sign if unwitnessed else 0,
    ]


def cells_of(batches: Iterable[Seen]) -> Counter[tuple[object, ...]]:
    """(cell, figure) -> sum, one event at a time."""
    sums: Counter[tuple[object, ...]] = Counter()
    for batch in batches:
        for event in events_of(batch.body):
            time_us = int(event["time"].timestamp()) * 1_000_000 + event["time"].microsecond
            band = max(bound for bound in BANDS if event["prompt_tokens"] > bound or bound == 0)
            of = (event["customer"], event["project"], event["key"])
            cell = (
                batch.lane[0],
                time_us // HOUR_US,
                *of,
                batch.lane[1],
                event["model"],
                event["outcome"],
                band,
                False,
            )
            for name, figure in zip(FIGURES, figures_of(event), strict=True):
                sums[*cell, name] += figure
    return sums


@dataclass
class Auditor:
    """The book. `gone`: batches that only a destroyed disk had; `branched`: lanes of which two machines hold the key."""

    seen: dict[str, Seen] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    branched: set[Lane] = field(default_factory=set)
    junk: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    waiting: set[str] = field(default_factory=set)
    #: Files that were read: a batch's never change, and their names are given once.
    looked_at: set[Path] = field(default_factory=set)
    archived: dict[Path, str] = field(default_factory=dict)
    #: The newest seal seen of each machine, by the machine's folder: the end of its own chain.
    heads: dict[Path, str] = field(default_factory=dict)

    def look_at(self, machine: Machine) -> None:
        """Notes what lies in its spool: to be called after everything that it does."""
        if not machine.sealed.is_dir():
            return
        for path in sorted(set(machine.sealed.glob("*.seal")) - self.looked_at):
            self.looked_at.add(path)
            note = path.read_bytes()
            body = path.with_suffix(".parquet")
            batch = read_seal(note, body.read_bytes() if body.exists() else b"")
            known = self.seen.setdefault(batch.hash, batch)
            if known.body != batch.body:
                self.wrong.append(f"{path} holds another body than before")
            self.heads[machine.folder] = batch.hash

    def lose_disk(self, machine: Machine) -> None:
        """What only this machine may still have had is gone with its disk."""
        self.look_at(machine)
        self.gone |= {sha256(path.read_bytes()).hexdigest() for path in machine.sealed.glob("*.seal")}
        self.branched.add((machine.operator, machine.node, machine.lane_name))

    def chain_to(self, head: str | None) -> list[Seen]:
        """The batches up to this one, from the lane's first on."""
        chain = []
        while head is not None and head != GENESIS:
            batch = self.seen.get(head)
            if batch is None:
                self.wrong.append(f"seal {head} was followed, and never seen")
                return []
            chain.append(batch)
            head = batch.previous
        return chain[::-1]

    # -- at any time ---------------------------------------------------------------------------------------------------

    async def check_words(
        self, connection: asyncpg.Connection[Any], archive: Path, words: Sequence[bytes]
    ) -> None:
        """Acknowledgements that were just published: is what they cover there?"""
        for word in words:
            said = dict(line.split(" ", 1) for line in word.decode().split("\n")[1:7])
            covered = self.chain_to(said["hash"])
            there = await connection.fetchval(
                "SELECT count(*) FROM batch WHERE hash = ANY($1)", [batch.hash for batch in covered]
            )
            files = self._known_archived(archive)
            if there != len(covered) or any(batch.hash not in files for batch in covered):
                self.wrong.append(
                    f"acknowledged and not there: {said['operator']}/{said['node']}/{said['lane']} {said['number']}"
                )

    def _known_archived(self, archive: Path) -> set[str]:
        """The digests of the seals in the archive, each read once."""
        for path in archive.rglob("*.seal"):
            if path not in self.archived:
                self.archived[path] = sha256(path.read_bytes()).hexdigest()
        return set(self.archived.values())

    # -- at the end ----------------------------------------------------------------------------------------------------

    async def close(
        self, connection: asyncpg.Connection[Any], archive: Path, machines: Sequence[Machine]
    ) -> list[str]:
        """Everything that is wrong once the world has come to rest; empty if it is as it must be."""
        accepted: dict[Lane, list[Seen]] = defaultdict(list)
        for row in await connection.fetch("SELECT operator, node, lane, hash FROM batch"):
            lane = (row["operator"], row["node"], row["lane"])
            if row["hash"] in self.seen:
                accepted[lane].append(self.seen[row["hash"]])
            else:
                self.wrong.append(f"accepted and never seen: {lane} {row['hash']}")
        held = {row["hash"]: row["code"] for row in await connection.fetch("SELECT hash, code FROM held")}
        self.waiting = {
            sha256(path.read_bytes()).hexdigest() for each in machines for path in each.sealed.glob("*.seal")
        }
        for lane in {batch.lane for batch in self.seen.values()}:
            self._check_chain(lane, accepted[lane])
            self._check_rest(lane, {batch.hash for batch in accepted[lane]}, held)
        self._check_archive(archive, [batch for chain in accepted.values() for batch in chain])
        await self._check_cells(connection, [batch for chain in accepted.values() for batch in chain])
        await self._check_aside(connection)
        for machine in machines:
            self._check_requests(machine)
            self._check_spool(machine)
        return self.wrong

    def _check_chain(self, lane: Lane, accepted: Sequence[Seen]) -> None:
        after = {batch.previous: batch for batch in accepted}
        if len(after) != len(accepted):
            self.wrong.append(f"{lane}: two accepted batches follow one seal")
        at, epoch, number, last, length = GENESIS, "", -1, 0, 0
        while at in after:
            batch = after[at]
            number, last = (number + 1, last) if batch.epoch == epoch else (0, 0)
            if (batch.number, batch.first) != (number, last + 1):
                self.wrong.append(f"{lane}: {batch.epoch}-{batch.number} does not go on from {number}")
            at, epoch, last, length = batch.hash, batch.epoch, batch.last, length + 1
        if length != len(accepted):
            self.wrong.append(f"{lane}: {len(accepted) - length} accepted batches hang on nothing")

    def _check_rest(self, lane: Lane, accepted: set[str], held: Mapping[str, str]) -> None:
        """What was seen and is not accepted: held, and for a reason."""
        successors = {self.seen[each].previous for each in accepted}
        for batch in self.seen.values():
            if batch.lane != lane or batch.hash in accepted:
                continue
            name = f"{lane} {batch.epoch}-{batch.number} ({batch.hash[:8]})"
            root = self._first_off(batch, accepted)
            taken = root.previous in successors
            may_wait = batch.hash in self.waiting and batch is not root and taken
            if not (batch.hash in held or batch.hash in self.gone or may_wait):
                self.wrong.append(f"lost: {name}")
            if not taken and not (root.hash in self.gone and root.hash not in held):
                self.wrong.append(f"waits for nothing: {name}, {held.get(batch.hash)}")
            if lane not in self.branched:
                self.wrong.append(f"a fork where nothing was restored or cloned: {name}")
            if batch is root and taken and held.get(batch.hash, "fork") != "fork":
                self.wrong.append(f"a fork that is called {held[batch.hash]}: {name}")

    def _first_off(self, batch: Seen, accepted: set[str]) -> Seen:
        """The first batch on the way to this one that is not accepted."""
        return next(each for each in self.chain_to(batch.hash) if each.hash not in accepted)

    def _check_archive(self, archive: Path, accepted: Sequence[Seen]) -> None:
        files = _archived(archive)
        for batch in accepted:
            note = files.get(batch.hash)
            if note is None or note.read_bytes() != batch.note:
                self.wrong.append(f"accepted and not archived: {batch.lane} {batch.epoch}-{batch.number}")
                continue
            body = note.with_name(note.name.removeprefix("_")).with_suffix(".parquet")
            if (body.read_bytes() if body.exists() else b"") != batch.body:
                self.wrong.append(f"archived with another body: {batch.lane} {batch.epoch}-{batch.number}")

    async def _check_cells(self, connection: asyncpg.Connection[Any], accepted: Sequence[Seen]) -> None:
        expected = cells_of(accepted)
        found: Counter[tuple[object, ...]] = Counter()
        for row in await connection.fetch("SELECT * FROM usage_cell"):
            key = [row[name].bytes if hasattr(row[name], "bytes") else row[name] for name in CELL]
            key[1] = int(row["hour"].timestamp()) // 3600
            for name in FIGURES:
                found[*key, name] += row[name]
        for cell in expected.keys() | found.keys():
            if expected[cell] != found[cell]:
                self.wrong.append(f"usage: {cell[5:]} is {found[cell]}, the book says {expected[cell]}")

    async def _check_aside(self, connection: asyncpg.Connection[Any]) -> None:
        for row in await connection.fetch("SELECT digest, code FROM set_aside"):
            if row["digest"] not in self.junk:
                self.wrong.append(f"set aside and no junk: {row['digest']} ({row['code']})")

    def _check_requests(self, machine: Machine) -> None:
        """The lane's own chain against what its sender knows."""
        served: Served = machine.served
        found: Counter[bytes] = Counter()
        for batch in self.chain_to(self.heads.get(machine.folder)):
            for event in events_of(batch.body):
                request = event["request"]
                found[request] += 1
                told = served.ended.get(request)
                if told is not None and request in served.ended_synced:
                    got = tuple(event[name] for name in ("prompt_tokens", "completion_tokens", "outcome"))
                    if got != (told.prompt_tokens, told.completion_tokens, told.outcome):
                        self.wrong.append(f"{machine}: request {request.hex()} became {got}")
        if any(count > 1 for count in found.values()):
            self.wrong.append(f"{machine}: a request has two events")
        lost = served.synced - found.keys()
        strange = found.keys() - served.tried
        if lost or strange:
            self.wrong.append(
                f"{machine}: {len(lost)} requests lost, {len(strange)} that nobody sent, of {len(served.tried)}"
            )

    def _check_spool(self, machine: Machine) -> None:
        left = len(list(machine.sealed.glob("*.seal"))) if machine.sealed.is_dir() else 0
        if left and (machine.operator, machine.node, machine.lane_name) not in self.branched:
            self.wrong.append(f"{machine}: {left} batches are left in the spool")


def _archived(archive: Path) -> dict[str, Path]:
    """The seals in the archive, by the digest of their bytes."""
    return {sha256(path.read_bytes()).hexdigest(): path for path in archive.rglob("*.seal")}
