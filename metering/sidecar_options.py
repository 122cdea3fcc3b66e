"""What an operator may say about a sidecar."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from metering.caller import TrustedPeers
from metering.http_request import Limits


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the sidecar waits, in seconds, and how many connections it holds.

    `idle_s`: a client's connection without a request. `head_s`, `body_s`: a request's head, its body as a whole;
    `body_gap_s`: between two pieces of it. `stalled_s`: a client that does not read. `linger_s`: the rest of a refused
    request. `connect_s`: reaching the engine. `engine_s`: the engine's silence. `engine_idle_s`: reuse of a connection
    to the engine, below its own patience (vLLM: 5 s). `drain_s`: running requests when the sidecar stops.
    """

    idle_s: float = 75.0
    head_s: float = 10.0
    body_s: float = 300.0
    body_gap_s: float = 30.0
    stalled_s: float = 120.0
    linger_s: float = 2.0
    connect_s: float = 5.0
    engine_s: float = 600.0
    engine_idle_s: float = 3.0
    drain_s: float = 30.0
    connections: int = 16_384


@dataclass(frozen=True, slots=True)
class SidecarOptions:
    """`engines` are the engines' addresses, `http://HOST:PORT`; `node` and `operator` say whose events these are.

    `engine_key_file` holds the key that the engines ask for; `trust` says which gateways may name a client's key.

    `sync_s` is the longest that a written event may wait for the disk, and so what a power cut may take. `bodies_bytes`
    bounds the request bodies held at once, `unsealed_events` the events that may wait for a seal, in memory and in the
    write-ahead file (some 250 bytes each). `node_secret` is what ids of responses are signed with
    (`metering.response_id`). `background_s` is the longest that a response may go on in the background.

    `engine_lines` is the folder of the engine's witness (None: it has none), `counters_s` the pause between two looks
    at the engines' counters (None: they are not looked at, nor after the health of one that is alone).
    `spool_limit_bytes` bounds what may wait for intake; `when_full` says what becomes of requests beyond it, and of all
    that cannot be written down.
    """

    engines: tuple[str, ...]
    node: str
    operator: str
    limits: Limits = field(default_factory=Limits)
    patience: Patience = field(default_factory=Patience)
    sync_s: float = 0.05
    bodies_bytes: int = 1024 * 1024 * 1024
    unsealed_events: int = 1_000_000
    engine_key_file: Path | None = None
    trust: TrustedPeers | None = None
    node_secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    background_s: float = 3_600.0
    engine_lines: Path | None = None
    counters_s: float | None = None
    spool_limit_bytes: int = 8 * 1024 * 1024 * 1024
    when_full: Literal["refuse", "serve-unmetered"] = "refuse"
