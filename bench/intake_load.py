"""What the benches of intake send: sealed batches of a hundred nodes, as their sidecars would have sealed them.

*Spread*: 10,000 customers, each on one or two nodes and with one or two of 20 models, so that a batch falls into some
hundred cells. *Everywhere*: each event is of any customer, node and model, so that nearly every event is a cell of its
own. Each customer has a key, half of them a project; one prompt in 50 is longer than 32,000 tokens, one request in 20
is aborted and one in 100 failed.

A body does not name its lane. So a pool of bodies is made once (`slots` batches a node, one in each hour, a chain of
one epoch), and sealed for as many lanes of each node as are needed: seals, signatures and chains are made for each
lane, bodies and roots are shared. Every batch is of another place and is taken in whole, whoever reads it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from billing.inspection import LaneName
from metering.batch import GENESIS, SealedBatch, make_batch, seal_hash
from metering.event import EVENT_SCHEMA, ID
from metering.seal import sign_seal

OPERATOR = "telecentras"
NODES = 100
CUSTOMERS = 10_000
MODELS = tuple(f"qwen3-{n}b" for n in range(1, 21))
START_US = int(datetime(2026, 10, 5, 8, tzinfo=UTC).timestamp()) * 1_000_000
_HOUR_US = 3_600_000_000
_SPAN_US = 10_000_000  # of the events of one batch

Column = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Shape:
    """How a load looks: events a batch, batches a lane, and whether every customer is everywhere."""

    events: int = 10_000
    slots: int = 5
    everywhere: bool = False
    nodes: int = NODES


@dataclass(frozen=True, slots=True)
class Message:
    """A batch on its way: which lane sent it, its signed seal, its body."""

    lane: LaneName
    note: bytes
    body: bytes


def customer_ids() -> list[bytes]:
    """The ids of the customers, the same each time."""
    return [_id("customer", n) for n in range(CUSTOMERS)]


def lane_name(node: int, lane: int) -> LaneName:
    return LaneName(OPERATOR, f"node-{node:03}", f"sidecar-{lane}")


def lane_key(name: LaneName) -> Ed25519PrivateKey:
    """The lane's key, made from its name: these lanes guard nothing."""
    return Ed25519PrivateKey.from_private_bytes(sha256(str(name).encode()).digest())


def pool(shape: Shape, seed: int = 1) -> list[list[SealedBatch]]:
    """By node, then slot: batches of lane 0. Other lanes are sealed from them."""
    rng = np.random.default_rng(seed)
    ids = _Ids()
    return [_chain(shape, node, ids, rng) for node in range(shape.nodes)]


def messages(batches: Sequence[Sequence[SealedBatch]], lanes: range, *, by_lane: bool) -> Iterator[Message]:
    """The pool sealed for each of `lanes`: hour by hour over all lanes, as batches come when all are at work; or lane
    by lane (`by_lane`), so that no two messages near each other share a body.
    """
    keys = {(node, lane): lane_key(lane_name(node, lane)) for lane in lanes for node in range(len(batches))}
    heads = dict.fromkeys(keys, GENESIS)
    slots = range(len(batches[0]))
    order = (
        [(lane, slot) for lane in lanes for slot in slots]
        if by_lane
        else [(lane, slot) for slot in slots for lane in lanes]
    )
    for lane, slot in order:
        for node, chain in enumerate(batches):
            name, place = lane_name(node, lane), (node, lane)
            seal = replace(chain[slot].seal, lane=name.lane, previous=heads[place])
            note = sign_seal(seal, keys[place])
            heads[place] = seal_hash(note)
            yield Message(name, note, chain[slot].body)


class _Ids:
    """The ids of all customers, their keys and projects as columns."""

    def __init__(self) -> None:
        self.customer = pa.array(customer_ids(), ID)
        self.key = pa.array([_id("key", n) for n in range(CUSTOMERS)], ID)
        self.project = pa.array([_id("project", n) if n % 2 else None for n in range(CUSTOMERS)], ID)


def _id(kind: str, number: int) -> bytes:
    return uuid.uuid5(uuid.NAMESPACE_OID, f"{kind} {number}").bytes


def _chain(shape: Shape, node: int, ids: _Ids, rng: np.random.Generator) -> list[SealedBatch]:
    name = lane_name(node, 0)
    chain: list[SealedBatch] = []
    for slot in range(shape.slots):
        first = slot * shape.events + 1
        begins_us = START_US + slot * _HOUR_US
        sealed = make_batch(
            **name._asdict(),
            kind="sidecar",
            epoch=sha256(f"{node}".encode()).hexdigest()[:32],
            number=slot,
            first=first,
            complete_to_us=begins_us + _SPAN_US,
            opened=first - 1 + shape.events,
            closed=first - 1 + shape.events,
            previous=chain[-1].hash if chain else GENESIS,
            key=lane_key(name),
            table=_events(shape, node, first, begins_us, ids, rng),
        )
        chain.append(sealed)
    return chain


def _events(
    shape: Shape, node: int, first: int, begins_us: int, ids: _Ids, rng: np.random.Generator
) -> pa.Table:
    count = shape.events
    customers, models = _who(shape, node, rng)
    prompt = rng.lognormal(6.5, 1.0, count).astype(np.int64) + 1
    prompt = np.where(rng.random(count) < 0.02, prompt + 32_000, prompt)
    completion = rng.lognormal(5.0, 1.0, count).astype(np.int64) + 1
    who = pa.array(customers)
    outcomes = np.searchsorted([0.94, 0.99], rng.random(count), side="right")
    columns = {
        "sequence": pa.array(np.arange(first, first + count)),
        "kind": _word(np.zeros(count, np.int64), ["usage"]),
        "time": pa.array(begins_us + np.sort(rng.integers(0, _SPAN_US, count))).view(
            pa.timestamp("us", "UTC")
        ),
        "request": pa.FixedSizeBinaryArray.from_buffers(
            ID, count, [None, pa.py_buffer(rng.bytes(16 * count))]
        ),
        "names": pa.nulls(count, ID),
        "customer": ids.customer.take(who),
        "project": ids.project.take(who),
        "key": ids.key.take(who),
        "endpoint": _word(np.zeros(count, np.int64), ["chat"]),
        "model": _word(models, list(MODELS)),
        "outcome": _word(outcomes, ["finished", "aborted", "failed"]),
        "prompt_tokens": pa.array(prompt),
        "cached_tokens": pa.array(prompt // 4),
        "completion_tokens": pa.array(completion),
        "reasoning_tokens": pa.array(np.where(models % 2 == 0, completion // 2, 0)),
        "generated_tokens": pa.array(completion, mask=rng.random(count) < 0.01),
        "audio_seconds": pa.array(np.zeros(count, np.int64)),
        "request_digest": pa.nulls(count, ID),
        "reason": pa.nulls(count, EVENT_SCHEMA.field("reason").type),
        "whole_prompt": pa.nulls(count, pa.int64()),
    }
    return pa.table(columns, schema=EVENT_SCHEMA)


def _who(shape: Shape, node: int, rng: np.random.Generator) -> tuple[Column, Column]:
    """Customer and model of each event of a batch."""
    if shape.everywhere:
        return rng.integers(0, CUSTOMERS, shape.events), rng.integers(0, len(MODELS), shape.events)
    customers = np.arange(CUSTOMERS)
    second = (customers * 7 + 13) % NODES
    here = customers[(customers % NODES == node) | ((customers % 2 == 1) & (second == node))]
    mine = rng.choice(here, shape.events)
    other = (mine % 4 < 2) & (rng.random(shape.events) < 0.5)
    return mine, np.where(other, mine * 5 + 7, mine * 3) % len(MODELS)


def _word(codes: Column, words: list[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(words, pa.string()))
