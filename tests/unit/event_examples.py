"""Events and batches that the unit tests begin with."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from metering.batch import SealedBatch, make_batch
from metering.event import Event, events_table

START_US = 1_791_187_200_000_000  # 2026-10-05T08:00:00Z
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC_KEY = KEY.public_key().public_bytes_raw()

CHAT = Event(
    kind="usage",
    time_us=START_US,
    request=b"\x11" * 16,
    names=None,
    customer=b"\x22" * 16,
    project=None,
    key=b"\x33" * 16,
    endpoint="chat",
    model="m",
    outcome="finished",
    prompt_tokens=1_000,
    cached_tokens=200,
    completion_tokens=50,
    reasoning_tokens=0,
    generated_tokens=None,
    audio_seconds=0,
    request_digest=None,
)
VOID = CHAT._replace(
    kind="void",
    time_us=START_US + 2,
    request=b"\x44" * 16,
    names=CHAT.request,
    prompt_tokens=-1_000,
    cached_tokens=-200,
    completion_tokens=-50,
)
ABORTED = CHAT._replace(
    time_us=START_US + 1,
    request=b"\x55" * 16,
    project=b"\x66" * 16,
    model="lėtas-modelis",
    outcome="aborted",
    prompt_tokens=130_000,
    completion_tokens=40,
    reasoning_tokens=30,
    generated_tokens=25,
    request_digest=b"\x77" * 16,
)

PLACE: dict[str, Any] = {
    "operator": "vilnius",
    "node": "vilnius-1",
    "lane": "sidecar-0",
    "kind": "sidecar",
    "epoch": "000102030405060708090a0b0c0d0e0f",
    "number": 0,
    "first": 1,
    "complete_to_us": START_US + 10,
    "opened": 2,
    "closed": 2,
    "previous": "genesis",
    "key": KEY,
}


def three_events() -> pa.Table:
    return events_table([CHAT, ABORTED, VOID], 1)


def small_batch(**changes: Any) -> SealedBatch:
    return make_batch(**{**PLACE, "table": three_events(), **changes})
