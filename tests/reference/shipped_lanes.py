"""Spools with real batches, and the smallest thing that a shipper can send to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from metering.acknowledgement import Acknowledgement, sign_acknowledgement
from metering.batch import SealedBatch, make_batch
from metering.lane_folder import LaneFolder
from metering.refusal import Unavailable
from metering.spool import LaneRef

OPERATOR, NODE = "telecentras", "vilnius-1"
LANE_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
INTAKE = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
START_US = 1_791_187_200_000_000


class SealingLane:
    """A lane that seals heartbeats into a spool, one a call."""

    def __init__(self, spool: Path, lane: str = "sidecar-0", epoch: str = "00" * 16) -> None:
        self.ref = LaneRef(OPERATOR, NODE, lane)
        self._folder = LaneFolder.open(spool, OPERATOR, NODE, lane)
        self._epoch = epoch
        self._number = 0
        self.sealed: list[SealedBatch] = []

    def seal(self, count: int = 1) -> list[SealedBatch]:
        return [self._seal() for _ in range(count)]

    def close(self) -> None:
        self._folder.close()

    def _seal(self) -> SealedBatch:
        batch = make_batch(
            operator=OPERATOR,
            node=NODE,
            lane=self.ref.lane,
            kind="sidecar",
            epoch=self._epoch,
            number=self._number,
            first=1,
            complete_to_us=START_US + 10_000_000 * self._number,
            opened=0,
            closed=0,
            previous=self._folder.previous,
            key=LANE_KEY,
        )
        self._folder.publish(batch)
        self._number += 1
        self.sealed.append(batch)
        return batch


def acknowledge(batch: SealedBatch, key: Ed25519PrivateKey = INTAKE, digest: str | None = None) -> bytes:
    """Intake's word that this batch is accepted."""
    seal = batch.seal
    said = Acknowledgement(seal.operator, seal.node, seal.lane, seal.epoch, seal.number, digest or batch.hash)
    return sign_acknowledgement(said, key)


@dataclass
class ListOutgoing:
    """`metering.shipper.Outgoing` as two lists: `there` is what the broker has, `said` what intake has said."""

    there: list[tuple[LaneRef, bytes, bytes]] = field(default_factory=list)
    said: list[bytes] = field(default_factory=list)
    at: str = "cluster/1"
    is_away: bool = False
    flushes_fail: int = 0
    _handed_over: list[tuple[LaneRef, bytes, bytes]] = field(default_factory=list)
    _heard: int = 0

    def notes(self) -> list[bytes]:
        return [note for _, note, _ in self.there]

    def send(self, lane: LaneRef, note: bytes, body: bytes) -> None:
        self._reach()
        self._handed_over.append((lane, note, body))

    def flush(self) -> None:
        self._reach()
        handed_over, self._handed_over = self._handed_over, []
        if self.flushes_fail:
            self.flushes_fail -= 1
            raise Unavailable("kafka_down", "Kafka does not answer", remedy="wait")
        self.there += handed_over

    def place(self) -> str:
        self._reach()
        return self.at

    def acknowledgements(self) -> Sequence[bytes]:
        self._reach()
        found, self._heard = self.said[self._heard :], len(self.said)
        return found

    def close(self) -> None:
        self._handed_over, self._heard = [], 0

    def _reach(self) -> None:
        if self.is_away:
            self._handed_over = []
            raise Unavailable("kafka_down", "Kafka does not answer", remedy="is it running?")
