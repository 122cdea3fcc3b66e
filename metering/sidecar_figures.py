"""A sidecar's figures, gathered from its parts at the moment of asking."""

from __future__ import annotations

import time

from metering.engine_span import Spans
from metering.figures import EngineFigures, Figures
from metering.lane import Lane
from metering.node_word import others_written_s
from metering.sidecar import Sidecar

#: A clock that was set, and what a lane writes of a request after its lines.
_MARGIN_S = 120.0


def figures_of(sidecar: Sidecar) -> Figures:
    """May be called from any thread: it copies what the event loop goes on changing."""
    counters, capture, lane = sidecar.counters, sidecar.capture, sidecar.lane
    watch, backlog = capture.watch, capture.backlog
    joiner = None if watch is None or not watch.has_witness else watch.joiner
    oldest_us = backlog.oldest_us
    return Figures(
        requests=counters.requests,
        events=dict(counters.outcomes),
        refused=dict(counters.refused),
        usage_unread=counters.unread_usage,
        unmetered_requests=capture.unmetered,
        open_requests=lane.opened - lane.closed,
        connections=len(sidecar.connections),
        unsealed_events=lane.unsealed,
        spool_bytes=backlog.bytes,
        spool_limit_bytes=sidecar.options.spool_limit_bytes,
        spool_oldest_s=0.0 if oldest_us is None else max(0.0, (lane.now_us() - oldest_us) / 1e6),
        faults=(*capture.faults, *(("go on",) if capture.failed.is_set() else ())),
        engines={
            str(pool.ordinal): EngineFigures(up=pool.up, requests=pool.in_air)
            for pool in sidecar.engine.pools
        },
        joined=(
            {}
            if joiner is None
            else {"joined": joiner.joined, "alone": joiner.alone, "amended": joiner.amended}
        ),
        join_waiting=0 if joiner is None else joiner.waiting,
        join_lag_s=0.0 if joiner is None else joiner.oldest_wait_s(time.monotonic()),
        engine_lines=0 if watch is None else watch.lines_read,
        engine_lines_missing=0 if watch is None else watch.lines_missing,
        witness="no" if watch is None else watch.spans.witness,
        unaccounted={} if watch is None else _unaccounted(watch.spans, lane),
        added=sidecar.added,
    )


def _unaccounted(spans: Spans, lane: Lane) -> dict[tuple[str, str], int]:
    """What the last span left over; nothing where another lane served beside this one: its events are not known here."""
    if not spans.unaccounted or others_written_s(lane.path) > spans.told_from_us / 1e6 - _MARGIN_S:
        return {}
    return dict(spans.unaccounted)
