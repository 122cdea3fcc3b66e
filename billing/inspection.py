"""What a batch proves by itself, before its place in the lane is looked at: pure, and the part that costs time.

A batch comes as bytes with a claim: "I am of this lane". The lane's enrolled key decides whether the claim holds. If
not, the bytes are nobody's, whatever they say, and are set aside. If it does, everything else that is wrong with them
(a body that is not the one sealed, control totals that do not add up) is a fault of that lane, by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from typing import NamedTuple

import pyarrow as pa

from billing.batch_usage import BatchUsage, batch_usage
from metering.batch import Seal, check_root, peek_seal, read_events, read_seal, seal_hash, signer_hash
from metering.columns import Column
from metering.event import quantities
from metering.note import key_hash, split_note
from metering.refusal import Refusal


class LaneName(NamedTuple):
    """A lane's key; lanes are locked in this order."""

    operator: str
    node: str
    lane: str

    def __str__(self) -> str:
        return "/".join(self)


class Place(NamedTuple):
    """Where a batch stands in its lane."""

    epoch: str
    number: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.number}"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A batch as it came: the signed seal and the body. `token` is what its source wants back as acknowledgement;
    `held_path` is where it lay if it was held before. `events`: of a batch that comes back out of a joined file of the
    archive, where its body is gone and the root alone proves them."""

    note: bytes
    body: bytes
    token: object = None
    held_path: str | None = None
    events: pa.Table | None = None

    @property
    def digest(self) -> str:
        """SHA-256 over all of its bytes: the name under which it is held."""
        return sha256(self.note + self.body).hexdigest()


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A lane as it was enrolled: `sidecar` or `import`, and its Ed25519 keys (32 bytes each), in the order in which they
    came: one of them must have signed its seals. A key's place in it is its rank."""

    kind: str
    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Inspected:
    """A batch that its lane's key signed. `usage` is None where `fault` says why its events can't be taken; `missing` are
    the ids of customers that nobody knows."""

    delivery: Delivery
    seal: Seal
    hash: str
    usage: BatchUsage | None
    fault: Refusal | None
    root_checked: bool = False
    missing: frozenset[bytes] = frozenset()
    #: Rank of the lane's key that signed it.
    key_rank: int = 0
    #: It follows another seal than the one it names, by a person's decision.
    adopted: bool = False

    @property
    def name(self) -> LaneName:
        return LaneName(self.seal.operator, self.seal.node, self.seal.lane)

    @property
    def place(self) -> Place:
        return Place(self.seal.epoch, self.seal.number)

    @property
    def customers(self) -> set[bytes]:
        """Ids of the customers that its events name."""
        return set() if self.usage is None else set(self.usage.cells["customer"].unique().to_pylist())

    @property
    def months(self) -> frozenset[date]:
        """The UTC months that its events fall into, as their first days."""
        return frozenset() if self.usage is None else self.usage.months

    @property
    def times_us(self) -> tuple[int, int] | None:
        """Time of the first and of the last event; None where there are none."""
        return None if self.usage is None else self.usage.times_us

    @property
    def latest_us(self) -> int:
        """The latest instant that seal or events speak of."""
        times_us = self.times_us
        return max(self.seal.complete_to_us, times_us[1] if times_us else 0)


def claimed_lane(delivery: Delivery) -> LaneName | None:
    """The lane that a batch says to be of; None where it says nothing readable."""
    try:
        seal = peek_seal(delivery.note)
    except Refusal:
        return None
    return LaneName(seal.operator, seal.node, seal.lane)


def inspect_all(
    deliveries: Sequence[Delivery], enrolled: Mapping[LaneName, Enrolment], *, with_root: bool
) -> tuple[list[Inspected], list[tuple[Delivery, Refusal]]]:
    """What is vouched for by a key, and what is nobody's with the reason."""
    inspected: list[Inspected] = []
    strays: list[tuple[Delivery, Refusal]] = []
    for delivery in deliveries:
        try:
            inspected.append(inspect(delivery, enrolled, with_root=with_root))
        except Refusal as refusal:
            strays.append((delivery, refusal))
    return inspected, strays


def inspect(delivery: Delivery, enrolled: Mapping[LaneName, Enrolment], *, with_root: bool) -> Inspected:
    """Checks signature, body, row count, control totals, and the Merkle root if `with_root`.

    Refusals `bad_seal`, `unknown_key` (no such lane, or no such key of it, is enrolled) and `bad_signature`: the batch is
    nobody's. Whatever
    else is wrong comes back as `fault`.
    """
    claim = peek_seal(delivery.note)
    name = LaneName(claim.operator, claim.node, claim.lane)
    enrolment = enrolled.get(name)
    if enrolment is None:
        raise Refusal(
            "unknown_key", f"no lane {name} is enrolled", remedy="enrol it, and the batch is taken up"
        )
    rank = _rank_of_signer(delivery.note, claim.signer, enrolment)
    seal = read_seal(delivery.note, enrolment.keys[rank])
    named = seal_hash(delivery.note)
    try:
        events, figures = _events(seal, delivery)
        if with_root or delivery.events is not None:
            check_root(seal, events)
    except Refusal as fault:
        return Inspected(delivery, seal, named, None, fault, key_rank=rank)
    checked = with_root or delivery.events is not None or not seal.events
    usage = batch_usage(seal.node, events, figures)
    return Inspected(delivery, seal, named, usage, None, root_checked=checked, key_rank=rank)


def _events(seal: Seal, delivery: Delivery) -> tuple[pa.Table, dict[str, Column]]:
    if delivery.events is None:
        return read_events(seal, delivery.body)
    return delivery.events, quantities(delivery.events)


def _rank_of_signer(note: bytes, signer: str, enrolment: Enrolment) -> int:
    """Which of the lane's keys the signature names; Refusal `unknown_key` if none of them."""
    named = signer_hash(note)
    for rank, key in enumerate(enrolment.keys):
        if key_hash(signer, key) == named:
            return rank
    raise Refusal(
        "unknown_key",
        f"it is signed by the key {named.hex()}, which is not enrolled for {signer}",
        remedy="enrol it, and the batch is taken up; or find out who else writes in the lane's name",
    )


def signing_key_hash(note: bytes) -> str:
    """The hash of the key that a batch says to be signed by, 8 hex digits; '' where nothing readable says so."""
    try:
        _, [signature] = split_note(note)
    except (Refusal, ValueError):
        return ""
    return signature.key_hash.hex()
